"""One function a promise of the contract; each raises BrokenPromise that explains itself. Floor 2.

check_returns stands in returns.py, check_backward in gradients.py, check_purity and check_samples in
purity.py.

Every check takes a bijection, a batch x that it maps, and a seed. Without x it makes its own: see
examples.py. The layer that is handed in stays as it is.
"""

from __future__ import annotations

import numpy as np

from minglow import kernels
from minglow.bijection import Bijection
from minglow.testing.examples import examples, finite_forward
from minglow.testing.explain import broken, cause_of_inverse, cause_of_log_det, described
from minglow.testing.gradients import cotangents, gradients, parameters
from minglow.testing.numerical import NotSmooth, numerical_jacobian

Seed = int | np.random.Generator
DTYPES = (np.float64, np.float32)
# Relative to the largest number, or to 1; float32 leaves room for a condition number of some hundreds.
ROUND_TRIP = {np.dtype(np.float64): 1e-10, np.dtype(np.float32): 1e-4}


def check_inverse(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """inverse(forward(x)) = x, and forward(inverse(y)) = y for y between outputs of forward.

    Within 1e-10 in float64 and 1e-4 in float32, relative to the largest number where that is
    above 1. Parameters move by 0.05: rounding grows with a map's conditioning.
    """
    for dtype in DTYPES:
        for candidate, batch in examples(layer, x, rng, dtype, size=0.05):
            y = finite_forward(candidate, batch)[0]
            if y.dtype != batch.dtype:
                raise broken("y's dtype", described(batch), y.dtype, batch.dtype,
                             "A number of another precision took part.")
            _same_trip("inverse(forward(x)) = x", batch, candidate.inverse(y)[0])
            between = (y + y[::-1]) / 2  # where outputs fill a convex set, as they mostly do
            back = candidate.forward(candidate.inverse(between)[0])[0]
            _same_trip("forward(inverse(y)) = y", between, back)


def _same_trip(promise: str, start: np.ndarray, back: np.ndarray) -> None:
    where, tolerance = described(start), ROUND_TRIP[start.dtype] * max(1.0, float(np.abs(start).max()))
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
        log_det = finite_forward(candidate, batch)[1]
        found, expected = [], []
        for b in range(len(batch)):
            try:
                jacobian = numerical_jacobian(candidate.forward, batch[b])
            except NotSmooth:
                continue
            if jacobian.shape[0] != jacobian.shape[1]:
                raise broken("a bijection's dimension", described(batch), len(jacobian), len(jacobian.T),
                             "Every number that comes in has to go out.")
            found.append(log_det[b])
            expected.append(np.linalg.slogdet(jacobian)[1])
        if not np.allclose(found, expected, rtol=1e-9, atol=1e-9):
            raise broken("log_det = log|det dy/dx|", described(batch), np.array(found),
                         np.array(expected),
                         cause_of_log_det(np.array(found), np.array(expected), batch))


def check_cache(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """The cache from inverse(y) gives the gradients that the cache from forward(x) gives.

    Within 1e-9 in float64 and 1e-3 in float32, relative to each gradient's largest entry or to a
    thousandth of the largest of all.
    """
    for dtype in DTYPES:
        for candidate, batch in examples(layer, x, rng, dtype, size=0.05):
            y, log_det, cache = finite_forward(candidate, batch)
            parts = cotangents(y, log_det, rng)
            expected = gradients(candidate, cache, *parts)
            cache = candidate.forward(batch)[2]
            candidate.forward(batch[::-1])  # what backward needs is in the cache, not in the layer
            for name, gradient in gradients(candidate, cache, *parts).items():
                if not np.array_equal(gradient, expected[name]):
                    raise broken("a cache that holds all that backward needs",
                                 f"{name}, {described(batch)}",
                                 gradient, expected[name],
                                 "Another forward in between changed it: the layer keeps a state.")
            found = gradients(candidate, candidate.inverse(y)[1], *parts)
            tolerance = 1e-9 if batch.dtype == np.float64 else 1e-3
            largest = max(np.abs(gradient).max(initial=0) for gradient in expected.values())
            for name, gradient in expected.items():
                scale = np.abs(gradient).max(initial=0) + 1e-3 * largest  # some are exactly 0
                if not np.allclose(found[name], gradient, rtol=0, atol=tolerance * scale):
                    raise broken("the same cache from inverse as from forward",
                                 f"{name}, {described(batch)}", found[name], gradient,
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
                    raise broken("a finite start", f"{name}, {described(data)}", value, "finite numbers",
                                 "A channel that is constant over the batch has a deviation of 0.")
            if not np.allclose(y, candidate.forward(data)[0], rtol=1e-12, atol=1e-12):
                raise broken("initialize(x) = forward(x)'s y", described(data), y,
                             candidate.forward(data)[0],
                             "initialize sets the parameters, then maps x under them.")


def check_backends(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """Every backend of the CPU gives the reference's results within 1e-12, relative to the largest."""
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
                    raise broken("agreement of backends", f"{name}, {backend}, {described(batch)}",
                                 found[name], expected, "The two texts of a kernel differ.")
