"""Layers and batches to check: moved parameters, shapes that tell axes apart. Floor 2."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np

from minglow.bijection import Bijection, Module, check_made
from minglow.testing.explain import broken, described

M = TypeVar("M", bound=Module)

# Of one sample. Height and width differ, so that mixing them up shows; at most 24 numbers, so that
# a Jacobian can be had by differences.
SHAPES = [(4,), (2, 3, 4), (1, 1, 4), (2, 4, 2), (2,), (2, 3, 2), (6,), (1, 3, 6), (2, 4, 1), (3,)]
MOST = 3  # shapes that one layer is checked on, the first that it takes


def moved(module: M, rng: int | np.random.Generator = 0, size: float = 0.2,
          dtype: type | None = None) -> M:
    """A copy of a module, its parameters moved by normal noise: `size` of each one's own magnitude.

    At a zero start most gradients are zero and checks say nothing. A parameter of zeros moves by
    `size` itself; a rotation stays well-conditioned. With `dtype` the copy's arrays are cast to
    it, which is for bijections and conditioners: a Flow's are views of one vector.
    """
    rng = np.random.default_rng(rng)
    module = copy.deepcopy(module)
    for _, part in module.walk():
        for value in part.params.values():
            magnitude = np.sqrt(np.mean(np.square(value))) if value.size and np.any(value) else 1.0
            noise = size * magnitude * rng.standard_normal(value.shape)
            value[...] = value + noise
        for arrays in (part.params, part.grads, part.constants) if dtype is not None else ():
            for name, value in arrays.items():
                if value.dtype.kind == "f":
                    arrays[name] = value.astype(dtype)
    return module


def examples(layer: M, x: np.ndarray | None = None, rng: int | np.random.Generator = 0,
             dtype: type = np.float64, size: float = 0.2) -> Iterator[tuple[M, np.ndarray]]:
    """Yield (layer, batch) pairs to check.

    With x, a copy of the layer with its parameters as they are, and x, both cast to `dtype`.
    Without, moved copies and batches of 3 for the first of SHAPES that the layer takes. Raises
    ValueError if it takes none.
    """
    if not isinstance(layer, Module):
        kind = f"the class {layer.__name__}" if isinstance(layer, type) else type(layer).__name__
        raise ValueError(f"expected a Bijection or a Net, got {kind}")
    check_made(layer)
    if x is not None:
        x = np.asarray(x)
        if not np.all(np.isfinite(x)):
            raise ValueError("expected a batch x of finite numbers, got NaN or inf")
        yield moved(layer, rng, 0, dtype), x.astype(dtype)
        return
    rng = np.random.default_rng(rng)
    taken, refusal = 0, ""
    for shape in SHAPES:
        candidate = moved(layer, rng, size, dtype)
        batch: np.ndarray = rng.standard_normal((3, *shape)).astype(dtype)
        try:
            copy.deepcopy(candidate).forward(batch)  # type: ignore[attr-defined]
        except ValueError as error:  # what a layer says of a shape that it doesn't take
            refusal = refusal or str(error)
            continue
        yield candidate, batch
        taken += 1
        if taken == MOST:
            return
    if not taken:
        shapes = ", ".join(map(str, SHAPES))
        raise ValueError(f"{layer} took a sample of none of the shapes {shapes}: for {SHAPES[0]} it "
                         f"said '{refusal}'. Hand a batch that it takes to check_layer(layer, x)")


def finite_forward(layer: Bijection, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
    """layer.forward(x), whose numbers have to be finite."""
    y, log_det, cache = layer.forward(x)
    check_one_for_each(log_det, x)
    for name, value in ("y", y), ("log_det", log_det):
        if not np.all(np.isfinite(value)):
            raise broken("a finite forward", f"{name}, {described(x)}", np.asarray(value),
                         "finite numbers",
                         "forward returned NaN or inf. Is x in the map's domain?")
    return y, log_det, cache


def check_one_for_each(log_det: np.ndarray, x: np.ndarray) -> None:
    """Raise BrokenPromise unless log_det has shape (B,) and x's dtype."""
    came, wanted = (np.shape(log_det), np.asarray(log_det).dtype), ((len(x),), x.dtype)
    if came != wanted:
        hint = ("A number of another precision took part." if came[0] == wanted[0] else
                "One number for each sample: never a scalar, never a sum.")
        raise broken("log_det's shape and dtype", described(x), came, wanted, hint)
