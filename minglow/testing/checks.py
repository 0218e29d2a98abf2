"""One function for each property of the contract; each raises PropertyFailed with an explanation.

invertibility.py, gradients.py, purity.py and updates.py hold the others. Every check takes a bijection,
which it does not change, a batch x that the bijection accepts, and a seed; without x it uses
examples.py's.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minglow import kernels
from minglow.bijection import Bijection, Module
from minglow.params import parameters
from minglow.testing.examples import (
    REFUSE,
    Seed,
    check_dimension,
    check_one_per_sample,
    check_type,
    examples,
    finite_forward,
    has_method,
    perturbed,
)
from minglow.testing.explain import PropertyFailed, describe, explain_ratio
from minglow.testing.gradients import cotangents, gradients
from minglow.testing.invertibility import rounded
from minglow.validation import describe_error

__tracebackhide__ = True  # pytest shows the line that called a check, not the check's own lines


def check_returns(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """forward returns (y, log_det, cache), inverse returns (x, cache), backward returns dx."""
    check_type(layer)
    missing = [name for name in ("forward", "inverse", "backward") if not has_method(layer, name)]
    if missing:
        raise PropertyFailed("the contract's methods", type(layer).__name__,
                             f"no {', no '.join(missing)}", "forward, inverse and backward")
    for candidate, batch in examples(layer, x, rng):
        y, log_det, cache = _parts("forward", candidate.forward(batch), ("y", "log_det", "cache"), batch)
        check_dimension(y, batch)
        check_one_per_sample(log_det, batch)
        _parts("inverse", _call(candidate.inverse, batch, y), ("x", "cache"), batch)
        dx = _call(candidate.backward, batch, np.ones_like(y), np.ones_like(log_det), cache)
        if np.shape(dx) != batch.shape:
            raise _wrong_return("backward", dx, f"dx of shape {batch.shape}", batch)


def _call(method: Callable[..., Any], batch: np.ndarray, *arguments: Any) -> Any:
    """The method's result. Raises PropertyFailed where it refuses what forward accepted."""
    try:
        return method(*arguments)
    except ValueError as error:
        raise PropertyFailed(f"{method.__name__} after forward", describe(batch), describe_error(error),
                             "a result, since forward gave one", REFUSE) from error


def _parts(method: str, result: Any, names: tuple[str, ...], batch: np.ndarray) -> tuple[Any, ...]:
    """The result, if it is a tuple with these parts that begins with an array."""
    if (not isinstance(result, tuple) or len(result) != len(names)
            or not isinstance(result[0], np.ndarray)):
        raise _wrong_return(method, result, f"({', '.join(names)})", batch)
    return result


def _wrong_return(method: str, result: Any, expected: str, batch: np.ndarray) -> PropertyFailed:
    return PropertyFailed(f"{method}'s return value", describe(batch), _kind(result), expected,
                          f"Does {method} end in a return?" if result is None else "")


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_kind, value))})"
    return f"an array {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def check_precision(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """In float32 all results are float32, and those of float64 within rounding.

    y, log_det, dx and all gradients, with the cache of forward and with that of inverse: within 1e-4 of
    each one's largest value plus a hundred times its change when x, and y before inverse, are rounded to
    float32 once more.
    """
    for single, batch in examples(layer, x, rng, np.float32):
        double = perturbed(single, 0, 0, np.float64)
        found = _results(single, batch)
        expected = _results(double, batch.astype(np.float64))
        changed = _results(double, rounded(batch.astype(np.float64), np.float32), np.float32)
        scale = max(np.max(np.abs(value), initial=0) for value in expected.values())
        for name, value in found.items():
            if value.dtype != np.float32:
                raise PropertyFailed("results of x's dtype", f"{name}, {describe(batch)}", value.dtype,
                                     "float32", "A value of another precision took part.")
            allowed = 1e-4 * (np.max(np.abs(expected[name]), initial=0) + 1e-2 * scale)
            allowed += 100 * np.max(np.abs(changed[name] - expected[name]), initial=0)
            if not np.all(np.abs(value - expected[name]) <= allowed):
                raise PropertyFailed("float32's results = float64's", f"{name}, {describe(batch)}",
                                     value, expected[name],
                                     explain_ratio(value, expected[name], batch, name))


def _results(layer: Bijection, x: np.ndarray, dtype: type | None = None) -> dict[str, np.ndarray]:
    """Everything that forward and backward return, and the gradients.

    dtype: inverse gets y rounded to it.
    """
    y, log_det, cache = finite_forward(layer, x)
    parts = cotangents(y, log_det, 0)
    found = {"y": y, "log_det": log_det}
    again = y if dtype is None else rounded(y, dtype)
    for source, kept in ("forward", cache), ("inverse", layer.inverse(again)[1]):
        found |= {f"{'dx' if name == 'x' else name} of backward with the cache of {source}": gradient
                  for name, gradient in gradients(layer, kept, *parts).items()}
    return found


def check_initialize(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """initialize(x) returns forward(x)'s y; all values are finite, also for a constant channel.

    These are y, the parameters and inverse(y), of the layer with perturbed parameters, and then with its
    own, as before training. Attributes that are neither params nor constants stay as they are.
    """
    pairs = [pair for candidate, batch in examples(layer, x, rng)
             for pair in ((candidate, batch), (perturbed(layer, 0, 0, np.float64), batch))]
    for candidate, batch in pairs:
        constant = batch.copy()
        constant[..., 0] = 0.5
        settings = _settings(candidate)
        for data, remark in (batch, ""), (constant, "Channel 0 is constant over this batch."):
            y = candidate.initialize(data)
            for name, value in _initialized(candidate, y):
                if not np.all(np.isfinite(value)):
                    raise PropertyFailed("a finite initialization", f"{name}, {describe(data)}", value,
                                         "finite numbers", remark)
            for (owner, name), value in _settings(candidate).items():
                if value != settings.get((owner, name)):
                    where = f"attribute {name} of {owner}, {describe(data)}"
                    raise PropertyFailed("an initialization of params and constants", where, value,
                                         settings.get((owner, name)),
                                         "Another attribute is not loaded from a file.")
            expected = candidate.forward(data)[0]
            if not np.allclose(y, expected, rtol=1e-12, atol=1e-12):
                raise PropertyFailed("initialize(x) = forward(x)'s y", describe(data), y, expected,
                                     "initialize sets the parameters, then maps x with them.")


def _settings(layer: Bijection) -> dict[tuple[Module, str], Any]:
    """(module, name) -> value of every setting that a file would hold."""
    return {(part, name): value for _, part in layer.walk() for name, value in part.settings().items()}


def _initialized(layer: Bijection, y: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(name, value) of everything that has to be finite; inverse is called once the others are."""
    yield "y", y
    for path, owner, name in parameters(layer):
        yield path, owner.params[name]
    yield "inverse(y)", layer.inverse(y)[0]


def check_backends(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """All CPU backends give the NumPy backend's results within 1e-12, relative to the largest value."""
    for candidate, batch in examples(layer, x, rng):
        results: dict[str, dict[str, np.ndarray]] = {}
        for backend in kernels.HOST:
            with kernels.use(backend):
                y, log_det, cache = finite_forward(candidate, batch)
                grads = gradients(candidate, cache, *cotangents(y, log_det, 0))
                results[backend] = {"y": y, "log_det": log_det, "x": candidate.inverse(y)[0], **grads}
        for backend, found in results.items():
            for name, expected in results["numpy"].items():
                scale = 1 + np.abs(expected).max(initial=0)
                if not np.allclose(found[name], expected, rtol=1e-12, atol=1e-12 * scale):
                    where = f"{name}, {backend}, {describe(batch)}"
                    raise PropertyFailed("agreement of backends", where, found[name], expected,
                                         "The NumPy backend gives the expected value.")
