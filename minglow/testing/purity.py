"""Purity: a layer modifies no argument, mixes no samples, and keeps no state outside its cache."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from minglow.bijection import Bijection, Module
from minglow.testing.examples import Seed, examples, finite_forward, has_method, nearby
from minglow.testing.explain import PropertyFailed, agree, describe, explain_ratio, explain_total
from minglow.testing.gradients import cotangents, gradients

__tracebackhide__ = True  # pytest shows the line that called a check, not the check's own lines

# kind of a module's array: which method may change it
RULES = {"parameter": "only initialize sets parameters", "constant": "only initialize sets constants",
         "gradient": "only backward adds to gradients"}


def check_purity(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """Arguments stay unchanged, parameters change only in initialize, and equal calls repeat results."""
    for candidate, batch in examples(layer, x, rng):
        fresh, owned = copy.deepcopy(candidate), _owned(candidate)
        for label, value in owned.items():
            if label.startswith("gradient"):
                value[...] = 1  # so that it shows where one is set to zero
        before = [(label, value, value.copy()) for label, value in owned.items()]
        y, log_det, cache = finite_forward(candidate, batch.copy())
        dy, dlog_det = cotangents(y, log_det, rng)
        calls = {"forward": {"x": batch}, "inverse": {"y": y},
                 "backward": {"dy": dy, "dlog_det": dlog_det, "cache": cache}}
        for name, arguments in calls.items():
            given = [(f"its argument {key}", value, value.copy())
                     for key, argument in arguments.items() for value in _arrays(argument)]
            getattr(candidate, name)(*arguments.values())
            where = f"{name}, {describe(batch)}"
            for label, value, old in before + given:
                if name == "backward" and label.startswith("gradient"):
                    continue
                if not np.array_equal(value, old, equal_nan=True):
                    rule = RULES.get(label.split()[0], "it must write to a copy")
                    raise PropertyFailed("purity", where, value, old,
                                         f"{name} wrote to {label} in place: {rule}.")
            for key, array in _owned(candidate).items():
                if array is not owned[key]:
                    raise PropertyFailed("purity", where, f"{key} rebound", "the same array", "Write "
                                         "params[...][...] = and grads[...] +=: an optimizer holds "
                                         "views of them.")
        repeated: list[tuple[str, tuple[Any, ...], tuple[Any, ...], str]] = [
            ("forward", candidate.forward(batch), (y, log_det),
             "Two equal calls differ: forward keeps state between calls or draws random numbers."),
            ("forward_only", candidate.forward_only(batch), (y, log_det),
             "It must return forward's y and log_det."),
            ("inverse_only", (candidate.inverse_only(y),), candidate.inverse(y),
             "It must return inverse's x.")]
        for name, results, expected, cause in repeated:
            for found, first in zip(results, expected):
                if not np.array_equal(found, first):
                    where = f"{name}, {describe(batch)}"
                    raise PropertyFailed("repeatability", where, found, first, cause)
        _check_history(candidate, fresh, batch, rng)


def _check_history(layer: Bijection, fresh: Bijection, x: np.ndarray, rng: Seed) -> None:
    """A call neither changes an earlier call's results nor gives other ones than in a fresh copy."""
    other = nearby(x)
    returned = [(name, value, value.copy()) for name, result in _call_all(layer, x, rng)
                for value in _arrays(result)]
    for (name, result), (_, expected) in zip(_call_all(layer, other, rng), _call_all(fresh, other, rng)):
        where = f"{name}, {describe(x)}"
        for earlier, value, old in returned:
            if not np.array_equal(value, old, equal_nan=True):
                raise PropertyFailed("purity", where, value, old, f"{name} wrote to a result of an "
                                     f"earlier call of {earlier}: results must be new arrays.")
        for found, value in zip(_arrays(result), _arrays(expected)):
            if found.shape != value.shape or not agree(found, value, 1e-11):
                raise PropertyFailed("repeatability", where, found, value, f"{name} keeps state: a copy "
                                     "that was never called gives the expected value.")


def _call_all(layer: Bijection, x: np.ndarray, rng: Seed) -> Iterator[tuple[str, Any]]:
    """Call forward, inverse and backward in turn, and yield each one's name and result."""
    y, log_det, cache = layer.forward(x)
    yield "forward", (y, log_det, cache)
    parts = cotangents(y, log_det, rng)
    yield "inverse", layer.inverse(y)
    yield "backward", layer.backward(*parts, cache)


def check_samples(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """A sample's y, log_det and dx depend neither on the rest of its batch nor on its index.

    dx is left out for a layer without backward.
    """
    for candidate, batch in examples(layer, x, rng):
        dy, dlog_det = cotangents(*finite_forward(copy.deepcopy(candidate), batch)[:2], rng)
        complete = _results_of(candidate, batch, dy, dlog_det)
        singles = [_results_of(candidate, *(part[i : i + 1] for part in (batch, dy, dlog_det)))
                   for i in range(len(batch))]
        alone = {name: np.concatenate([single[name] for single in singles]) for name in complete}
        reverse = _results_of(candidate, *(part[::-1] for part in (batch, dy, dlog_det)))
        for label, results in ("in a batch of one", alone), (
                "in reverse order", {name: part[::-1] for name, part in reverse.items()}):
            for name, expected in results.items():
                if not agree(complete[name], expected, 1e-11):
                    cause = (explain_total(complete[name], expected) if name == "log_det" else
                             explain_ratio(complete[name], expected, batch, name))
                    where = f"{name}, each sample {label}, {describe(batch)}"
                    raise PropertyFailed(
                        "independence of samples", where, complete[name], expected,
                        cause or "It depends on the rest of the batch, or on earlier calls.")


def _results_of(layer: Bijection, x: np.ndarray, dy: np.ndarray, dlog_det: np.ndarray,
                ) -> dict[str, np.ndarray]:
    """y, log_det, and dx if there is backward, of a copy that was never called."""
    layer = copy.deepcopy(layer)
    y, log_det, cache = finite_forward(layer, x.copy())  # some functions refuse a view in reverse order
    results = {"y": y.copy(), "log_det": log_det.copy()}
    if has_method(layer, "backward"):
        results["dx"] = layer.backward(dy.copy(), dlog_det.copy(), cache).copy()
    return results


def check_cache(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """The cache from inverse(y) gives the same gradients as the cache from forward(x).

    Within 1e-9 in float64 and 1e-3 in float32, relative to each gradient's largest entry plus a
    thousandth of the largest entry of all gradients, since some gradients are 0. forward gets the x that
    inverse returns, so that rounding does not count.
    """
    for dtype, tolerance in (np.float64, 1e-9), (np.float32, 1e-3):
        for candidate, batch in examples(layer, x, rng, dtype):
            y, log_det, cache = finite_forward(candidate, batch)
            parts = cotangents(y, log_det, rng)
            expected = gradients(candidate, cache, *parts)
            cache = candidate.forward(batch)[2]
            candidate.forward(batch[::-1].copy())  # must not matter: backward may use only the cache
            for name, gradient in gradients(candidate, cache, *parts).items():
                if not np.array_equal(gradient, expected[name]):
                    raise PropertyFailed("a complete cache", f"{name}, {describe(batch)}", gradient,
                                         expected[name], "Another call of forward in between changed "
                                         "it: the layer keeps state outside the cache.")
            back, cache = candidate.inverse(y)
            found = gradients(candidate, cache, *parts)
            expected = gradients(candidate, candidate.forward(back)[2], *parts)
            largest = max(np.abs(gradient).max(initial=0) for gradient in expected.values())
            for name, gradient in expected.items():
                scale = np.abs(gradient).max(initial=0) + 1e-3 * largest
                if not np.allclose(found[name], gradient, rtol=0, atol=tolerance * scale):
                    raise PropertyFailed("equal caches from inverse and forward",
                                         f"{name}, {describe(batch)}", found[name], gradient,
                                         "inverse must cache the intermediates of forward(x), and its "
                                         "argument y is forward's output.")


def _owned(layer: Bijection) -> dict[str, np.ndarray]:
    """Every parameter, constant and gradient, by kind and path; FlatParams makes views of them."""
    return {f"{kind} {path}.{name}".replace(" .", " "): value for path, part in layer.walk()
            for kind, arrays in (("parameter", part.params), ("constant", part.constants),
                                 ("gradient", part.grads))
            for name, value in arrays.items()}


def _arrays(value: Any, seen: set[int] | None = None) -> list[np.ndarray]:
    """Every array in a cache: in tuples, lists, dictionaries, and the attributes of objects."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, Module):
        return []
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, (tuple, list)):
        parts = list(value)
    else:
        slots = (getattr(value, name, None) for name in getattr(type(value), "__slots__", ()))
        parts = [*getattr(value, "__dict__", {}).values(), *slots]
    return [array for part in parts for array in _arrays(part, seen)]
