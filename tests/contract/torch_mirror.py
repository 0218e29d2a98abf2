"""The same layers, nets and flows in PyTorch, with gradients from automatic differentiation.

They follow the papers' formulas with PyTorch's operations (conv2d, pixel_unshuffle, slogdet) and share
only the names of parameters with minglow. `mirror(module, tensors)` returns a function of x; `tensors`
are the parameters by path.
"""

import numpy as np
import torch
from torch.nn.functional import conv2d, conv_transpose2d, pixel_unshuffle, relu, softplus

import minglow as mg
from minglow.nets import (
    AsNet,
    Bias,
    ContextNet,
    Conv,
    Dense,
    EdgeBias,
    NormReLU,
    ReLU,
    Residual,
    Sequence,
    ShiftScale,
    TransposedConv,
)


def tensors_of(module, dtype=torch.float64):
    """Every parameter as a leaf tensor, by path."""
    return {
        f"{path}.{name}" if path else name: torch.tensor(value, dtype=dtype, requires_grad=True)
        for path, part in module.walk()
        for name, value in part.params.items()
    }


def mirror(module, tensors, path=""):
    """The PyTorch function of one module: x -> (y, log_det) for bijections, x -> y for nets."""
    own = {name: tensors[f"{path}.{name}" if path else name] for name in module.params}
    below = [mirror(child, tensors, f"{path}.{name}" if path else name)
             for name, child in module.children.items()]
    constants = {name: torch.tensor(value) for name, value in module.constants.items()}
    return MIRRORS[type(module)](module, own, constants, below)


def count(x):
    """The number of pixels of a sample."""
    return x[0, ..., 0].numel()


def same(x, value):
    return torch.as_tensor(value, dtype=x.dtype).expand(len(x))


def halves(x):
    return torch.chunk(x, 2, dim=-1)


def parts(x, module):
    """The identity channels of a coupling, and the others."""
    first = x.shape[-1] // 2 if module.identity_channels is None else module.identity_channels
    return x[..., :first], x[..., first:]


def actnorm(module, own, constants, below):
    def forward(x):
        log_scale = module.factor * own["log_scale"]
        y = (x + own["shift"]) * torch.exp(log_scale)
        return y, same(x, count(x) * log_scale.sum())
    return forward


def scaling(module, own, constants, below):
    return lambda x: (x * torch.exp(own["log_scale"]), same(x, count(x) * own["log_scale"].sum()))


def standardization(module, own, constants, below):
    def forward(x):
        mean, std = constants["mean"].to(x.dtype), constants["std"].to(x.dtype)
        return (x - mean) / std, same(x, -count(x) * std.log().sum())
    return forward


def whitening(module, own, constants, below):
    def forward(x):
        vectors, std = constants["vectors"].to(x.dtype), constants["std"].to(x.dtype)
        matrix = vectors @ torch.diag(1 / std) @ vectors.T
        y = torch.einsum("...i,oi->...o", x, matrix)
        return y, same(x, count(x) * torch.linalg.slogdet(matrix).logabsdet)
    return forward


def identity_pixels(x, parity):
    """A mask (h, w) of the pixels with even i + j + parity."""
    i, j = np.indices(x.shape[1:3])
    return torch.tensor((i + j + parity) % 2 == 0)


def checkerboard(module, own, constants, below):
    """With boolean masks, which list the pixels of each color row by row."""
    def forward(x):
        mask = identity_pixels(x, module.parity)
        batch, height, width, channels = x.shape
        pixels = torch.cat([x[:, color].reshape(batch, height, width // 2, channels)
                            for color in (mask, ~mask)], -1)
        changed, log_det = below[0](pixels)
        y = torch.empty_like(x)
        for color, part in zip((mask, ~mask), halves(changed)):
            y[:, color] = part.reshape(batch, -1, channels)
        return y, log_det
    return forward


def checkerboard_net(module, own, constants, below):
    def forward(x):
        batch, height, half, channels = x.shape
        images = torch.zeros(batch, height, 2 * half, channels, dtype=x.dtype)
        mask = identity_pixels(images, module.parity)
        images[:, mask] = x.reshape(batch, -1, channels)
        return below[0](images)[:, ~mask].reshape(batch, height, half, -1)
    return forward


def inv_conv(module, own, constants, below):
    def forward(x):
        weight = own["weight"]
        y = torch.einsum("...i,oi->...o", x, weight)
        return y, same(x, count(x) * torch.linalg.slogdet(weight).logabsdet)
    return forward


def inv_conv_lu(module, own, constants, below):
    def forward(x):
        size = len(own["log_s"])
        lower = torch.tril(own["lower"], -1) + torch.eye(size, dtype=x.dtype)
        diagonal = constants["sign"].to(x.dtype) * torch.exp(own["log_s"])
        upper = torch.triu(own["upper"], 1) + torch.diag(diagonal)
        permutation = torch.eye(size, dtype=x.dtype)[constants["order"]]
        weight = permutation @ lower @ upper
        y = torch.einsum("...i,oi->...o", x, weight)
        return y, same(x, count(x) * torch.linalg.slogdet(weight).logabsdet)
    return forward


def shuffle(module, own, constants, below):
    return lambda x: (x[..., constants["order"]], same(x, 0.0))


def additive(module, own, constants, below):
    def forward(x):
        x1, x2 = parts(x, module)
        return torch.cat([x1, x2 + below[0](x1)], -1), same(x, 0.0)
    return forward


def affine(module, own, constants, below):
    def forward(x):
        x1, x2 = parts(x, module)
        shift, raw = halves(below[0](x1))
        function = getattr(module.scale, "func", module.scale)  # of a partial
        options = getattr(module.scale, "keywords", {})
        floor, bound = options.get("floor", 1e-3), options.get("bound", 1.0)
        scale = {
            mg.exp_scale: torch.exp,
            mg.tanh_scale: lambda raw: torch.exp(bound * torch.tanh(raw / bound)),
            mg.sigmoid_scale: lambda raw: floor + (1 - floor) * torch.sigmoid(raw + 2),
        }[function](raw)
        y2 = (x2 + shift) * scale
        return torch.cat([x1, y2], -1), torch.log(scale).flatten(1).sum(1)
    return forward


def rational_quadratic(x, raw, bound):
    """y and log dy/dx (Durkan et al. 2019, equations 4 and 5), x (...), raw (..., 3 bins - 1)."""
    bins, floor = (raw.shape[-1] + 1) // 3, 1e-3
    fractions = [floor + (1 - bins * floor) * torch.softmax(part, -1)
                 for part in (raw[..., :bins], raw[..., bins : 2 * bins])]
    knots = [2 * bound * torch.nn.functional.pad(torch.cumsum(part, -1), (1, 0)) - bound
             for part in fractions]
    inner = floor + softplus(raw[..., 2 * bins :] + np.log(np.expm1(1 - floor)))
    derivatives = torch.nn.functional.pad(inner, (1, 1), value=1.0)
    k = torch.searchsorted(knots[0][..., 1:-1].contiguous(), x[..., None].contiguous(), right=True)
    (x0, x1), (y0, y1), (d0, d1) = (
        [torch.gather(part, -1, k + end)[..., 0] for end in (0, 1)] for part in (*knots, derivatives))
    s, xi = (y1 - y0) / (x1 - x0), (x - x0) / (x1 - x0)
    xi = torch.where(x.abs() <= bound, xi, 0.5)  # the formulas hold inside only
    beta = s + (d1 + d0 - 2 * s) * xi * (1 - xi)
    y = y0 + (y1 - y0) * (s * xi**2 + d0 * xi * (1 - xi)) / beta
    derivative = s**2 * (d1 * xi**2 + 2 * s * xi * (1 - xi) + d0 * (1 - xi) ** 2) / beta**2
    return torch.where(x.abs() <= bound, y, x), torch.where(x.abs() <= bound, derivative, 1.0).log()


def spline(module, own, constants, below):
    def forward(x):
        raw = own["raw"].expand(*x.shape, -1)
        y, log_derivative = rational_quadratic(x, raw, module.bound)
        return y, log_derivative.flatten(1).sum(1)
    return forward


def spline_coupling(module, own, constants, below):
    def forward(x):
        x1, x2 = parts(x, module)
        raw = below[0](x1).unflatten(-1, (x2.shape[-1], -1))
        y2, log_derivative = rational_quadratic(x2, raw, module.bound)
        return torch.cat([x1, y2], -1), log_derivative.flatten(1).sum(1)
    return forward


def squeeze(module, own, constants, below):
    return lambda x: (pixel_unshuffle(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1), same(x, 0.0))


def flatten(module, own, constants, below):
    return lambda x: (x.reshape(len(x), -1), same(x, 0.0))


def chain(module, own, constants, below):
    def forward(x):
        total = same(x, 0.0)
        for part in below:
            x, log_det = part(x)
            total = total + log_det
        return x, total
    return forward


def level(module, own, constants, below):
    def forward(x):
        h, first = below[0](x)
        inner, factored_out = halves(h)
        z, second = below[1](inner)
        return torch.cat([factored_out.reshape(len(x), -1), z], 1), first + second
    return forward


def conditional(module, own, constants, below):
    def forward(x):
        c, rest = x[:, :module.channels], x[:, module.channels:]
        mean, std = constants["mean"].to(x.dtype), constants["std"].to(x.dtype)
        CONTEXTS[module.context] = (c - mean) / std  # which context_net reads
        y, log_det = below[0](rest.reshape(len(x), *module.shape))
        return torch.cat([c, y], 1), log_det
    return forward


def context_net(module, own, constants, below):
    def forward(x):
        c = CONTEXTS[module.context]
        pixels = c.reshape(len(c), *[1] * (x.ndim - 2), -1).expand(*x.shape[:-1], -1)
        return below[0](torch.cat([x, pixels], -1))
    return forward


def conv(module, own, constants, below):
    def forward(x):
        weight = own["weight"].permute(0, 3, 1, 2).contiguous()  # (out, in, size, size)
        images, padding = x.permute(0, 3, 1, 2), weight.shape[-1] // 2
        return conv2d(images, weight, padding=padding).permute(0, 2, 3, 1)
    return forward


def transposed_conv(module, own, constants, below):
    def forward(x):
        weight = own["weight"].permute(0, 3, 1, 2).contiguous()  # (in, out, size, size)
        images, padding = x.permute(0, 3, 1, 2), weight.shape[-1] // 2
        return conv_transpose2d(images, weight, padding=padding).permute(0, 2, 3, 1)
    return forward


def edge_bias(module, own, constants, below):
    """As in the official code: one more input channel, which is 1 outside the image."""
    def forward(x):
        weight = own["bias"].permute(2, 0, 1)[:, None].contiguous()  # (C, 1, size, size)
        r = weight.shape[-1] // 2
        outside = torch.nn.functional.pad(torch.zeros(1, 1, *x.shape[1:3], dtype=x.dtype),
                                          (r, r, r, r), value=1.0)
        return x + conv2d(outside, weight).permute(0, 2, 3, 1)
    return forward


def residual(module, own, constants, below):
    return lambda x: x + below[0](x)


def dense(module, own, constants, below):
    return lambda x: torch.nn.functional.linear(x, own["weight"].T, own.get("bias"))


def norm_relu(module, own, constants, below):
    return lambda x: relu(below[0](x)[0])


def shift_scale(module, own, constants, below):
    return lambda x: (x + own["shift"]) * torch.exp(3 * own["log_scale"])


def sequence(module, own, constants, below):
    def forward(x):
        for part in below:
            x = part(x)
        return x
    return forward


CONTEXTS = {}  # the tensor c of each Context, in the mirror's current call
MIRRORS = {
    mg.ActNorm: actnorm, mg.Scaling: scaling, mg.InvConv1x1: inv_conv, mg.InvConv1x1LU: inv_conv_lu,
    mg.Shuffle: shuffle, mg.Reverse: shuffle, mg.Swap: shuffle, mg.EvenOdd: shuffle,
    mg.AdditiveCoupling: additive, mg.AffineCoupling: affine, mg.Checkerboard: checkerboard,
    mg.Spline: spline, mg.SplineCoupling: spline_coupling, mg.Standardization: standardization,
    mg.Whitening: whitening,
    mg.Squeeze: squeeze, mg.Flatten: flatten, mg.Chain: chain, mg.ReversibleChain: chain,
    mg.Level: level, mg.CheckerboardNet: checkerboard_net, mg.Conditional: conditional,
    ContextNet: context_net, Conv: conv, TransposedConv: transposed_conv, EdgeBias: edge_bias,
    Dense: dense,
    Bias: lambda module, own, *_: lambda x: x + own["bias"], ReLU: lambda *_: relu,
    NormReLU: norm_relu, ShiftScale: shift_scale, Sequence: sequence, Residual: residual,
    AsNet: lambda module, own, constants, below: lambda x: below[0](x)[0],
}


def negative_log_likelihood(bijection):
    """The mean over a batch, in nats, for a mirrored bijection and a standard normal base."""
    def loss(x):
        z, log_det = bijection(x)
        dims = z[0].numel()
        log_prob = -0.5 * z.flatten(1).square().sum(1) - 0.5 * dims * np.log(2 * np.pi) + log_det
        return -log_prob.mean()
    return loss
