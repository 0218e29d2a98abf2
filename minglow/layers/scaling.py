"""Diagonal scaling: the one layer of NICE that changes volume."""

from typing import Any

import numpy as np

from minglow import validation
from minglow.arrays.shapes import check_dlog_det, check_input, constant_log_det, pixels, rows
from minglow.bijection import Bijection


class Scaling(Bijection):
    r"""A positive factor for every channel (Dinh et al. 2015, NICE, section 3.3).

        y_..c = x_..c * exp(log_scale_c)     log_scale: (C,)

    inverse     x_..c = y_..c * exp(-log_scale_c)
    log_det     log|det J| = h * w * sum_c log_scale_c, the same for all B samples.
    backward    dL/dx = dL/dy * exp(log_scale)
                dL/dlog_scale = sum dL/dy * y + (sum_b dL/dlog_det_b) * h * w
    initialize  nothing is set from data; log_scale = 0 at first.

    channels    C

    Additive couplings preserve volume, so this layer decides how much variance each latent explains.

    >>> layer = minglow.Scaling(2, np.float64)
    >>> layer.params["log_scale"][...] = 1.0, -3.0
    >>> layer.forward(np.ones((1, 2)))[1]  # log_det
    array([-2.])
    """

    def __init__(self, channels: int, dtype: type = np.float32) -> None:
        super().__init__()
        self.add_param("log_scale", np.zeros(validation.check_count("channels", channels), dtype))

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        log_scale = self.params["log_scale"]
        check_input(self, x, len(log_scale))
        y = x * np.exp(log_scale)
        return y, constant_log_det(x, pixels(x) * log_scale.sum()), y

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, y, len(self.params["log_scale"]))
        return y * np.exp(-self.params["log_scale"]), y

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        y = cache
        check_dlog_det(self, dlog_det, dy)
        self.grads["log_scale"] += np.einsum("nc,nc->c", rows(dy), rows(y)) + dlog_det.sum() * pixels(y)
        return dy * np.exp(self.params["log_scale"])
