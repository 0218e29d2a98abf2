"""Ways to turn integer images into real numbers, each with the density that it draws from. Floor 2.

    x, log_q, cache = dequantizer.draw(images, rng, dtype, part)
    dequantizer.backward(dx, dlog_q, cache)      # adds to grads, where there are any

part, a slice, says of which images alone x and log_q are wanted; random numbers are drawn for all of
them, so that processes which share a batch see the noise that one alone would see.

x = (image + u) / levels - 1/2 with u in [0, 1)^D and log_q = log q(u | image), (B,), in nats. By
Jensen's inequality E_q [log p(x) - log q(u | image)] - D log(levels) is a lower bound of the image's
log-probability (Ho et al. 2019, section 3.1), tight where q is the posterior of u.
"""

from __future__ import annotations

from functools import partial
from math import log
from typing import Any

import numpy as np

from minglow import arguments
from minglow.arrays import join, split
from minglow.bijection import Bijection, Module
from minglow.bits import dequantize
from minglow.chain import Chain
from minglow.device import beside, on_host
from minglow.distributions import Labels, Rng, StandardLogistic, StandardNormal
from minglow.flow import Flow
from minglow.layers import AffineCoupling, Permutation, Squeeze, tanh_scale
from minglow.nets import conv_net
from minglow.params import FlatParams
from minglow.top_prior import log_softmax

ALL = slice(None)
# A normal of this standard deviation, through a sigmoid, is nearly uniform.
NEARLY_UNIFORM = 1.7


class UniformDequantizer(Module):
    """u ~ U[0, 1): log q = 0 (Theis et al. 2016, section 3.1)."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.flat = FlatParams(self)  # empty: nothing is learned

    def draw(self, images: np.ndarray, rng: Rng = None, dtype: type = np.float32,
             part: slice = ALL) -> tuple[np.ndarray, np.ndarray, Any]:
        """x of images' shape, log_q (B,), and no cache. Raises ValueError as dequantize does."""
        x = dequantize(images, self.levels, rng, dtype)[part]
        return x, np.zeros(len(x), dtype), None

    def backward(self, dx: np.ndarray, dlog_q: np.ndarray, cache: Any) -> None:
        """Nothing is learned."""


class NoDequantizer(UniformDequantizer):
    """u = 1/2: no noise at all, and log q = 0, which is no density's logarithm.

    What is "bounded" by it is nothing: a flow can put arbitrarily high, arbitrarily thin spikes on the
    few points where data lie, and its bits per dimension fall without end. Here to be looked at.
    """

    def draw(self, images: np.ndarray, rng: Rng = None, dtype: type = np.float32,
             part: slice = ALL) -> tuple[np.ndarray, np.ndarray, Any]:
        """x of images' shape, log_q = 0, and no cache."""
        dequantize(images, self.levels, rng, dtype)  # refuses what it refuses
        x = (images[part].astype(dtype) + dtype(0.5)) / dtype(self.levels) - dtype(0.5)
        return x, np.zeros(len(x), dtype), None


class VariationalDequantizer(Module):
    r"""u from a small flow that sees the image (Ho et al. 2019, Flow++, section 3.1).

        e ~ N(0, I)                          squeezed, as the image is: (B, h/2, w/2, 4C)
        [c, v] = f([c, e])                   c: the image's centred values; couplings let c pass
        u = sigmoid(1.7 v)
        log q(u | image) = log N(e; 0, I) - log|det df/de| - sum log 1.7 u (1 - u)

    f is an ordinary bijection of the image and the noise together, whose couplings never change the
    image: its log-determinant is that of e -> v.

    backward  dL/dv = 1.7 [dL/du * u (1 - u) + dL/dlog q * (2u - 1)]        dL/du = dL/dx / levels
              dL/dlog_det = -dL/dlog q
    start     f is the identity, u nearly uniform.

    shape of one image; hidden: width of the conditioners; steps: pairs of couplings. `flat` holds the
    parameters. Raises ValueError for odd heights or widths.
    """

    def __init__(self, shape: tuple[int, ...], levels: int, hidden: int = 32, steps: int = 2,
                 rng: Rng = None, dtype: type = np.float32) -> None:
        super().__init__()
        shape = arguments.shape(shape)
        if len(shape) != 3 or shape[0] % 2 or shape[1] % 2:
            raise ValueError(f"expected images (h, w, C) of even height and width, got {shape}")
        rng = np.random.default_rng(rng)
        self.levels, half = levels, 2 * shape[2]
        self.image_channels, self.squeeze = 4 * shape[2], Squeeze()
        swap = np.r_[:2 * half, 3 * half:4 * half, 2 * half:3 * half]  # of the noise's halves
        layers: list[Bijection] = []
        for _ in range(2 * steps):
            net = conv_net(3 * half, hidden, 2 * half, rng, dtype)
            layers += [AffineCoupling(net, partial(tanh_scale, bound=2.0), passing=3 * half),
                       Permutation(swap)]
        self.bijection = Chain(*layers)
        self.children["bijection"] = self.bijection
        self.flat = FlatParams(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy: its views are bound anew, since a copied view is no view of the copied vector."""
        self.__dict__.update(state)
        self.flat = FlatParams(self)

    def draw(self, images: np.ndarray, rng: Rng = None, dtype: type = np.float32,
             part: slice = ALL) -> tuple[np.ndarray, np.ndarray, Any]:
        """x of images' shape, log_q (B,), and the cache for backward."""
        channels = self.image_channels // 4
        if arguments.array("images", images).shape[-1:] != (channels,):
            raise ValueError(f"expected images (B, h, w, {channels}), got {images.shape}")
        rng = np.random.default_rng(rng)
        centred, _, _ = NoDequantizer(self.levels).draw(images, rng, dtype)
        image = self.squeeze.forward(centred)[0]
        e = rng.standard_normal(image.shape, dtype)[part]
        home, images = self.flat.value, images[part]
        image, e = beside(image[part], home), beside(e, home)
        y, log_det, cache = self.bijection.forward(join(image, e))
        v = self.squeeze.inverse(split(y, self.image_channels)[1])[0] * dtype(NEARLY_UNIFORM)
        u = 1 / (1 + np.exp(-v))
        log_slope = StandardLogistic(v.shape[1:]).log_prob(v)  # log u (1 - u), summed
        log_q = StandardNormal(e.shape[1:]).log_prob(e) - log_det - log_slope
        log_q -= dtype(u[0].size * log(NEARLY_UNIFORM))
        if on_host(log_q) and not np.isfinite(log_q).all():
            raise FloatingPointError(f"{self} has diverged: its noise or its density is NaN or inf")
        x = (beside(images.astype(dtype), home) + u) / dtype(self.levels) - dtype(0.5)
        return x, log_q, (u, cache)

    def backward(self, dx: np.ndarray, dlog_q: np.ndarray, cache: Any) -> None:
        """Add a loss's derivatives, by way of x and of log_q (B,), to `grads`."""
        u, bijection_cache = cache
        du = dx / dx.dtype.type(self.levels)
        dv = du * u * (1 - u) + dlog_q[:, None, None, None] * (2 * u - 1)
        dv = self.squeeze.forward(dv * dv.dtype.type(NEARLY_UNIFORM))[0]
        self.bijection.backward(join(np.zeros_like(dv), dv), -dlog_q, bijection_cache)


Dequantizer = UniformDequantizer | VariationalDequantizer


def draw_for(flow: Flow, images: np.ndarray, dequantizer: Dequantizer, rng: Rng, part: slice = ALL,
             ) -> tuple[np.ndarray, np.ndarray, Any]:
    """What `draw` gives, x and log_q where the flow's parameters are: on the host, or on a device."""
    x, log_q, cache = dequantizer.draw(images, rng, flow.dtype, part)
    return beside(x, flow.flat.value), beside(log_q, flow.flat.value), cache


def log_bound(flow: Flow, images: np.ndarray, dequantizer: Dequantizer, rng: Rng = None,
              samples: int = 1, labels: Labels = None, part: slice = ALL) -> np.ndarray:
    """A lower bound of each image's log-probability, in nats, plus D log(levels): (B,).

        log 1/n sum_i p(x_i) / q(u_i | image)

    with n = `samples` draws: the usual bound for n = 1, and the tighter the more there are (Burda et
    al. 2016, theorem 1). bits_per_dim turns it into bits, as it does log_prob. part: of these images
    alone.
    """
    arguments.count("samples", samples)
    rng = np.random.default_rng(rng)
    draws = (draw_for(flow, images, dequantizer, rng, part)[:2] for _ in range(samples))
    labels = None if labels is None else labels[part]
    ratios = np.stack([flow.log_prob(x, labels) - log_q for x, log_q in draws], axis=1)
    ratios = ratios.astype(np.float64)
    return ratios[:, 0] - log_softmax(ratios)[:, 0] - log(samples)
