"""Logit: from the data's bounded range to the real line."""

from math import log
from typing import Any

import numpy as np

from minglow import validation
from minglow.arrays.device import on_host
from minglow.arrays.shapes import check_dlog_det, check_input, constant_log_det
from minglow.bijection import Bijection


class Logit(Bijection):
    r"""From the data's range to the real line (Dinh et al. 2017, section 4.1).

        p = margin + (1 - 2 margin) (x + 1/2)         x in [-1/2, 1/2], any shape (B, ...)
        y = log p - log(1 - p)
          = 2 artanh(2p - 1), and 2p - 1 = c x with c = 2 (1 - 2 margin)

    inverse     x = tanh(y/2) / c
    log_det     dy/dx = (c/2) (1 + exp y) (1 + exp -y), elementwise:
                log|det J| = sum [log(c/2) + |y| + 2 log(1 + exp(-|y|))]
    backward    d log(dy/dx) / dy = tanh(y/2), so
                dL/dx = c (1 + cosh y) (dL/dy + dL/dlog_det tanh(y/2))

    margin      the distance of p from 0 and 1 at the ends of the range. A black or white pixel has 1/256
                of the range, but a large part of the real line: the larger, the smaller the margin
                (Papamakarios et al. 2017 take 1e-6 for MNIST). openai/glow has no logit.

    Raises ValueError for a margin outside (0, 1/2), and unless |x| < 1/c. On a device such x become NaN.

    >>> y, log_det, _ = minglow.Logit(margin=0.1).forward(np.array([[-0.5, 0.0, 0.5]]))
    >>> y.round(3), np.log([0.1 / 0.9, 1, 0.9 / 0.1]).round(3)
    (array([[-2.197,  0.   ,  2.197]]), array([-2.197,  0.   ,  2.197]))
    """

    def __init__(self, margin: float = 0.05) -> None:
        super().__init__()
        self.margin = validation.check_number("margin", margin, below=0.5, above=0.0)
        self.c = 2 * (1 - 2 * margin)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        self._check_domain(x)
        y = 2 * np.arctanh(x.dtype.type(self.c) * x)
        size = np.abs(y)
        log_derivative = size + 2 * np.log1p(np.exp(-size))  # of y with respect to x, less log(c/2)
        log_det = constant_log_det(x, x[0].size * log(self.c / 2))
        return y, log_det + log_derivative.reshape(len(x), -1).sum(axis=1), y

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, y)
        return np.tanh(y / 2) / y.dtype.type(self.c), y

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        y = cache
        check_dlog_det(self, dlog_det, dy)
        dlog_det = dlog_det.reshape(-1, *[1] * (y.ndim - 1))  # broadcasts over each sample
        return y.dtype.type(self.c) * (1 + np.cosh(y)) * (dy + dlog_det * np.tanh(y / 2))

    def _check_domain(self, x: np.ndarray) -> None:
        check_input(self, x)
        if on_host(x) and not (np.abs(x).max() < 1 / self.c):  # not "if >=": NaN is not below
            raise ValueError(f"{self} expected values in [-1/2, 1/2], got {x.min():g} to {x.max():g}")
