"""Logit: spread out the values near the darkest and the brightest. Floor 2."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np

from minglow import arguments
from minglow.arrays import check_dlog_det, check_input, constant_log_det
from minglow.bijection import Bijection
from minglow.device import on_host


class Logit(Bijection):
    r"""From the data's range to the whole line (Dinh et al. 2017, section 4.1).

        p = margin + (1 - 2 margin) (x + 1/2)         x in [-1/2, 1/2], any shape (B, ...)
        y = log p - log(1 - p)
          = 2 artanh(2p - 1), and 2p - 1 = c x with c = 2 (1 - 2 margin)

    log_det   dy/dx = (c/2) (1 + exp y) (1 + exp -y), of each value for itself:
              log|det J| = sum [log(c/2) + |y| + 2 log(1 + exp(-|y|))]
    backward  d log(dy/dx) / dy = tanh(y/2), so
              dL/dx = c (1 + cosh y) (dL/dy + dL/dlog_det tanh(y/2))

    Most pixels of handwriting are black or white. A flow without a logit has to find out that these
    have but 1/256 of the range; after it they have a good part of the line. A smaller margin gives
    them more (Papamakarios et al. 2017 take 1e-6 for MNIST). openai/glow has no logit.

    Raises ValueError for a margin outside (0, 1/2), and for values of x that are not below 1/c; on a
    device such values become NaN.
    """

    def __init__(self, margin: float = 0.05) -> None:
        super().__init__()
        if not arguments.amount("margin", margin, below=0.5):
            raise ValueError("expected a margin above 0, got 0")
        self.margin, self.c = margin, 2 * (1 - 2 * margin)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        check_input(self, x)
        if on_host(x) and not (np.abs(x).max() < 1 / self.c):  # not "if >=": NaN is not below
            raise ValueError(f"{self} expected values in [-1/2, 1/2], got {x.min():g} to {x.max():g}")
        y = 2 * np.arctanh(x.dtype.type(self.c) * x)
        size = np.abs(y)
        log_slope = size + 2 * np.log1p(np.exp(-size))
        log_det = constant_log_det(x, x[0].size * log(self.c / 2))
        return y, log_det + log_slope.reshape(len(x), -1).sum(axis=1), y

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, y)
        return np.tanh(y / 2) / y.dtype.type(self.c), y

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        y = cache
        check_dlog_det(self, dlog_det, dy)
        of_each = dlog_det.reshape(-1, *[1] * (y.ndim - 1))
        return y.dtype.type(self.c) * (1 + np.cosh(y)) * (dy + of_each * np.tanh(y / 2))
