"""Compares backward with finite differences, for the input and for every parameter."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from minglow.bijection import Bijection, Module, Net
from minglow.testing.examples import Seed, examples
from minglow.testing.explain import cause_of_gradient, property_failed
from minglow.testing.numerical import STEP, NotSmooth, directional_derivative

TOLERANCE = 1e-6  # relative to a gradient's norm


def cotangents(y: np.ndarray, log_det: np.ndarray, rng: Seed) -> tuple[np.ndarray, np.ndarray]:
    """The derivatives of a random loss with respect to y and log_det."""
    rng = np.random.default_rng(rng)
    return (rng.standard_normal(y.shape).astype(y.dtype),
            rng.standard_normal(np.shape(log_det)).astype(y.dtype))


def gradients(layer: Module, cache: Any, *parts: np.ndarray) -> dict[str, np.ndarray]:
    """backward's gradients by name: "x" for the input, and the path of each parameter.

    Sets grads to zero before it calls backward.
    """
    for _, part in layer.walk():
        for grad in part.grads.values():
            grad[...] = 0
    dx = layer.backward(*parts, cache)  # type: ignore[attr-defined]
    return {"x": dx, **{name: owner.grads[key].copy() for name, owner, key in parameters(layer)}}


def parameters(layer: Module) -> list[tuple[str, Module, str]]:
    """(path, owner, name) of every parameter."""
    return [(f"{path}.{name}" if path else name, part, name)
            for path, part in layer.walk() for name in part.params]


def check_backward(layer: Bijection | Net, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """backward gives the derivative of <dy, y> + <dlog_det, log_det>, and adds to grads.

    The derivatives with respect to the input and to every parameter are compared with finite
    differences in float64, along a direction that is half the gradient's own and half random, within
    1e-6 of the gradient's norm. Also checks conditioners (Net). Points on a ReLU's kink are skipped:
    nothing is compared for an x that consists of kinks.
    """
    for candidate, batch in examples(layer, x, rng):
        y, cache, log_det = _forward(candidate, batch)
        parts = cotangents(y, log_det, rng)[: 1 if isinstance(candidate, Net) else 2]
        found = gradients(candidate, cache, *parts)
        once = {name: gradient.copy() for name, gradient in found.items()}
        if found["x"].shape != batch.shape or found["x"].dtype != batch.dtype:
            raise property_failed("dx of x's dtype and shape", "x", (found["x"].dtype, found["x"].shape),
                                  (batch.dtype, batch.shape), "")
        for name, gradient in found.items():
            if not np.all(np.isfinite(gradient)):
                raise property_failed("a finite gradient", name, gradient, "finite numbers",
                                      "backward returned NaN or inf for finite arguments.")
        smooth = [_check_gradient(candidate, batch, parts, found, name, rng) for name in found]
        if not any(smooth):
            raise property_failed("a smooth forward", f"x of shape {batch.shape}",
                                  "a jump along every direction", "a derivative",
                                  "Is forward random or discontinuous, or x too near the boundary of "
                                  "its domain?")
        candidate.backward(*parts, cache)  # type: ignore[call-arg]
        for name, owner, key in parameters(candidate):
            if not np.allclose(owner.grads[key], 2 * once[name], rtol=1e-9, atol=1e-12):
                raise property_failed("accumulation of grads", name, owner.grads[key], 2 * once[name],
                                      "backward must add to grads (+=), not overwrite them.")


def _check_gradient(layer: Any, x: np.ndarray, parts: tuple[np.ndarray, ...],
                    found: dict[str, np.ndarray], name: str, rng: Seed) -> bool:
    """Compare one variable's gradient with finite differences; return False if there is a kink."""
    gradient = found[name]
    rng = np.random.default_rng(rng)
    v = rng.standard_normal(gradient.shape)
    if np.all(np.isfinite(gradient)):  # a purely random direction may be orthogonal to the gradient
        v *= np.copysign(1 / np.linalg.norm(v), np.sum(v * gradient))
        v += gradient / max(np.linalg.norm(gradient), 1e-300)
    v /= np.linalg.norm(v)
    value, loss = _loss(layer, x, name, parts)
    expected = None
    for step in (STEP, STEP / 10):  # the shorter one if the map is strongly curved or a kink is near
        with suppress(NotSmooth):
            expected = directional_derivative(loss, value, v, step)
            break
    if expected is None:
        return False
    derivative = np.sum(gradient * v)
    rounding = 2e-9 * (1 + abs(loss(value)))  # of the finite differences
    tolerance = TOLERANCE * max(np.linalg.norm(gradient), abs(expected)) + rounding
    if not abs(derivative - expected) <= tolerance:
        raise property_failed(f"backward's derivative with respect to {name}",
                              f"x of shape {x.shape}, along one direction", derivative, expected,
                              _cause(layer, x, parts, name, rng))
    return True


def _cause(layer: Any, x: np.ndarray, parts: tuple[np.ndarray, ...], name: str,
           rng: np.random.Generator) -> str:
    """Compare each cotangent's part of a wrong gradient separately, along several directions."""
    value, _ = _loss(layer, x, name, parts)
    directions = rng.standard_normal((6, *value.shape))
    pairs = {}
    for i, label in enumerate(("dy", "dlog_det")[: len(parts)]):
        single = tuple(part if i == j else 0 * part for j, part in enumerate(parts))
        gradient = gradients(layer, _forward(layer, x)[1], *single)[name]
        _, loss = _loss(layer, x, name, single)
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
    owner, key = next((owner, key) for path, owner, key in parameters(layer) if path == name)
    array = owner.params[key]
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
        y, cache = layer.forward(x)
        return y, cache, np.zeros(len(x))
    y, log_det, cache = layer.forward(x)
    return y, cache, log_det
