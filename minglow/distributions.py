"""Base distributions: what the latents of a flow are compared with.

Floor 1; imports NumPy alone. All log-probabilities are in nats.
"""

from __future__ import annotations

from math import log, pi, prod

import numpy as np


class StandardNormal:
    """N(0, I) over arrays of one shape.

        log p(z_b) = -1/2 sum_i z_bi^2 - D/2 log(2 pi)            d log p / dz = -z
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = tuple(shape)

    def log_prob(self, z: np.ndarray) -> np.ndarray:
        """log p of each sample, (B,), in nats; z: (B, *shape)."""
        if z.shape[1:] != self.shape:
            raise ValueError(f"expected latents of shape {self.shape}, got {z.shape[1:]}")
        flat = z.reshape(len(z), -1)
        return -0.5 * np.einsum("bi,bi->b", flat, flat) - 0.5 * prod(self.shape) * log(2 * pi)

    def log_prob_grad(self, z: np.ndarray) -> np.ndarray:
        """d log p(z_b) / dz_b, of z's shape."""
        return -z

    def sample(self, n: int, rng: int | np.random.Generator | None = None,
               dtype: type = np.float32) -> np.ndarray:
        """Draw n samples, (n, *shape)."""
        return np.random.default_rng(rng).standard_normal((n, *self.shape), dtype)
