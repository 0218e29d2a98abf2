"""Compares backward with finite differences, and the caches of forward and inverse with each other."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from minglow.bijection import Bijection, Module, Net
from minglow.params import parameters
from minglow.testing.examples import Seed, examples, finite_forward
from minglow.testing.explain import PropertyFailed, cause_of_gradient, describe
from minglow.testing.numerical import STEP, NotSmooth, directional_derivative

TOLERANCE = 1e-6  # relative to a gradient's norm


def cotangents(y: np.ndarray, log_det: np.ndarray, rng: Seed) -> tuple[np.ndarray, np.ndarray]:
    """The derivatives of a random loss with respect to y and log_det."""
    rng = np.random.default_rng(rng)
    return (rng.standard_normal(y.shape).astype(y.dtype),
            rng.standard_normal(np.shape(log_det)).astype(y.dtype))


def gradients(layer: Module, cache: Any, *parts: np.ndarray) -> dict[str, np.ndarray]:
    """Set grads to zero, call backward, and return "x" -> dx and the path of a parameter -> gradient."""
    for _, owner, key in parameters(layer):
        owner.grads[key][...] = 0
    dx = layer.backward(*parts, cache)  # type: ignore[attr-defined]
    return {"x": dx, **{path: owner.grads[key].copy() for path, owner, key in parameters(layer)}}


def check_backward(layer: Bijection | Net, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """backward gives the derivative of <dy, y> + <dlog_det, log_det>, and adds to grads.

    The derivatives with respect to the input and every parameter, also of conditioners (Net), are
    compared with finite differences in float64, along a direction that is half the gradient's own and
    half random, within 1e-6 of the gradient's norm. Points on a ReLU's kink are skipped, even if those
    are all.
    """
    for candidate, batch in examples(layer, x, rng):
        y, cache, log_det = _forward(candidate, batch)
        parts = cotangents(y, log_det, rng)[: 1 if isinstance(candidate, Net) else 2]
        found = gradients(candidate, cache, *parts)
        dx_kind, x_kind = (found["x"].dtype, found["x"].shape), (batch.dtype, batch.shape)
        if dx_kind != x_kind:
            raise PropertyFailed("dx of x's dtype and shape", "x", dx_kind, x_kind)
        for name, gradient in found.items():
            if not np.all(np.isfinite(gradient)):
                raise PropertyFailed("a finite gradient", name, gradient, "finite numbers",
                                     "backward returned NaN or inf for finite arguments.")
        smooth = [_check_gradient(candidate, batch, parts, found[name], name, rng) for name in found]
        if not any(smooth):
            raise PropertyFailed("a smooth forward", f"x of shape {batch.shape}",
                                 "a jump along every direction", "a derivative",
                                 "Is forward random or discontinuous, or x too near the boundary of its "
                                 "domain?")
        candidate.backward(*parts, cache)  # type: ignore[call-arg]
        for name, owner, key in parameters(candidate):
            if not np.allclose(owner.grads[key], 2 * found[name], rtol=1e-9, atol=1e-12):
                raise PropertyFailed("accumulation of grads", name, owner.grads[key], 2 * found[name],
                                     "backward must add to grads (+=), not overwrite them.")


def check_cache(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """The cache from inverse(y) gives the same gradients as the cache from forward(x).

    Within 1e-9 in float64 and 1e-3 in float32, relative to each gradient's largest entry plus a
    thousandth of the largest entry of all gradients, since some gradients are 0.
    """
    for dtype, tolerance in (np.float64, 1e-9), (np.float32, 1e-3):
        for candidate, batch in examples(layer, x, rng, dtype, size=0.05):
            y, log_det, cache = finite_forward(candidate, batch)
            parts = cotangents(y, log_det, rng)
            expected = gradients(candidate, cache, *parts)
            cache = candidate.forward(batch)[2]
            candidate.forward(batch[::-1])  # must not matter: backward may use only the cache
            for name, gradient in gradients(candidate, cache, *parts).items():
                if not np.array_equal(gradient, expected[name]):
                    raise PropertyFailed("a complete cache", f"{name}, {describe(batch)}", gradient,
                                         expected[name], "Another call of forward in between changed "
                                         "it: the layer keeps state outside the cache.")
            found = gradients(candidate, candidate.inverse(y)[1], *parts)
            largest = max(np.abs(gradient).max(initial=0) for gradient in expected.values())
            for name, gradient in expected.items():
                scale = np.abs(gradient).max(initial=0) + 1e-3 * largest
                if not np.allclose(found[name], gradient, rtol=0, atol=tolerance * scale):
                    raise PropertyFailed("equal caches from inverse and forward",
                                         f"{name}, {describe(batch)}", found[name], gradient,
                                         "inverse must cache the intermediates of forward(x), and its "
                                         "argument y is forward's output.")


def _check_gradient(layer: Any, x: np.ndarray, parts: tuple[np.ndarray, ...], gradient: np.ndarray,
                    name: str, rng: Seed) -> bool:
    """Compare one variable's gradient with finite differences; return False if there is a kink."""
    rng = np.random.default_rng(rng)
    v = rng.standard_normal(gradient.shape)
    # A random direction may be orthogonal to the gradient.
    v *= np.copysign(1 / np.linalg.norm(v), np.sum(v * gradient))
    v += gradient / max(np.linalg.norm(gradient), 1e-300)
    v /= np.linalg.norm(v)
    value, loss = _loss(layer, x, name, parts)
    for step in (STEP, STEP / 10):  # the shorter one if the map is strongly curved or a kink is near
        with suppress(NotSmooth):
            expected = directional_derivative(loss, value, v, step)
            break
    else:
        return False
    derivative = np.sum(gradient * v)
    rounding = 2e-9 * (1 + abs(loss(value)))  # of the finite differences
    tolerance = TOLERANCE * max(np.linalg.norm(gradient), abs(expected)) + rounding
    if not abs(derivative - expected) <= tolerance:
        raise PropertyFailed(f"backward's derivative with respect to {name}",
                             f"x of shape {x.shape}, along one direction", derivative, expected,
                             _cause(layer, x, parts, name, rng.standard_normal((6, *v.shape))))
    return True


def _cause(layer: Any, x: np.ndarray, parts: tuple[np.ndarray, ...], name: str,
           directions: np.ndarray) -> str:
    """Compare each cotangent's part of a wrong gradient separately, along several directions."""
    pairs = {}
    for i, label in enumerate(("dy", "dlog_det")[: len(parts)]):
        single = tuple(part if i == j else 0 * part for j, part in enumerate(parts))
        gradient = gradients(layer, _forward(layer, x)[1], *single)[name]
        value, loss = _loss(layer, x, name, single)
        try:
            expected = [directional_derivative(loss, value, v) for v in directions]
        except NotSmooth:
            return ""
        pairs[label] = np.array([np.sum(gradient * v) for v in directions]), np.array(expected)
    return cause_of_gradient(pairs, x)


def _loss(layer: Any, x: np.ndarray, name: str, parts: tuple[np.ndarray, ...],
          ) -> tuple[np.ndarray, Callable[[np.ndarray], float]]:
    """One variable's value, and the loss as a function of that variable."""

    def with_input(x: np.ndarray) -> float:
        y, _, log_det = _forward(layer, x)
        return float(sum(np.sum(part * result) for part, result in zip(parts, (y, log_det))))

    if name == "x":
        return x, with_input
    array = next(owner.params[key] for path, owner, key in parameters(layer) if path == name)
    original = array.copy()

    def with_parameter(value: np.ndarray) -> float:
        array[...] = value
        try:
            return with_input(x)
        finally:
            array[...] = original

    return original, with_parameter


def _forward(layer: Any, x: np.ndarray) -> tuple[np.ndarray, Any, np.ndarray]:
    """y, cache and log_det, which is 0 for a conditioner."""
    if isinstance(layer, Net):
        return *layer.forward(x), np.zeros(len(x))
    y, log_det, cache = layer.forward(x)
    return y, cache, log_det
