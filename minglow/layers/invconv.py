"""Invertible 1x1 convolution: a learned mixing of channels."""

from collections.abc import Callable
from functools import wraps
from math import prod
from typing import Any

import numpy as np

from minglow import validation
from minglow.arrays.device import on_host
from minglow.arrays.shapes import check_dlog_det, check_input, constant_log_det, pixels, rows
from minglow.bijection import Bijection, Rng, SingularWeightError

NOTHING = np.full(1, np.nan), None  # equal to no matrix


def random_rotation(channels: int, rng: Rng) -> np.ndarray:
    """A random orthogonal matrix, (C, C) float64: Q of the QR decomposition of a normal matrix."""
    channels = validation.check_count("channels", channels)
    return np.linalg.qr(np.random.default_rng(rng).standard_normal((channels, channels)))[0]


def memo(method: Callable[[Any, np.ndarray], Any]) -> Callable[[Any, np.ndarray], Any]:
    """Make a method of a matrix return its last result while the matrix is the same.

    Forward and backward of one training step, and all samples between two steps, use the same matrix.
    On a device every call computes: comparing the matrices would wait for the device.
    """
    @wraps(method)
    def remembering(layer: Any, matrix: np.ndarray) -> Any:
        if not on_host(matrix):
            return method(layer, matrix)
        last, result = layer._results.get(method.__name__, NOTHING)
        if matrix.dtype != last.dtype or not (matrix == last).all():
            result = method(layer, matrix)
            layer._results[method.__name__] = matrix.copy(), result
        return result
    return remembering


class InvConv1x1(Bijection):
    r"""Invertible 1x1 convolution (Kingma & Dhariwal 2018, section 3.2).

    The channel vector of every pixel is multiplied by the same square matrix W:

        y_bij = W x_bij                      x, y: (B, h, w, C); weight: (C, C)

    inverse     x_bij = W^-1 y_bij
    log_det     One image's Jacobian is block diagonal, with one W for each pixel:
                log|det J| = h * w * log|det W|, the same for all B images.
    backward    dL/dx_bij = W^T dL/dy_bij
                dL/dW = sum_bij (dL/dy_bij) x_bij^T
                        + (sum_b dL/dlog_det_b) * h * w * W^-T      since d log|det W|/dW = W^-T
    initialize  nothing is set from data; W is a random orthogonal matrix at first: log|det W| = 0.

    channels    C
    rng         a seed or a Generator for W

    Raises SingularWeightError where det W is 0 or not finite, and in inverse and backward also where the
    condition number of W exceeds 1/epsilon of its dtype. On a device the results are NaN or inf instead.

    >>> layer = minglow.InvConv1x1(2, dtype=np.float64)
    >>> layer.params["weight"][...] = [[2, 0], [1, 1]]
    >>> layer.forward(np.ones((1, 3, 3, 2)))[1] / np.log(2)  # log_det: 9 pixels, det W = 2
    array([9.])
    """

    def __init__(self, channels: int, rng: Rng = None, dtype: type = np.float32) -> None:
        super().__init__()
        self._results: dict[str, tuple[np.ndarray, Any]] = {}  # what `memo` remembers
        self.add_matrix(random_rotation(channels, rng), dtype)

    def add_matrix(self, matrix: np.ndarray, dtype: type) -> None:
        """Own the parameters of a W, (C, C)."""
        self.add_param("weight", matrix.astype(dtype))

    def matrix(self) -> np.ndarray:
        """W, (C, C)."""
        return self.params["weight"]

    @memo
    def log_abs_det(self, weight: np.ndarray) -> np.ndarray:
        """log|det W|, or SingularWeightError where det W is 0 or not finite."""
        _, result = np.linalg.slogdet(weight)
        if on_host(result) and not np.isfinite(result):
            raise SingularWeightError(f"{self}: its weight is singular, log|det W| = {result}")
        return result

    @memo
    def inverse_weight(self, weight: np.ndarray) -> np.ndarray:
        """W^-1, or SingularWeightError where W's dtype cannot hold a meaningful one."""
        try:
            inverse = np.linalg.inv(weight)
        except np.linalg.LinAlgError:
            raise SingularWeightError(f"{self}: its weight is singular, det W = 0") from None
        if not on_host(inverse):
            return inverse
        squares = (np.vdot(matrix, matrix) for matrix in (weight.astype(float), inverse.astype(float)))
        condition = prod(squares) ** 0.5  # in the Frobenius norm
        if not condition < 1 / np.finfo(weight.dtype).eps:
            raise SingularWeightError(f"{self}: its weight is singular to {weight.dtype} precision, "
                                      f"condition number {condition:.1e}")
        return inverse

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        weight = self.matrix()
        check_input(self, x, len(weight))
        y = (rows(x) @ weight.T).reshape(x.shape)
        return y, constant_log_det(x, pixels(x) * self.log_abs_det(weight)), x

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        weight = self.matrix()
        check_input(self, y, len(weight))
        x = (rows(y) @ self.inverse_weight(weight).T).reshape(y.shape)
        return x, x

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        x = cache
        check_dlog_det(self, dlog_det, dy)
        weight, dweight = self.params["weight"], self.grads["weight"]
        inverse = self.inverse_weight(weight)
        dweight += rows(dy).T @ rows(x) + dlog_det.sum() * pixels(x) * inverse.T
        return (rows(dy) @ weight).reshape(dy.shape)
