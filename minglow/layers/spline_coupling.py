"""A coupling whose net determines rational-quadratic splines."""

from typing import Any

import numpy as np

from minglow import validation
from minglow.arrays.shapes import check_dlog_det, join, split
from minglow.bijection import Net
from minglow.layers.coupling import Coupling, flat_pixels
from minglow.layers.spline import MAX_BINS, spline, spline_backward, spline_inverse


class SplineCoupling(Coupling):
    r"""Rational-quadratic spline coupling (Durkan et al. 2019, sections 3.1 and 3.2).

        x1, x2 = split(x)           net: (B, h, w, C1) -> (B, h, w, (3 bins - 1) C2)
        y1 = x1
        y2 = spline(x2; net(x1))    Spline's function, with its own spline for each element of x2

    inverse     x1 = y1, and x2 is the inverse function of y2, with the splines from net(y1)
    log_det     dy/dx is block triangular, its diagonal blocks I and diag(dy2/dx2):
                log|det J_b| = sum over pixels and channels of log dy2_b/dx2_b.
    backward    the splines' derivatives give dL/dx2 and dL/dnet from dL/dy2 and dL/dlog_det
                dL/dx1 = dL/dy1 + (dnet/dx1)^T dL/dnet

    net         the first 3 bins - 1 channels of its output are the raw of x2's first channel, the next
                3 bins - 1 those of the second; each raw holds widths, heights and derivatives
    bins        2 to 100
    bound       elements of x2 beyond it do not change

    The other arguments and the errors are Coupling's. A net whose output is 0 gives the identity.

    >>> layer = minglow.SplineCoupling(minglow.nets.mlp(1, 8, 5, rng=0, dtype=np.float64), bins=2)
    >>> layer.net.nets[-1].params["bias"][...] = 0, 0, 0, 0, 1  # a larger derivative at the middle
    >>> layer.forward(np.array([[1.0, 0.0], [1.0, 2.0]]))[0].round(3)
    array([[1.  , 0.  ],
           [1.  , 2.31]])
    """

    net_outputs = 23  # with the default bins

    def __init__(self, net: Net, bins: int = 8, bound: float = 4.0,
                 identity_channels: int | None = None) -> None:
        super().__init__(net, identity_channels)
        self.net_outputs = 3 * validation.check_count("bins", bins, 2, MAX_BINS) - 1
        self.bound = validation.check_number("bound", bound, above=0.0)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        x1, x2, raw, net_cache = self._split_and_raw(x)
        y2, log_derivative, cache = spline(x2, raw, self.bound)
        return join(x1, y2), log_derivative.reshape(len(x), -1).sum(axis=1), (net_cache, cache)

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        y1, y2, raw, net_cache = self._split_and_raw(y)
        x2, cache = spline_inverse(y2, raw, self.bound)
        return join(y1, x2), (net_cache, cache)

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        net_cache, spline_cache = cache
        check_dlog_det(self, dlog_det, dy)
        dy1, dy2 = split(dy, self.identity_channels)
        dx2, draw = spline_backward(dy2, dlog_det.reshape(-1, *[1] * (dy.ndim - 1)), spline_cache)
        return join(dy1 + self.net.backward(draw.reshape(*dy.shape[:-1], -1), net_cache), dx2)

    def scales(self, x: np.ndarray) -> np.ndarray:
        """dy2/dx2 of each element of x2, (B, P, C2); P is the number of pixels."""
        _, x2, raw, _ = self._split_and_raw(x)
        return np.exp(flat_pixels(spline(x2, raw, self.bound)[1]))

    def _split_and_raw(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
        """x1 and x2, the net's output as (..., C2, 3 bins - 1), and the net's cache."""
        x1, x2, h, net_cache = self._condition(x)
        return x1, x2, h.reshape(*x2.shape, self.net_outputs), net_cache
