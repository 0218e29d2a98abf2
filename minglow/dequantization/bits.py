"""Integer images to real numbers and back, and nats to bits per dimension."""

from math import log, log2
from typing import TypeVar

import numpy as np

from minglow import validation
from minglow.bijection import Rng

T = TypeVar("T", float, np.ndarray)


def dequantize(images: np.ndarray, bins: int, rng: Rng = None, dtype: type = np.float32) -> np.ndarray:
    """Spread integers 0 .. bins-1 uniformly over [-1/2, 1/2], the upper end by rounding alone.

        x = (image + u) / bins - 1/2            u ~ U[0, 1), one for each value

    Each integer becomes a cell of width 1/bins. A density's integral over the cell is a probability of
    the integer, and by Jensen's inequality E_u log p(x) - D log(bins) is a lower bound of its logarithm
    (Theis et al. 2016, section 3.1).

    Raises ValueError for values that are not integers in 0 .. bins-1, and for less than 2 bins.
    """
    check_bins(bins)
    if validation.check_array("images", images).dtype.kind not in "iu":
        raise ValueError(f"expected integer images, got {images.dtype}")
    if images.size and not 0 <= int(images.min()) <= int(images.max()) < bins:
        raise ValueError(f"expected values from 0 to {bins - 1} ({bins} bins), "
                         f"got {images.min()} to {images.max()}")
    noise = np.random.default_rng(rng).random(images.shape, dtype)
    return (images.astype(dtype) + noise) / dtype(bins) - dtype(0.5)


def quantize(x: np.ndarray, bins: int) -> np.ndarray:
    """The integer image whose cell holds x; values outside [-1/2, 1/2) go to the nearest.

    Undoes dequantize, but for the rare numbers within float32's rounding of a cell's edge. Images are
    uint8, or uint16 where `bins` exceeds 256. Raises ValueError for NaN: it belongs to no cell.
    """
    check_bins(bins)
    if validation.check_array("x", x).dtype.kind != "f":
        raise ValueError(f"expected real numbers to turn into an image, got {x.dtype}")
    if np.isnan(x).any():
        raise ValueError("expected numbers to turn into an image, got NaN")
    dtype = np.uint8 if bins <= 256 else np.uint16
    return np.clip(np.floor((x + 0.5) * bins), 0, bins - 1).astype(dtype)


def bits_per_dim(log_prob: T, dims: int, bins: int) -> T:
    """Turn log p(x) in nats, x dequantized by `dequantize`, into bits per dimension.

        bits/dim = -log p(x) / (D ln 2) + log2(bins)

    The last term is the cells' volume, bins^-D: a probability is a density times a volume. A density of
    1 on the whole cube costs log2(bins), as does guessing uniformly.
    """
    check_bins(bins)
    if np.asarray(log_prob).dtype.kind not in "iuf" or np.isnan(log_prob).any():
        raise ValueError(f"expected log_prob in nats, got {log_prob!r}")
    return -log_prob / (validation.check_count("dims", dims) * log(2)) + log2(bins)


def check_bins(bins: int) -> int:
    """The number of bins. Raises ValueError unless uint16 holds them."""
    return validation.check_count("bins", bins, 2, 2**16)
