"""Data augmentation: small random shifts and mirror images."""

import numpy as np

from minglow import validation
from minglow.bijection import Rng


def check_shift(max_shift: float, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a shift is from 0 to the longer side of images (h, w, C)."""
    validation.check_number("shift", max_shift, below=max(shape[:2]) + 1)


def random_shifts(images: np.ndarray, max_shift: float,
                  rng: Rng = None, integer: bool = False) -> np.ndarray:
    """Shift each image with probability 1/2, uniformly by up to `max_shift` pixels along either axis.

    images: (B, h, w, C) unsigned integers. Values between pixels are interpolated linearly and rounded;
    pixels from outside are 0. Half of the images stay as they are, since interpolation blurs and a
    density would learn the blur; `integer` shifts blur nothing. Raises ValueError as `check_shift`.
    """
    check_shift(max_shift, images.shape[1:])
    rng = np.random.default_rng(rng)
    batch, height, width, _ = images.shape
    margin = int(np.ceil(max_shift))
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    offset = rng.uniform(-max_shift, max_shift, (2, batch, 1)) * rng.integers(2, size=(batch, 1))
    taps = np.arange(2 * margin + 1)
    distance = np.abs(taps - margin - (np.rint(offset) if integer else offset))
    down, across = np.maximum(0, 1 - distance).astype(np.float32)  # (B, taps) each
    shifted = np.zeros(images.shape, np.float32)
    for i in taps:
        for j in taps:
            weight = (down[:, i] * across[:, j])[:, None, None, None]
            shifted += weight * padded[:, i:i + height, j:j + width]
    return np.rint(shifted).astype(images.dtype)


def random_flips(images: np.ndarray, rng: Rng = None) -> np.ndarray:
    """Images (B, h, w, C), each mirrored left to right with probability 1/2; wrong for digits."""
    mirrored = np.random.default_rng(rng).integers(2, size=(len(images), 1, 1, 1)) == 1
    return np.where(mirrored, images[:, :, ::-1], images)
