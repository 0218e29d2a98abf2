"""Integer images, split once and for all into those to train on and those held out. Floor 1."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minglow import arguments
from minglow.data.bounded import BadFile


class Images(NamedTuple):
    """Images (N, h, w, C) of unsigned integers 0 .. levels-1, and what each shows, where known."""

    train: np.ndarray
    held_out: np.ndarray
    levels: int
    train_labels: np.ndarray | None = None
    held_out_labels: np.ndarray | None = None


def digits() -> Images:
    """Handwritten digits, 8 x 8 x 1, 17 levels: 1,500 to train on and the last 297 held out.

    UCI's optical recognition of handwritten digits (Alpaydin & Kaynak 1998), CC BY 4.0; the
    source is named in full in digits.txt beside the file, whose order is kept.
    """
    with (files("minglow.data") / "digits.npz").open("rb") as file, np.load(file) as archive:
        images, labels = archive["images"][..., None], archive["labels"]
    return Images(images[:1500], images[1500:], 17, labels[:1500], labels[1500:])


def reduce_bits(images: Images, bits: int) -> Images:
    """The same images in 2^bits levels: floor(x / 2^(8 - bits)), as Glow does with bits = 5.

    Raises ValueError unless bits is from 1 to 8, and for fewer than 8 of images that do not have
    256 levels.
    """
    check_bits(bits, images.levels)
    if bits == 8:
        return images
    train, held_out = (part >> (8 - bits) for part in (images.train, images.held_out))
    return images._replace(train=train, held_out=held_out, levels=2**bits)


def check_bits(bits: int, levels: int) -> None:
    """Raise ValueError unless images of so many levels can be reduced to so many bits."""
    if bits not in range(1, 9):
        raise ValueError(f"expected from 1 to 8 bits, got {bits}")
    if bits < 8 and levels != 256:
        raise ValueError(f"expected 256 levels to reduce to {bits} bits, got {levels}")


def check_images(images: Images) -> None:
    """Raise ValueError unless these are Images, of both kinds, in the range of their levels."""
    arguments.instance("images", images, Images)
    arguments.count("levels", images.levels, 2)
    for name, part in (("train", images.train), ("held_out", images.held_out)):
        if arguments.array(name, part).ndim != 4 or part.dtype.kind not in "iu" or not part.size:
            raise ValueError(f"expected {name} to be integer images (N, h, w, C), "
                             f"got {part.dtype} {part.shape}")
        if part.shape[1:] != images.train.shape[1:]:
            raise ValueError(f"expected images of one shape, got {images.train.shape[1:]} to train on "
                             f"and {part.shape[1:]} held out")
        if part.min() < 0 or part.max() >= images.levels:
            raise ValueError(f"expected {name} to hold values from 0 to {images.levels - 1}, "
                             f"got {part.min()} to {part.max()}")


def every_tenth(images: np.ndarray, labels: np.ndarray | None = None) -> Images:
    """Split (N, h, w, C) images of 256 levels: 0, 10, 20, ... are held out; of fewer than ten, 0."""
    held_out = np.arange(len(images)) % min(10, len(images)) == 0
    split = Images(images[~held_out], images[held_out], 256)
    if labels is None:
        return split
    return split._replace(train_labels=labels[~held_out], held_out_labels=labels[held_out])


def image_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(N, h, w, C) of an array (N, h, w) or (N, h, w, C) that a file holds. Raises BadFile."""
    if len(shape) == 3:
        shape = (*shape, 1)
    count, height, width, channels = shape
    if count < 2 or min(shape) < 1:
        raise BadFile(f"{path}: expected at least 2 images, got an array {shape}")
    if channels not in (1, 3):
        raise BadFile(f"{path}: expected 1 or 3 channels, and them last, got {shape}")
    return count, height, width, channels


def check_labels(path: Path, labels: np.ndarray, classes: int) -> np.ndarray:
    """The labels (N,) as int64, which all numbers of `classes` fit. Raises BadFile."""
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        first = int(wrong.argmax())
        raise BadFile(f"{path}: expected labels from 0 to {classes - 1}, "
                      f"got {labels[first]} for image {first}")
    return labels.astype(np.int64)
