"""Checkerboard masks: every second pixel is an identity pixel, and its neighbors change."""

from collections.abc import Generator
from typing import Any

import numpy as np

from minglow.arrays.shapes import check_images, join, split
from minglow.bijection import Bijection, InverseVisit, Net, Visit


class Checkerboard(Bijection):
    r"""A bijection of halves whose first half is the pixels of one color (Dinh et al. 2017, 3.4).

        x: (B, h, w, C), w even -> fields: (B, h, w/2, 2C) -> inner -> fields -> y: (B, h, w, C)
        fields[b, i, j] = [x[b, i, 2j + p_i], x[b, i, 2j + 1 - p_i]]       p_i = (i + parity) mod 2

    With a coupling as inner, the pixels with (i + j + parity) even are the identity pixels, and the
    others change: the paper's y = b x + (1 - b)(x exp(s(b x)) + t(b x)) for the mask b.

    inverse     inner's, between the same rearrangements
    log_det     inner's: the rearrangements are permutations.
    backward    dL/dx is inner's, rearranged likewise: a permutation's transpose is its inverse.

    inner       a bijection of (B, h, w/2, 2C)
    parity      0 or 1: the color of the first half

    Raises ValueError for arrays that are not images, and for odd widths.

    >>> layer = minglow.Checkerboard(minglow.Swap(2))  # each pixel trades places with its neighbor
    >>> layer.forward(np.arange(4.0).reshape(1, 2, 2, 1))[0].reshape(2, 2)
    array([[1., 0.],
           [3., 2.]])
    """

    def __init__(self, inner: Bijection, parity: int = 0) -> None:
        super().__init__()
        self.inner, self.parity = inner, parity
        self.children["inner"] = inner

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        y, log_det, cache = self.inner.forward(self._checked_fields(x))
        return from_fields(y, self.parity), log_det, cache

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        x, cache = self.inner.inverse(self._checked_fields(y))
        return from_fields(x, self.parity), cache

    def forward_only(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, log_det = self.inner.forward_only(self._checked_fields(x))
        return from_fields(y, self.parity), log_det

    def inverse_only(self, y: np.ndarray) -> np.ndarray:
        return from_fields(self.inner.inverse_only(self._checked_fields(y)), self.parity)

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        return from_fields(self.inner.backward(to_fields(dy, self.parity), dlog_det, cache), self.parity)

    def initialize(self, x: np.ndarray) -> np.ndarray:
        return from_fields(self.inner.initialize(self._checked_fields(x)), self.parity)

    def trace(self, x: np.ndarray) -> Generator[Visit, None, np.ndarray]:
        return from_fields((yield from self.inner.trace(self._checked_fields(x))), self.parity)

    def trace_inverse(self, y: np.ndarray) -> Generator[InverseVisit, None, np.ndarray]:
        return from_fields((yield from self.inner.trace_inverse(self._checked_fields(y))), self.parity)

    def _checked_fields(self, x: np.ndarray) -> np.ndarray:
        check_images(self, x, divisible_by=(1, 2, 1))
        return to_fields(x, self.parity)


class CheckerboardNet(Net):
    r"""A net that reads the pixels of one color at their places in the image, with zeros between them.

        x: (B, h, w/2, C), the identity pixels -> board: (B, h, w, C) -> net -> (B, h, w, C')
        y: (B, h, w/2, C'), the net's output at the pixels that change

    A convolution then reads the true neighbors of each pixel, as it does under the paper's mask.

    backward    the same in reverse: dL/dy between zeros, net's backward, dL/dx at the identity pixels

    Raises ValueError for arrays that are not images.

    >>> net = minglow.CheckerboardNet(minglow.nets.conv_net(1, 8, 2, rng=0))
    >>> net.forward(np.ones((5, 4, 2, 1), np.float32))[0].shape
    (5, 4, 2, 2)
    """

    def __init__(self, net: Net, parity: int = 0) -> None:
        super().__init__()
        self.net, self.parity = net, parity
        self.children["net"] = net

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        y, cache = self.net.forward(self._checked_board(x))
        return split(to_fields(y, self.parity))[1], cache

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        dboard = self.net.backward(from_fields(join(np.zeros_like(dy), dy), self.parity), cache)
        return split(to_fields(dboard, self.parity))[0]

    def initialize(self, x: np.ndarray) -> np.ndarray:
        return split(to_fields(self.net.initialize(self._checked_board(x)), self.parity))[1]

    def _checked_board(self, x: np.ndarray) -> np.ndarray:
        check_images(self, x)
        return from_fields(join(x, np.zeros_like(x)), self.parity)


def to_fields(x: np.ndarray, parity: int) -> np.ndarray:
    """Images (B, h, w, C) as pairs of fields (B, h, w/2, 2C), those with i + j + parity even first."""
    batch, height, width, channels = x.shape
    pairs = x.reshape(batch, height, width // 2, 2, channels)
    fields = pairs.copy()
    fields[:, 1 - parity::2] = pairs[:, 1 - parity::2, :, ::-1]  # lines that begin with the other color
    return fields.reshape(batch, height, width // 2, 2 * channels)


def from_fields(fields: np.ndarray, parity: int) -> np.ndarray:
    """The inverse of `to_fields`: (B, h, w/2, 2C) to (B, h, w, C)."""
    batch, height, half, channels = fields.shape
    board = to_fields(fields.reshape(batch, height, 2 * half, channels // 2), parity)  # swaps again
    return board.reshape(batch, height, 2 * half, channels // 2)
