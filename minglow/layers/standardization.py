"""Standardization: an affine map that data set, and that training does not change."""

from typing import Any

import numpy as np

from minglow import validation
from minglow.arrays.shapes import check_dlog_det, check_input, constant_log_det, pixels, rows
from minglow.bijection import Bijection


class Standardization(Bijection):
    r"""Mean 0 and standard deviation 1 for every channel, by constants that data have set.

        y_..c = (x_..c - mean_c) / std_c     mean, std: (C,), constants in float64

    inverse     x_..c = y_..c * std_c + mean_c
    log_det     log|det J| = -h * w * sum_c log std_c, the same for all B samples
    backward    dL/dx = dL/dy / std; there are no parameters.
    initialize  mean and (biased) std of the batch. A channel that is constant there gets std = 1.

    channels    C

    The constants are saved with a flow, so its densities are those of the data in their own units. An
    ActNorm begins as the same map, but training changes it. Raises ValueError for a std that is not
    positive.

    >>> layer = minglow.Standardization(2)
    >>> layer.initialize(np.array([[1.0, 50.0], [3.0, 90.0]]))
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> layer.forward(np.ones((1, 2)))[1].round(3), -np.log([1 * 20]).round(3)  # log_det
    (array([-2.996]), array([-2.996]))
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        channels = validation.check_count("channels", channels)
        self.constants.update(mean=np.zeros(channels), std=np.ones(channels))

    def check_constants(self, constants: dict[str, np.ndarray]) -> None:
        if not (constants["std"] > 0).all():
            raise ValueError("expected positive standard deviations, got others")

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        mean, std = self.constants["mean"], self.constants["std"]
        check_input(self, x, len(mean))
        y = ((x - mean) / std).astype(x.dtype)
        return y, constant_log_det(x, -pixels(x) * np.log(std).sum()), None

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        mean, std = self.constants["mean"], self.constants["std"]
        check_input(self, y, len(mean))
        return (y * std + mean).astype(y.dtype), None

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        check_dlog_det(self, dlog_det, dy)
        return (dy / self.constants["std"]).astype(dy.dtype)

    def initialize(self, x: np.ndarray) -> np.ndarray:
        check_input(self, x, len(self.constants["mean"]))
        self.constants["mean"][...], self.constants["std"][...] = mean_and_std(rows(x))
        return self.forward(x)[0]


def mean_and_std(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the (biased) standard deviation of each column of x (N, C), (C,) float64.

    A constant column, whose deviation is rounding only, gets 1.
    """
    mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    return mean, np.where(std <= 10 * np.finfo(x.dtype).eps * np.abs(mean), 1, std)
