"""Purity: a layer modifies no argument, mixes no samples, and keeps no state outside its cache."""

import copy
from typing import Any

import numpy as np

from minglow.bijection import Bijection, Module
from minglow.params import parameters
from minglow.testing.examples import Seed, examples, finite_forward, has_method, nearby, perturbed
from minglow.testing.explain import PropertyFailed, describe, explain_ratio
from minglow.testing.gradients import cotangents, gradients


def check_purity(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """Arguments stay unchanged, parameters change only in initialize, and equal calls repeat results."""
    for candidate, batch in examples(layer, x, rng):
        saved, owned = _saved(candidate), _owned(candidate)
        before = [(label, value, value.copy()) for label, value in saved.items()]
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
                if not np.array_equal(value, old, equal_nan=True):
                    raise PropertyFailed("purity", where, value, old, f"{name} wrote to {label} in place"
                                         + (": only initialize sets parameters." if label in saved else
                                            ": it must write to a copy."))
            for key, array in _owned(candidate).items():
                if array is not owned[key]:
                    raise PropertyFailed("purity", where, f"{key} rebound", "the same array", "Write "
                                         "params[...][...] = and grads[...] +=: an optimizer holds "
                                         "views of them.")
        repeated: list[tuple[str, tuple[Any, ...], tuple[Any, ...], str]] = [
            ("forward", candidate.forward(batch), (y, log_det), "forward keeps state between calls."),
            ("forward_only", candidate.forward_only(batch), (y, log_det),
             "It must return forward's y and log_det."),
            ("inverse_only", (candidate.inverse_only(y),), candidate.inverse(y),
             "It must return inverse's x.")]
        for name, results, expected, cause in repeated:
            for found, first in zip(results, expected):
                if not np.array_equal(found, first):
                    where = f"{name}, {describe(batch)}"
                    raise PropertyFailed("repeatability", where, found, first, cause)


def check_samples(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """A sample's y, log_det and dx depend neither on the rest of its batch nor on its index.

    dx is left out for a layer without backward.
    """
    for candidate, batch in examples(layer, x, rng):
        y, log_det, cache = finite_forward(candidate, batch)
        dy, dlog_det = cotangents(y, log_det, rng)
        differentiable = has_method(candidate, "backward")
        complete = {"y": y, "log_det": log_det}
        if differentiable:
            complete["dx"] = candidate.backward(dy, dlog_det, cache)
        for label, chosen in ("one sample", slice(0, 1)), ("in reverse order", slice(None, None, -1)):
            # Copies, since some libraries' functions refuse a view in reverse order.
            y, log_det, cache = finite_forward(candidate, batch[chosen].copy())
            parts = {"y": y, "log_det": log_det}
            if differentiable:
                parts["dx"] = candidate.backward(dy[chosen].copy(), dlog_det[chosen].copy(), cache)
            for name, part in parts.items():
                found = complete[name][chosen]
                if not _agree(found, part, 1e-11):
                    where = f"{name}, {label}, {describe(batch)}"
                    ratio = explain_ratio(found, part, batch, name) if len(part) == 1 else ""
                    raise PropertyFailed("independence of samples", where, found, part,
                                         ratio or "It depends on the rest of the batch.")


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


def check_updates(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """Parameters that are changed in place, as training does, count in every method from then on.

    A layer that was called and then changed gives the results of a copy that was never called. Besides,
    inverse's x depends on a parameter exactly if forward's y does, and log_det only if y does, but near
    x = 0. The gradients are left out for a layer without backward.
    """
    for candidate, example in examples(layer, x, rng):
        batch = nearby(example)  # where y depends on every parameter, as x**p at x = 1 does not
        fresh = copy.deepcopy(candidate)
        y, log_det, cache = finite_forward(candidate, batch)
        parts = cotangents(y, log_det, rng)
        if has_method(candidate, "backward"):
            candidate.backward(*parts, cache)
        results = _results(candidate, batch, y)
        updated = perturbed(fresh, rng, 1e-3)
        for (path, owner, name), (_, other, _) in zip(parameters(candidate), parameters(updated)):
            y = results["forward's y"]  # with the parameters that were changed before this one
            results["inverse's x"] = candidate.inverse(y)[0]
            owner.params[name][...] = other.params[name]
            after = _results(candidate, batch, y)
            # Between the two limits lies what may be rounding, or a parameter that hardly matters here.
            changed = [key for key in results if not _agree(after[key], results[key], 1e-8)]
            same = [key for key in results if _agree(after[key], results[key], 1e-12)]
            missing = [key for key in ("forward's y", "inverse's x") if key in same]
            if missing and changed and (
                    changed != ["forward's log_det"] or np.min(np.abs(batch)) > 1e-3):
                raise PropertyFailed("an update of the parameters", f"{path}, {describe(batch)}",
                                     f"a change of {' and '.join(changed)} only",
                                     f"one of {' and '.join(missing)}, too")
            results = after
        found, expected = _results(candidate, batch, y), _results(updated, batch, y)
        for called, values in (candidate, found), (updated, expected):
            if has_method(called, "backward"):
                values |= {f"backward's {name}": gradient for name, gradient in gradients(
                    called, called.forward(batch)[2], *parts).items()}
        for name, value in found.items():
            if not _agree(value, expected[name], 1e-9):
                raise PropertyFailed("an update of the parameters", f"{name}, {describe(batch)}", value,
                                     expected[name], "A copy that has the same parameters and was never "
                                     "called gives the expected value: the layer remembers an old one.")


def _agree(found: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    """Whether two arrays are equal, NaN included, relative to the largest value or to 1."""
    scale = 1 + np.max(np.abs(expected), initial=0, where=np.isfinite(expected))
    return np.allclose(found, expected, rtol=0, atol=tolerance * scale, equal_nan=True)


def _results(layer: Bijection, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """inverse's x, and forward's y and log_det; forward comes last, since it may refresh a memo."""
    back = layer.inverse(y)[0]
    new_y, log_det, _ = layer.forward(x)
    return {"forward's y": new_y, "inverse's x": back, "forward's log_det": log_det}


def _owned(layer: Bijection) -> dict[str, np.ndarray]:
    """Every parameter and gradient array, by name; FlatParams makes views of them."""
    return {f"{kind} {path}": arrays[name] for path, owner, name in parameters(layer)
            for kind, arrays in (("parameter", owner.params), ("gradient", owner.grads))}


def _saved(layer: Bijection) -> dict[str, np.ndarray]:
    """Every array that a checkpoint of the layer holds, by kind and path."""
    return {f"{kind} {path}.{name}".replace(" .", " "): value for path, part in layer.walk()
            for kind, arrays in (("parameter", part.params), ("constant", part.constants))
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
