"""A run's folder: its checkpoints and pictures. Floor 3."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minglow import checkpoint, plots
from minglow.archive import replacing, temporaries
from minglow.bits import dequantize, quantize
from minglow.data import Images
from minglow.dequantizers import Dequantizer
from minglow.device import beside, to_host
from minglow.diagnosis import invertibility
from minglow.flow import Flow
from minglow.inference import interpolate
from minglow.metrics import METRICS, Recorder
from minglow.state import State

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CHECKPOINT = "model.npz"  # the best so far, and its dequantizer if that learns
LAST = "last.npz"  # where training stands
LONGEST = 200  # characters of a run's name: file systems take 255 bytes
COPIES = 11  # of the parameters: one in the model, five in the state, five while that is replaced
MOST_IMAGES = 10_000  # on one sheet
TEMPERATURES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)


def new_folder(parent: str | Path, name: str | None, stem: str) -> Path:
    """Make parent/name, or the first free parent/stem-1, stem-2, ...; never one that has content.

    metrics.csv alone is none: a run that ended before anything was kept. Nor is a half-written file.
    """
    parent = Path(parent)
    if name is not None and (Path(name).name != name or name in ("", "..") or len(name) > LONGEST):
        raise ValueError(f"expected the name of a folder in {parent}, got {name!r}")
    if name is None:
        return first_free(parent, stem)
    folder = parent / name
    if folder.is_dir() and set(folder.iterdir()) - {folder / METRICS, *temporaries(folder)}:
        raise ValueError(f"expected a new run, got {folder}, which has content: choose another --name")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """This process alone trains in the folder, until the end of the block or its own.

    Raises ValueError where another one does. Where the system has no such locks, whoever starts two
    has to see to it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: expected a run that no other process is training, "
                             "got one that is") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def first_free(parent: Path, stem: str) -> Path:
    """Make parent/stem-1, or stem-2, ...: the first that is not there, and that nobody else makes."""
    number = 1
    while True:
        folder = parent / f"{stem}-{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


class Keeper:
    """Keeps the best model of a run, and where its training stands; warns while it still can.

    some: integer images (B, h, w, C), around which the flow has to stay invertible.
    """

    def __init__(self, folder: Path, flow: Flow, dequantizer: Dequantizer, recipe: dict[str, Any],
                 recorder: Recorder, some: np.ndarray) -> None:
        self.folder, self.flow, self.dequantizer = folder, flow, dequantizer
        self.recipe, self.recorder = recipe, recorder
        self.x = beside(dequantize(some, dequantizer.levels, 0, flow.dtype), flow.flat.value)
        check_room(folder, COPIES * (flow.flat.value.nbytes + dequantizer.flat.value.nbytes))

    def __call__(self, state: State, best: bool) -> None:
        """Write the metrics, the model if it is the best so far, and the state, in this order: what the
        state counts as done is on the disk before it."""
        self.recorder.flush()
        if best:
            with state.averaged():
                checkpoint.save(self.folder / CHECKPOINT, self.flow, self.recipe,
                                {"dequantizer": self.dequantizer.flat.value})
        checkpoint.save(self.folder / LAST, self.flow, self.recipe, state.arrays(), state.facts())
        warning = invertibility(self.flow, self.x).warning()
        if warning:
            self.recorder.tell(f"step={state.step} warning={warning}")


def check_room(folder: Path, needed: int) -> None:
    """Raise OSError unless so many bytes are free where the folder lies."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{folder}: expected {needed / 1e6:.1f} MB of free space for its checkpoints, "
                      f"got {free / 1e6:.1f} MB")


def pictures(folder: Path, flow: Flow, images: Images, curve: list[tuple[int, float, float]],
             seed: int) -> None:
    """Draw the pictures of a run that is done."""
    figures = {
        "curves.png": plots.training_curves(curve, images.levels),
        "samples.png": sample_sheet(flow, 80, 0.8, seed, images.levels),
        "temperatures.png": temperature_strip(flow, seed, images.levels),
        "interpolation.png": interpolation_strip(flow, images.held_out, images.levels),
    }
    for name, figure in figures.items():
        save_figure(figure, folder / name)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the name's ending; until it is whole, the old file stays."""
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=150)


def sample_images(flow: Flow, n: int, temperature: float, seed: int, levels: int,
                  label: int | None = None) -> np.ndarray:
    """n samples as integer images (n, h, w, C): of one class, or of all in turn where there are some."""
    _check_count(n)
    classes = flow.base.classes
    labels = label if label is not None or not classes else np.arange(n) % classes
    return quantize(to_host(flow.sample(n, seed, temperature, labels)), levels)


def sample_sheet(flow: Flow, n: int, temperature: float, seed: int, levels: int,
                 label: int | None = None) -> Figure:
    """A sheet of n samples; each class has a column of its own where there are some."""
    images = sample_images(flow, n, temperature, seed, levels, label)
    in_columns = label is None and flow.base.classes > 1
    of = ", a class in each column" if in_columns else "" if label is None else f" of class {label}"
    title = f"samples{of}, temperature {temperature:g}"
    return plots.image_sheet(images, min(n, flow.base.classes if in_columns else 16), levels, title)


def temperature_strip(flow: Flow, seed: int, levels: int) -> Figure:
    """The same latents at one temperature a line."""
    lines = [sample_images(flow, 12, temperature, seed, levels) for temperature in TEMPERATURES]
    return plots.image_sheet(np.concatenate(lines), 12, levels, "the same latents by temperature",
                             [f"T = {temperature:g}" for temperature in TEMPERATURES])


def interpolation_strip(flow: Flow, images: np.ndarray, levels: int, pairs: int = 6,
                        frames: int = 9) -> Figure:
    """From one image to another along a line between their latents, a pair a line.

    images: integer images, of which the first 2 * pairs are the ends, again from the first where
    there are fewer.
    """
    _check_count(pairs * frames)
    ends = images[np.arange(2 * pairs) % len(images)]
    x = beside(dequantize(ends, levels, np.random.default_rng(0), flow.dtype), flow.flat.value)
    between = to_host(interpolate(flow, x[::2], x[1::2], frames))
    frames_out = quantize(between.reshape(-1, *x.shape[1:]), levels)
    return plots.image_sheet(frames_out, frames, levels, "held-out images, and the latents between them")


def _check_count(images: int) -> None:
    if images > MOST_IMAGES:
        raise ValueError(f"expected at most {MOST_IMAGES} images at once, got {images}")
