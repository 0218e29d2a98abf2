"""Turning integer images into real numbers, each way with the density that its noise is drawn from.

x = (image + u) / bins - 1/2 with u in [0, 1)^D and log_q = log q(u | image), (B,), in nats. By
Jensen's inequality E_q [log p(x) - log q(u | image)] - D log(bins) is a lower bound of the image's
log-probability (Ho et al. 2019, section 3.1), tight where q is the posterior of u.
"""

from functools import partial
from math import log
from typing import Any

import numpy as np

from minglow import validation
from minglow.arrays.device import on_host, to_device_of
from minglow.arrays.shapes import join, split
from minglow.arrays.trainable import Trainable
from minglow.bases import StandardLogistic, StandardNormal
from minglow.bases.base import Labels
from minglow.bases.top_prior import log_softmax
from minglow.bijection import Bijection, Rng
from minglow.chain import Chain
from minglow.dequantization.bits import bits_per_dim, check_bins, dequantize
from minglow.flow import Flow
from minglow.layers import AffineCoupling, Permutation, Squeeze, tanh_scale
from minglow.nets import conv_net

ALL = slice(None)
NEARLY_UNIFORM = 1.7  # a normal of this standard deviation, through a sigmoid, is nearly uniform


class Dequantizer(Trainable):
    """A distribution of the noise that fills the bins of integer images; its parameters are trained too.

    Raises ValueError for less than 2 bins.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = check_bins(bins)

    def dequantize(self, images: np.ndarray, rng: Rng = None, dtype: type = np.float32,
                   shard: slice = ALL) -> tuple[np.ndarray, np.ndarray, Any]:
        """x of images' shape, log_q (B,), and the cache for backward.

        shard: the images for which x and log_q are wanted. Random numbers are drawn for all of them, so
        that processes which share a batch see the noise that a single process would see.
        """
        raise NotImplementedError(f"{type(self).__name__} has no dequantize")

    def backward(self, dx: np.ndarray, dlog_q: np.ndarray, cache: Any) -> None:
        """Add a loss's derivatives, through x and through log_q (B,), to `grads`."""

    def loss(self, log_prob: float, dims: int) -> float:
        """What is reported for a mean log-probability in nats: bits per dimension."""
        return bits_per_dim(log_prob, dims, self.bins)


class Continuous(Dequantizer):
    """Real numbers, which have no bins, so `bins` is 0: x as it is, log q = 0, losses in nats."""

    def __init__(self) -> None:
        Trainable.__init__(self)
        self.bins = 0
        self.flatten()

    def dequantize(self, images: np.ndarray, rng: Rng = None, dtype: type = np.float32,
                   shard: slice = ALL) -> tuple[np.ndarray, np.ndarray, Any]:
        x: np.ndarray = images[shard].astype(dtype)
        return x, np.zeros(len(x), dtype), None

    def loss(self, log_prob: float, dims: int) -> float:
        return -log_prob


class UniformDequantizer(Dequantizer):
    """u ~ U[0, 1): log q = 0 (Theis et al. 2016, section 3.1)."""

    def __init__(self, bins: int) -> None:
        super().__init__(bins)
        self.flatten()

    def dequantize(self, images: np.ndarray, rng: Rng = None, dtype: type = np.float32,
                   shard: slice = ALL) -> tuple[np.ndarray, np.ndarray, Any]:
        x = dequantize(images, self.bins, rng, dtype)[shard]
        return x, np.zeros(len(x), dtype), None


class NoDequantizer(UniformDequantizer):
    """u = 1/2: no noise, and log q = 0, which is no density's logarithm.

    The result bounds nothing: a flow can put arbitrarily high, thin spikes on the few points where data
    lie, and its bits per dimension fall without end. It exists to show this.
    """

    def dequantize(self, images: np.ndarray, rng: Rng = None, dtype: type = np.float32,
                   shard: slice = ALL) -> tuple[np.ndarray, np.ndarray, Any]:
        dequantize(images, self.bins, rng, dtype)  # raises ValueError for invalid images
        x = (images[shard].astype(dtype) + dtype(0.5)) / dtype(self.bins) - dtype(0.5)
        return x, np.zeros(len(x), dtype), None


class VariationalDequantizer(Dequantizer):
    r"""u from a small flow that sees the image (Ho et al. 2019, Flow++, section 3.1).

        e ~ N(0, I)                          squeezed, as the image is: (B, h/2, w/2, 4C)
        [c, v] = f([c, e])                   c: the image's centered values; couplings let c pass
        u = sigmoid(1.7 v)
        log q(u | image) = log N(e; 0, I) - log|det df/de| - sum log 1.7 u (1 - u)

    f is a bijection of the image and the noise together. Its couplings never change the image, so its
    log-determinant is that of e -> v.

    backward  dL/dv = 1.7 [dL/du * u (1 - u) + dL/dlog q * (2u - 1)]        dL/du = dL/dx / bins
              dL/dlog_det = -dL/dlog q
    initialization  f is the identity, u nearly uniform.

    shape of one image; hidden: width of the conditioners; flow_steps: pairs of couplings.
    Raises ValueError for odd heights or widths.
    """

    def __init__(self, shape: tuple[int, ...], bins: int, hidden: int = 32, flow_steps: int = 2,
                 rng: Rng = None, dtype: type = np.float32) -> None:
        super().__init__(bins)
        shape = validation.check_shape(shape)
        if len(shape) != 3 or shape[0] % 2 or shape[1] % 2:
            raise ValueError(f"expected images (h, w, C) of even height and width, got {shape}")
        rng, half = np.random.default_rng(rng), 2 * shape[2]
        self.image_channels, self.squeeze = 4 * shape[2], Squeeze()
        swap = np.r_[:2 * half, 3 * half:4 * half, 2 * half:3 * half]  # of the noise's halves
        layers: list[Bijection] = []
        for _ in range(2 * flow_steps):
            net = conv_net(3 * half, hidden, 2 * half, rng, dtype)
            layers += [AffineCoupling(net, partial(tanh_scale, bound=2.0), identity_channels=3 * half),
                       Permutation(swap)]
        self.bijection = self.children["bijection"] = Chain(*layers)
        self.flatten()

    def dequantize(self, images: np.ndarray, rng: Rng = None, dtype: type = np.float32,
                   shard: slice = ALL) -> tuple[np.ndarray, np.ndarray, Any]:
        channels = self.image_channels // 4
        if validation.check_array("images", images).shape[-1:] != (channels,):
            raise ValueError(f"expected images (B, h, w, {channels}), got {images.shape}")
        rng = np.random.default_rng(rng)
        centered, _, _ = NoDequantizer(self.bins).dequantize(images, rng, dtype)
        image = self.squeeze.forward(centered)[0]
        e = rng.standard_normal(image.shape, dtype)[shard]
        home, images = self.flat.value, images[shard]
        image, e = to_device_of(image[shard], home), to_device_of(e, home)
        with self._threads(image):
            y, log_det, cache = self.bijection.forward(join(image, e))
        v = self.squeeze.inverse(split(y, self.image_channels)[1])[0] * dtype(NEARLY_UNIFORM)
        u = 1 / (1 + np.exp(-v))
        log_slope = StandardLogistic(v.shape[1:]).log_prob(v)  # log u (1 - u), summed
        log_q = StandardNormal(e.shape[1:]).log_prob(e) - log_det - log_slope
        log_q -= dtype(u[0].size * log(NEARLY_UNIFORM))
        if on_host(log_q) and not np.isfinite(log_q).all():
            raise FloatingPointError(f"{self} has diverged: its noise or its density is NaN or inf")
        x = (to_device_of(images.astype(dtype), home) + u) / dtype(self.bins) - dtype(0.5)
        return x, log_q, (u, cache)

    def backward(self, dx: np.ndarray, dlog_q: np.ndarray, cache: Any) -> None:
        u, bijection_cache = cache
        du = dx / dx.dtype.type(self.bins)
        dv = du * u * (1 - u) + dlog_q[:, None, None, None] * (2 * u - 1)
        dv = self.squeeze.forward(dv * dv.dtype.type(NEARLY_UNIFORM))[0]
        with self._threads(dv):
            self.bijection.backward(join(np.zeros_like(dv), dv), -dlog_q, bijection_cache)


def dequantize_for(flow: Flow, images: np.ndarray, dequantizer: Dequantizer, rng: Rng,
                   shard: slice = ALL) -> tuple[np.ndarray, np.ndarray, Any]:
    """As `dequantizer.dequantize`, with x and log_q on the host or the device, as the parameters are."""
    x, log_q, cache = dequantizer.dequantize(images, rng, flow.dtype, shard)
    return to_device_of(x, flow.flat.value), to_device_of(log_q, flow.flat.value), cache


def log_bound(flow: Flow, images: np.ndarray, dequantizer: Dequantizer, rng: Rng = None,
              samples: int = 1, labels: Labels = None, shard: slice = ALL,
              context: np.ndarray | None = None) -> np.ndarray:
    """A lower bound of each image's log-probability, in nats, plus D log(bins): (B,).

        log 1/n sum_i p(x_i) / q(u_i | image)

    with n = `samples` draws: the usual bound for n = 1, and tighter for larger n (Burda et al. 2016,
    theorem 1). bits_per_dim turns it into bits, as it does log_prob. shard: of these images only.
    """
    validation.check_count("samples", samples)
    rng = np.random.default_rng(rng)
    draws = (dequantize_for(flow, images, dequantizer, rng, shard)[:2] for _ in range(samples))
    labels, context = (None if part is None else part[shard] for part in (labels, context))
    ratios = np.stack([flow.log_prob(x, labels, context) - log_q for x, log_q in draws], axis=1)
    ratios = ratios.astype(float)
    return ratios[:, 0] - log_softmax(ratios)[:, 0] - log(samples)
