"""Coupling layers: a net reads some of the channels and determines how the others change."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minglow import kernels, validation
from minglow.arrays import shapes
from minglow.arrays.shapes import check_dlog_det, halves, join, split, zero_log_det
from minglow.bijection import Bijection, Net
from minglow.layers.scale import sigmoid_scale

Scale = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # s -> log scale, dlog scale/ds


class Coupling(Bijection):
    """What couplings share: x1, x2 = split(x), and a net that reads x1, the identity channels.

    net                its input has C1 channels, its output net_outputs * C2
    identity_channels  C1, by default half of the channels, rounded down; 0 for a net that reads only a
                       context (see ContextNet)

    Raises ValueError for a net with another number of output channels, and where there are no more than
    C1 channels; with the default, for one channel: a net needs one to read, and one to change.
    """

    net_outputs: int  # outputs of the net for each channel of x2

    def __init__(self, net: Net, identity_channels: int | None = None) -> None:
        super().__init__()
        self.net = validation.check_instance("a conditioner", net, Net)
        self.identity_channels = (None if identity_channels is None else
                                  validation.check_count("identity_channels", identity_channels, 0))
        self.children["net"] = net

    def initialize(self, x: np.ndarray) -> np.ndarray:
        self.net.initialize(self._checked_parts(x)[0])
        return self.forward(x)[0]

    def _condition(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
        """x1 and x2, the net's output for x1, and the net's cache."""
        x1, x2 = self._checked_parts(x)
        h, net_cache = self.net.forward(x1)
        channels = self.net_outputs * x2.shape[-1]
        if h.shape[-1] != channels:
            raise ValueError(f"{self} expected its net to give {channels} channels, got {h.shape[-1]}")
        return x1, x2, h, net_cache

    def _checked_parts(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x1, the identity channels, and x2, those that change."""
        shapes.check_input(self, x)
        least = 1 if self.identity_channels is None else self.identity_channels
        if x.shape[-1] <= least:
            raise ValueError(f"{self} expected at least {least + 1} channels, got {x.shape[-1]}")
        return split(x, self.identity_channels)


class AdditiveCoupling(Coupling):
    r"""Additive coupling (Dinh et al. 2015, NICE, section 3.2).

        x1, x2 = split(x)                    net: (B, h, w, C1) -> (B, h, w, C2)
        y1 = x1
        y2 = x2 + net(x1)

    inverse     x1 = y1, x2 = y2 - net(y1)
    log_det     dy/dx is block triangular, its diagonal blocks I and I: log|det J| = 0.
    backward    dL/dx2 = dL/dy2
                dL/dx1 = dL/dy1 + (dnet/dx1)^T dL/dy2

    The arguments and errors are Coupling's.

    >>> layer = minglow.AdditiveCoupling(minglow.nets.mlp(1, 8, 1, rng=0, dtype=np.float64))
    >>> y, log_det, _ = layer.forward(np.array([[1.0, 2.0]]))
    >>> y, log_det  # the net is 0 at first
    (array([[1., 2.]]), array([0.]))
    """

    net_outputs = 1

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        x1, x2, h, net_cache = self._condition(x)
        return join(x1, x2 + h), zero_log_det(x), net_cache

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        y1, y2, h, net_cache = self._condition(y)
        return join(y1, y2 - h), net_cache

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        net_cache = cache
        check_dlog_det(self, dlog_det, dy)
        dy1, dy2 = split(dy, self.identity_channels)
        return join(dy1 + self.net.backward(dy2, net_cache), dy2)


class AffineCoupling(Coupling):
    r"""Affine coupling (Kingma & Dhariwal 2018, section 3.3 and table 1).

        x1, x2 = split(x)                    net: (B, h, w, C1) -> (B, h, w, 2 C2)
        shift, s = halves(net(x1))
        y1 = x1
        y2 = (x2 + shift) * scale(s)

    inverse     x1 = y1, x2 = y2 / scale(s) - shift, with shift and s from net(y1)
    log_det     dy/dx is block triangular, its diagonal blocks I and diag(scale):
                log|det J_b| = sum over pixels and channels of log scale(s_b).
    backward    dL/dx2 = dL/dshift = dL/dy2 * scale
                dL/ds_b = (dL/dy2 * y2 + dL/dlog_det_b) * dlog scale/ds
                        since dy2/dlog scale = y2 and dlog_det/dlog scale = 1
                dL/dx1 = dL/dy1 + (dnet/dx1)^T [dL/dshift, dL/ds]

    scale       sigmoid_scale (the default) as in the official code, exp_scale as in the paper, or any
                function from s to (log scale, dlog scale/ds)

    The other arguments and the errors are Coupling's. The paper writes y2 = scale * x2 + t; its official
    code, and this layer, shift first: t = scale * shift. In the paper's table 1 the second half holds
    the identity channels, in the code the first.

    >>> layer = minglow.AffineCoupling(minglow.nets.mlp(1, 8, 2, rng=0), minglow.exp_scale)
    >>> layer.net.nets[-1].params["bias"][...] = 3, 2  # shift, s
    >>> layer.forward(np.ones((1, 2), np.float32))[1]  # log_det
    array([2.], dtype=float32)
    """

    net_outputs = 2

    def __init__(self, net: Net, scale: Scale | None = None,
                 identity_channels: int | None = None) -> None:
        super().__init__(net, identity_channels)
        self.scale = scale or sigmoid_scale

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        shift, log_scale, dlog_scale_ds, net_cache = self._shift_and_scale(x)
        scale = np.exp(log_scale)
        y, log_det = kernels.couple(flat_pixels(x), shift, scale, log_scale)
        return y.reshape(x.shape), log_det, (net_cache, y, scale, dlog_scale_ds)

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        shift, log_scale, dlog_scale_ds, net_cache = self._shift_and_scale(y)
        scale, flat_y = np.exp(log_scale), flat_pixels(y)
        x = kernels.couple_inverse(flat_y, shift, scale)
        return x.reshape(y.shape), (net_cache, flat_y, scale, dlog_scale_ds)

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        net_cache, y, scale, dlog_scale_ds = cache
        check_dlog_det(self, dlog_det, dy)
        dx, dh = kernels.couple_backward(flat_pixels(dy), y, scale, dlog_scale_ds, dlog_det)
        dx1, dx2 = split(dx.reshape(dy.shape), self.identity_channels)  # dx1 is dL/dy1, so far
        dx1 += self.net.backward(dh.reshape(*dy.shape[:-1], 2 * dx2.shape[-1]), net_cache)
        return dx.reshape(dy.shape)

    def scales(self, x: np.ndarray) -> np.ndarray:
        """The scale of each element of x2, (B, P, C2); P is the number of pixels."""
        return np.exp(self._shift_and_scale(x)[1])

    def _shift_and_scale(self, x: np.ndarray) -> tuple[Any, ...]:
        """shift, log scale and dlog scale/ds, each (B, P, C2), and the net's cache."""
        _, _, h, net_cache = self._condition(x)
        shift, s = halves(flat_pixels(h))
        return shift, *self.scale(s), net_cache


def flat_pixels(x: np.ndarray) -> np.ndarray:
    """(B, ..., C) as (B, P, C), a view; vectors have P = 1."""
    return x.reshape(len(x), -1, x.shape[-1])
