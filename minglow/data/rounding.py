"""Rounded columns of a table, and the noise that gives them a density.

Rounded values have no density: a flow that puts narrow peaks on them has a likelihood without bound.
Uniform noise of the width of a step fills the gaps, as for images (Theis et al. 2016, section 3.1).
"""

import numpy as np
from numpy.typing import ArrayLike

from minglow.bijection import Rng
from minglow.data.table import check_samples, column_name, value_fault

DISTINCT = 0.9  # a column is rounded only if the fraction of distinct values is below
MAX_LOG_CHANCE = -10.0  # that values which are not rounded would pass for multiples of a step


def rounding_steps(x: np.ndarray) -> np.ndarray:
    """The step to which each column of x (N, D) is rounded, (D,) float64; 0 for a continuous column.

    A column is rounded if all values are multiples of a step, up to the resolution of float64 or
    float32, and more than a tenth of the rows repeat a value of another row. The step is the largest
    one. Raises ValueError.
    """
    if fault := value_fault(check_samples("x", x)):
        raise ValueError(fault)
    return np.array([_column_step(column) for column in x.T])


def dither(x: np.ndarray, steps: ArrayLike, rng: Rng = 0) -> np.ndarray:
    """x (N, D) plus uniform noise from -step/2 to step/2, with a step for each column: (D,).

    The result has the dtype of x. Raises ValueError for a step that the dtype cannot resolve.
    """
    steps = np.asarray(steps, np.float64)
    resolution = np.spacing(np.abs(check_samples("x", x)).max(axis=0))
    if steps.shape != x.shape[1:] or not np.all((steps >= 0) & (steps < np.inf)):
        raise ValueError(f"expected {x.shape[1]} finite steps of at least 0, got {steps.tolist()}")
    too_small = (steps > 0) & (steps < 4 * resolution)
    if too_small.any():
        j = int(too_small.argmax())
        raise ValueError(f"{x.dtype} cannot resolve noise of {steps[j]:g} in {column_name((), j)}: "
                         "subtract its mean, or use float64")
    noise = steps * (np.random.default_rng(rng).random(x.shape) - 0.5)
    return (x + noise).astype(x.dtype)


def _column_step(column: np.ndarray) -> float:
    values = np.unique(column).astype(np.float64)
    if len(values) >= DISTINCT * len(column) or not values.any():
        return 0.0
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        step = _common_step(values, np.finfo(column.dtype).eps)
        if not step and np.all(values == values.astype(np.float32)):
            step = _common_step(values, np.finfo(np.float32).eps)
    return step


def _common_step(values: np.ndarray, eps: float) -> float:
    """The largest step of which all values (n,) are multiples; 0 if there is none.

    The values are distinct, not all zero, and have a relative error of eps. Steps are whole multiples
    of a power of ten, or else the smallest gap between two values, for example 1/255.
    """
    largest = np.abs(values).max()
    gap = np.diff(np.unique(np.append(values, 0.0))).min()
    per_unit = np.rint(largest / gap) / largest
    nonzero = values[values != 0]
    for factor in (*10.0 ** np.arange(23), per_unit):  # these powers of ten are exact
        scaled = nonzero * factor
        tolerance = 2 * eps * np.abs(scaled)
        # Values that are not rounded are all within the tolerance with probability prod(2 tolerance).
        if tolerance.max() >= 0.5 or np.log(2 * tolerance).sum() > MAX_LOG_CHANCE:
            continue
        whole = np.rint(scaled)
        if np.all(np.abs(scaled - whole) <= tolerance):
            return float(np.gcd.reduce(whole.astype(np.int64)) / factor)
    return 0.0
