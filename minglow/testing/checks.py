"""One function for each property of the contract; each raises PropertyFailed with a likely cause.

gradients.py and purity.py hold the others. Every check takes a bijection, which it does not change, a
batch x that the bijection accepts, and a seed; without x it uses those of examples.py.
"""

from typing import Any

import numpy as np

from minglow import kernels
from minglow.bijection import Bijection
from minglow.params import parameters
from minglow.testing.examples import Seed, check_one_per_sample, examples, finite_forward
from minglow.testing.explain import PropertyFailed, cause_of_inverse, cause_of_log_det, describe
from minglow.testing.gradients import cotangents, gradients
from minglow.testing.numerical import NotSmooth, numerical_jacobian


def check_returns(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """forward returns (y, log_det, cache), inverse returns (x, cache), backward returns dx."""
    for candidate, batch in examples(layer, x, rng):
        y, log_det, cache = _parts("forward", candidate.forward(batch), ("y", "log_det", "cache"), batch)
        check_one_per_sample(log_det, batch)
        _parts("inverse", candidate.inverse(y), ("x", "cache"), batch)
        dx = candidate.backward(np.ones_like(y), np.ones_like(log_det), cache)
        if np.shape(dx) != batch.shape:
            raise _wrong_return("backward", dx, f"dx of shape {batch.shape}", batch)


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


def check_inverse(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """inverse(forward(x)) = x, and forward(inverse(y)) = y for y between outputs of forward.

    Within 1e-10 in float64 and 1e-4 in float32, relative to the largest value or to 1. Rounding grows
    with the condition number: parameters are perturbed by 0.05, and a few hundred are allowed.
    """
    for dtype, tolerance in (np.float64, 1e-10), (np.float32, 1e-4):
        for candidate, batch in examples(layer, x, rng, dtype, size=0.05):
            y = finite_forward(candidate, batch)[0]
            if y.dtype != batch.dtype:
                raise PropertyFailed("y of x's dtype", describe(batch), y.dtype, batch.dtype,
                                     "A value of another precision took part.")
            _check_equal("inverse(forward(x)) = x", batch, candidate.inverse(y)[0], tolerance)
            between = (y + y[::-1]) / 2  # an output of forward, if the set of outputs is convex
            back = candidate.forward(candidate.inverse(between)[0])[0]
            _check_equal("forward(inverse(y)) = y", between, back, tolerance)


def _check_equal(name: str, original: np.ndarray, back: np.ndarray, tolerance: float) -> None:
    """Raise PropertyFailed unless a round trip leads back within rounding."""
    if back.shape != original.shape or back.dtype != original.dtype:
        raise PropertyFailed(name, describe(original), (back.dtype, back.shape),
                             (original.dtype, original.shape))
    error = np.nan_to_num(np.abs(back - original), nan=np.inf)
    if error.max() > tolerance * max(1.0, float(np.abs(original).max())):
        worst = np.unravel_index(np.argmax(error), original.shape)
        where = f"sample {worst[0]}, index {tuple(map(int, worst[1:]))}, {describe(original)}"
        raise PropertyFailed(name, where, back[worst], original[worst], cause_of_inverse(back, original))


def check_log_det(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """log_det, of shape (B,) and x's dtype, is log|det| of each sample's Jacobian.

    The Jacobian comes from finite differences in float64; the tolerance is 1e-9, relative and absolute.
    Samples on a ReLU's kink are skipped.
    """
    for candidate, batch in examples(layer, x, rng):
        pairs = []
        for sample, log_det in zip(batch, finite_forward(candidate, batch)[1]):
            try:
                jacobian = numerical_jacobian(candidate.forward, sample)
            except NotSmooth:
                continue
            if jacobian.shape[0] != jacobian.shape[1]:
                raise PropertyFailed("equal dimensions of x and y", describe(batch), len(jacobian),
                                     len(jacobian.T), "A bijection has as many outputs as inputs.")
            pairs.append((log_det, np.linalg.slogdet(jacobian)[1]))
        found, expected = np.reshape(pairs, (-1, 2)).T
        if not np.allclose(found, expected, rtol=1e-9, atol=1e-9):
            raise PropertyFailed("log_det = log|det dy/dx|", describe(batch), found, expected,
                                 cause_of_log_det(found, expected, batch))


def check_initialize(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """initialize(x) returns forward(x)'s y; all values are finite, also for a constant channel."""
    for candidate, batch in examples(layer, x, rng):
        constant = batch.copy()
        constant[..., 0] = 0.5
        for data in (batch, constant):
            y = candidate.initialize(data)
            values = {path: owner.params[name] for path, owner, name in parameters(candidate)}
            for name, value in {"y": y, **values}.items():
                if not np.all(np.isfinite(value)):
                    raise PropertyFailed("a finite initialization", f"{name}, {describe(data)}", value,
                                         "finite numbers", "A channel that is constant over the batch "
                                         "has a standard deviation of 0.")
            expected = candidate.forward(data)[0]
            if not np.allclose(y, expected, rtol=1e-12, atol=1e-12):
                raise PropertyFailed("initialize(x) = forward(x)'s y", describe(data), y, expected,
                                     "initialize sets the parameters, then maps x with them.")


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
                                         "The implementations of a kernel differ.")
