"""Derivatives by finite differences, which analytic derivatives are compared with."""

from collections.abc import Callable
from typing import Any

import numpy as np

# A shorter step has larger rounding errors; a longer one meets more of the ReLUs' kinks.
STEP = 3e-5


class NotSmooth(ArithmeticError):
    """Finite differences with two step sizes disagree: a kink or a jump lies within a step."""


def directional_derivative(f: Callable[[np.ndarray], Any], x: np.ndarray, v: np.ndarray,
                           step: float = STEP) -> Any:
    """The derivative of f at x along v, d/dt f(x + t v) at t = 0; f returns a number or an array.

        wide = (f(x + s v) - f(x - s v)) / 2s        narrow: the same with s/2
        derivative = (4 narrow - wide) / 3           Richardson: the error is of order s^4

    Use float64: the rounding of float32 exceeds the differences. Raises NotSmooth where a ReLU's kink
    or a jump lies within a step. A kink at x itself leaves wide and narrow equal; it shows in the
    bends (f(x + s v) - 2 f(x) + f(x - s v)) / s, which halve with s where f is smooth.
    """
    half = step / 2
    middle, ahead, behind = f(x), f(x + step * v), f(x - step * v)
    half_ahead, half_behind = f(x + half * v), f(x - half * v)
    wide, narrow = (ahead - behind) / (2 * step), (half_ahead - half_behind) / step
    bend = (ahead - 2 * middle + behind) / step
    half_bend = (half_ahead - 2 * middle + half_behind) / half
    gap = float(max(np.max(np.abs(wide - narrow)), np.max(np.abs(bend - 2 * half_bend))))
    # Not `>`, so that NaN raises. The second term is the rounding of the differences.
    if not gap <= 1e-7 * np.max(np.abs(wide)) + 1e-9 * (1 + np.max(np.abs(middle))):
        raise NotSmooth(f"finite differences with steps {step:g} and {half:g} differ by {gap:.2g}")
    return (4 * narrow - wide) / 3


def numerical_jacobian(forward: Callable[[np.ndarray], Any], x: np.ndarray,
                       step: float = STEP) -> np.ndarray:
    """The Jacobian (D_out, D_in) at one sample x of a function of batches, such as layer.forward.

    forward: (B, *x.shape) -> y, (B, ...), or a tuple that begins with y. Entry [i, j] is dy_i/dx_j, in C
    order. forward is called five times on batches of D_in samples. Raises NotSmooth.
    """

    def y(points: np.ndarray) -> np.ndarray:
        result = forward(points)
        return result[0] if isinstance(result, tuple) else result

    units = np.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
    return directional_derivative(y, x[None], units, step).reshape(x.size, -1).T


def taylor_slope(f: Callable[[np.ndarray], float], x: np.ndarray, v: np.ndarray,
                 derivative: float, steps: tuple[float, ...] = (4e-3, 2e-3, 1e-3, 5e-4)) -> float:
    """The fitted order of f's Taylor remainder along v: 2 if `derivative` is right, less if not.

        remainder(s) = |f(x + s v) - f(x) - s * derivative|        slope of log remainder over log s

    A wrong derivative gives 1 if the steps are short enough; for one that is wrong by 1%, the default
    steps may give 1.6. Returns infinity where the remainder is only rounding, as for a linear f.
    """
    remainders = np.array([abs(f(x + s * v) - f(x) - s * derivative) for s in steps])
    if np.all(remainders <= 1e-12 * (1 + abs(f(x)))):
        return np.inf
    return float(np.polyfit(np.log(steps), np.log(remainders), 1)[0])
