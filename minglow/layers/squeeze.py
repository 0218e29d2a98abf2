"""Squeeze: trade resolution for channels. Floor 2."""

from __future__ import annotations

from typing import Any

import numpy as np

from minglow.arrays import check_input, zero_log_det
from minglow.bijection import Bijection


class Squeeze(Bijection):
    r"""Every 2x2 block of pixels becomes one pixel (Dinh et al. 2017, section 3.6).

        y[b, i, j, 4c + 2di + dj] = x[b, 2i + di, 2j + dj, c]      (B, h, w, C) -> (B, h/2, w/2, 4C)

    log_det   The numbers move and none changes: log|det J| = 0.
    backward  dL/dx is dL/dy, moved back.

    Raises ValueError for arrays that are not images, and for odd heights or widths.
    """

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        check_input(self, x)
        if x.ndim != 4 or x.shape[1] % 2 or x.shape[2] % 2:
            raise ValueError(
                f"{self} expected images (B, h, w, C) of even height and width, got {x.shape}"
            )
        batch, height, width, channels = x.shape
        blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        y = blocks.transpose(0, 1, 3, 5, 2, 4).reshape(batch, height // 2, width // 2, 4 * channels)
        return y, zero_log_det(x), None

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, y)
        if y.ndim != 4 or y.shape[3] % 4:
            raise ValueError(
                f"{self} expected images (B, h, w, 4C), got {y.shape}"
            )
        return self._spread(y), None

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        return self._spread(dy)

    @staticmethod
    def _spread(y: np.ndarray) -> np.ndarray:
        batch, height, width, channels = y.shape
        blocks = y.reshape(batch, height, width, channels // 4, 2, 2)
        return blocks.transpose(0, 1, 4, 2, 5, 3).reshape(batch, 2 * height, 2 * width, channels // 4)
