"""Figures of tables: the columns of data and samples, one by one and in pairs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator

from minglow.plots.colors import COLORS
from minglow.plots.points import finite_rows, invisible, robust_limits, scatter, visible

BINS = 40
MAX_PAIRED, MAX_COLUMNS = 6, 24  # columns in pair_plot and in marginals
MAX_NAME = 16  # characters of a column's name


def pair_plot(data: np.ndarray, samples: np.ndarray, columns: Sequence[str]) -> Figure:
    """Each pair of the first six columns: data (N, D) below the diagonal, samples (M, D) above it.

    columns: the D names of the columns. The diagonal has the histograms of both. The limits are
    `robust_limits(data)`. The title counts the rows with a value that is outside or not finite.
    """
    data, samples, title = _first_columns(data, samples, columns, MAX_PAIRED)
    count, limits = data.shape[1], robust_limits(data)
    size = max(4.5, 1.4 * count)
    figure = Figure(figsize=(size, size + 0.8), layout="constrained")
    panels = figure.subplots(count, count, squeeze=False)
    below, above = visible(data, limits), visible(samples, limits)
    for (row, column), axes in np.ndenumerate(panels):
        if row == column:
            _draw_histograms(axes, data[:, row], samples[:, row], limits[row])
        else:
            points, color = (below, COLORS[0]) if row > column else (above, COLORS[1])
            scatter(axes, points[:, [column, row]], color)
            axes.set(xlim=limits[column], ylim=limits[row])
            _place_ticks(axes.yaxis, limits[row])
        _place_ticks(axes.xaxis, limits[column])
        axes.tick_params(labelsize=7, labelbottom=row == count - 1, labelleft=column == 0 < row)
    for index, name in enumerate(columns[:count]):
        panels[index, 0].set_ylabel(_short(name), fontsize=8, parse_math=False)
        panels[-1, index].set_xlabel(_short(name), fontsize=8, parse_math=False)
    figure.align_ylabels()
    _add_title(figure, title, ("data (below the diagonal)", "samples (above)"))
    return figure


def marginals(data: np.ndarray, samples: np.ndarray, columns: Sequence[str],
              density: tuple[np.ndarray, np.ndarray] | None = None) -> Figure:
    """The histograms of data (N, D) and samples (M, D) in each of the first 24 columns.

    columns: the D names of the columns. The title counts rows as in `pair_plot`.
    density: for D = 1, values x (n,) and the density of the model there (n,), drawn as a curve.
    """
    if density is not None and len(columns) > 1:
        raise ValueError(f"a density curve needs data with one column, got {len(columns)} columns")
    data, samples, title = _first_columns(data, samples, columns, MAX_COLUMNS)
    count, limits = data.shape[1], robust_limits(data)
    rows = max(1, round((count / 1.5) ** 0.5))
    across = -(-count // rows)
    figure = Figure(figsize=(max(4.5, 1.6 * across), 1.4 * max(rows, 2) + 0.8), layout="constrained")
    panels = list(figure.subplots(rows, across, squeeze=False).flat)
    for index, axes in enumerate(panels[:count]):
        _draw_histograms(axes, data[:, index], samples[:, index], limits[index])
        _place_ticks(axes.xaxis, limits[index])
        axes.tick_params(labelsize=7)
        axes.set_xlabel(_short(columns[index]), fontsize=8, parse_math=False)
    for axes in panels[:count:across]:
        axes.set_ylabel("density", fontsize=8)
    for axes in panels[count:]:
        axes.remove()
    if density is not None:
        panels[0].plot(*density, color=COLORS[2])
    _add_title(figure, title, ("data", "samples", "density of the model")[:2 + (density is not None)])
    return figure


def _first_columns(data: np.ndarray, samples: np.ndarray, columns: Sequence[str],
                   most: int) -> tuple[np.ndarray, np.ndarray, str]:
    """The finite rows of the first columns of both, and a title that counts the others."""
    for name, table in ("data", data), ("samples", samples):
        if table.ndim != 2 or table.shape[1] != len(columns):
            raise ValueError(f"expected {name} of shape (N, {len(columns)}), a name for each column, "
                             f"got {table.shape}")
    count = min(len(columns), most)
    data, samples = data[:, :count], samples[:, :count]
    limits = robust_limits(data)
    title = "\n".join(f"{name}: {len(table)} rows{invisible(table, limits)}"
                      for name, table in (("data", data), ("samples", samples)))
    if count < len(columns):
        title = f"the first {count} of {len(columns)} columns\n{title}"
    return finite_rows(data), finite_rows(samples), title


def _draw_histograms(axes: Axes, data: np.ndarray, samples: np.ndarray, limits: np.ndarray) -> None:
    """Histograms with equal bins; a sum of height times width is the fraction within the limits."""
    edges = np.linspace(limits[0], limits[1], BINS + 1)
    for values, color in zip((data, samples), COLORS):
        counts = np.histogram(values, edges)[0]
        axes.stairs(counts / (max(len(values), 1) * np.diff(edges)), edges, color=color, linewidth=1.2)
    axes.set(xlim=limits, yticks=[])


def _place_ticks(axis: Axis, limits: np.ndarray) -> None:
    """Few ticks, with short labels: 200k for 200000."""
    axis.set_major_locator(MaxNLocator(3))
    largest = np.abs(limits).max()
    if not 0.01 <= largest < 1e5 and np.ptp(limits) > 0.01 * largest:  # else labels would be equal
        axis.set_major_formatter(EngFormatter(sep=""))


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else name[:MAX_NAME - 1] + "…"


def _add_title(figure: Figure, title: str, labels: Sequence[str]) -> None:
    """The title above the panels, and the legend below them."""
    figure.suptitle(title, fontsize=9)
    handles = [Patch(color=color, label=label) for color, label in zip(COLORS, labels)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
