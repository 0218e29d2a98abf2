"""A density: a bijection to latents, and a base distribution over them.

Floor 2.
"""

from __future__ import annotations

from math import prod
from typing import TypeVar

import numpy as np

from minglow.arrays import check_input
from minglow.bijection import Bijection, Module
from minglow.blas import for_products_of
from minglow.distributions import StandardNormal
from minglow.memory import give_back_freed_memory
from minglow.params import FlatParams

T = TypeVar("T", float, np.ndarray)


class Flow(Module):
    """log p(x) = log p_base(z) + log|det dz/dx|, with z = bijection(x).

    flat   all parameters as one vector (FlatParams)
    dtype  the parameters' dtype; arrays that come in are cast to it
    largest  how many numbers its largest parameter holds: with the batch, how large its products are

    Every method raises ValueError for input that is empty, not of floats, or not finite in the
    flow's dtype, and FloatingPointError where finite input leads to a result that is not.
    """

    def __init__(self, bijection: Bijection, base: StandardNormal) -> None:
        super().__init__()
        self.bijection, self.base = bijection, base
        self.children["bijection"] = bijection
        self.flat = FlatParams(self)
        give_back_freed_memory()  # the arrays that the vector's views have replaced
        self.dtype = self.flat.value.dtype.type
        self.largest = max((prod(shape) for _, shape in self.flat.where.values()), default=0)
        for path, module in self.walk():
            module.path = path

    def __reduce__(self) -> tuple[type[Flow], tuple[Bijection, StandardNormal]]:
        """Copies and pickles are built anew: a copied view would not be a view of the copied vector."""
        return Flow, (self.bijection, self.base)

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """log p(x_b) of each sample, (B,), in nats."""
        x = self._checked(x)
        with for_products_of(x.size * self.largest):
            z, log_det = self.bijection.forward_only(x)
        return self._finite(self.base.log_prob(z) + log_det, "log_prob")

    def sample(self, n: int, rng: int | np.random.Generator | None = None,
               temperature: float = 1.0) -> np.ndarray:
        """Draw n samples. The latents' noise is multiplied by `temperature`, in every level
        (Kingma & Dhariwal 2018, section 6)."""
        if n < 1 or not 0 <= temperature < np.inf:
            raise ValueError(f"expected at least 1 sample and a temperature of at least 0, "
                             f"got {n} and {temperature}")
        z = self.base.sample(n, np.random.default_rng(rng), self.dtype)
        with for_products_of(z.size * self.largest):
            x = self.bijection.inverse_only(self.dtype(temperature) * z)
        if not np.isfinite(x).all():
            raise FloatingPointError(f"samples at temperature {temperature:g} are NaN or inf")
        return x

    def nll_and_grad(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean negative log-likelihood of a batch in nats, and its derivative by x.

            loss = -1/B sum_b [log p_base(z_b) + log_det_b]

        so that dloss/dz = -1/B dlog p_base/dz and dloss/dlog_det_b = -1/B. Adds the derivatives
        by the parameters to every module's grads.
        """
        x = self._checked(x)
        with for_products_of(x.size * self.largest):
            z, log_det, cache = self.bijection.forward(x)
            nll = -float(np.mean(self.base.log_prob(z) + log_det))
            self._finite(nll, "nll")
            share = self.dtype(-1 / len(x))
            dz = share * self.base.log_prob_grad(z)
            dx = self.bijection.backward(dz, np.full_like(log_det, share), cache)
        return nll, dx

    def initialize(self, x: np.ndarray) -> None:
        """Set the data-dependent parameters from one batch, before training, once."""
        self._finite(self.bijection.initialize(self._checked(x)), "initialize")
        self._finite(self.flat.value, "initialize")

    def latents(self, x: np.ndarray) -> np.ndarray:
        """z = bijection(x), (B, D)."""
        return self._finite(self.bijection.forward_only(self._checked(x))[0], "latents")

    def reconstruction_error(self, x: np.ndarray) -> float:
        """max |x - inverse(forward(x))| over the batch: how invertible the flow is in its dtype."""
        x = self._checked(x)
        back = self.bijection.inverse_only(self.bijection.forward_only(x)[0])
        return self._finite(float(np.max(np.abs(back - x))), "reconstruction_error")

    def _checked(self, x: np.ndarray) -> np.ndarray:
        check_input(self, x)
        with np.errstate(over="ignore"):  # a float64 that is too large for float32 becomes inf
            x = x.astype(self.dtype, copy=False)
        if not np.isfinite(x).all():
            raise ValueError(f"{self} expected finite {np.dtype(self.dtype)}, got NaN or inf")
        return x

    def _finite(self, result: T, name: str) -> T:
        if not np.isfinite(result).all():
            raise FloatingPointError(f"{name} of a finite input is NaN or inf: {self} has diverged")
        return result
