"""The official Glow code (openai/glow) rewritten in PyTorch, to compare with official_glow.

It uses neither minglow's layers nor torch_mirror: images are (n, h, w, c), kernels (height, width, in,
out), variables have the official names, and PyTorch computes the gradients. Only `variables` knows
minglow: it maps minglow's parameters to the official variables.
"""

from math import log, pi

import torch
from torch.nn.functional import pad, relu

FACTOR = 3  # of every log scale


# Layer 0 of a level is the squeeze. Each flow step then has three layers: actnorm with index a, 1x1
# convolution, coupling.

def variables(get, levels, depth, lu):
    """The official variables. get(name): a parameter or constant of minglow as a tensor, or None."""
    found, path = {}, "bijection"
    for i in range(levels):
        steps = path if i == levels - 1 else f"{path}.steps"
        for k in range(depth):
            name, a = f"{i}/{k}", 1 + 3 * k
            found |= actnorm_variables(f"{name}/actnorm", get, f"{steps}.{a}")
            if lu:
                order = get(f"{steps}.{a + 1}.order")
                found[f"{name}/invconv/P"] = torch.eye(len(order), dtype=torch.float64)[order]
                here = {"L": "lower", "U": "upper", "log_S": "log_s", "sign_S": "sign"}
                for part, own in here.items():
                    found[f"{name}/invconv/{part}"] = get(f"{steps}.{a + 1}.{own}")
            else:  # z W in the official code, W z in minglow
                found[f"{name}/invconv/W"] = get(f"{steps}.{a + 1}.weight").T
            net = f"{steps}.{a + 2}.net"
            kernel = get(f"{net}.0.weight").permute(1, 2, 3, 0)  # from (out, height, width, in)
            found[f"{name}/f1/l_1/W"] = with_border(kernel, get(f"{net}.1.bias"))
            found |= actnorm_variables(f"{name}/f1/l_1/actnorm", get, f"{net}.2.norm")
            found[f"{name}/f1/l_2/W"] = get(f"{net}.3.weight")[None, None]  # from (in, out)
            found |= actnorm_variables(f"{name}/f1/l_2/actnorm", get, f"{net}.4.norm")
            found |= zeros_variables(f"{name}/f1/l_last", get, net, 5)
        if i < levels - 1:  # minglow's net outputs -mean and -logs
            prior = zeros_variables(f"pool{i}", get, f"{steps}.{1 + 3 * depth}.net", 0)
            found |= {name: value if name.endswith("logs") else -value for name, value in prior.items()}
            path += ".inner"
    if get("base.mean") is None:
        return found
    h = torch.cat([get("base.mean"), get("base.log_std")], 1)  # (classes or 1, 2 channels)
    if get("base.weight") is None:  # minglow's learned top has no kernel and no logs
        return found | {"p/W": h.new_zeros(3, 3, h.shape[1] + 1, h.shape[1]), "p/b": h[0],
                        "p/logs": h.new_zeros(h.shape[1])}
    return found | linear_variables("y_emb", h, 0 * h[0]) | linear_variables(
        "classifier", get("base.weight").T, get("base.bias"))


def actnorm_variables(name, get, path):
    return {f"{name}/b": get(f"{path}.shift"), f"{name}/logs": get(f"{path}.log_scale")}


def zeros_variables(name, get, net, first):
    """A zero-initialized convolution: transposed taps, their border, shift and scale."""
    kernel = get(f"{net}.{first}.weight").permute(1, 2, 0, 3).flip(0, 1)  # (in, height, width, out)
    return {f"{name}/W": with_border(kernel, get(f"{net}.{first + 1}.bias")),
            f"{name}/b": get(f"{net}.{first + 2}.shift"),
            f"{name}/logs": get(f"{net}.{first + 2}.log_scale")}


def linear_variables(name, weight, bias):
    """A zero-initialized linear map with a constant scale of 1."""
    return {f"{name}/W": weight, f"{name}/b": bias, f"{name}/logs": torch.zeros_like(bias)}


def with_border(kernel, border):
    """A kernel (height, width, in, out) with one more input channel, whose taps are `border`."""
    return torch.cat([kernel, border[:, :, None]], 2)


def squeeze(x):
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 5, 2, 4)
    return x.reshape(n, h // 2, w // 2, 4 * c)


def unsqueeze(x):
    n, h, w, c = x.shape
    return x.reshape(n, h, w, c // 4, 2, 2).permute(0, 1, 4, 2, 5, 3).reshape(n, 2 * h, 2 * w, c // 4)


def conv(x, kernel):
    """A convolution with one more input channel, which is 1 outside the image and 0 inside."""
    size = len(kernel)
    if size > 1:
        r, (n, h, w, _) = size // 2, x.shape
        border = torch.ones(n, h + 2 * r, w + 2 * r, 1, dtype=x.dtype)
        border[:, r:-r, r:-r] = 0
        x = torch.cat([pad(x, (0, 0, r, r, r, r)), border], 3)
    h, w = x.shape[1] - size + 1, x.shape[2] - size + 1
    return sum(x[:, i:i + h, j:j + w] @ kernel[i, j] for i in range(size) for j in range(size))


class OfficialModel:
    """The official model with variables v; `inputs` records the input of each actnorm."""

    def __init__(self, v, levels, depth, additive):
        self.v, self.levels, self.depth, self.additive, self.inputs = v, levels, depth, additive, {}

    def log_scale(self, name):
        return FACTOR * self.v[f"{name}/logs"]

    def actnorm(self, name, x):
        self.inputs[name] = x
        return (x + self.v[f"{name}/b"]) * torch.exp(self.log_scale(name))

    def conv_zeros(self, name, x):
        return (conv(x, self.v[f"{name}/W"]) + self.v[f"{name}/b"]) * torch.exp(self.log_scale(name))

    def linear_zeros(self, name, x):
        return (x @ self.v[f"{name}/W"] + self.v[f"{name}/b"]) * torch.exp(self.log_scale(name))

    def f(self, name, x):
        h = relu(self.actnorm(f"{name}/l_1/actnorm", conv(x, self.v[f"{name}/l_1/W"])))
        h = relu(self.actnorm(f"{name}/l_2/actnorm", conv(h, self.v[f"{name}/l_2/W"])))
        return self.conv_zeros(f"{name}/l_last", h)

    def invconv(self, name):
        """The matrix that multiplies the channels from the right, and log|det|."""
        if f"{name}/W" in self.v:
            weight = self.v[f"{name}/W"]
            return weight, torch.log(torch.abs(torch.det(weight)))
        p, lower, upper, log_s, sign = (self.v[f"{name}/{part}"] for part in
                                        ("P", "L", "U", "log_S", "sign_S"))
        lower = lower.tril(-1) + torch.eye(len(p), dtype=p.dtype)
        upper = upper.triu(1) + torch.diag(sign * torch.exp(log_s))
        return (p @ lower @ upper).T, log_s.sum()  # as W z in equation 10; officially z W

    def scale_and_shift(self, name, z1):
        h = self.f(name, z1)
        return torch.sigmoid(h[..., 1::2] + 2), h[..., 0::2]

    def step(self, name, z):
        pixels = z.shape[1] * z.shape[2]
        z = self.actnorm(f"{name}/actnorm", z)
        weight, log_det = self.invconv(f"{name}/invconv")
        z = z @ weight
        log_det = pixels * (log_det + self.log_scale(f"{name}/actnorm").sum())
        z1, z2 = z.chunk(2, 3)
        if self.additive:
            return torch.cat([z1, z2 + self.f(f"{name}/f1", z1)], 3), log_det
        scale, shift = self.scale_and_shift(f"{name}/f1", z1)
        log_det = log_det + torch.log(scale).sum((1, 2, 3))
        return torch.cat([z1, (z2 + shift) * scale], 3), log_det

    def step_back(self, name, z):
        z1, z2 = z.chunk(2, 3)
        if self.additive:
            z2 = z2 - self.f(f"{name}/f1", z1)
        else:
            scale, shift = self.scale_and_shift(f"{name}/f1", z1)
            z2 = z2 / scale - shift
        weight, _ = self.invconv(f"{name}/invconv")
        z = torch.cat([z1, z2], 3) @ torch.inverse(weight)
        return z * torch.exp(-self.log_scale(f"{name}/actnorm")) - self.v[f"{name}/actnorm/b"]

    def split_prior(self, i, z1):
        h = self.conv_zeros(f"pool{i}", z1)
        return h[..., 0::2], h[..., 1::2]

    def encode(self, x):
        """Standardized latents of the splits, the top level's latents, and log p without its term."""
        z, objective, latents = squeeze(x), 0, []
        for i in range(self.levels):
            for k in range(self.depth):
                z, log_det = self.step(f"{i}/{k}", z)
                objective = objective + log_det
            if i < self.levels - 1:
                z1, z2 = z.chunk(2, 3)
                mean, logs = self.split_prior(i, z1)
                objective = objective + normal(z2, mean, logs)
                latents.append((z2 - mean) / torch.exp(logs))
                z = squeeze(z1)
        return [*latents, z], objective

    def prior(self, shape, labels):
        """Mean and log standard deviation of the top level's latents: the halves of h."""
        h = torch.zeros(len(labels), shape[1], shape[2], 2 * shape[3], dtype=torch.float64)
        if "p/W" in self.v:
            h = self.conv_zeros("p", h)
        if "y_emb/W" in self.v:
            one_hot = torch.eye(len(self.v["y_emb/W"]), dtype=h.dtype)[labels]
            h = h + self.linear_zeros("y_emb", one_hot)[:, None, None]
        return h.chunk(2, 3)

    def log_prob(self, x, labels):
        latents, objective = self.encode(x)
        return objective + normal(latents[-1], *self.prior(latents[-1].shape, labels))

    def logits(self, top):
        """The classifier's logits, from the top level's latents."""
        return self.linear_zeros("classifier", top.mean((1, 2)))

    def decode(self, noise, labels, temperature):
        """Images from standard normal noise times the temperature; one array of noise per level."""
        mean, logs = self.prior(noise[-1].shape, labels)
        z = mean + torch.exp(logs) * noise[-1] * temperature
        for i in reversed(range(self.levels)):
            if i < self.levels - 1:
                z1 = unsqueeze(z)
                mean, logs = self.split_prior(i, z1)
                z = torch.cat([z1, mean + torch.exp(logs) * noise[i] * temperature], 3)
            for k in reversed(range(self.depth)):
                z = self.step_back(f"{i}/{k}", z)
        return unsqueeze(z)


def normal(x, mean, logs):
    """log N(x; mean, exp(logs)), summed over each sample."""
    return (-0.5 * (log(2 * pi) + 2 * logs + (x - mean) ** 2 / torch.exp(2 * logs))).sum((1, 2, 3))
