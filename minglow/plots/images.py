"""Figures of images, and of matrices as images."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minglow.plots.colors import GRAYS, SIGNED


def tile(images: np.ndarray, columns: int, bins: int, gap: int = 1) -> np.ndarray:
    """Images (N, h, w, C) as one picture, (H, W) or (H, W, C) in [0, 1]; gaps are NaN: transparent."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    picture = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), np.nan)
    for index, image in enumerate(images):
        i, j = index // columns * (height + gap), index % columns * (width + gap)
        picture[i:i + height, j:j + width] = image / (bins - 1)
    return picture[..., 0] if channels == 1 else picture


def image_sheet(images: np.ndarray, columns: int, bins: int, title: str = "",
                row_labels: Sequence[str] = ()) -> Figure:
    """A figure of integer images (N, h, w, C), with labels at the left of its rows; gray 0 is white."""
    height, width = tile(images, columns, bins).shape[:2]
    inches = min(8.0, 0.55 * columns)
    size = max(3.5, inches + 0.8), max(1.2, inches * height / width + 0.6)  # room for the title
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    draw_images(axes, images, bins, columns)
    pitch = images.shape[1] + 1
    axes.set_yticks([i * pitch + (pitch - 2) / 2 for i in range(len(row_labels))], row_labels)
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=10)
    return figure


def draw_images(axes: Axes, images: np.ndarray, bins: int, columns: int, title: str = "") -> None:
    """Integer images (N, h, w, C) on axes, `columns` in a row, enlarged without smoothing."""
    picture = tile(images, columns, bins)
    picture = np.nan_to_num(picture, nan=0.85) if picture.ndim == 3 else picture
    axes.imshow(picture, cmap=GRAYS, vmin=0, vmax=1, interpolation="nearest")  # ignores cmap in color
    axes.set(xticks=[], yticks=[], title=title, facecolor="0.85")  # shows in the gaps
    axes.spines[:].set_visible(False)


def draw_matrix(axes: Axes, matrix: np.ndarray, title: str = "", limit: float | None = None) -> None:
    """A heat map: 0 is white, positive red, negative blue; `limit` or the largest entry is darkest."""
    limit = limit or float(np.abs(matrix).max()) or 1.0
    drawn = axes.imshow(matrix, cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title)
    axes.spines[:].set_visible(True)
