"""Rearrangements of a sample: squeeze trades resolution for channels, flatten makes a vector."""

from math import prod
from typing import Any

import numpy as np

from minglow import validation
from minglow.arrays.shapes import check_dlog_det, check_images, check_input, check_samples, zero_log_det
from minglow.bijection import Bijection


class Squeeze(Bijection):
    r"""Every 2x2 block of pixels becomes one pixel (Dinh et al. 2017, section 3.6).

        y[b, i, j, 4c + 2di + dj] = x[b, 2i + di, 2j + dj, c]      (B, h, w, C) -> (B, h/2, w/2, 4C)

    inverse     x[b, 2i + di, 2j + dj, c] = y[b, i, j, 4c + 2di + dj]
    log_det     The elements are permuted: log|det J| = 0.
    backward    dL/dx is dL/dy, permuted back as in the inverse.

    Raises ValueError for arrays that are not images, for an odd height or width, and in inverse for a
    number of channels that 4 does not divide.

    >>> x = np.arange(8.0).reshape(1, 2, 4, 1)
    >>> minglow.Squeeze().forward(x)[0]
    array([[[[0., 1., 4., 5.],
             [2., 3., 6., 7.]]]])
    """

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        check_images(self, x, divisible_by=(2, 2, 1))
        batch, height, width, channels = x.shape
        blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        y = blocks.transpose(0, 1, 3, 5, 2, 4).reshape(batch, height // 2, width // 2, 4 * channels)
        return y, zero_log_det(x), None

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        check_images(self, y, divisible_by=(1, 1, 4))
        return self._unsqueeze(y), None

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        check_dlog_det(self, dlog_det, dy)
        return self._unsqueeze(dy)

    @staticmethod
    def _unsqueeze(y: np.ndarray) -> np.ndarray:
        batch, height, width, channels = y.shape
        blocks = y.reshape(batch, height, width, channels // 4, 2, 2)
        return blocks.transpose(0, 1, 4, 2, 5, 3).reshape(batch, 2 * height, 2 * width, channels // 4)


class Flatten(Bijection):
    r"""An array as one vector of latents.

        y[b] = x[b].ravel()                  (B, *shape) -> (B, D), D the product of shape

    inverse     x[b] = y[b].reshape(shape)
    log_det     The elements are the same: log|det J| = 0.
    backward    dL/dx is dL/dy, reshaped as in the inverse.

    Raises ValueError for arrays of another shape.

    >>> minglow.Flatten((2, 2, 1)).forward(np.zeros((5, 2, 2, 1)))[0].shape
    (5, 4)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = validation.check_shape(shape)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        check_samples(self, x, self.shape)
        return x.reshape(len(x), -1), zero_log_det(x), None

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, y, prod(self.shape))
        return y.reshape(len(y), *self.shape), None

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        check_dlog_det(self, dlog_det, dy)
        return dy.reshape(len(dy), *self.shape)
