"""Pictures: arrays in, matplotlib figures out; nothing is shown or saved here. Floor 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

GREYS = "gray_r"  # ink on paper: 0 is white


def tile(images: np.ndarray, columns: int, levels: int, gap: int = 1) -> np.ndarray:
    """Images (N, h, w, C) as one picture, `columns` in a row, (H, W) or (H, W, C) in [0, 1].

    The gaps between them, and the places that stay empty, are NaN, which is drawn transparent.
    """
    count, height, width, channels = images.shape
    lines = -(-count // columns)
    picture = np.full((lines * (height + gap) - gap, columns * (width + gap) - gap, channels), np.nan)
    for index, image in enumerate(images):
        i, j = index // columns * (height + gap), index % columns * (width + gap)
        picture[i:i + height, j:j + width] = image / (levels - 1)
    return picture[..., 0] if channels == 1 else picture


def image_sheet(images: np.ndarray, columns: int, levels: int, title: str = "",
                line_labels: Sequence[str] = ()) -> Figure:
    """A sheet of integer images (N, h, w, C), enlarged without smoothing.

    line_labels: a word at the left of each line. Grey images are drawn as ink on paper.
    """
    picture = tile(images, columns, levels)
    height, width = picture.shape[:2]
    inches = min(8.0, 0.55 * columns)
    size = max(3.5, inches + 0.8), max(1.2, inches * height / width + 0.6)  # room for the title
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    if picture.ndim == 3:
        axes.imshow(np.nan_to_num(picture, nan=0.85), interpolation="nearest")
    else:
        axes.imshow(picture, cmap=GREYS, vmin=0, vmax=1, interpolation="nearest")
    pitch = images.shape[1] + 1
    axes.set_yticks([i * pitch + (pitch - 2) / 2 for i in range(len(line_labels))], line_labels)
    axes.set_xticks([])
    axes.set_facecolor("0.85")  # seen through the gaps: it shows where a white border ends
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=10)
    return figure


def training_curves(curve: Sequence[tuple[int, float, float]], levels: int) -> Figure:
    """Bits per dimension by step, beside what guessing each level uniformly costs.

    curve: (step, bits of the training batches, held-out bits), a tuple for each evaluation.
    """
    steps, bits, held_out_bits = zip(*curve)
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    uniform = np.log2(levels)
    axes.axhline(uniform, color="0.5", linestyle=":", label=f"uniform model, {uniform:.2f}")
    marker = "." if len(steps) < 20 else ""  # a line of one point is none
    axes.plot(steps, bits, marker=marker, color="#0072B2", label="training batches")
    at_the_end = f"held out, {held_out_bits[-1]:.2f} at the end"
    axes.plot(steps, held_out_bits, marker=marker, color="#D55E00", label=at_the_end)
    axes.set_ylim(0.9 * min(*bits, *held_out_bits), 1.1 * max(uniform, *bits, *held_out_bits))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step")
    axes.set_ylabel("bits per dimension")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
