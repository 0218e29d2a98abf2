"""Fixed permutations of the channels: what NICE, RealNVP and Glow's ablation mix with. Floor 2."""

from __future__ import annotations

from typing import Any

import numpy as np

from minglow import arguments
from minglow.arrays import check_input, zero_log_det
from minglow.bijection import Bijection


class Permutation(Bijection):
    r"""The channels in another order.

        y_..c = x_..order[c]                 order: (C,), saved with the parameters

    log_det   A permutation's determinant is 1 or -1: log|det J| = 0.
    backward  dL/dx_..order[c] = dL/dy_..c, the permutation's transpose, which is its inverse.

    Raises ValueError unless the order holds each of 0 .. C-1 once.
    """

    def __init__(self, order: np.ndarray) -> None:
        super().__init__()
        order = np.array(order)
        if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(len(order))):
            raise ValueError(f"expected an order that holds each channel once, got {order.tolist()}")
        self.constants["order"] = order

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


class Shuffle(Permutation):
    """A random order that stays as it was drawn."""

    def __init__(self, channels: int, rng: int | np.random.Generator | None = None,
                 dtype: type = np.float32) -> None:
        super().__init__(np.random.default_rng(rng).permutation(arguments.count("channels", channels)))


class Reverse(Permutation):
    """The channels in reverse order: Glow's account of how RealNVP alternates its halves."""

    def __init__(self, channels: int, rng: int | np.random.Generator | None = None,
                 dtype: type = np.float32) -> None:
        super().__init__(np.arange(arguments.count("channels", channels))[::-1])


class Swap(Permutation):
    """The second half of the channels first: what one coupling changed, the next lets pass."""

    def __init__(self, channels: int, rng: int | np.random.Generator | None = None,
                 dtype: type = np.float32) -> None:
        order = np.arange(arguments.count("channels", channels))
        super().__init__(np.roll(order, channels // 2))


class EvenOdd(Permutation):
    """Channels 0, 2, 4, ... first, then 1, 3, 5, ...: NICE's halves (Dinh et al. 2015, section 5.1)."""

    def __init__(self, channels: int, rng: int | np.random.Generator | None = None,
                 dtype: type = np.float32) -> None:
        arguments.count("channels", channels)
        super().__init__(np.r_[0:channels:2, 1:channels:2])
