"""Coupling layers: some of the channels decide how the others move. Floor 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minglow import arguments, kernels
from minglow.arrays import (
    check_dlog_det,
    check_even_channels,
    check_input,
    halves,
    join,
    split,
    zero_log_det,
)
from minglow.bijection import Bijection, Net
from minglow.layers.scale import sigmoid_scale

Scale = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # raw -> log scale, its derivative


class AdditiveCoupling(Bijection):
    r"""Additive coupling (Dinh et al. 2015, NICE, section 3.2).

        x1, x2 = split(x)                    net: (B, h, w, C1) -> (B, h, w, C2)
        y1 = x1
        y2 = x2 + net(x1)

    log_det   dy/dx is block triangular, its diagonal blocks I and I: log|det J| = 0.
    backward  dL/dx2 = dL/dy2
              dL/dx1 = dL/dy1 + (dnet/dx1)^T dL/dy2

    passing: how many channels are x1, by default half of them. Raises ValueError where there are not
    more than that, or where an odd number should be halved.
    """

    net_outputs = 1  # numbers that the net gives for each one that changes

    def __init__(self, net: Net, passing: int | None = None) -> None:
        super().__init__()
        self.net = arguments.instance("a conditioner", net, Net)
        self.passing = passing if passing is None else arguments.count("passing", passing)
        self.children["net"] = net

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        x1, x2 = _checked_parts(self, x)
        h, net_cache = _condition(self, x1, x2.shape[-1])
        return join(x1, x2 + h), zero_log_det(x), net_cache

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        y1, y2 = _checked_parts(self, y)
        h, net_cache = _condition(self, y1, y2.shape[-1])
        return join(y1, y2 - h), net_cache

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        net_cache = cache
        dy1, dy2 = split(dy, self.passing)
        return join(dy1 + self.net.backward(dy2, net_cache), dy2)

    def initialize(self, x: np.ndarray) -> np.ndarray:
        self.net.initialize(_checked_parts(self, x)[0])
        return self.forward(x)[0]


class AffineCoupling(Bijection):
    r"""Affine coupling (Kingma & Dhariwal 2018, section 3.3 and table 1).

        x1, x2 = split(x)                    net: (B, h, w, C1) -> (B, h, w, 2 C2)
        shift, raw = halves(net(x1))
        y1 = x1
        y2 = (x2 + shift) * scale(raw)

    log_det   dy/dx is block triangular, its diagonal blocks I and diag(scale):
              log|det J_b| = sum over pixels and channels of log scale(raw_b).
    backward  dL/dx2 = dL/dshift = dL/dy2 * scale
              dL/draw_b = (dL/dy2 * y2 + dL/dlog_det_b) * dlog scale/draw
                        since dy2/dlog scale = y2 and dlog_det/dlog scale = 1
              dL/dx1 = dL/dy1 + (dnet/dx1)^T [dL/dshift, dL/draw]

    The paper writes y2 = s * x2 + t; its published code, and this layer, shift first. The two
    are one family: t = s * shift. The paper's table 1 lets the second half pass, the code the
    first. `scale` is sigmoid_scale as in that code, or exp_scale as in the paper, or any function
    from raw to (log scale, dlog scale/draw). `passing` is AdditiveCoupling's.
    """

    net_outputs = 2  # numbers that the net gives for each one that changes

    def __init__(self, net: Net, scale: Scale | None = None, passing: int | None = None) -> None:
        super().__init__()
        self.net = arguments.instance("a conditioner", net, Net)
        self.passing = passing if passing is None else arguments.count("passing", passing)
        self.scale = scale or sigmoid_scale
        self.children["net"] = net

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        shift, log_scale, dlog_scale, net_cache = self._shift_and_scale(x)
        scale = np.exp(log_scale)
        y, log_det = kernels.couple(flat_pixels(x), shift, scale, log_scale)
        return y.reshape(x.shape), log_det, (net_cache, y, scale, dlog_scale)

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        shift, log_scale, dlog_scale, net_cache = self._shift_and_scale(y)
        scale, flat_y = np.exp(log_scale), flat_pixels(y)
        x = kernels.couple_inverse(flat_y, shift, scale)
        return x.reshape(y.shape), (net_cache, flat_y, scale, dlog_scale)

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        net_cache, y, scale, dlog_scale = cache
        check_dlog_det(self, dlog_det, dy)
        dx, dh = kernels.couple_backward(flat_pixels(dy), y, scale, dlog_scale, dlog_det)
        dx1, dx2 = split(dx.reshape(dy.shape), self.passing)  # dL/dy1, so far
        dx1 += self.net.backward(dh.reshape(*dy.shape[:-1], 2 * dx2.shape[-1]), net_cache)
        return dx.reshape(dy.shape)

    def initialize(self, x: np.ndarray) -> np.ndarray:
        self.net.initialize(_checked_parts(self, x)[0])
        return self.forward(x)[0]

    def scales(self, x: np.ndarray) -> np.ndarray:
        """The scale of each number that changes, (B, pixels, C2)."""
        return np.exp(self._shift_and_scale(x)[1])

    def _shift_and_scale(self, x: np.ndarray) -> tuple[Any, ...]:
        """What the part that passes says of the other: shift, log scale, its slope, each (B, P, C2)."""
        x1, x2 = _checked_parts(self, x)
        h, net_cache = _condition(self, x1, 2 * x2.shape[-1])
        shift, raw = halves(flat_pixels(h))
        return shift, *self.scale(raw), net_cache


def flat_pixels(x: np.ndarray) -> np.ndarray:
    """(B, ..., C) as (B, P, C), a view; vectors have P = 1."""
    return x.reshape(len(x), -1, x.shape[-1])


def _condition(layer: AdditiveCoupling | AffineCoupling, x1: np.ndarray, channels: int) -> Any:
    """The net's output for x1, of so many channels, and its cache."""
    h, cache = layer.net.forward(x1)
    if h.shape[-1] != channels:
        raise ValueError(f"{layer} expected its net to give {channels} channels, got {h.shape[-1]}")
    return h, cache


def _checked_parts(layer: AdditiveCoupling | AffineCoupling, x: np.ndarray,
                   ) -> tuple[np.ndarray, np.ndarray]:
    """The channels that pass and those that change."""
    check_input(layer, x)
    if layer.passing is None:
        check_even_channels(layer, x.shape[-1])
    elif x.shape[-1] <= layer.passing:
        raise ValueError(f"{layer} expected more than {layer.passing} channels, got {x.shape}")
    return split(x, layer.passing)
