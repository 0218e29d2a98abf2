"""The libraries that minglow is compared with: normflows, and a plain Glow of our own in PyTorch.

Each function returns a `Subject`: the same architecture (3x3, 1x1, 3x3 convolutions of one width,
actnorm in between; actnorm, 1x1 convolution, affine coupling in a step) and the same optimizer. The
parameter counts are printed beside the times.
"""

from __future__ import annotations

from math import log, pi, prod

import torch
from torch import nn
from torch.nn.functional import conv2d, pixel_shuffle, pixel_unshuffle

from benchmarks.subject import Size, Subject


def torch_glow(size: Size, compiled: bool = False) -> Subject:
    """minglow.glow, layer by layer, in PyTorch: channels first, gradients by autograd."""
    torch.manual_seed(0)
    flow = Glow(size)
    name = "PyTorch, compiled" if compiled else "PyTorch"
    log_prob, invert, dims = flow.log_prob, flow.inverse, prod(size.shape)
    if compiled:
        torch.compiler.reset()  # otherwise the shapes of an earlier size count as dynamic
        log_prob, invert = (torch.compile(method, dynamic=False) for method in (log_prob, invert))

    def sample(n):
        with torch.no_grad():
            return invert(torch.randn(n, dims))

    return torch_subject(name, flow, log_prob, sample)


def normflows_glow(size: Size) -> Subject:
    """normflows' Glow as a subject."""
    torch.manual_seed(0)
    flow = normflows_flow(size)

    def sample(n):
        with torch.no_grad():
            return flow.sample(n)[0]

    return torch_subject("normflows", flow, lambda x: flow.log_prob(x, None), sample)


def normflows_flow(size: Size) -> nn.Module:
    """normflows' own Glow blocks, with actnorm in the conditioners as minglow has it.

    It has no learned prior of the latents that a level factors out, and so one small convolution less
    in each level; its base distributions are learned instead.
    """
    import normflows  # noqa: PLC0415  the one function that needs it

    height, width, channels = size.shape
    bases, flows, merges = [], [], []
    for level in reversed(range(size.levels)):  # normflows counts from the top
        inner = channels * 2 ** (level + 2)
        shrink = 2 ** (level + 1)
        steps = [normflows.flows.GlowBlock(inner, size.hidden, net_actnorm=True)
                 for _ in range(size.steps)]
        flows.append([*steps, normflows.flows.Squeeze()])
        factored_out = inner if level == size.levels - 1 else inner // 2
        bases.append(normflows.distributions.GlowBase((factored_out, height // shrink, width // shrink)))
        if level < size.levels - 1:
            merges.append(normflows.flows.Merge())
    return normflows.MultiscaleFlow(bases, flows, merges, class_cond=False)


def torch_subject(name, flow, log_prob, sample) -> Subject:
    """What is timed of a PyTorch module."""
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-4)

    def load(x):
        """Channels first, as PyTorch has them."""
        there = next(flow.parameters()).device
        return torch.from_numpy(x).to(there).permute(0, 3, 1, 2).contiguous()

    def train_step(x):
        optimizer.zero_grad()
        loss = -log_prob(x).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    def evaluate(x):
        with torch.no_grad():
            return log_prob(x).cpu()

    parameters = sum(p.numel() for p in flow.parameters())
    return Subject(name, parameters, load, train_step, evaluate, sample)


class Glow(nn.Module):
    """L levels of K steps, with a learned prior of the latents that are factored out."""

    def __init__(self, size: Size):
        super().__init__()
        channels, self.levels = size.shape[2], nn.ModuleList()
        self.shapes = []
        height, width = size.shape[:2]
        for level in range(size.levels):
            channels, height, width = 4 * channels, height // 2, width // 2
            layers = [layer for _ in range(size.steps) for layer in (
                ActNorm(channels), InvConv(channels), Coupling(conditioner(channels, size.hidden)))]
            if level < size.levels - 1:
                prior = nn.Sequential(zero_conv(channels // 2, channels), ShiftScale(channels))
                layers.append(Coupling(prior, exponential=True))
                channels //= 2
            self.levels.append(nn.ModuleList(layers))
            self.shapes.append((channels, height, width))

    def forward(self, x):
        """Flat latents (B, D) and log_det (B,) of images (B, C, h, w)."""
        log_det, parts = x.new_zeros(len(x)), []
        for layers in self.levels:
            x = pixel_unshuffle(x, 2)
            for layer in layers:
                x, change = layer(x)
                log_det = log_det + change
            if layers is not self.levels[-1]:
                x, factored_out = x.chunk(2, 1)
                parts.append(factored_out.flatten(1))
        return torch.cat([*parts, x.flatten(1)], 1), log_det

    def log_prob(self, x):
        """log p(x) of each image, (B,)."""
        z, log_det = self(x)
        return log_det - 0.5 * (z.square().sum(1) + z.shape[1] * log(2 * pi))

    def inverse(self, z):
        """Images of flat latents (B, D)."""
        parts = [part.reshape(-1, *shape)
                 for part, shape in zip(z.split([prod(shape) for shape in self.shapes], 1), self.shapes)]
        x = None
        for layers in reversed(self.levels):
            factored_out = parts.pop()
            x = factored_out if x is None else torch.cat([x, factored_out], 1)
            for layer in reversed(layers):
                x = layer.inverse(x)
            x = pixel_shuffle(x, 2)
        return x


class ActNorm(nn.Module):
    """A shift and a scale for each channel."""
    def __init__(self, channels):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x):
        return (x + self.shift) * self.log_scale.exp(), x[0, 0].numel() * self.log_scale.sum()

    def inverse(self, y):
        return y * (-self.log_scale).exp() - self.shift


class InvConv(nn.Module):
    """An invertible 1x1 convolution."""
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0])

    def forward(self, x):
        return (conv2d(x, self.weight[:, :, None, None]),
                x[0, 0].numel() * torch.linalg.slogdet(self.weight).logabsdet)

    def inverse(self, y):
        return conv2d(y, torch.linalg.inv(self.weight)[:, :, None, None])


class Coupling(nn.Module):
    """An affine coupling, its scale bounded or an exponential."""
    def __init__(self, net, exponential=False):
        super().__init__()
        self.net, self.exponential = net, exponential

    def shift_and_log_scale(self, x1):
        """The net's outputs for the other half."""
        shift, raw = self.net(x1).chunk(2, 1)
        if self.exponential:
            return shift, raw
        return shift, torch.log(1e-3 + (1 - 1e-3) * torch.sigmoid(raw + 2))

    def forward(self, x):
        x1, x2 = x.chunk(2, 1)
        shift, log_scale = self.shift_and_log_scale(x1)
        return torch.cat([x1, (x2 + shift) * log_scale.exp()], 1), log_scale.flatten(1).sum(1)

    def inverse(self, y):
        y1, y2 = y.chunk(2, 1)
        shift, log_scale = self.shift_and_log_scale(y1)
        return torch.cat([y1, y2 * (-log_scale).exp() - shift], 1)


class NormReLU(ActNorm):
    """Actnorm, then ReLU."""
    def forward(self, x):
        return super().forward(x)[0].relu()


class ShiftScale(ActNorm):
    """The end of a zero-initialized convolution."""
    def forward(self, x):
        return (x + self.shift) * (3 * self.log_scale).exp()


def conditioner(channels, hidden):
    """3x3, 1x1 and a zero-initialized 3x3 convolution."""
    first, middle = (nn.Conv2d(n, hidden, size, padding=size // 2, bias=False)
                     for n, size in ((channels // 2, 3), (hidden, 1)))
    for conv in first, middle:
        nn.init.normal_(conv.weight, std=0.05)
    return nn.Sequential(first, NormReLU(hidden), middle, NormReLU(hidden),
                         zero_conv(hidden, channels), ShiftScale(channels))


def zero_conv(channels_in, channels_out):
    """A zero-initialized 3x3 convolution."""
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    nn.init.zeros_(conv.weight)
    return conv
