"""Fixed permutations of the channels: how NICE, RealNVP and Glow's ablation mix them."""

from typing import Any

import numpy as np

from minglow.arrays.shapes import check_dlog_det, check_input, zero_log_det
from minglow.bijection import Bijection, Rng
from minglow.validation import check_count


class Permutation(Bijection):
    r"""The channels in another order.

        y_..c = x_..order[c]                 order: (C,), a constant that is saved with the parameters

    inverse     x_..order[c] = y_..c
    log_det     A permutation's determinant is 1 or -1: log|det J| = 0.
    backward    dL/dx_..order[c] = dL/dy_..c: a permutation's transpose is its inverse.

    Raises ValueError unless the order holds each of 0 .. C-1 once.

    >>> minglow.Permutation([2, 0, 1]).forward(np.array([[0.0, 10.0, 20.0]]))[0]
    array([[20.,  0., 10.]])
    """

    def __init__(self, order: np.ndarray) -> None:
        super().__init__()
        self.constants["order"] = np.array(order)
        self.check_constants(self.constants)

    def check_constants(self, constants: dict[str, np.ndarray]) -> None:
        check_order(constants["order"])

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        check_input(self, x, len(self.constants["order"]))
        return x[..., self.constants["order"]], zero_log_det(x), None

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, y, len(self.constants["order"]))
        return y[..., np.argsort(self.constants["order"])], None

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        check_dlog_det(self, dlog_det, dy)
        return dy[..., np.argsort(self.constants["order"])]


class Shuffle(Permutation):
    """A random order, drawn once: Glow's "fixed shuffle" (Kingma & Dhariwal 2018, section 5).

    >>> sorted(minglow.Shuffle(4, rng=0).constants["order"].tolist())
    [0, 1, 2, 3]
    """

    def __init__(self, channels: int, rng: Rng = None, dtype: type = np.float32) -> None:
        super().__init__(np.random.default_rng(rng).permutation(check_count("channels", channels)))


class Reverse(Permutation):
    """The channels in reverse order, as in NICE and in Glow's ablation (section 5).

    >>> minglow.Reverse(4).constants["order"].tolist()
    [3, 2, 1, 0]
    """

    def __init__(self, channels: int, rng: Rng = None, dtype: type = np.float32) -> None:
        super().__init__(np.arange(check_count("channels", channels))[::-1])


class Swap(Permutation):
    """The second half of the channels first: each coupling changes what the one before it did not.

    >>> minglow.Swap(4).constants["order"].tolist()
    [2, 3, 0, 1]
    """

    def __init__(self, channels: int, rng: Rng = None, dtype: type = np.float32) -> None:
        super().__init__(np.roll(np.arange(check_count("channels", channels)), channels // 2))


class EvenOdd(Permutation):
    """Channels 0, 2, 4, ... first, then 1, 3, 5, ...: NICE's halves (Dinh et al. 2015, section 5.1).

    >>> minglow.EvenOdd(5).constants["order"].tolist()
    [0, 2, 4, 1, 3]
    """

    def __init__(self, channels: int, rng: Rng = None, dtype: type = np.float32) -> None:
        super().__init__(np.argsort(np.arange(check_count("channels", channels)) % 2, kind="stable"))


def check_order(order: np.ndarray) -> None:
    """Raise ValueError unless an order (C,) holds each of 0 .. C-1 once."""
    if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(len(order))):
        raise ValueError(f"expected an order that holds each channel once, got {order.tolist()}")
