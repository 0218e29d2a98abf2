"""backward against differences: by the input and by every parameter. Floor 2."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from minglow.bijection import Bijection, Module, Net
from minglow.testing.examples import examples
from minglow.testing.explain import broken, cause_of_gradient
from minglow.testing.numerical import STEP, NotSmooth, directional_derivative

TOLERANCE = 1e-6  # relative to a gradient's length


def cotangents(y: np.ndarray, log_det: np.ndarray,
               rng: int | np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random loss's derivatives by y and by log_det."""
    rng = np.random.default_rng(rng)
    return (rng.standard_normal(y.shape).astype(y.dtype),
            rng.standard_normal(np.shape(log_det)).astype(y.dtype))


def gradients(layer: Module, cache: Any, *parts: np.ndarray) -> dict[str, np.ndarray]:
    """backward's gradients by name, from grads of zero: "x" for the input, else a parameter's path."""
    for _, part in layer.walk():
        for grad in part.grads.values():
            grad[...] = 0
    dx = layer.backward(*parts, cache)  # type: ignore[attr-defined]
    return {"x": dx, **{name: owner.grads[key].copy() for name, owner, key in parameters(layer)}}


def parameters(layer: Module) -> list[tuple[str, Module, str]]:
    """(full name, owner, name) of every parameter."""
    return [(f"{path}.{name}" if path else name, part, name)
            for path, part in layer.walk() for name in part.params]


def check_backward(layer: Bijection | Net, x: np.ndarray | None = None,
                   rng: int | np.random.Generator = 0) -> None:
    """backward is the derivative of <dy, y> + <dlog_det, log_det>, and adds to grads.

    By the input and by every parameter, along a direction that is half the gradient's own and half
    random, within 1e-6 of the gradient's length in float64. Takes conditioners (Net), too. What lies
    on a ReLU's kink is left out: an x that consists of kinks compares nothing.
    """
    for candidate, batch in examples(layer, x, rng):
        y, cache, log_det = _forward(candidate, batch)
        parts = cotangents(y, log_det, rng)[: 1 if isinstance(candidate, Net) else 2]
        found = gradients(candidate, cache, *parts)
        once = {name: gradient.copy() for name, gradient in found.items()}
        if found["x"].shape != batch.shape or found["x"].dtype != batch.dtype:
            came = found["x"].dtype, found["x"].shape
            raise broken("dx's dtype and shape", "x", came, (batch.dtype, batch.shape), "")
        for name, gradient in found.items():
            if not np.all(np.isfinite(gradient)):
                raise broken("a finite gradient", name, gradient, "finite numbers",
                             "backward returned NaN or inf for finite arguments.")
        smooth = [_check_slope(candidate, batch, parts, found, name, rng) for name in found]
        if not any(smooth):
            raise broken("a smooth forward", f"x of shape {batch.shape}", "a jump along every direction",
                         "a derivative", "Is forward random or discontinuous, or x too near the edge "
                         "of its domain?")
        candidate.backward(*parts, cache)  # type: ignore[call-arg]
        for name, owner, key in parameters(candidate):
            if not np.allclose(owner.grads[key], 2 * once[name], rtol=1e-9, atol=1e-12):
                raise broken("grads accumulate", name, owner.grads[key], 2 * once[name],
                             "backward has to add to grads (+=), not to overwrite them.")


def _check_slope(layer: Any, x: np.ndarray, parts: tuple[np.ndarray, ...],
                 found: dict[str, np.ndarray], name: str, rng: int | np.random.Generator) -> bool:
    """One variable's gradient against a difference; False where there is no derivative to be had."""
    gradient = found[name]
    rng = np.random.default_rng(rng)
    v = rng.standard_normal(gradient.shape)
    if np.all(np.isfinite(gradient)):  # a random direction alone is now and then orthogonal to it
        v *= np.copysign(1 / np.linalg.norm(v), np.sum(v * gradient))
        v += gradient / max(np.linalg.norm(gradient), 1e-300)
    v /= np.linalg.norm(v)
    value, loss = _loss(layer, x, name, parts)
    expected = None
    for step in (STEP, STEP / 10):  # the shorter one where the map bends too much, or has a kink near
        with suppress(NotSmooth):
            expected = directional_derivative(loss, value, v, step)
            break
    if expected is None:
        return False
    slope = np.sum(gradient * v)
    rounding = 2e-9 * (1 + abs(loss(value)))  # of the differences
    tolerance = TOLERANCE * max(np.linalg.norm(gradient), abs(expected)) + rounding
    if not abs(slope - expected) <= tolerance:
        raise broken(f"backward: the gradient by {name}", f"x of shape {x.shape}, along one direction",
                     slope, expected, _cause(layer, x, parts, name, rng))
    return True


def _cause(layer: Any, x: np.ndarray, parts: tuple[np.ndarray, ...], name: str,
           rng: np.random.Generator) -> str:
    """Look at each cotangent's part of a wrong gradient by itself, along several directions."""
    value, _ = _loss(layer, x, name, parts)
    directions = rng.standard_normal((6, *value.shape))
    pairs = {}
    for i, label in enumerate(("dy", "dlog_det")[: len(parts)]):
        alone = tuple(part if i == j else 0 * part for j, part in enumerate(parts))
        gradient = gradients(layer, _forward(layer, x)[1], *alone)[name]
        _, loss = _loss(layer, x, name, alone)
        try:
            expected = [directional_derivative(loss, value, v) for v in directions]
        except NotSmooth:
            return ""
        pairs[label] = np.array([np.sum(gradient * v) for v in directions]), np.array(expected)
    return cause_of_gradient(pairs, x)


def _loss(layer: Any, x: np.ndarray, name: str, parts: tuple[np.ndarray, ...],
          ) -> tuple[np.ndarray, Callable[[np.ndarray], float]]:
    """One variable's value, and the loss as a function of that variable."""

    def at(x: np.ndarray) -> float:
        y, _, log_det = _forward(layer, x)
        return float(sum(np.sum(part * result) for part, result in zip(parts, (y, log_det))))

    if name == "x":
        return x, at
    owner, key = next((owner, key) for full, owner, key in parameters(layer) if full == name)
    array = owner.params[key]
    start = array.copy()

    def with_parameter(value: np.ndarray) -> float:
        array[...] = value
        try:
            return at(x)
        finally:
            array[...] = start

    return start, with_parameter


def _forward(layer: Any, x: np.ndarray) -> tuple[np.ndarray, Any, np.ndarray]:
    """y, cache and log_det, which is 0 for a conditioner."""
    if isinstance(layer, Net):
        y, cache = layer.forward(x)
        return y, cache, np.zeros(len(x))
    y, log_det, cache = layer.forward(x)
    return y, cache, log_det
