"""Modules whose parameters are one vector: flows, auto-encoders, dequantizers."""

from contextlib import AbstractContextManager
from math import prod
from typing import Any, TypeVar

import numpy as np

from minglow.arrays.device import all_finite, on_host
from minglow.arrays.memory import trim_freed_memory
from minglow.arrays.shapes import check_samples, check_side
from minglow.arrays.threads import threads_for_products
from minglow.bijection import Module
from minglow.params import FlatParams

T = TypeVar("T", float, np.ndarray)


class Trainable(Module):
    """A module with all parameters in one vector, which checks what goes in and what comes out.

    flat     all parameters as one vector (FlatParams)
    dtype    the parameters' dtype; arrays that come in are cast to it
    largest  the size of the largest parameter, which bounds the size of matrix products
    """

    flat: FlatParams
    dtype: type
    largest: int

    def flatten(self) -> None:
        """Move the parameters into one vector; call it once all children are registered."""
        self.flat = FlatParams(self)
        trim_freed_memory()  # the arrays that the vector's views have replaced
        self.dtype = self.flat.value.dtype.type
        self.largest = max((prod(shape) for _, shape in self.flat.where.values()), default=0)
        for path, module in self.walk():
            module.path = path

    def settings(self) -> dict[str, Any]:
        """Module's, without what follows from the parameters."""
        derived = "dtype", "largest"
        return {name: value for name, value in super().settings().items() if name not in derived}

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are flattened anew: a copied view is no view of the copied vector."""
        return {name: value for name, value in vars(self).items() if name != "flat"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.flat = FlatParams(self)

    def _threads(self, x: np.ndarray) -> AbstractContextManager[None]:
        """One policy for all methods: sums round differently on two threads than on one."""
        return threads_for_products(x.size * self.largest)

    def _checked(self, x: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """x (B, *shape) in the module's dtype. Raises ValueError for what it cannot take."""
        check_samples(self, x, shape)
        check_side(self, x, self.flat.value)
        with np.errstate(over="ignore"):  # a float64 that is too large for float32 becomes inf
            x = x.astype(self.dtype, copy=False)
        if on_host(x) and not np.isfinite(x).all():
            raise ValueError(f"{self} expected finite {np.dtype(self.dtype)}, got NaN or inf")
        return x

    def _finite(self, result: T, name: str) -> T:
        """The result, which has to be finite. Raises FloatingPointError."""
        if not all_finite(result):
            raise FloatingPointError(f"{name} of a finite input is NaN or inf: {self} has diverged, or "
                                     "the input is too large")
        return result
