"""One function a promise of the contract; each raises BrokenPromise that explains itself. Floor 2.

The longest, check_backward, stands in gradients.py.

Every check takes a bijection, a batch x that it maps, and a seed. Without x it makes its own: see
examples.py. The layer that is handed in stays as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minglow import kernels
from minglow.bijection import Bijection
from minglow.testing.examples import examples
from minglow.testing.explain import broken, cause_of_inverse, cause_of_log_det
from minglow.testing.gradients import cotangents, gradients, parameters
from minglow.testing.numerical import NotSmooth, numerical_jacobian

Seed = int | np.random.Generator
DTYPES = (np.float64, np.float32)
# Absolute, for numbers around 1; float32 leaves room for a condition number of some hundreds.
ROUND_TRIP = {np.dtype(np.float64): 1e-10, np.dtype(np.float32): 1e-4}


def check_inverse(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """inverse(forward(x)) = x, and forward(inverse(y)) = y for y between outputs of forward.

    Within 1e-10 in float64 and 1e-4 in float32, relative to the largest number where that is
    above 1. Parameters move by 0.05: rounding grows with a map's conditioning.
    """
    for dtype in DTYPES:
        for candidate, batch in examples(layer, x, rng, dtype, size=0.05):
            y, log_det, _ = candidate.forward(batch)
            if not y.dtype == np.asarray(log_det).dtype == batch.dtype:
                raise broken("forward's dtypes", _of(batch), (y.dtype, np.asarray(log_det).dtype),
                             (batch.dtype, batch.dtype), "A number of another precision took part.")
            _same_trip("inverse(forward(x)) = x", batch, candidate.inverse(y)[0])
            between = (y + y[::-1]) / 2  # where outputs fill a convex set, as they mostly do
            back = candidate.forward(candidate.inverse(between)[0])[0]
            _same_trip("forward(inverse(y)) = y", between, back)


def _same_trip(promise: str, start: np.ndarray, back: np.ndarray) -> None:
    where, tolerance = _of(start), ROUND_TRIP[start.dtype] * max(1.0, float(np.abs(start).max()))
    if back.shape != start.shape or back.dtype != start.dtype:
        raise broken(promise, where, (back.dtype, back.shape), (start.dtype, start.shape), "")
    if not np.all(np.abs(back - start) <= tolerance):
        worst = np.unravel_index(np.argmax(np.nan_to_num(np.abs(back - start), nan=np.inf)), start.shape)
        place = f"sample {worst[0]}, index {tuple(map(int, worst[1:]))}, {where}"
        raise broken(promise, place, back[worst], start[worst], cause_of_inverse(back, start))


def check_log_det(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """log_det is log|det| of each sample's Jacobian by differences, of shape (B,) and x's dtype.

    Within 1e-9, relative and absolute, in float64. Samples on a ReLU's kink are left out.
    """
    for candidate, batch in examples(layer, x, rng):
        log_det = candidate.forward(batch)[1]
        if np.shape(log_det) != (len(batch),) or log_det.dtype != batch.dtype:
            came, wanted = (np.shape(log_det), np.asarray(log_det).dtype), ((len(batch),), batch.dtype)
            raise broken("log_det's shape and dtype", _of(batch), came, wanted,
                         "One number for each sample: never a scalar, never a sum.")
        found, expected = [], []
        for b in range(len(batch)):
            try:
                jacobian = numerical_jacobian(candidate.forward, batch[b])
            except NotSmooth:
                continue
            if jacobian.shape[0] != jacobian.shape[1]:
                raise broken("a bijection's dimension", _of(batch), len(jacobian), len(jacobian.T),
                             "Every number that comes in has to go out.")
            found.append(log_det[b])
            expected.append(np.linalg.slogdet(jacobian)[1])
        if not np.allclose(found, expected, rtol=1e-9, atol=1e-9):
            raise broken("log_det = log|det dy/dx|", _of(batch), np.array(found), np.array(expected),
                         cause_of_log_det(np.array(found), np.array(expected), batch))


def check_cache(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """The cache from inverse(y) gives the gradients that the cache from forward(x) gives.

    Within 1e-9 in float64 and 1e-3 in float32, relative to each gradient's largest entry or to a
    thousandth of the largest of all.
    """
    for dtype in DTYPES:
        for candidate, batch in examples(layer, x, rng, dtype, size=0.05):
            y, log_det, cache = candidate.forward(batch)
            parts = cotangents(y, log_det, rng)
            expected = gradients(candidate, cache, *parts)
            found = gradients(candidate, candidate.inverse(y)[1], *parts)
            tolerance = 1e-9 if batch.dtype == np.float64 else 1e-3
            largest = max(np.abs(gradient).max(initial=0) for gradient in expected.values())
            for name, gradient in expected.items():
                scale = np.abs(gradient).max(initial=0) + 1e-3 * largest  # some are exactly 0
                if not np.allclose(found[name], gradient, rtol=0, atol=tolerance * scale):
                    raise broken("the same cache from inverse as from forward",
                                 f"{name}, {_of(batch)}", found[name], gradient,
                                 "inverse has to cache the intermediates that forward(x) meets: "
                                 "its own input y is forward's output.")


def check_initialize(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """initialize(x) returns forward(x)'s y; all is finite, even where a channel is constant."""
    for candidate, batch in examples(layer, x, rng):
        constant = batch.copy()
        constant[..., 0] = 0.5
        for data in (batch, constant):
            y = candidate.initialize(data)
            values = {name: owner.params[key] for name, owner, key in parameters(candidate)}
            for name, value in {"y": y, **values}.items():
                if not np.all(np.isfinite(value)):
                    raise broken("a finite start", f"{name}, {_of(data)}", value, "finite numbers",
                                 "A channel that is constant over the batch has a deviation of 0.")
            if not np.allclose(y, candidate.forward(data)[0], rtol=1e-12, atol=1e-12):
                raise broken("initialize(x) = forward(x)'s y", _of(data), y, candidate.forward(data)[0],
                             "initialize sets the parameters, then maps x under them.")


def check_purity(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """No argument is written to, no parameter changes outside initialize, results repeat."""
    for candidate, batch in examples(layer, x, rng):
        before = [value.copy() for value in _saved(candidate)]
        y, log_det, cache = candidate.forward(batch.copy())
        dy, dlog_det = cotangents(y, log_det, rng)
        calls: dict[str, Any] = {
            "forward": (candidate.forward, (batch,)), "inverse": (candidate.inverse, (y,)),
            "backward": (candidate.backward, (dy, dlog_det, cache)),
        }
        for name, (method, arguments) in calls.items():
            copies = [value.copy() for value in _arrays(arguments)]
            method(*arguments)
            after = _saved(candidate)
            for was, now, what in [*zip(copies, _arrays(arguments), ["argument"] * len(copies)),
                                   *zip(before, after, ["parameter"] * len(before))]:
                if not np.array_equal(was, now, equal_nan=True):
                    raise broken("purity", f"{name}, {_of(batch)}", now, was,
                                 f"{name} wrote to its {what}: copy before writing in place, and "
                                 "set data-dependent parameters in initialize alone.")
        again = candidate.forward(batch)[0]
        if not np.array_equal(again, y):
            raise broken("repeatability", f"forward, {_of(batch)}", again, y,
                         "forward keeps a state between calls.")


def check_samples(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """A sample's y and log_det depend on that sample alone, not on its batch or place in it."""
    for candidate, batch in examples(layer, x, rng):
        y, log_det, _ = candidate.forward(batch)
        for what, chosen in ("in reverse order", slice(None, None, -1)), ("alone", slice(0, 1)):
            parts = candidate.forward(batch[chosen])
            for name, whole, part in zip(("y", "log_det"), (y, log_det), parts):
                if not np.allclose(part, whole[chosen], rtol=1e-11, atol=1e-11):
                    raise broken("independence of samples", f"{name}, {what}, {_of(batch)}",
                                 part, whole[chosen],
                                 "A statistic of the batch, or another sample, leaked in.")


def check_backends(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """Every kernel backend gives the reference's results within 1e-12, relative to the largest."""
    for candidate, batch in examples(layer, x, rng):
        results: dict[str, dict[str, np.ndarray]] = {}
        for backend in kernels.BACKENDS:
            with kernels.use(backend):
                y, log_det, cache = candidate.forward(batch)
                grads = gradients(candidate, cache, *cotangents(y, log_det, 0))
                results[backend] = {"y": y, "log_det": log_det, "x": candidate.inverse(y)[0], **grads}
        for backend, found in results.items():
            for name, expected in results["numpy"].items():
                scale = 1 + np.abs(expected).max(initial=0)
                if not np.allclose(found[name], expected, rtol=1e-12, atol=1e-12 * scale):
                    raise broken("agreement of backends", f"{name}, {backend}, {_of(batch)}",
                                 found[name], expected, "The two texts of a kernel differ.")


def _of(x: np.ndarray) -> str:
    return f"x of shape {x.shape}, {x.dtype}"


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
