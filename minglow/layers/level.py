"""The multi-scale architecture: some latents leave early. Floor 2."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from minglow import arguments
from minglow.arrays import check_even_channels, check_input, halves, join, zero_log_det
from minglow.bijection import Bijection


class Flatten(Bijection):
    """An array of the given shape as one vector of latents, (B, *shape) -> (B, D); log_det is 0."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = arguments.shape(shape)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        check_input(self, x)
        if x.shape[1:] != self.shape:
            shape = ", ".join(map(str, self.shape))
            raise ValueError(f"{self} expected an array of shape (B, {shape}), got {x.shape}")
        return x.reshape(len(x), -1), zero_log_det(x), None

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, y, prod(self.shape))
        return y.reshape(len(y), *self.shape), None

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        return dy.reshape(len(dy), *self.shape)


class Level(Bijection):
    r"""One level: steps, then half of the channels leave and the rest go on (Dinh et al. 2017, 3.6).

        a, b = halves(steps(x))              shape: that of steps(x), (h, w, C)
        z = [b, inner(a)]                    z: (B, D), b flattened

    log_det   steps' and inner's, added: b leaves as it is.
    backward  the two parts of dL/dz go back through b and through inner, meet again as the
              halves they were, and go back through steps.

    The learned prior of the latents that leave, b ~ N(mu(a), sigma(a)^2), is a coupling at the
    end of `steps` that maps b to (b - mu(a)) / sigma(a); so the base stays N(0, I).
    """

    def __init__(self, steps: Bijection, inner: Bijection, shape: tuple[int, ...]) -> None:
        super().__init__()
        check_even_channels(self, shape[-1])
        self.steps, self.inner = steps, inner
        self.children.update(steps=steps, inner=inner)
        self.half = (*shape[:-1], shape[-1] // 2)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        h, log_det, steps_cache = self.steps.forward(x)
        a, b = halves(h)
        z, inner_log_det, inner_cache = self.inner.forward(a)
        return join(b.reshape(len(b), -1), z), log_det + inner_log_det, (steps_cache, inner_cache)

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        b, z = self._checked_parts(y)
        a, inner_cache = self.inner.inverse(z)
        x, steps_cache = self.steps.inverse(join(a, b))
        return x, (steps_cache, inner_cache)

    def forward_only(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        h, log_det = self.steps.forward_only(x)
        a, b = halves(h)
        z, inner_log_det = self.inner.forward_only(a)
        return join(b.reshape(len(b), -1), z), log_det + inner_log_det

    def inverse_only(self, y: np.ndarray) -> np.ndarray:
        b, z = self._checked_parts(y)
        return self.steps.inverse_only(join(self.inner.inverse_only(z), b))

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        steps_cache, inner_cache = cache
        db, dz = self.parts(dy)
        da = self.inner.backward(dz, dlog_det, inner_cache)
        return self.steps.backward(join(da, db), dlog_det, steps_cache)

    def initialize(self, x: np.ndarray) -> np.ndarray:
        a, b = halves(self.steps.initialize(x))
        return join(b.reshape(len(b), -1), self.inner.initialize(a))

    def _checked_parts(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_input(self, y)
        if y.ndim != 2 or y.shape[1] <= prod(self.half):
            raise ValueError(f"{self} expected latents (B, D), D above {prod(self.half)}, got {y.shape}")
        return self.parts(y)

    def parts(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take flat latents apart, as views: b in its own shape, and the rest, still flat."""
        size = prod(self.half)
        return z[:, :size].reshape(len(z), *self.half), z[:, size:]
