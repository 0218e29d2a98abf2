"""Activation normalization: a shift and a scale for each channel."""

from typing import Any

import numpy as np

from minglow import kernels, validation
from minglow.arrays.shapes import check_dlog_det, check_input, constant_log_det, pixels, rows
from minglow.bijection import Bijection


class ActNorm(Bijection):
    r"""Shift and scale of every channel (Kingma & Dhariwal 2018, section 3.1).

        y_bijc = (x_bijc + shift_c) * exp(f log_scale_c)     shift, log_scale: (C,)

    inverse     x_bijc = y_bijc * exp(-f log_scale_c) - shift_c
    log_det     log|det J| = h * w * sum_c f log_scale_c, the same for all B samples
    backward    dL/dx = dL/dy * exp(f log_scale)
                dL/dshift = sum_bij dL/dx
                dL/dlog_scale = f [sum_bij dL/dy * y + (sum_b dL/dlog_det_b) * h * w]
    initialize  each channel gets mean 0 and (biased) variance 1 over the batch. A channel that is
                constant there gets log_scale = 0.

    channels    C
    factor      f: 1 in the paper, 3 in the official code. The family of maps is the same; with 3 the
                scales change three times as fast in training.

    Unlike batch normalization it maps each sample independently of the batch, so it is a bijection.

    >>> x = np.array([[1.0, 5.0], [3.0, 9.0]])
    >>> minglow.ActNorm(2, np.float64).initialize(x)
    array([[-1., -1.],
           [ 1.,  1.]])
    """

    def __init__(self, channels: int, dtype: type = np.float32, factor: float = 1.0) -> None:
        super().__init__()
        channels, self.factor = validation.check_count("channels", channels), float(factor)
        self.add_param("shift", np.zeros(channels, dtype))
        self.add_param("log_scale", np.zeros(channels, dtype))

    def log_scale(self) -> np.ndarray:
        """f log_scale, (C,): the logarithm of each channel's scale."""
        return self.factor * self.params["log_scale"]

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        shift, log_scale = self.params["shift"], self.log_scale()
        check_input(self, x, len(shift))
        y = kernels.shift_scale(rows(x), shift, np.exp(log_scale)).reshape(x.shape)
        return y, constant_log_det(x, pixels(x) * log_scale.sum()), y

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        shift, log_scale = self.params["shift"], self.log_scale()
        check_input(self, y, len(shift))
        # y / scale - shift, in the form that the kernel has
        x = kernels.shift_scale(rows(y), -shift * np.exp(log_scale), np.exp(-log_scale))
        return x.reshape(y.shape), y

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        y = cache
        check_dlog_det(self, dlog_det, dy)
        scale = np.exp(self.log_scale())
        dx, dshift, dlog_scale = kernels.shift_scale_backward(rows(dy), rows(y), scale)
        self.grads["shift"] += dshift
        self.grads["log_scale"] += self.factor * (dlog_scale + dlog_det.sum() * pixels(y))
        return dx.reshape(dy.shape)

    def initialize(self, x: np.ndarray) -> np.ndarray:
        check_input(self, x, len(self.params["shift"]))
        mean, std = rows(x).mean(axis=0, dtype=np.float64), rows(x).std(axis=0, dtype=np.float64)
        # A constant channel's deviation is rounding only: relative to its values, or absolutely.
        constant = std <= 10 * np.finfo(x.dtype).eps * np.maximum(1, np.abs(mean))
        self.params["shift"][...] = -mean
        self.params["log_scale"][...] = -np.log(np.where(constant, 1, std)) / self.factor
        return self.forward(x)[0]
