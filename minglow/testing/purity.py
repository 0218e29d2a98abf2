"""What a layer must not do: write to what it is given, keep a state, mix samples. Floor 2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from minglow.bijection import Bijection
from minglow.testing.examples import examples, finite_forward
from minglow.testing.explain import broken, described
from minglow.testing.gradients import cotangents, parameters

Seed = int | np.random.Generator


def check_purity(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """No argument is written to, no parameter changes outside initialize, results repeat.

    forward_only and inverse_only are forward and inverse without their caches.
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
            for was, now, what in [*zip(copies, given, ["argument"] * len(copies)),
                                   *zip(before, after, ["parameter"] * len(before))]:
                if not np.array_equal(was, now, equal_nan=True):
                    raise broken("purity", f"{name}, {described(batch)}", now, was,
                                 f"{name} wrote to its {what}: copy before writing in place, and "
                                 "set data-dependent parameters in initialize alone.")
            rebound = [key for key, array in _owned(candidate).items() if array is not owned[key]]
            if rebound:
                raise broken("purity", f"{name}, {described(batch)}", f"{rebound[0]} rebound",
                             "the same array", "Write params[...][...] = and grads[...] +=: an "
                             "optimiser holds views of them.")
        _same("forward", batch, "forward keeps a state between calls.",
              zip(candidate.forward(batch), (y, log_det)))
        _same("forward_only", batch, "It has to return what forward does, without the cache.",
              zip(candidate.forward_only(batch), (y, log_det)))
        _same("inverse_only", batch, "It has to return what inverse does, without the cache.",
              [(candidate.inverse_only(y), candidate.inverse(y)[0])])


def _same(name: str, batch: np.ndarray, cause: str,
          pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
    for found, expected in pairs:
        if not np.array_equal(found, expected):
            raise broken("repeatability", f"{name}, {described(batch)}", found, expected, cause)


def check_samples(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """A sample's y and log_det depend on that sample alone, not on its batch or place in it."""
    for candidate, batch in examples(layer, x, rng):
        y, log_det, _ = finite_forward(candidate, batch)
        for what, chosen in ("in reverse order", slice(None, None, -1)), ("alone", slice(0, 1)):
            parts = candidate.forward(batch[chosen])
            for name, whole, part in zip(("y", "log_det"), (y, log_det), parts):
                if not np.allclose(part, whole[chosen], rtol=1e-11, atol=1e-11):
                    raise broken("independence of samples", f"{name}, {what}, {described(batch)}",
                                 part, whole[chosen],
                                 "A statistic of the batch, or another sample, leaked in.")


def _owned(layer: Bijection) -> dict[str, np.ndarray]:
    """Every array that FlatParams would make a view of, by name."""
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
