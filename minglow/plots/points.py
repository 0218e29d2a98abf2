"""Which points a figure shows: limits of the axes, points that are outside or not finite."""

import numpy as np
from matplotlib.axes import Axes

MAX_POINTS = 2_000  # of one color in one panel: more cover each other


def robust_limits(points: np.ndarray) -> np.ndarray:
    """Limits of the axes for points (N, D): the lowest and the highest value of each column, (D, 2).

    The limits hold all finite points, except those that are further from the interval between the
    percentiles 5 and 95 than its width: one outlier does not shrink the other points. A margin of 5% is
    added. Points with a value that is not finite are ignored. Raises ValueError if no others are there.
    """
    finite = finite_rows(points)
    if not len(finite):
        raise ValueError(f"limits need at least one point with finite values, got {len(points)} without")
    lowest, highest = finite.min(axis=0), finite.max(axis=0)
    low, high = np.percentile(finite, (5, 95), axis=0)
    width = np.where(high > low, high - low, np.inf)  # 90% equal values: the range of all
    lowest, highest = np.maximum(lowest, low - width), np.minimum(highest, high + width)
    constant = np.maximum(np.abs(lowest), 1) / 2
    margin = np.where(highest > lowest, 0.05 * (highest - lowest), constant)
    return np.stack([lowest - margin, highest + margin], axis=1)


def finite_rows(points: np.ndarray) -> np.ndarray:
    """The points (N, D) whose values are all finite, as float64."""
    points = np.asarray(points, np.float64)
    return points[np.isfinite(points).all(axis=1)]


def inside(points: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Whether each of the points (N, D) lies within the limits (D, 2): (N,) bool, False for a NaN."""
    return np.all((points >= limits[:, 0]) & (points <= limits[:, 1]), axis=1)


def evenly_spaced(points: np.ndarray) -> np.ndarray:
    """At most MAX_POINTS of the points, evenly spaced in their order."""
    if len(points) <= MAX_POINTS:
        return points
    return points[np.linspace(0, len(points) - 1, MAX_POINTS).round().astype(int)]


def visible(points: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """At most MAX_POINTS of the points (N, D) within the limits (D, 2)."""
    return evenly_spaced(points[inside(points, limits)])


def invisible(points: np.ndarray, limits: np.ndarray) -> str:
    """How many points the limits do not show: ", 3 outside, 1 not finite", or "" if they show all."""
    finite = finite_rows(points)
    outside = len(finite) - inside(points, limits).sum()
    counts = (outside, "outside"), (len(points) - len(finite), "not finite")
    return "".join(f", {count} {why}" for count, why in counts if count)


def scatter(axes: Axes, points: np.ndarray, color: str) -> None:
    """Draw points (n, 2) as small translucent dots."""
    axes.scatter(points[:, 0], points[:, 1], s=4, color=color, alpha=0.6, linewidths=0)
