"""Base distributions: what the latents of a flow are compared with.

Floor 1. All log-probabilities are in nats. A base is a Module, since it may have parameters of its own:

    log_prob(z, labels)              (B,)
    backward(dlog_prob, z, labels)   dlog_prob (B,) -> dz; adds to `grads`
    sample(n, rng, dtype, temperature, labels)

labels (B,) say which class each sample is of; None where that is not known. A base without classes
has `classes` = 0 and leaves them alone.
"""

from __future__ import annotations

from math import log, pi, prod

import numpy as np

from minglow import arguments
from minglow.bijection import Module

Labels = np.ndarray | None
Rng = int | np.random.Generator | None


class StandardNormal(Module):
    """N(0, I) over arrays of one shape.

        log p(z_b) = -1/2 sum_i z_bi^2 - D/2 log(2 pi)            d log p / dz = -z
    """

    classes = 0

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = arguments.shape(shape)

    def log_prob(self, z: np.ndarray, labels: Labels = None) -> np.ndarray:
        """log p of each sample, (B,), in nats; z: (B, *shape)."""
        flat = _flat(self, z)
        return -0.5 * np.einsum("bi,bi->b", flat, flat) - 0.5 * prod(self.shape) * log(2 * pi)

    def backward(self, dlog_prob: np.ndarray, z: np.ndarray, labels: Labels = None) -> np.ndarray:
        """Pull a loss's derivative by log_prob, (B,), back to z."""
        return (-dlog_prob[:, None] * _flat(self, z)).reshape(z.shape)

    def sample(self, n: int, rng: Rng = None, dtype: type = np.float32, temperature: float = 1.0,
               labels: Labels = None) -> np.ndarray:
        """Draw n samples, (n, *shape); temperature multiplies the standard deviation."""
        noise = np.random.default_rng(rng).standard_normal((n, *self.shape), dtype)
        return dtype(temperature) * noise


class StandardLogistic(Module):
    """Independent logistic variables, NICE's base for images (Dinh et al. 2015, section 3.4).

        log p(z_b) = -sum_i [softplus(z_bi) + softplus(-z_bi)]    d log p / dz = -tanh(z / 2)

    Mean 0, variance pi^2 / 3. Its tails are heavier than the normal's.
    """

    classes = 0

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = arguments.shape(shape)

    def log_prob(self, z: np.ndarray, labels: Labels = None) -> np.ndarray:
        """log p of each sample, (B,), in nats; z: (B, *shape)."""
        size = np.abs(_flat(self, z))  # softplus(z) + softplus(-z) = |z| + 2 log(1 + exp(-|z|))
        return -(size + 2 * np.log1p(np.exp(-size))).sum(axis=1)

    def backward(self, dlog_prob: np.ndarray, z: np.ndarray, labels: Labels = None) -> np.ndarray:
        """Pull a loss's derivative by log_prob, (B,), back to z."""
        return (-dlog_prob[:, None] * np.tanh(_flat(self, z) / 2)).reshape(z.shape)

    def sample(self, n: int, rng: Rng = None, dtype: type = np.float32, temperature: float = 1.0,
               labels: Labels = None) -> np.ndarray:
        """Draw n samples, (n, *shape); temperature multiplies the standard deviation."""
        rng = np.random.default_rng(rng)
        return (temperature * rng.logistic(size=(n, *self.shape))).astype(dtype)


def _flat(base: StandardNormal | StandardLogistic, z: np.ndarray) -> np.ndarray:
    """z as (B, D), or ValueError if it has another shape than the base."""
    if z.shape[1:] != base.shape:
        raise ValueError(f"expected latents of shape {base.shape}, got {z.shape[1:]}")
    return z.reshape(len(z), -1)
