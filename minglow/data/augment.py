"""Small shifts and mirror images of what is trained on, against overfitting. Floor 1."""

from __future__ import annotations

import numpy as np

from minglow import arguments


def check_shift(largest: float, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless images (h, w, C) can be shifted so far: by their longer side at most."""
    arguments.amount("shift", largest, below=max(shape[:2]) + 1)


def random_shifts(images: np.ndarray, largest: float,
                  rng: int | np.random.Generator | None = None, whole: bool = False) -> np.ndarray:
    """Shift each image, with probability 1/2, by its own part of `largest` pixels along either axis.

    images: (B, h, w, C) unsigned integers; the result is of the same kind. Values between pixels
    are interpolated linearly and rounded to integers; what comes in at the border is 0. Half of
    the images stay as they are, since interpolation blurs, and a density learns that, too; shifts
    by `whole` pixels, rounded to the nearest, blur nothing. Raises ValueError as `check_shift`.
    """
    check_shift(largest, images.shape[1:])
    rng = np.random.default_rng(rng)
    batch, height, width, _ = images.shape
    margin = int(np.ceil(largest))
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    offset = rng.uniform(-largest, largest, (2, batch, 1)) * rng.integers(2, size=(batch, 1))
    offset = np.rint(offset) if whole else offset
    taps = np.arange(-margin, margin + 1)
    down, across = np.maximum(0, 1 - np.abs(taps - offset)).astype(np.float32)  # (B, taps) each
    shifted = np.zeros(images.shape, np.float32)
    for i in taps + margin:
        for j in taps + margin:
            weight = (down[:, i] * across[:, j])[:, None, None, None]
            shifted += weight * padded[:, i:i + height, j:j + width]
    return np.rint(shifted).astype(images.dtype)


def random_flips(images: np.ndarray, rng: int | np.random.Generator | None = None) -> np.ndarray:
    """Mirror each image left to right with probability 1/2.

    images: (B, h, w, C); the result is a new array of the same kind. Right for photographs, wrong
    for digits.
    """
    mirrored = np.random.default_rng(rng).integers(2, size=(len(images), 1, 1, 1)) == 1
    return np.where(mirrored, images[:, :, ::-1], images)
