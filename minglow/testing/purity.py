"""Purity of a layer: it modifies no argument, keeps no state and mixes no samples."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from minglow.bijection import Bijection
from minglow.testing.examples import Seed, examples, finite_forward
from minglow.testing.explain import describe, property_failed
from minglow.testing.gradients import cotangents, parameters


def check_purity(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """Arguments stay unchanged, parameters change only in initialize, and equal calls repeat results.

    forward_only and inverse_only agree with forward and inverse.
    """
    for candidate, batch in examples(layer, x, rng):
        before = [value.copy() for value in _saved(candidate)]
        owned = _owned(candidate)
        y, log_det, cache = finite_forward(candidate, batch.copy())
        dy, dlog_det = cotangents(y, log_det, rng)
        calls: dict[str, Any] = {
            "forward": (candidate.forward, (batch,)), "inverse": (candidate.inverse, (y,)),
            "backward": (candidate.backward, (dy, dlog_det, cache)),
        }
        for name, (method, arguments) in calls.items():
            given = _arrays(arguments)
            copies = [value.copy() for value in given]
            method(*arguments)
            after = _saved(candidate)
            for was, now, kind in [*zip(copies, given, ["argument"] * len(copies)),
                                   *zip(before, after, ["parameter"] * len(before))]:
                if not np.array_equal(was, now, equal_nan=True):
                    raise property_failed("purity", f"{name}, {describe(batch)}", now, was,
                                          f"{name} wrote to its {kind}: copy before writing in place, "
                                          "and set data-dependent parameters only in initialize.")
            rebound = [key for key, array in _owned(candidate).items() if array is not owned[key]]
            if rebound:
                raise property_failed("purity", f"{name}, {describe(batch)}", f"{rebound[0]} rebound",
                                      "the same array", "Write params[...][...] = and grads[...] +=: "
                                      "an optimizer holds views of them.")
        _check_repeats("forward", batch, "forward keeps state between calls.",
                       zip(candidate.forward(batch), (y, log_det)))
        _check_repeats("forward_only", batch, "It must return forward's y and log_det.",
                       zip(candidate.forward_only(batch), (y, log_det)))
        _check_repeats("inverse_only", batch, "It must return inverse's x.",
                       [(candidate.inverse_only(y), candidate.inverse(y)[0])])


def _check_repeats(method: str, batch: np.ndarray, cause: str,
                   pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
    for found, expected in pairs:
        if not np.array_equal(found, expected):
            raise property_failed("repeatability", f"{method}, {describe(batch)}", found, expected,
                                  cause)


def check_samples(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """A sample's y and log_det depend neither on the other samples of its batch nor on its index."""
    for candidate, batch in examples(layer, x, rng):
        y, log_det, _ = finite_forward(candidate, batch)
        for label, chosen in ("in reverse order", slice(None, None, -1)), ("one sample", slice(0, 1)):
            parts = candidate.forward(batch[chosen])
            for name, complete, part in zip(("y", "log_det"), (y, log_det), parts):
                if not np.allclose(part, complete[chosen], rtol=1e-11, atol=1e-11):
                    raise property_failed("independence of samples",
                                          f"{name}, {label}, {describe(batch)}", part, complete[chosen],
                                          "It depends on another sample, or on a batch statistic.")


def _owned(layer: Bijection) -> dict[str, np.ndarray]:
    """Every parameter and gradient array, by name; FlatParams makes views of them."""
    return {f"{kind} {name}": arrays[key] for name, owner, key in parameters(layer)
            for kind, arrays in (("parameter", owner.params), ("gradient", owner.grads))}


def _saved(layer: Bijection) -> list[np.ndarray]:
    """Every array that a checkpoint of the layer holds."""
    return [value for _, part in layer.walk()
            for arrays in (part.params, part.constants) for value in arrays.values()]


def _arrays(value: Any) -> list[np.ndarray]:
    """Every array in nested tuples and lists."""
    if isinstance(value, np.ndarray):
        return [value]
    parts = value if isinstance(value, (tuple, list)) else ()
    return [array for part in parts for array in _arrays(part)]
