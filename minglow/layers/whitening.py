"""Whitening: the linear map that makes the covariance of data the identity, and is not trained."""

from typing import Any

import numpy as np

from minglow import validation
from minglow.arrays.shapes import check_dlog_det, check_input, constant_log_det, pixels, rows
from minglow.bijection import Bijection

FLOOR = 1e-4  # of the largest standard deviation: below it, float32 data have only rounding


class Whitening(Bijection):
    r"""Uncorrelated channels of variance 1, by a symmetric matrix set from data (Kessy et al. 2018).

        y = W x for the channels of every pixel, W = V diag(1/s) V^T
        vectors: V, (C, C), orthogonal; std: s, (C,); constants in float64, V = I and s = 1 at first

    inverse     x = V diag(s) V^T y
    log_det     log|det J| = -h * w * sum_c log s_c, the same for all B samples
    backward    dL/dx = W^T dL/dy = W dL/dy; there are no parameters.
    initialize  V and s^2 are the eigenvectors and eigenvalues of the batch's (biased) covariance. An s
                below 1e-4 of the largest is raised to that.

    channels    C

    Of all W that whiten, the symmetric one keeps each y_c closest to its x_c. After a Standardization,
    and before a flow that is near a rotation, the density begins as the Gaussian with the covariance of
    the data. Raises ValueError for a std that is not positive, and for vectors that are not orthogonal.

    >>> layer, x = minglow.Whitening(2), np.array([[2.0, 1.0], [-2.0, -1.0], [1.0, 2.0], [-1.0, -2.0]])
    >>> y = layer.initialize(x)
    >>> (y.T @ y / 4).round(9) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        channels = validation.check_count("channels", channels)
        self.constants.update(vectors=np.eye(channels), std=np.ones(channels))

    def check_constants(self, constants: dict[str, np.ndarray]) -> None:
        vectors = constants["vectors"]
        if not (constants["std"] > 0).all():
            raise ValueError("expected positive standard deviations, got others")
        with np.errstate(over="ignore"):
            orthogonal = np.allclose(vectors.T @ vectors, np.eye(len(vectors)), atol=1e-6)
        if not orthogonal:
            raise ValueError("expected orthogonal vectors, got others")

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        std = self.constants["std"]
        check_input(self, x, len(std))
        return self._scaled(x, 1 / std), constant_log_det(x, -pixels(x) * np.log(std).sum()), None

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, y, len(self.constants["std"]))
        return self._scaled(y, self.constants["std"]), None

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        check_dlog_det(self, dlog_det, dy)
        return self._scaled(dy, 1 / self.constants["std"])

    def initialize(self, x: np.ndarray) -> np.ndarray:
        check_input(self, x, len(self.constants["std"]))
        centered = rows(x) - rows(x).mean(axis=0, dtype=np.float64)
        variance, vectors = np.linalg.eigh(centered.T @ centered / len(centered))
        std = np.sqrt(np.maximum(variance, FLOOR**2 * variance.max()))
        self.constants["vectors"][...] = vectors
        self.constants["std"][...] = np.where(std > 0, std, 1)  # all rows are equal
        return self.forward(x)[0]

    def _scaled(self, x: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """V diag(factors) V^T x for the channels of every pixel, in float64, rounded to x's dtype."""
        vectors = self.constants["vectors"]
        return (((rows(x) @ vectors) * factors) @ vectors.T).astype(x.dtype).reshape(x.shape)
