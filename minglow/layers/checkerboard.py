"""Checkerboard masks: neighbouring pixels take turns at passing and changing. Floor 2."""

from __future__ import annotations

from typing import Any

import numpy as np

from minglow.arrays import check_input, join, split
from minglow.bijection import Bijection, Net


class Checkerboard(Bijection):
    r"""A bijection of halves, of which one colour's fields are the first half (Dinh et al. 2017, 3.4).

        x: (B, h, w, C), w even -> fields: (B, h, w/2, 2C) -> inner -> fields -> y: (B, h, w, C)
        fields[b, i, j] = [x[b, i, 2j + p_i], x[b, i, 2j + 1 - p_i]]       p_i = (i + parity) mod 2

    A coupling inside lets the fields with (i + j + parity) even pass, and changes the others: the
    paper's y = b x + (1 - b)(x exp(s(b x)) + t(b x)) for the mask b.

    log_det   inner's: the rearrangements are permutations.
    backward  dL/dx is inner's, rearranged likewise: a permutation's transpose is its inverse.

    Raises ValueError for arrays that are not images, and for odd widths.
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
        dx = self.inner.backward(to_fields(dy, self.parity), dlog_det, cache)
        return from_fields(dx, self.parity)

    def initialize(self, x: np.ndarray) -> np.ndarray:
        return from_fields(self.inner.initialize(self._checked_fields(x)), self.parity)

    def _checked_fields(self, x: np.ndarray) -> np.ndarray:
        check_input(self, x)
        if x.ndim != 4 or x.shape[2] % 2:
            raise ValueError(f"{self} expected images (B, h, w, C) of even width, got {x.shape}")
        return to_fields(x, self.parity)


class OnBoard(Net):
    r"""A net that sees the fields of one colour where they stand, zeros between them.

        x: (B, h, w/2, C), the fields that pass -> board: (B, h, w, C) -> net -> (B, h, w, C')
        y: (B, h, w/2, C'), what net says of the other fields

    A convolution then meets the neighbours that a pixel has, as it does under the paper's mask.

    backward  the same moves backwards: dL/dy to the other fields, net's backward, dL/dx from the
              fields that pass.
    """

    def __init__(self, net: Net, parity: int = 0) -> None:
        super().__init__()
        self.net, self.parity = net, parity
        self.children["net"] = net

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        y, cache = self.net.forward(self._board(x))
        return split(to_fields(y, self.parity))[1], cache

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        dboard = self.net.backward(from_fields(join(np.zeros_like(dy), dy), self.parity), cache)
        return split(to_fields(dboard, self.parity))[0]

    def initialize(self, x: np.ndarray) -> np.ndarray:
        return split(to_fields(self.net.initialize(self._board(x)), self.parity))[1]

    def _board(self, x: np.ndarray) -> np.ndarray:
        check_input(self, x)
        if x.ndim != 4:
            raise ValueError(f"{self} expected fields (B, h, w/2, C), got {x.shape}")
        return from_fields(join(x, np.zeros_like(x)), self.parity)


def to_fields(x: np.ndarray, parity: int) -> np.ndarray:
    """Images (B, h, w, C) as pairs of fields (B, h, w/2, 2C), those with i + j + parity even first."""
    batch, height, width, channels = x.shape
    pairs = x.reshape(batch, height, width // 2, 2, channels)
    fields = pairs.copy()
    fields[:, 1 - parity::2] = pairs[:, 1 - parity::2, :, ::-1]  # lines that begin with the other colour
    return fields.reshape(batch, height, width // 2, 2 * channels)


def from_fields(fields: np.ndarray, parity: int) -> np.ndarray:
    """The inverse of `to_fields`: (B, h, w/2, 2C) to (B, h, w, C)."""
    batch, height, half, channels = fields.shape
    board = to_fields(fields.reshape(batch, height, 2 * half, channels // 2), parity)  # swaps again
    return board.reshape(batch, height, 2 * half, channels // 2)
