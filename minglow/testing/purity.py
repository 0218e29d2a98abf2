"""Purity of a layer: it modifies no argument, keeps no state and mixes no samples."""

import copy
from typing import Any

import numpy as np

from minglow.bijection import Bijection
from minglow.params import parameters
from minglow.testing.examples import Seed, examples, finite_forward
from minglow.testing.explain import PropertyFailed, describe
from minglow.testing.gradients import cotangents


def check_purity(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """Arguments stay unchanged, parameters change only in initialize, and equal calls repeat results."""
    for candidate, batch in examples(layer, x, rng):
        saved, owned = copy.deepcopy(_saved(candidate)), _owned(candidate)
        y, log_det, cache = finite_forward(candidate, batch.copy())
        calls = {"forward": (batch,), "inverse": (y,), "backward": (*cotangents(y, log_det, rng), cache)}
        for name, arguments in calls.items():
            given = _arrays(arguments)
            copies = copy.deepcopy(given)
            getattr(candidate, name)(*arguments)
            where = f"{name}, {describe(batch)}"
            pairs = [("argument", *pair) for pair in zip(copies, given)]
            pairs += [("parameter", *pair) for pair in zip(saved, _saved(candidate))]
            for kind, before, after in pairs:
                if not np.array_equal(before, after, equal_nan=True):
                    raise PropertyFailed("purity", where, after, before,
                                         f"{name} wrote to its {kind}: copy before writing in place, "
                                         "and set data-dependent parameters only in initialize.")
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
    """A sample's y and log_det depend neither on the other samples of its batch nor on its index."""
    for candidate, batch in examples(layer, x, rng):
        y, log_det, _ = finite_forward(candidate, batch)
        for label, chosen in ("in reverse order", slice(None, None, -1)), ("one sample", slice(0, 1)):
            parts = candidate.forward(batch[chosen])
            for name, complete, part in zip(("y", "log_det"), (y, log_det), parts):
                if not np.allclose(part, complete[chosen], rtol=1e-11, atol=1e-11):
                    where = f"{name}, {label}, {describe(batch)}"
                    raise PropertyFailed("independence of samples", where, part, complete[chosen],
                                         "It depends on another sample, or on a batch statistic.")


def _owned(layer: Bijection) -> dict[str, np.ndarray]:
    """Every parameter and gradient array, by name; FlatParams makes views of them."""
    return {f"{kind} {path}": arrays[name] for path, owner, name in parameters(layer)
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
