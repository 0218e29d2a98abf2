"""One function for each property of the contract; each raises PropertyFailed with a likely cause.

returns.py, gradients.py and purity.py hold the others. Every check takes a bijection, a batch x that
it accepts, and a seed. Without x it uses the layers and batches of examples.py. The layer itself is
never changed.
"""

import numpy as np

from minglow import kernels
from minglow.bijection import Bijection
from minglow.testing.examples import Seed, examples, finite_forward
from minglow.testing.explain import cause_of_inverse, cause_of_log_det, describe, property_failed
from minglow.testing.gradients import cotangents, gradients, parameters
from minglow.testing.numerical import NotSmooth, numerical_jacobian

DTYPES = (np.float64, np.float32)
# Relative to the largest value, or to 1. In float32, condition numbers of a few hundred are allowed.
ROUND_TRIP = {np.dtype(np.float64): 1e-10, np.dtype(np.float32): 1e-4}


def check_inverse(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """inverse(forward(x)) = x, and forward(inverse(y)) = y for y between outputs of forward.

    Within 1e-10 in float64 and 1e-4 in float32, relative to the largest value where that is
    above 1. Parameters are perturbed by 0.05, because rounding grows with the condition number.
    """
    for dtype in DTYPES:
        for candidate, batch in examples(layer, x, rng, dtype, size=0.05):
            y = finite_forward(candidate, batch)[0]
            if y.dtype != batch.dtype:
                raise property_failed("y of x's dtype", describe(batch), y.dtype, batch.dtype,
                                      "A value of another precision took part.")
            _check_equal("inverse(forward(x)) = x", batch, candidate.inverse(y)[0])
            between = (y + y[::-1]) / 2  # an output of forward, if the set of outputs is convex
            back = candidate.forward(candidate.inverse(between)[0])[0]
            _check_equal("forward(inverse(y)) = y", between, back)


def _check_equal(name: str, original: np.ndarray, back: np.ndarray) -> None:
    """Raise PropertyFailed unless a round trip leads back within rounding."""
    tolerance = ROUND_TRIP[original.dtype] * max(1.0, float(np.abs(original).max()))
    if back.shape != original.shape or back.dtype != original.dtype:
        raise property_failed(name, describe(original), (back.dtype, back.shape),
                              (original.dtype, original.shape), "")
    if not np.all(np.abs(back - original) <= tolerance):
        error = np.nan_to_num(np.abs(back - original), nan=np.inf)
        worst = np.unravel_index(np.argmax(error), original.shape)
        where = f"sample {worst[0]}, index {tuple(map(int, worst[1:]))}, {describe(original)}"
        raise property_failed(name, where, back[worst], original[worst],
                              cause_of_inverse(back, original))


def check_log_det(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """log_det, of shape (B,) and x's dtype, is log|det| of each sample's Jacobian.

    The Jacobian comes from finite differences in float64; the tolerance is 1e-9, relative and
    absolute. Samples on a ReLU's kink are skipped.
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
                raise property_failed("equal dimensions of x and y", describe(batch), len(jacobian),
                                      len(jacobian.T), "A bijection has as many outputs as inputs.")
            found.append(log_det[b])
            expected.append(np.linalg.slogdet(jacobian)[1])
        if not np.allclose(found, expected, rtol=1e-9, atol=1e-9):
            cause = cause_of_log_det(np.array(found), np.array(expected), batch)
            raise property_failed("log_det = log|det dy/dx|", describe(batch), np.array(found),
                                  np.array(expected), cause)


def check_cache(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """The cache from inverse(y) gives the same gradients as the cache from forward(x).

    Within 1e-9 in float64 and 1e-3 in float32, relative to each gradient's largest entry plus a
    thousandth of the largest entry of all gradients.
    """
    for dtype in DTYPES:
        for candidate, batch in examples(layer, x, rng, dtype, size=0.05):
            y, log_det, cache = finite_forward(candidate, batch)
            parts = cotangents(y, log_det, rng)
            expected = gradients(candidate, cache, *parts)
            cache = candidate.forward(batch)[2]
            candidate.forward(batch[::-1])  # must not matter: backward may use only the cache
            for name, gradient in gradients(candidate, cache, *parts).items():
                if not np.array_equal(gradient, expected[name]):
                    raise property_failed("a complete cache", f"{name}, {describe(batch)}", gradient,
                                          expected[name], "Another call of forward in between changed "
                                          "it: the layer keeps state outside the cache.")
            found = gradients(candidate, candidate.inverse(y)[1], *parts)
            tolerance = 1e-9 if batch.dtype == np.float64 else 1e-3
            largest = max(np.abs(gradient).max(initial=0) for gradient in expected.values())
            for name, gradient in expected.items():
                scale = np.abs(gradient).max(initial=0) + 1e-3 * largest  # some gradients are 0
                if not np.allclose(found[name], gradient, rtol=0, atol=tolerance * scale):
                    raise property_failed("equal caches from inverse and forward",
                                          f"{name}, {describe(batch)}", found[name], gradient,
                                          "inverse must cache the intermediates of forward(x), and "
                                          "its argument y is forward's output.")


def check_initialize(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """initialize(x) returns forward(x)'s y; all values are finite, also for a constant channel."""
    for candidate, batch in examples(layer, x, rng):
        constant = batch.copy()
        constant[..., 0] = 0.5
        for data in (batch, constant):
            y = candidate.initialize(data)
            values = {name: owner.params[key] for name, owner, key in parameters(candidate)}
            for name, value in {"y": y, **values}.items():
                if not np.all(np.isfinite(value)):
                    raise property_failed("a finite initialization", f"{name}, {describe(data)}", value,
                                          "finite numbers", "A channel that is constant over the "
                                          "batch has a standard deviation of 0.")
            expected = candidate.forward(data)[0]
            if not np.allclose(y, expected, rtol=1e-12, atol=1e-12):
                raise property_failed("initialize(x) = forward(x)'s y", describe(data), y, expected,
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
                    raise property_failed("agreement of backends",
                                          f"{name}, {backend}, {describe(batch)}", found[name],
                                          expected, "The implementations of a kernel differ.")
