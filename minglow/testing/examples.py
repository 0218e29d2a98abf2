"""Layers and batches to check: perturbed parameters, and shapes whose axes differ."""

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np

from minglow.bijection import Bijection, Module, Net
from minglow.params import check_module
from minglow.testing.explain import PropertyFailed, describe

__tracebackhide__ = True  # pytest shows the line that called a check, not the check's own lines

M = TypeVar("M", bound=Module)
Seed = int | np.random.Generator

# Shapes of one sample. Height and width differ, so that a layer that swaps them fails. A sample has at
# most 24 values, so that finite differences give its Jacobian quickly. One channel comes last: NumPy
# stretches it where a layer does not check the number of channels.
SHAPES = [(4,), (2, 3, 4), (1, 1, 4), (2, 4, 2), (2,), (2, 3, 2),
          *(shape for size in (6, 3, 5, 8, 7) for shape in ((size,), (1, 3, size), (2, 1, size))),
          (2, 4, 1), (1,), (3, 2, 1)]
MAX_SHAPES = 3  # a layer is checked on the first shapes that it accepts
REFUSE = ("If forward is not meant for x of this shape, it must raise ValueError: see "
          "minglow.arrays.shapes.check_input.")
SCALES = 1.0, 3.0, 0.3  # standard deviations of the samples of a batch


def perturbed(module: M, rng: Seed = 0, size: float = 0.2, dtype: type | None = None) -> M:
    """A copy of a module with normal noise added to its parameters.

    The noise is `size` times each parameter's root mean square, so that a rotation stays
    well-conditioned, or `size` where all entries are zero: most gradients of a zero-initialized layer
    are zero. With `dtype` the copy's arrays are cast to it, which a Flow, whose parameters are views,
    does not allow.
    """
    rng = np.random.default_rng(rng)
    module = copy.deepcopy(module)
    for _, part in module.walk():
        for value in part.params.values():
            magnitude = np.sqrt(np.mean(np.square(value))) if np.any(value) else 1.0
            value[...] += size * magnitude * rng.standard_normal(value.shape)
        for arrays in (part.params, part.grads, part.constants) if dtype is not None else ():
            for name, value in arrays.items():
                if value.dtype.kind == "f":
                    arrays[name] = value.astype(dtype)
    return module


def examples(layer: M, x: np.ndarray | None = None, rng: Seed = 0,
             dtype: type = np.float64, nets: bool = False) -> Iterator[tuple[M, np.ndarray]]:
    """Yield (layer, batch) pairs to check; the layer is always a copy. `nets`: a Net is accepted, too.

    With x: x and the layer, its parameters unchanged, both cast to `dtype`. Without x: perturbed copies
    and batches of 3, for the first of SHAPES that the layer accepts. The standard deviation differs
    between the samples of a batch, so that some values are in the tails. Raises ValueError if there is
    none, and for a layer that cannot be checked.
    """
    check_type(layer, nets)
    if x is not None:
        if np.ndim(x) < 2 or 0 in np.shape(x):
            raise ValueError(f"expected a batch x of shape (B, ..., C), got {np.shape(x)}")
        if not np.all(np.isfinite(x)):
            raise ValueError("expected a batch x of finite numbers, got NaN or inf")
        yield perturbed(layer, rng, 0, dtype), np.array(x, dtype)
        return
    rng = np.random.default_rng(rng)
    accepted, refusal = 0, ""
    for shape in SHAPES:
        if accepted == MAX_SHAPES:
            return
        candidate = perturbed(layer, rng, dtype=dtype)
        batch: np.ndarray = rng.standard_normal((len(SCALES), *shape))
        batch = (batch * np.reshape(SCALES, (-1, *[1] * len(shape)))).astype(dtype)
        try:
            copy.deepcopy(candidate).forward(batch)  # type: ignore[attr-defined]
        except ValueError as error:  # a layer refuses a shape by a ValueError
            refusal = refusal or str(error)
            continue
        yield candidate, batch
        accepted += 1
    if not accepted:
        shapes = ", ".join(map(str, SHAPES))
        raise ValueError(f"{layer} accepted a sample of none of the shapes {shapes}; for {SHAPES[0]} it "
                         f"raised '{refusal}'. Pass a batch that it accepts: check_layer(layer, x)")


def check_type(layer: object, nets: bool = False) -> None:
    """Raise ValueError unless this is a bijection, or a net, whose arrays and modules are registered."""
    if not isinstance(layer, (Bijection, Net) if nets else Bijection):
        kind = f"the class {layer.__name__}" if isinstance(layer, type) else type(layer).__name__
        hint = ". check_backward checks a Net" if isinstance(layer, Net) else ""
        if isinstance(getattr(layer, "bijection", None), Bijection):
            hint = ". Check its attribute bijection"
        raise ValueError(f"expected a Bijection{' or a Net' * nets}, got {kind}{hint}")
    check_module(layer)


def has_method(layer: Bijection, name: str) -> bool:
    """Whether the layer's class implements a method of the contract."""
    return getattr(type(layer), name) is not getattr(Bijection, name)


def nearby(x: np.ndarray) -> np.ndarray:
    """x, each value moved by about a thousandth of itself: away from a kink that is near by chance."""
    return x * (1 + 1e-3 * np.random.default_rng(0).standard_normal(x.shape))


def finite_forward(layer: Bijection, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
    """layer.forward(x). Raises PropertyFailed unless y and log_det are finite."""
    y, log_det, cache = layer.forward(x)
    check_dimension(y, x)
    check_one_per_sample(log_det, x)
    for name, value in ("y", y), ("log_det", log_det):
        if not np.all(np.isfinite(value)):
            raise PropertyFailed("a finite forward", f"{name}, {describe(x)}", value, "finite numbers",
                                 "If the layer's domain is bounded, pass a batch inside it: "
                                 "check_layer(layer, x).")
    return y, log_det, cache


def check_dimension(y: np.ndarray, x: np.ndarray) -> None:
    """Raise PropertyFailed unless y has x's samples and as many values for each."""
    if len(y) != len(x) or y.size != x.size:
        raise PropertyFailed("equal dimensions of x and y", describe(x), f"y of shape {y.shape}",
                             f"{len(x)} samples of {x[0].size} values", "A bijection has as many "
                             f"outputs as inputs. {REFUSE}")


def check_one_per_sample(log_det: np.ndarray, x: np.ndarray) -> None:
    """Raise PropertyFailed unless log_det has shape (B,) and x's dtype."""
    found, expected = (np.shape(log_det), np.asarray(log_det).dtype), ((len(x),), x.dtype)
    if found != expected:
        hint = ("A value of another precision took part." if found[0] == expected[0] else
                "log_det has one number per sample: it is neither a scalar nor a sum.")
        raise PropertyFailed("log_det of shape (B,) and x's dtype", describe(x), found, expected, hint)
