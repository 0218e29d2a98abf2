"""Fixed permutations of the channels: what NICE, RealNVP and Glow's ablation mix with. Floor 2."""

from __future__ import annotations

from typing import Any

import numpy as np

from minglow.arrays import check_input, zero_log_det
from minglow.bijection import Bijection


class Shuffle(Bijection):
    r"""A random order of the channels that stays as it was drawn.

        y_..c = x_..order[c]                 order: (C,), saved with the parameters

    log_det   A permutation's determinant is 1 or -1: log|det J| = 0.
    backward  dL/dx_..order[c] = dL/dy_..c, the permutation's transpose, which is its inverse.
    """

    def __init__(self, channels: int, rng: int | np.random.Generator | None = None,
                 dtype: type = np.float32) -> None:
        super().__init__()
        self.constants["order"] = np.random.default_rng(rng).permutation(channels)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        check_input(self, x, len(self.constants["order"]))
        return x[..., self.constants["order"]], zero_log_det(x), None

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, y, len(self.constants["order"]))
        return self._put_back(y), None

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        return self._put_back(dy)

    def _put_back(self, y: np.ndarray) -> np.ndarray:
        return y[..., np.argsort(self.constants["order"])]


class Reverse(Shuffle):
    """The channels in reverse order, as RealNVP alternates its halves; otherwise a Shuffle."""

    def __init__(self, channels: int, rng: int | np.random.Generator | None = None,
                 dtype: type = np.float32) -> None:
        super().__init__(channels, rng, dtype)
        self.constants["order"] = np.arange(channels)[::-1].copy()
