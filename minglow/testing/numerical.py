"""Derivatives by finite differences, which analytic derivatives are compared with."""

from collections.abc import Callable
from typing import Any

import numpy as np

# A shorter step has larger rounding errors; a longer one meets more kinks of ReLUs. The shorter ones
# are tried where the map is strongly curved or a kink is near.
STEPS = 3e-5, 3e-6, 3e-7
SMOOTH = 1e-6  # the largest error of a derivative that is compared, relative to the largest derivative


class NotSmooth(ArithmeticError):
    """Finite differences with two step sizes disagree: a kink or a jump lies within a step."""


def estimate_derivative(f: Callable[[np.ndarray], Any], x: np.ndarray, v: np.ndarray,
                        step: float) -> tuple[Any, Any, Any]:
    """d/dt f(x + t v) at t = 0, a bound on its error, and whether f is smooth, each of f's shape.

        wide = (f(x + s v) - f(x - s v)) / 2s        narrow: the same with s/2
        derivative = (4 narrow - wide) / 3           Richardson: the error is of order s^4

    A kink or a jump within the step shows in |wide - narrow|. A kink at x itself leaves the two equal;
    it shows in the bends (f(x + s v) - 2 f(x) + f(x - s v)) / s, which halve with s where f is smooth.
    The error's bound is the sum of both gaps and of the rounding of f. Use float64.
    """
    half = step / 2
    middle, ahead, behind = f(x), f(x + step * v), f(x - step * v)
    half_ahead, half_behind = f(x + half * v), f(x - half * v)
    wide, narrow = (ahead - behind) / (2 * step), (half_ahead - half_behind) / step
    bend = (ahead - 2 * middle + behind) / step
    half_bend = (half_ahead - 2 * middle + half_behind) / half
    gap = np.abs(wide - narrow) + np.abs(bend - 2 * half_bend)
    rounding = 4 * np.finfo(np.float64).eps * (1 + np.max(np.abs(middle))) / step
    smooth = gap <= SMOOTH * np.max(np.abs(wide)) + 10 * rounding  # False for NaN
    return (4 * narrow - wide) / 3, gap + rounding, smooth


def directional_derivative(f: Callable[[np.ndarray], Any], x: np.ndarray, v: np.ndarray,
                           steps: tuple[float, ...] = STEPS) -> Any:
    """The derivative of f at x along v, d/dt f(x + t v) at t = 0; f returns a number or an array.

    Central differences with Richardson's extrapolation and the first of the steps within which f is
    smooth. Raises NotSmooth where a ReLU's kink or a jump lies within the shortest step, too.
    """
    for step in steps:
        value, error, smooth = estimate_derivative(f, x, v, step)
        if np.all(smooth):
            return value
    raise NotSmooth(f"finite differences with steps {step:g} and {step / 2:g} differ by "
                    f"{np.max(error):.2g}")


def numerical_jacobian(forward: Callable[[np.ndarray], Any], x: np.ndarray,
                       steps: tuple[float, ...] = STEPS) -> np.ndarray:
    """The Jacobian (D_out, D_in) at one sample x of a function of batches, such as layer.forward.

    forward: (B, *x.shape) -> y, (B, ...), or a tuple that begins with y. Entry [i, j] is dy_i/dx_j, in C
    order. forward is called five times for each step on batches of D_in samples. Raises NotSmooth.
    """
    return directional_derivative(*_columns(forward, x), steps).reshape(x.size, -1).T


def _columns(forward: Callable[[np.ndarray], Any], x: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
    """The arguments f, x, v of directional_derivative for the Jacobian's columns."""

    def y(points: np.ndarray) -> np.ndarray:
        result = forward(points)
        return result[0] if isinstance(result, tuple) else result

    return y, x[None], np.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)


def numerical_log_det(forward: Callable[[np.ndarray], Any], x: np.ndarray) -> tuple[float, float]:
    """log|det| of the Jacobian at one sample x, and a bound on its error. Raises NotSmooth.

    An error E of the Jacobian J changes log|det J| by trace(J^-1 E), so the bound is the sum of
    |J^-1| * |E|^T over all entries: it grows with the dimension and with J's condition number.
    """
    arguments = _columns(forward, x)
    for step in STEPS:
        value, error, smooth = estimate_derivative(*arguments, step)
        transposed, error = (part.reshape(x.size, -1) for part in (value, error))
        if np.all(smooth):
            log_det = float(np.linalg.slogdet(transposed)[1])
            if np.isneginf(log_det):
                return log_det, 0.0
            return log_det, float(np.sum(np.abs(np.linalg.inv(transposed)) * error.T))
    raise NotSmooth(f"a kink or a jump lies within a step of {step:g}")


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
