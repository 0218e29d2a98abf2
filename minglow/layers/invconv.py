"""Invertible 1x1 convolutions: a learned mixing of channels, direct or by its LU factors. Floor 2."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from minglow import arguments
from minglow.arrays import check_dlog_det, check_input, constant_log_det, pixels, rows
from minglow.bijection import Bijection, SingularWeightError
from minglow.device import on_host


def random_rotation(channels: int, rng: int | np.random.Generator | None) -> np.ndarray:
    """A random orthogonal matrix, (C, C) float64: the Q of a normal matrix's QR."""
    channels = arguments.count("channels", channels)
    return np.linalg.qr(np.random.default_rng(rng).standard_normal((channels, channels)))[0]


class Remembered:
    """A function of a layer and its matrix that computes anew only when the matrix has changed.

    A step meets the same weight forwards and backwards, and samples meet it again and again. On a
    device it computes every time: to compare would be to wait.
    """

    def __init__(self, function: Callable[[Bijection, np.ndarray], Any], layer: Bijection) -> None:
        self.function, self.layer = function, layer
        self.matrix = np.full(1, np.nan)  # equal to nothing

    def __call__(self, matrix: np.ndarray) -> Any:
        if not on_host(matrix):
            return self.function(self.layer, matrix)
        if matrix.dtype != self.matrix.dtype or not (matrix == self.matrix).all():
            self.result = self.function(self.layer, matrix)
            self.matrix = matrix.copy()
        return self.result


def log_abs_det(layer: Bijection, weight: np.ndarray) -> np.ndarray:
    """log|det W|, or SingularWeightError where det W is 0 or not finite."""
    _, result = np.linalg.slogdet(weight)
    if on_host(result) and not np.isfinite(result):
        raise SingularWeightError(f"{layer}: its weight is singular, log|det W| = {result}")
    return result


def inverse_weight(layer: Bijection, weight: np.ndarray) -> np.ndarray:
    """W^-1, or SingularWeightError where W's dtype cannot hold a meaningful one."""
    try:
        inverse = np.linalg.inv(weight)
    except np.linalg.LinAlgError:
        raise SingularWeightError(f"{layer}: its weight is singular, det W = 0") from None
    if not on_host(inverse):
        return inverse
    squares = (np.vdot(matrix, matrix) for matrix in (weight.astype(float), inverse.astype(float)))
    condition = prod(squares) ** 0.5  # in the Frobenius norm
    if not condition < 1 / np.finfo(weight.dtype).eps:
        raise SingularWeightError(
            f"{layer}: its weight is singular to {weight.dtype} precision, "
            f"condition number {condition:.1e}"
        )
    return inverse


class InvConv1x1(Bijection):
    r"""Invertible 1x1 convolution (Kingma & Dhariwal 2018, section 3.2).

    Every pixel's channel vector meets the same square matrix W:

        y_bij = W x_bij                      x, y: (B, h, w, C); weight: (C, C)

    log_det   One image's Jacobian is block diagonal, one W for each pixel:
              log|det J| = h * w * log|det W|, the same for all B images.
    backward  dL/dx_bij = W^T dL/dy_bij
              dL/dW = sum_bij (dL/dy_bij) x_bij^T
                      + (sum_b dL/dlog_det_b) * h * w * W^-T      since d log|det W|/dW = W^-T
    start     a random rotation: log|det W| = 0.

    Raises SingularWeightError where det W is 0 or not finite, and, where W^-1 is needed (inverse
    and backward), where W's condition number exceeds 1/epsilon of its dtype; on a device never: what
    is computed there is NaN or inf.
    """

    def __init__(self, channels: int, rng: int | np.random.Generator | None = None,
                 dtype: type = np.float32) -> None:
        super().__init__()
        self.add_param("weight", random_rotation(channels, rng).astype(dtype))
        self.log_abs_det = Remembered(log_abs_det, self)
        self.inverse_weight = Remembered(inverse_weight, self)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        weight = self.params["weight"]
        check_input(self, x, len(weight))
        y = (rows(x) @ weight.T).reshape(x.shape)
        return y, constant_log_det(x, pixels(x) * self.log_abs_det(weight)), x

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        weight = self.params["weight"]
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


class InvConv1x1LU(Bijection):
    r"""Invertible 1x1 convolution, its matrix kept as factors (section 3.2, equation 10).

        y_bij = W x_bij        W = P L U        L = lower's strict part + I
                                                U = upper's strict part + diag(sign * exp(log_s))

    P, a permutation, and the signs stay as they started; lower, upper and log_s are learned.

    log_det   |det P| = det L = 1, so log|det J| = h * w * sum_c log_s_c: no determinant to compute.
    backward  dL/dx_bij = W^T dL/dy_bij
              G = sum_bij (dL/dy_bij) x_bij^T                     as in InvConv1x1
              dL/dL = strict lower part of P^T G U^T
              dL/dU = upper part of (P L)^T G
              dL/dlog_s = diag(dL/dU) * sign * exp(log_s) + (sum_b dL/dlog_det_b) * h * w
    start     the factors of a random rotation.

    Raises SingularWeightError where an exp(log_s) is 0 or infinite in its dtype, and in inverse
    where W's condition number exceeds 1/epsilon.
    """

    def __init__(self, channels: int, rng: int | np.random.Generator | None = None,
                 dtype: type = np.float32) -> None:
        super().__init__()
        order, lower, upper = lu_factors(random_rotation(channels, rng))
        diagonal = np.diag(upper)
        self.constants["order"] = order  # P L = L[order]: row i of P L is row order[i] of L
        self.constants["sign"] = np.sign(diagonal).astype(dtype)
        self.add_param("lower", np.tril(lower, -1).astype(dtype))
        self.add_param("upper", np.triu(upper, 1).astype(dtype))
        self.add_param("log_s", np.log(np.abs(diagonal)).astype(dtype))
        self.inverse_weight = Remembered(inverse_weight, self)

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """P L and U, both (C, C); their product is W."""
        lower, upper, log_s = self.params["lower"], self.params["upper"], self.params["log_s"]
        unit_lower = np.tril(lower, -1) + np.eye(len(lower), dtype=lower.dtype, like=lower)
        diagonal = self.constants["sign"] * np.exp(log_s)
        if on_host(diagonal) and not np.all(np.isfinite(diagonal) & (diagonal != 0)):
            raise SingularWeightError(f"{self}: its weight is singular, exp(log_s) = {np.abs(diagonal)}")
        return unit_lower[self.constants["order"]], np.triu(upper, 1) + np.diag(diagonal)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        log_s = self.params["log_s"]
        check_input(self, x, len(log_s))
        permuted_lower, upper = self.factors()
        y = (rows(x) @ (permuted_lower @ upper).T).reshape(x.shape)
        return y, constant_log_det(x, pixels(x) * log_s.sum()), x

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, y, len(self.params["log_s"]))
        permuted_lower, upper = self.factors()
        x = (rows(y) @ self.inverse_weight(permuted_lower @ upper).T).reshape(y.shape)
        return x, x

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        x = cache
        check_dlog_det(self, dlog_det, dy)
        permuted_lower, upper = self.factors()
        dweight = rows(dy).T @ rows(x)
        dpermuted_lower, dupper = dweight @ upper.T, permuted_lower.T @ dweight
        dlower = np.zeros_like(upper)
        dlower[self.constants["order"]] = dpermuted_lower
        self.grads["lower"] += np.tril(dlower, -1)
        self.grads["upper"] += np.triu(dupper, 1)
        self.grads["log_s"] += np.diag(dupper) * np.diag(upper) + dlog_det.sum() * pixels(x)
        return (rows(dy) @ (permuted_lower @ upper)).reshape(dy.shape)


def lu_factors(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaussian elimination with partial pivoting: order, L and U with matrix = L[order] @ U.

    L is unit lower triangular with |L| <= 1, U upper triangular.
    """
    upper, lower = matrix.copy(), np.eye(len(matrix))
    rows_in_order = np.arange(len(matrix))
    for k in range(len(matrix)):
        pivot = k + np.argmax(np.abs(upper[k:, k]))
        for array, columns in (upper, slice(None)), (lower, slice(k)):
            array[[k, pivot], columns] = array[[pivot, k], columns]
        rows_in_order[[k, pivot]] = rows_in_order[[pivot, k]]
        lower[k + 1:, k] = upper[k + 1:, k] / upper[k, k]
        upper[k + 1:] -= np.outer(lower[k + 1:, k], upper[k])
    return np.argsort(rows_in_order), lower, np.triu(upper)
