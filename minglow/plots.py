"""Figures of images, matrices, maps of the plane and training, as matplotlib objects."""

import html
import re
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.animation import Animation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

GRAYS = "gray_r"  # 0 is white, like paper
SIGNED = "RdBu_r"  # blue below 0, white at 0, red above
# Okabe and Ito's palette, which is safe for color-blind readers: blue, vermilion, green, ...
COLORS = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"


def style() -> None:
    """Set matplotlib's defaults to those of minglow's figures."""
    matplotlib.rcParams.update({
        "axes.prop_cycle": cycler(color=COLORS), "axes.spines.top": False, "axes.spines.right": False,
        "axes.titlesize": 10, "figure.constrained_layout.use": True, "figure.dpi": 90, "font.size": 9,
        "image.cmap": "viridis", "image.interpolation": "nearest", "legend.frameon": False,
    })


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


def draw_grid(axes: Axes, function: Callable[[np.ndarray], np.ndarray], limit: float = 2.0,
              lines: int = 17, dtype: type = np.float32) -> None:
    """The image of a square grid on [-limit, limit]^2 under a map of the plane, (n, 2) -> (n, 2).

    Lines of constant x_1 are blue, lines of constant x_2 vermilion.
    """
    along = np.linspace(-limit, limit, 201)
    for value in np.linspace(-limit, limit, lines):
        for index, color in enumerate(COLORS[:2]):
            points: np.ndarray = np.empty((len(along), 2), dtype)
            points[:, index], points[:, 1 - index] = value, along
            axes.plot(*function(points).T, color=color, linewidth=0.6)
    axes.set_aspect("equal")


def density_on_grid(log_prob: Callable[[np.ndarray], np.ndarray], limit: float = 4.0, cells: int = 200,
                    dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray, float]:
    """exp(log_prob) at the centers of cells x cells squares of [-limit, limit]^2.

    Returns the edges (cells + 1,), the density (cells, cells), indexed [x_2, x_1] as in pcolormesh, and
    the sum of density times area, which is 1 if no density lies outside.
    """
    edges = np.linspace(-limit, limit, cells + 1)
    centers = (edges[:-1] + edges[1:]) / 2
    points: np.ndarray = np.stack(np.meshgrid(centers, centers), axis=-1).reshape(-1, 2).astype(dtype)
    density = np.exp(log_prob(points).astype(np.float64)).reshape(cells, cells)
    return edges, density, float(density.sum() * (2 * limit / cells) ** 2)


# Labels of the buttons of matplotlib's player; its own come from a font on another host.
SIGNS = {"fa-minus": "-", "fa-fast-backward": "⏮", "fa-step-backward": "⏴",
         "fa-play fa-flip-horizontal": "◀", "fa-pause": "⏸", "fa-play": "▶",
         "fa-step-forward": "⏵", "fa-fast-forward": "⏭", "fa-plus": "+"}


def animation_html(animation: Animation, description: str, fps: int = 4) -> str:
    """An animation player as HTML that loads nothing from the network; `description` is for alt."""
    page = re.sub(r"<link\b[^>]*>", "", animation.to_jshtml(fps=fps, default_mode="once"))
    page = re.sub(r'<i class="fa ([^"]*)"></i>', lambda icon: SIGNS[icon[1]], page)
    return page.replace("<img id=", f'<img alt="{html.escape(description)}" id=')


def training_curves(curve: Sequence[tuple[int, float, float]], bins: int) -> Figure:
    """Bits per dimension over steps, with the bits of a uniform model for comparison.

    curve: (step, bits of the training batches, held-out bits) for each evaluation.
    """
    steps, bits, held_out_bits = zip(*curve)
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    uniform = np.log2(bins)
    axes.axhline(uniform, color="0.5", linestyle=":", label=f"uniform model, {uniform:.2f}")
    marker = "." if len(steps) < 20 else ""  # a line through one point is invisible
    held_out_label = f"held out, {held_out_bits[-1]:.2f} at the end"
    for values, color, label in zip((bits, held_out_bits), COLORS, ("training batches", held_out_label)):
        axes.plot(steps, values, marker=marker, color=color, label=label)
    axes.set(xlabel="step", ylabel="bits per dimension",
             ylim=(0.9 * min(*bits, *held_out_bits), 1.1 * max(uniform, *bits, *held_out_bits)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
