"""Figures of the plane: points, densities, and grids that a map warps."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minglow.plots.colors import COLORS
from minglow.plots.points import (
    MAX_POINTS,
    evenly_spaced,
    finite_rows,
    inside,
    invisible,
    robust_limits,
    scatter,
    visible,
)

MAX_PANELS = 8
MAX_RATIO = 4.0  # of the ranges of two axes with equal scales
PlaneMap = Callable[[np.ndarray], np.ndarray]  # (n, 2) -> (n, 2)


def grid_lines(limit: float | np.ndarray, lines: int, dtype: type | np.dtype) -> np.ndarray:
    """A grid as (2 * lines, 201, 2): a line of constant x_1, one of constant x_2, and so on."""
    grid: np.ndarray = np.empty((lines, 2, 201, 2), dtype)
    low, high = axis_limits(limit).T
    across, along = np.linspace(low, high, lines), np.linspace(low, high, 201)
    for index in range(2):
        grid[:, index, :, index] = across[:, None, index]
        grid[:, index, :, 1 - index] = along[:, 1 - index]
    return grid.reshape(2 * lines, 201, 2)


def axis_limits(limit: float | np.ndarray) -> np.ndarray:
    """((low, high), (low, high)): as given, or (-limit, limit) for both axes."""
    return np.array([(-limit, limit)] * 2 if np.ndim(limit) == 0 else limit, np.float64)


def draw_lines(axes: Axes, grid: np.ndarray) -> None:
    """Draw the lines of `grid_lines`, mapped or not: constant x_1 is blue, constant x_2 vermilion."""
    for index, line in enumerate(grid):
        axes.plot(*line.T, color=COLORS[index % 2], linewidth=0.6)


def draw_grid(axes: Axes, function: PlaneMap, limit: float | np.ndarray = 2.0, lines: int = 17,
              dtype: type | np.dtype = np.float32) -> None:
    """The image of a square grid on [-limit, limit]^2 under a map of the plane, (n, 2) -> (n, 2).

    limit: a number, or ((low, high), (low, high)) for x_1 and x_2.
    Lines of constant x_1 are blue, lines of constant x_2 vermilion.
    """
    grid = grid_lines(limit, lines, dtype)
    draw_lines(axes, function(grid.reshape(-1, 2)).reshape(grid.shape))
    axes.set_aspect("equal")


def density_on_grid(log_prob: Callable[[np.ndarray], np.ndarray], limit: float | np.ndarray = 4.0,
                    cells: int = 200, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray, float]:
    """exp(log_prob) at the centers of cells x cells squares of [-limit, limit]^2.

    limit: a number, or ((low, high), (low, high)) for x_1 and x_2, such as `robust_limits(data)`.
    Returns the edges (cells + 1,), or (2, cells + 1) if the limits are given for each axis, the density
    (cells, cells), indexed [x_2, x_1] as in pcolormesh, and the sum of density times area, which is 1 if
    no density lies outside.
    """
    low, high = axis_limits(limit).T
    edges = np.linspace(low, high, cells + 1, axis=1)
    centers = (edges[:, :-1] + edges[:, 1:]) / 2
    points: np.ndarray = np.stack(np.meshgrid(*centers), axis=-1).reshape(-1, 2).astype(dtype)
    density = np.exp(log_prob(points).astype(np.float64)).reshape(cells, cells)
    total = float(density.sum() * np.prod(np.ptp(edges, axis=1) / cells))
    return edges[0] if np.ndim(limit) == 0 else edges, density, total


def plane_summary(data: np.ndarray, samples: np.ndarray, edges: np.ndarray,
                  density: np.ndarray) -> Figure:
    """Data (N, 2), a model's density and its samples (M, 2) in three panels with equal limits.

    edges, density: as `density_on_grid(flow.log_prob, robust_limits(data))` returns them.
    The limits are `robust_limits(data)`. The titles count the points that the panels do not show.
    """
    limits = robust_limits(data)
    width, height = np.ptp(limits, axis=1)
    equal = 1 / MAX_RATIO < width / height < MAX_RATIO
    shape = np.clip(height / width, 0.6, 1.5) if equal else 0.8
    figure = Figure(figsize=(9, 2.7 * shape + 0.9), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    for axis, points, name, color in zip(axes[::2], (data, samples), ("data", "samples"), COLORS):
        scatter(axis, visible(points, limits), color)
        drawn = f"{MAX_POINTS} of " if len(points) > MAX_POINTS else ""
        axis.set_title(f"{name}\n{drawn}{len(points)} points{invisible(points, limits)}", fontsize=9)
    columns, rows = np.broadcast_to(edges, (2, edges.shape[-1]))
    axes[1].pcolormesh(columns, rows, density, vmin=0, cmap="viridis", rasterized=True)
    total = np.nansum(density * np.outer(np.diff(rows), np.diff(columns)))
    wrong = np.count_nonzero(~np.isfinite(density))
    missing = f", {wrong} cells not finite" if wrong else ""
    axes[1].set_title(f"density\nintegral over the grid: {total:.3f}{missing}", fontsize=9)
    for axis in axes:
        axis.set(xlim=limits[0], ylim=limits[1], xlabel="$x_1$", aspect="equal" if equal else "auto")
    axes[0].set_ylabel("$x_2$")
    return figure


def warped_grid(maps: Sequence[PlaneMap], titles: Sequence[str], points: np.ndarray) -> Figure:
    """Points (n, 2) and a grid around them, before the first map and after each map.

    maps: maps of the plane, (n, 2) -> (n, 2). Each is applied to what the map before it returned: for
        example the layers of a chain from data to latents, or their inverses from latents to data.
    titles: len(maps) + 1 titles, the first for the points as given.
    At most MAX_PANELS stages are drawn, evenly spaced. A point keeps the color of its first x_1. A title
    counts the points that its panel does not show.
    """
    if len(titles) != len(maps) + 1:
        raise ValueError(f"expected {len(maps) + 1} titles for {len(maps)} maps, got {len(titles)}")
    shown = np.unique(np.linspace(0, len(maps), MAX_PANELS).round().astype(int))
    rows = -(-len(shown) // 4)
    columns = -(-len(shown) // rows)
    figure = Figure(figsize=(2.2 * max(columns, 2), 2.5 * rows), layout="constrained")
    panels = iter(figure.subplots(rows, columns, squeeze=False).flat)
    limits = robust_limits(points)
    counted, points = points, evenly_spaced(finite_rows(points)).astype(points.dtype)
    grid, colors = grid_lines(limits, 17, points.dtype), points[:, 0]
    for stage, title in enumerate(titles):
        if stage:
            moved = maps[stage - 1](np.concatenate([points, grid.reshape(-1, 2)]))
            counted = points = moved[:len(points)]
            grid = moved[len(points):].reshape(grid.shape)
        if stage in shown:
            axes = next(panels)
            limits = _square(robust_limits(points)) if len(finite_rows(points)) else limits
            draw_lines(axes, grid)
            seen = inside(points, limits)
            axes.scatter(*points[seen].T, c=colors[seen], cmap="viridis", s=5, linewidths=0, zorder=3)
            axes.set(xlim=limits[0], ylim=limits[1], box_aspect=1)
            axes.set_title(f"{title}\n{invisible(counted, limits).lstrip(', ')}".rstrip(), fontsize=9)
            axes.tick_params(labelsize=8)
    for axes in panels:
        axes.remove()
    return figure


def _square(limits: np.ndarray) -> np.ndarray:
    """Wider limits, with equal ranges of both axes; as they are if the ranges differ by MAX_RATIO."""
    ranges = np.ptp(limits, axis=1)
    if ranges.max() > MAX_RATIO * ranges.min():
        return limits
    return limits.mean(axis=1, keepdims=True) + ranges.max() * np.array([-0.5, 0.5])
