"""The multi-scale architecture: some latents are factored out early."""

from collections.abc import Generator
from math import prod
from typing import Any

import numpy as np

from minglow.arrays.shapes import check_even_channels, check_input, halves, join
from minglow.bijection import Bijection, InverseVisit, Visit


class Level(Bijection):
    r"""One level: flow steps, then half of the channels are factored out (Dinh et al. 2017, 3.6).

        a, b = halves(steps(x))              shape: that of steps(x), (h, w, C)
        z = [b, inner(a)]                    z: (B, D), b flattened

    inverse     x = steps^-1([inner^-1(z_a), b]) where z = [b, z_a]
    log_det     the sum of those of steps and inner
    backward    dL/dz has two parts. dL/db is that of b; dL/da is inner's backward of the other. Joined,
                they are the dL/dy of steps.

    steps       the bijection before the split
    inner       the next levels: from (B, h, w, C/2) to (B, D')

    The learned prior of the factored-out latents, b ~ N(mu(a), sigma(a)^2), is a coupling at the end of
    `steps` that maps b to (b - mu(a)) / sigma(a); so the base stays N(0, I). Raises ValueError for an
    odd C, and in inverse for latents of another shape than (B, D).

    >>> level = minglow.Level(minglow.Squeeze(), minglow.Flatten((1, 1, 2)), shape=(1, 1, 4))
    >>> level.forward(np.arange(4.0).reshape(1, 2, 2, 1))[0]  # the half that leaves comes first
    array([[2., 3., 0., 1.]])
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

    def trace(self, x: np.ndarray) -> Generator[Visit, None, np.ndarray]:
        a, b = halves((yield from self.steps.trace(x)))
        return join(b.reshape(len(b), -1), (yield from self.inner.trace(a)))

    def trace_inverse(self, y: np.ndarray) -> Generator[InverseVisit, None, np.ndarray]:
        b, z = self._checked_parts(y)
        a = yield from self.inner.trace_inverse(z)
        return (yield from self.steps.trace_inverse(join(a, b)))

    def _checked_parts(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_input(self, y)
        if y.ndim != 2 or y.shape[1] <= prod(self.half):
            raise ValueError(f"{self} expected latents (B, D), D above {prod(self.half)}, got {y.shape}")
        return self.parts(y)

    def parts(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Split flat latents, as views: b in its own shape, and the rest, still flat."""
        size = prod(self.half)
        return z[:, :size].reshape(len(z), *self.half), z[:, size:]
