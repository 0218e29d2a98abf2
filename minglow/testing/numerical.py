"""Derivatives from function values alone: what analytic ones are compared with. Floor 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

# Rounding errors of differences grow as the step shrinks, the ReLU's kinks met as it grows.
STEP = 3e-5


class NotSmooth(ArithmeticError):
    """Differences of two step sizes disagree: a kink, or a jump, lies between them."""


def directional_derivative(f: Callable[[np.ndarray], Any], x: np.ndarray, v: np.ndarray,
                           step: float = STEP) -> Any:
    """The derivative of f at x along v, d/dt f(x + t v) at t = 0; f returns a number or an array.

        wide = (f(x + s v) - f(x - s v)) / 2s        narrow: the same with s/2
        derivative = (4 narrow - wide) / 3           Richardson: the error is of order s^4

    Raises NotSmooth where wide and narrow disagree, as at a ReLU's kink: there is no derivative
    to be had from differences.
    """
    wide = (f(x + step * v) - f(x - step * v)) / (2 * step)
    narrow = (f(x + step / 2 * v) - f(x - step / 2 * v)) / step
    if not np.allclose(wide, narrow, rtol=1e-5, atol=1e-7 * (1 + np.max(np.abs(wide)))):
        gap = float(np.max(np.abs(wide - narrow)))
        raise NotSmooth(f"differences with steps {step:g} and {step / 2:g} differ by {gap:.2g}")
    return (4 * narrow - wide) / 3


def numerical_jacobian(forward: Callable[[np.ndarray], Any], x: np.ndarray,
                       step: float = STEP) -> np.ndarray:
    """The Jacobian (D_out, D_in) at one sample x of a function of batches, such as layer.forward.

    forward: (B, *x.shape) -> y, (B, ...), or a tuple that begins with y. Entry [i, j] is
    dy_i/dx_j; samples and results are flattened in C order. All D_in unit vectors make one batch,
    and so forward is called four times. Raises NotSmooth as directional_derivative does.
    """

    def y(points: np.ndarray) -> np.ndarray:
        result = forward(points)
        return result[0] if isinstance(result, tuple) else result

    units = np.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
    columns = directional_derivative(y, x[None], units, step)
    return columns.reshape(x.size, -1).T


def taylor_slope(f: Callable[[np.ndarray], float], x: np.ndarray, v: np.ndarray,
                 derivative: float, steps: tuple[float, ...] = (4e-3, 2e-3, 1e-3, 5e-4)) -> float:
    """The fitted order of f's Taylor remainder along v: 2 if `derivative` is right, 1 if it is not.

        remainder(s) = |f(x + s v) - f(x) - s * derivative|        slope of its log by log s

    Returns infinity where the remainder is rounding alone, as for a linear f.
    """
    remainders = np.array([abs(f(x + s * v) - f(x) - s * derivative) for s in steps])
    if np.all(remainders <= 1e-12 * (1 + abs(f(x)))):
        return np.inf
    return float(np.polyfit(np.log(steps), np.log(remainders), 1)[0])
