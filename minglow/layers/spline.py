"""Rational-quadratic splines: monotone functions of one number with an analytic inverse."""

from math import expm1, log
from typing import Any, NamedTuple

import numpy as np

from minglow import validation
from minglow.arrays.shapes import check_dlog_det, check_input
from minglow.bijection import Bijection
from minglow.layers.coupling import flat_pixels

MINIMUM = 1e-3  # of a derivative, and of a bin's width and height as fractions of the interval
OFFSET = log(expm1(1 - MINIMUM))  # softplus(OFFSET) = 1 - MINIMUM: where raw is 0, the derivative is 1
MAX_BINS = 100  # their minimum widths take a tenth of the interval


class Knots(NamedTuple):
    """Coordinates of the knots, (*S, bins + 1), and the softmaxes that they come from, (*S, bins)."""

    x: np.ndarray
    y: np.ndarray
    d: np.ndarray  # the derivatives, 1 at the first and the last knot
    softmaxes: tuple[np.ndarray, np.ndarray]  # of widths and heights


class Bin(NamedTuple):
    """Of each value's bin: its index, the lower left corner, the size, the derivatives at both ends."""

    k: np.ndarray
    x: np.ndarray
    y: np.ndarray
    width: np.ndarray
    height: np.ndarray
    d0: np.ndarray
    d1: np.ndarray


def spline(x: np.ndarray, raw: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray, Any]:
    """y, log dy/dx and the cache, elementwise; the class Spline has the formulas.

    x (..., *S), raw (*S, 3 bins - 1): a spline for each index of S, shared by the axes before.
    """
    knots, outside = _knots(raw, bound), np.abs(x) > bound  # False for NaN, which stays NaN
    b = _bin(x, knots.x, knots)
    xi = (np.clip(x, -bound, bound) - b.x) / b.width
    s, _, p, q, g = _parts(xi, b)
    y = np.where(outside, x, np.clip(b.y + b.height * g, -bound, bound))  # rounding stays inside
    log_derivative = np.where(outside, 0, np.log(p) + 2 * np.log(s / q))
    return y, log_derivative, (xi, b, outside, knots, bound)


def spline_inverse(y: np.ndarray, raw: np.ndarray, bound: float) -> tuple[np.ndarray, Any]:
    """x and the cache that spline(x, raw, bound) would have made."""
    knots, outside = _knots(raw, bound), np.abs(y) > bound
    b = _bin(y, knots.y, knots)
    s, eta = b.height / b.width, (np.clip(y, -bound, bound) - b.y) / b.height
    u = b.d0 * (1 - eta) - b.d1 * eta
    r = np.abs(u) + np.sqrt(u**2 + 4 * s**2 * eta * (1 - eta))
    below, above = 2 * s * eta, 2 * s * (1 - eta)
    xi = np.where(u > 0, below / (below + r), r / (r + above))
    x = np.where(outside, y, np.clip(b.x + b.width * xi, -bound, bound))
    return x, (xi, b, outside, knots, bound)


def spline_backward(dy: np.ndarray, dlog: np.ndarray, cache: Any) -> tuple[np.ndarray, np.ndarray]:
    """From a loss's derivatives with respect to y and log dy/dx, both (..., *S), to dx and draw."""
    xi, b, outside, knots, bound = cache
    s, t, p, q, g = _parts(xi, b)
    dy_inside, dlog = np.where(outside, 0, dy), np.where(outside, 0, dlog)
    dg = dy_inside * b.height
    dxi = dg * s * p / q**2 + 2 * dlog * (
        (b.d1 * xi + s * (1 - 2 * xi) - b.d0 * (1 - xi)) / p
        - (b.d0 + b.d1 - 2 * s) * (1 - 2 * xi) / q)
    ds = (dg * t * (b.d1 * xi**2 - b.d0 * (1 - xi) ** 2) / q**2
          + 2 * dlog * (1 / s + t / p - (1 - 2 * t) / q))
    dd0 = dg * t * (1 - g) / q + dlog * ((1 - xi) ** 2 / p - 2 * t / q)
    dd1 = -dg * t * g / q + dlog * (xi**2 / p - 2 * t / q)
    dx = dxi / b.width
    dwidth, dheight = -dx * xi - ds * s / b.width, dy_inside * g + ds / b.width

    bins = np.arange(knots.x.shape[-1] - 1, like=xi)
    own, before = bins == b.k[..., None], bins < b.k[..., None]

    def total(where: np.ndarray, value: np.ndarray) -> np.ndarray:
        """For each bin, the sum over the values in it, or after it; (*S, bins)."""
        shape = knots.softmaxes[0].shape
        return np.where(where, value[..., None], 0).reshape(-1, *shape).sum(axis=0)

    # A bin's corner is the sum of the sizes before it. dL/dcorner is -dx and dy.
    dsizes = total(own, dwidth) - total(before, dx), total(own, dheight) + total(before, dy_inside)
    draw = [2 * bound * (1 - len(bins) * MINIMUM) * p * (dsize - (p * dsize).sum(axis=-1, keepdims=True))
            for p, dsize in zip(knots.softmaxes, dsizes)]
    dd = total(own, dd0)[..., 1:] + total(own, dd1)[..., :-1]
    draw.append(dd * -np.expm1(MINIMUM - knots.d[..., 1:-1]))  # sigmoid = 1 - exp(-softplus)
    return np.where(outside, dy, dx), np.concatenate(draw, axis=-1)


def _parts(xi: np.ndarray, b: Bin) -> tuple[np.ndarray, ...]:
    """s, t, p, q and g of the class Spline; p and q are sums of positive terms, so no digits cancel."""
    s, t = b.height / b.width, xi * (1 - xi)
    p = b.d0 * (1 - xi) ** 2 + 2 * s * t + b.d1 * xi**2
    q = s * (1 - 2 * t) + (b.d0 + b.d1) * t
    return s, t, p, q, (s * xi**2 + b.d0 * t) / q


def _knots(raw: np.ndarray, bound: float) -> Knots:
    bins = (raw.shape[-1] + 1) // 3
    softmaxes = _softmax(raw[..., :bins]), _softmax(raw[..., bins : 2 * bins])
    t = raw[..., 2 * bins :] + OFFSET
    d = np.ones_like(raw, shape=(*raw.shape[:-1], bins + 1))
    d[..., 1:-1] = MINIMUM + np.maximum(t, 0) + np.log1p(np.exp(-np.abs(t)))
    return Knots(_edges(softmaxes[0], bound), _edges(softmaxes[1], bound), d, softmaxes)


def _softmax(raw: np.ndarray) -> np.ndarray:
    exponential = np.exp(raw - raw.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


def _edges(softmax: np.ndarray, bound: float) -> np.ndarray:
    """The ends of the bins, from exactly -bound to exactly bound."""
    bins = softmax.shape[-1]
    fractions = np.zeros_like(softmax, shape=(*softmax.shape[:-1], bins + 1))
    fractions[..., 1:-1] = np.cumsum(MINIMUM + (1 - bins * MINIMUM) * softmax, axis=-1)[..., :-1]
    fractions[..., -1] = 1
    return bound * (2 * fractions - 1)


def _bin(value: np.ndarray, edges: np.ndarray, knots: Knots) -> Bin:
    """Of each value, an x or a y, whose bins have these edges. NaN gets the first bin."""
    k = (value[..., None] >= edges[..., 1:-1]).sum(axis=-1)
    (x0, x1), (y0, y1), (d0, d1) = (
        [np.take_along_axis(np.broadcast_to(part, (*k.shape, part.shape[-1])),
                            k[..., None] + end, axis=-1)[..., 0] for end in (0, 1)]
        for part in knots[:3])
    return Bin(k, x0, y0, x1 - x0, y1 - y0, d0, d1)


class Spline(Bijection):
    r"""A monotone rational-quadratic spline for every channel (Durkan et al. 2019, section 3.1).

        y = x outside [-bound, bound]. Inside, knots divide the interval into bins of x and of y, and in
        the bin from the knot (x0, y0), with derivative d0, to (x0 + width, y0 + height), with d1:

        xi = (x - x0) / width, s = height / width, t = xi (1 - xi)
        y  = y0 + height g,   g = (s xi^2 + d0 t) / q,   q = s (1 - 2t) + (d0 + d1) t

    inverse     a quadratic equation for xi: with eta = (y - y0) / height, u = d0 (1 - eta) - d1 eta and
                r = |u| + sqrt(u^2 + 4 s^2 eta (1 - eta)),
                xi = 2 s eta / (2 s eta + r) for u > 0, otherwise r / (r + 2 s (1 - eta))
    log_det     the sum over pixels and channels of log dy/dx = log(p s^2 / q^2), where
                p = d0 (1 - xi)^2 + 2 s t + d1 xi^2
    backward    by the chain rule through xi, s, d0 and d1, then through widths, heights and corners, of
                which each is the sum of the sizes before it: docs/derivations/spline.md
    initialize  nothing is set from data; raw = 0 at first, the identity.

    raw         (C, 3 bins - 1), for each channel
                    bins widths      2 bound (0.001 + (1 - 0.001 bins) softmax(raw))
                    bins heights     in the same way
                    bins - 1 inner derivatives   0.001 + softplus(raw + c), with c such that 0 becomes 1
    channels    C
    bins        2 to 100
    bound       beyond it lies the identity. Put the layer behind one that standardizes its input.

    The derivatives at -bound and bound are 1, so that y and dy/dx are continuous everywhere.

    >>> layer = minglow.Spline(channels=1, bins=2, bound=1.0, dtype=np.float64)
    >>> layer.params["raw"][...] = 0, 0, 0, 0, 1  # a larger derivative at the middle knot
    >>> layer.forward(np.array([[0.0], [0.5], [2.0]]))[0].ravel().round(3)
    array([0.   , 0.578, 2.   ])
    """

    def __init__(self, channels: int, bins: int = 8, bound: float = 4.0,
                 dtype: type = np.float32) -> None:
        super().__init__()
        channels = validation.check_count("channels", channels)
        bins = validation.check_count("bins", bins, 2, MAX_BINS)
        self.bound = validation.check_number("bound", bound, above=0.0)
        self.add_param("raw", np.zeros((channels, 3 * bins - 1), dtype))

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        check_input(self, x, len(self.params["raw"]))
        y, log_derivative, cache = spline(x, self.params["raw"], self.bound)
        return y, log_derivative.reshape(len(x), -1).sum(axis=1), cache

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, y, len(self.params["raw"]))
        return spline_inverse(y, self.params["raw"], self.bound)

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        check_dlog_det(self, dlog_det, dy)
        dx, draw = spline_backward(dy, dlog_det.reshape(-1, *[1] * (dy.ndim - 1)), cache)
        self.grads["raw"] += draw
        return dx

    def scales(self, x: np.ndarray) -> np.ndarray:
        """dy/dx of each element, (B, P, C); P is the number of pixels."""
        return np.exp(flat_pixels(spline(x, self.params["raw"], self.bound)[1]))
