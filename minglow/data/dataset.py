"""Integer images, split into those to train on and those held out."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from minglow import validation
from minglow.data.bounded import BadFile


class Images(NamedTuple):
    """Images (N, h, w, C) of unsigned integers 0 .. bins-1, and their labels (N,), if there are any.

    Contexts are (N, K) real numbers: what the density is conditioned on.
    shift: largest random shift, in pixels, that keeps such images plausible; training's default.
    """

    train: np.ndarray
    held_out: np.ndarray
    bins: int
    train_labels: np.ndarray | None = None
    held_out_labels: np.ndarray | None = None
    shift: float = 0.0
    train_context: np.ndarray | None = None
    held_out_context: np.ndarray | None = None


def reduce_bits(images: Images, bits: int) -> Images:
    """The same images in 2^bits bins: floor(x / 2^(8 - bits)). Raises ValueError as `check_bits`."""
    check_bits(bits, images.bins)
    if bits == 8:
        return images
    train, held_out = (part >> (8 - bits) for part in (images.train, images.held_out))
    return images._replace(train=train, held_out=held_out, bins=2**bits)


def check_bits(bits: int, bins: int) -> None:
    """Raise ValueError unless bits is 8, or from 1 to 7 and the images have 256 bins."""
    if validation.check_count("bits", bits, 1, 8) < 8 and bins != 256:
        raise ValueError(f"expected 256 bins to reduce to {bits} bits, got {bins}")


def check_dataset(images: Images, shape: tuple[int, ...] | None = None) -> None:
    """Raise ValueError unless both parts are integer images of one shape, with values below `bins`.

    shape: that of the model's images, if it is known.
    """
    validation.check_instance("images", images, Images)
    validation.check_count("bins", images.bins, 2)
    for name, part in (("train", images.train), ("held_out", images.held_out)):
        if validation.check_array(name, part).ndim != 4 or part.dtype.kind not in "iu" or not part.size:
            raise ValueError(f"expected {name} to be integer images (N, h, w, C), "
                             f"got {part.dtype} {part.shape}")
        if part.shape[1:] != images.train.shape[1:]:
            raise ValueError(f"expected images of one shape, got {images.train.shape[1:]} to train on "
                             f"and {part.shape[1:]} held out")
        if part.min() < 0 or part.max() >= images.bins:
            raise ValueError(f"expected {name} to hold values from 0 to {images.bins - 1}, "
                             f"got {part.min()} to {part.max()}")
    if shape not in (None, images.train.shape[1:]):
        raise ValueError(f"expected images of the model's shape {shape}, got {images.train.shape[1:]}")


def every_tenth(images: np.ndarray, labels: np.ndarray | None = None) -> Images:
    """Hold out 0, 10, 20, ... of images (N, h, w) or (N, h, w, C), 256 bins; of fewer than ten, 0."""
    images = images if images.ndim == 4 else images[..., None]
    held_out = np.arange(len(images)) % min(10, len(images)) == 0
    both_labels = () if labels is None else (labels[~held_out], labels[held_out])
    return Images(images[~held_out], images[held_out], 256, *both_labels)


def check_image_shape(shape: tuple[int, ...]) -> None:
    """Raise BadFile unless a file's array (N, h, w) or (N, h, w, C) can be read as images."""
    if shape[0] < 2 or min(shape) < 1:
        raise BadFile(f"expected at least 2 images, got an array {shape}")
    if len(shape) == 4 and shape[3] not in (1, 3):
        raise BadFile(f"expected 1 or 3 channels, and them last, got {shape}")


def check_labels(labels: np.ndarray, classes: int, path: Path | None = None,
                 noun: str = "image") -> np.ndarray:
    """The labels (N,) as int64. Raises BadFile unless all are from 0 to classes - 1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise BadFile(f"expected labels from 0 to {classes - 1}, got {labels[wrong[0]]} for {noun} "
                      f"{wrong[0]}", path)
    return labels.astype(np.int64)
