"""Invertible 1x1 convolution whose matrix is a product of LU factors."""

from typing import Any

import numpy as np

from minglow.arrays.device import on_host
from minglow.arrays.shapes import check_dlog_det, pixels, rows
from minglow.bijection import SingularWeightError
from minglow.layers.invconv import InvConv1x1
from minglow.layers.permute import check_order


class InvConv1x1LU(InvConv1x1):
    r"""Invertible 1x1 convolution with W as LU factors (Kingma & Dhariwal 2018, equation 10).

        y_bij = W x_bij        W = P L U        L = strict lower part of lower + I
                                                U = strict upper part of upper + diag(sign * exp(log_s))

    The permutation P and the signs are constants; lower, upper and log_s are learned.

    inverse     x_bij = W^-1 y_bij
    log_det     |det P| = det L = 1, so log|det J| = h * w * sum_c log_s_c: no determinant to compute.
    backward    dL/dx_bij = W^T dL/dy_bij
                G = sum_bij (dL/dy_bij) x_bij^T                     as in InvConv1x1
                dL/dL = strict lower part of P^T G U^T
                dL/dU = upper part of (P L)^T G
                dL/dlog_s = diag(dL/dU) * sign * exp(log_s) + (sum_b dL/dlog_det_b) * h * w
    initialize  nothing is set from data; the factors are those of a random orthogonal matrix at first.

    Arguments, forward and inverse are InvConv1x1's. Raises SingularWeightError where an exp(log_s) is 0
    or infinite in its dtype, and in inverse as InvConv1x1 does. On a device nothing is raised.

    >>> layer = minglow.InvConv1x1LU(2, rng=0, dtype=np.float64)
    >>> layer.params["log_s"][...] = 1, 2
    >>> layer.forward(np.ones((1, 3, 3, 2)))[1]  # log_det: 9 pixels
    array([27.])
    """

    def add_matrix(self, matrix: np.ndarray, dtype: type) -> None:
        order, lower, upper = lu_factors(matrix)
        diagonal = np.diag(upper)
        self.constants["order"] = order  # P L = L[order]: row i of P L is row order[i] of L
        self.constants["sign"] = np.sign(diagonal).astype(dtype)
        self.add_param("lower", np.tril(lower, -1).astype(dtype))
        self.add_param("upper", np.triu(upper, 1).astype(dtype))
        self.add_param("log_s", np.log(np.abs(diagonal)).astype(dtype))

    def check_constants(self, constants: dict[str, np.ndarray]) -> None:
        check_order(constants["order"])
        if not (np.abs(constants["sign"]) == 1).all():
            raise ValueError(f"expected signs 1 and -1, got {constants['sign'].tolist()}")

    def matrix(self) -> np.ndarray:
        permuted_lower, upper = self.factors()
        return permuted_lower @ upper

    def log_abs_det(self, weight: np.ndarray) -> np.ndarray:
        return self.params["log_s"].sum()

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """P L and U, both (C, C); their product is W."""
        lower, upper, log_s = self.params["lower"], self.params["upper"], self.params["log_s"]
        unit_lower = np.tril(lower, -1) + np.diag(np.ones_like(lower[0]))  # CuPy has no np.eye(like=)
        diagonal = self.constants["sign"] * np.exp(log_s)
        if on_host(diagonal) and not np.all(np.isfinite(diagonal) & (diagonal != 0)):
            raise SingularWeightError(f"{self}: its weight is singular, exp(log_s) = {np.abs(diagonal)}")
        return unit_lower[self.constants["order"]], np.triu(upper, 1) + np.diag(diagonal)

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
