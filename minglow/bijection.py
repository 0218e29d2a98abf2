"""The contract: what a module is, and what bijections and conditioners promise.

`forward` goes from data to latents, `inverse` from latents to data. docs/contract.md gives the reasons.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import numpy as np

Rng = int | np.random.Generator | None  # what np.random.default_rng takes


class SingularWeightError(ValueError):
    """A weight that has to be inverted cannot be; the message names its layer."""


class Module:
    """Named parameters, their gradients, saved constants, and sub-modules.

    params     name -> array that training changes
    grads      name -> array of the same shape; backward adds to it
    constants  name -> array that is saved but never trained, such as the order of a shuffle
    children   name -> Module

    Arrays are written in place (``params[name][...] = value``) and never rebound, so that the views
    which FlatParams makes of them stay views.
    """

    path = ""  # where this module is in its flow, for error messages; Flow sets it

    def __init__(self) -> None:
        self.params: dict[str, np.ndarray] = {}
        self.grads: dict[str, np.ndarray] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.children: dict[str, Module] = {}

    def add_param(self, name: str, value: np.ndarray) -> None:
        """Own a copy of `value`, an array of float32 or float64, with a gradient of zeros.

        Raises ValueError for another value.
        """
        check_initialized(self)
        check_parameter(self, name, value)
        self.params[name] = value.copy()
        self.grads[name] = np.zeros_like(value)

    def settings(self) -> dict[str, Any]:
        """The class and the constructor's settings that change the function, as JSON can hold them.

        Files store them. By default the settings are the attributes that hold numbers, text, functions,
        or tuples of these.
        """
        found = {name: plain_value(value) for name, value in vars(self).items() if name != "path"}
        return {"class": type(self).__name__} | {
            name: value for name, value in found.items() if value is not None}

    def check_constants(self, constants: dict[str, np.ndarray]) -> None:
        """Raise ValueError unless constants from a file, of the right shapes, can be this one's."""

    def walk(self, path: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (path, module) for this module and all below it, parents first."""
        yield path, self
        for name, child in self.children.items():
            yield from child.walk(f"{path}.{name}" if path else name)

    def __str__(self) -> str:
        return f"{type(self).__name__} at {self.path}" if self.path else type(self).__name__


def plain_value(value: Any) -> Any:
    """A setting as JSON can hold it, functions by their names; None for arrays, modules and the like."""
    if isinstance(value, (bool, int, float, str, np.generic)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, (tuple, list)):
        parts = [plain_value(part) for part in value]
        return None if None in parts else parts
    if isinstance(value, partial):
        return [plain_value(value.func), *map(plain_value, value.args),
                {name: plain_value(part) for name, part in value.keywords.items()}]
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return None


def check_initialized(module: Module) -> None:
    """Raise ValueError for a module whose __init__ has not called Module's."""
    if "params" not in vars(module):
        raise ValueError(f"{type(module).__name__} has no params: its __init__ has to begin with "
                         "super().__init__()")


def check_parameter(module: Module, name: str, value: Any) -> None:
    """Raise ValueError unless a parameter is an array of float32 or float64."""
    if not hasattr(value, "ndim") or value.dtype not in (np.float32, np.float64):
        found = value.dtype if hasattr(value, "ndim") else f"a {type(value).__name__}"
        raise ValueError(f"{type(module).__name__} expected parameter {name} to be an array of float32 "
                         f"or float64, got {found}")


class Bijection(Module):
    """An invertible map of (B, ..., C) arrays that knows how it changes volume.

    x: data, y: latent; channels last; images (B, h, w, C) and vectors (B, C) alike.
    log_det: log|det dy/dx| of each sample in nats, always of shape (B,).
    cache: what backward needs; forward and inverse have the same intermediates, so either can make it.
    """

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        """Data to latent: return y, log_det (B,) and the cache for backward."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        """Latent to data: return x and the cache that forward(x) would have made."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse")

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        """From a loss's derivatives with respect to y and log_det (B,) to dx; adds to `grads`."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def forward_only(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """forward without its cache: y and log_det (B,), for densities.

        A bijection made of others calls their forward_only, so that at most one cache exists at a time.
        """
        return self.forward(x)[:2]

    def inverse_only(self, y: np.ndarray) -> np.ndarray:
        """inverse without its cache: x, for samples."""
        return self.inverse(y)[0]

    def initialize(self, x: np.ndarray) -> np.ndarray:
        """Set data-dependent parameters, if there are any, from x, and return forward(x)'s y."""
        return self.forward(x)[0]

    def trace(self, x: np.ndarray) -> Generator[Visit, None, np.ndarray]:
        """Yield (layer, x, y, log_det) of each layer that is not made of others, in order; return y.

        A bijection made of others shows them to diagnosis by `yield from inner.trace(x)`.
        """
        y, log_det = self.forward_only(x)
        yield self, x, y, log_det
        return y

    def trace_inverse(self, y: np.ndarray) -> Generator[InverseVisit, None, np.ndarray]:
        """Yield (layer, y, x) of each layer that is not made of others, last layer first; return x."""
        x = self.inverse_only(y)
        yield self, y, x
        return x


Visit = tuple[Bijection, np.ndarray, np.ndarray, np.ndarray]
InverseVisit = tuple[Bijection, np.ndarray, np.ndarray]


class Net(Module):
    """A differentiable map of (B, ..., C) arrays that needs no inverse: a coupling's conditioner."""

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return y and the cache for backward."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        """From a loss's derivative with respect to y to dx; adds to `grads`."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def initialize(self, x: np.ndarray) -> np.ndarray:
        """Set data-dependent parameters, if there are any, from x, and return forward(x)'s y."""
        return self.forward(x)[0]
