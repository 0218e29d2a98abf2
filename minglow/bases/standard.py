"""Base distributions without parameters."""

from math import log, pi, prod

import numpy as np

from minglow.bases.base import Base, Labels
from minglow.bijection import Rng


class StandardNormal(Base):
    """N(0, I) over arrays of one shape.

        log p(z_b) = -1/2 sum_i z_bi^2 - D/2 log(2 pi)            d log p / dz = -z
    """

    def log_prob(self, z: np.ndarray, labels: Labels = None) -> np.ndarray:
        flat = self.as_vectors(z)
        return -0.5 * np.einsum("bi,bi->b", flat, flat) - 0.5 * prod(self.shape) * log(2 * pi)

    def backward(self, dlog_prob: np.ndarray, z: np.ndarray, labels: Labels = None) -> np.ndarray:
        return (-dlog_prob[:, None] * self.as_vectors(z)).reshape(z.shape)

    def sample(self, n: int, rng: Rng = None, dtype: type = np.float32, temperature: float = 1.0,
               labels: Labels = None) -> np.ndarray:
        noise = np.random.default_rng(rng).standard_normal((n, *self.shape), dtype)
        return dtype(temperature) * noise


class StandardLogistic(Base):
    """Independent logistic variables, NICE's base for images (Dinh et al. 2015, section 3.4).

        log p(z_b) = -sum_i [softplus(z_bi) + softplus(-z_bi)]    d log p / dz = -tanh(z / 2)

    Mean 0, variance pi^2 / 3. Its tails are heavier than the normal's.
    """

    def log_prob(self, z: np.ndarray, labels: Labels = None) -> np.ndarray:
        size = np.abs(self.as_vectors(z))  # softplus(z) + softplus(-z) = |z| + 2 log(1 + exp(-|z|))
        return -(size + 2 * np.log1p(np.exp(-size))).sum(axis=1)

    def backward(self, dlog_prob: np.ndarray, z: np.ndarray, labels: Labels = None) -> np.ndarray:
        return (-dlog_prob[:, None] * np.tanh(self.as_vectors(z) / 2)).reshape(z.shape)

    def sample(self, n: int, rng: Rng = None, dtype: type = np.float32, temperature: float = 1.0,
               labels: Labels = None) -> np.ndarray:
        rng = np.random.default_rng(rng)
        return (temperature * rng.logistic(size=(n, *self.shape))).astype(dtype)
