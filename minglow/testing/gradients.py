"""Compares backward with finite differences."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minglow.bijection import Bijection, Module, Net
from minglow.params import parameters
from minglow.testing.examples import Seed, examples, finite_forward, nearby
from minglow.testing.explain import PropertyFailed, close, describe, explain_gradient
from minglow.testing.numerical import STEPS, NotSmooth, estimate_derivative, numerical_jacobian

__tracebackhide__ = True  # pytest shows the line that called a check, not the check's own lines

TOLERANCE = 1e-6  # relative to a gradient's norm
MAX_ENTRIES = 1000  # a wrong gradient is explained entry by entry up to this size


def cotangents(y: np.ndarray, log_det: np.ndarray, rng: Seed) -> tuple[np.ndarray, np.ndarray]:
    """The derivatives of a random loss with respect to y and log_det; the latter's signs alternate."""
    rng = np.random.default_rng(rng)
    signs = np.where(np.arange(len(log_det)) % 2, 1, -1)
    return (rng.standard_normal(y.shape).astype(y.dtype),
            (signs * np.abs(rng.standard_normal(np.shape(log_det)))).astype(y.dtype))


def gradients(layer: Module, cache: Any, *parts: np.ndarray) -> dict[str, np.ndarray]:
    """Set grads to 0 and call backward: "x" -> dx and a parameter's path -> gradient, all finite."""
    for _, owner, key in parameters(layer):
        owner.grads[key][...] = 0
    dx = layer.backward(*parts, cache)  # type: ignore[attr-defined]
    found = {"x": dx, **{path: owner.grads[key].copy() for path, owner, key in parameters(layer)}}
    for name, gradient in found.items():
        if not np.all(np.isfinite(gradient)):
            raise PropertyFailed("a finite gradient", f"{name}, dy of shape {parts[0].shape}", gradient,
                                 "finite numbers", "backward returned NaN or inf.")
    return found


def check_backward(layer: Bijection | Net, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """backward gives the derivative of <dy, y> + <dlog_det, log_det>, and adds to grads.

    The derivatives with respect to the input and every parameter, also of conditioners (Net), are
    proportional to the cotangents. They are compared with finite differences in float64, along a
    direction that is half the gradient's own and half random, within 1e-6 of the gradient's norm. A
    sample with a ReLU's kink within a step is left out. Where that leaves none, the batch is moved a
    little; the check fails if none is left there.
    """
    for candidate, batch in examples(layer, x, rng, nets=True):
        if not isinstance(candidate, Net):
            finite_forward(candidate, batch)
        y, cache, log_det = _forward(candidate, batch)
        parts = cotangents(y, log_det, rng)[: 1 if isinstance(candidate, Net) else 2]
        found = gradients(candidate, cache, *parts)
        dx_kind, x_kind = (found["x"].dtype, found["x"].shape), (batch.dtype, batch.shape)
        if dx_kind != x_kind:
            raise PropertyFailed("dx of x's dtype and shape", describe(batch), dx_kind, x_kind)
        candidate.backward(*parts, cache)  # type: ignore[call-arg]
        for name, owner, key in parameters(candidate):
            if not np.allclose(owner.grads[key], 2 * found[name], rtol=1e-9, atol=1e-12):
                cause = ("backward must add to grads (+=), not overwrite them."
                         if np.array_equal(owner.grads[key], found[name]) else
                         "A second call with the same arguments adds another gradient than the first.")
                raise PropertyFailed("accumulation of grads", name, owner.grads[key], 2 * found[name],
                                     cause)
        # A power of two: each step of a linear backward rounds as before.
        for name, large in gradients(candidate, cache, *(1024 * part for part in parts)).items():
            if not np.allclose(large, 1024 * found[name], rtol=1e-9, atol=1e-9):
                raise PropertyFailed("linearity of backward", f"{name}, {describe(batch)}", large,
                                     1024 * found[name], "dy and dlog_det are 1024 times as large.")
        compared = {name: _compare(candidate, batch, parts, found[name], name, rng)
                    or _compare(candidate, nearby(batch), parts, None, name, rng) for name in found}
        wrong = [name for name, pair in compared.items()
                 if pair and not abs(pair[0] - pair[1]) <= pair[2]]
        if wrong:
            derivative, expected, _ = compared[wrong[0]]  # type: ignore[misc]
            explanation = _explain(candidate, batch, parts, wrong[0])
            if wrong[1:]:
                explanation += f" The derivatives with respect to {', '.join(wrong[1:])} are wrong, too."
            raise PropertyFailed(f"backward's derivative with respect to {wrong[0]}",
                                 f"{describe(batch)}, along one direction", derivative, expected,
                                 explanation)
        left_out = [name for name, pair in compared.items() if pair is None]
        if left_out:
            raise PropertyFailed(
                "a smooth forward", f"{', '.join(left_out)}, {describe(batch)}",
                f"{len(batch)} of {len(batch)} samples with a kink or a jump within a step of "
                f"{min(STEPS):g}", "a derivative to compare with",
                "Nothing was compared there: pass a batch x without kinks, if forward is continuous.")


def _compare(layer: Any, x: np.ndarray, parts: tuple[np.ndarray, ...], gradient: np.ndarray | None,
             name: str, rng: Seed) -> tuple[float, float, float] | None:
    """One variable's derivative along a direction: (found, expected, tolerance).

    `gradient` is backward's, or None if it is not known yet. Returns None if no sample is smooth there.
    """
    if gradient is None:
        gradient = gradients(layer, _forward(layer, x)[1], *parts)[name]
    v = _direction(gradient, np.random.default_rng(rng))
    value, losses = _losses(layer, x, name, parts)
    for step in STEPS:
        expected, error, smooth = estimate_derivative(losses, value, v, step)
        if np.all(smooth):
            break
    if not np.any(smooth):
        return None
    if not np.all(smooth):  # without the samples that have a kink
        kept = tuple(part * smooth.reshape(-1, *[1] * (part.ndim - 1)) for part in parts)
        gradient = gradients(layer, _forward(layer, x)[1], *kept)[name]
    derivative, expected = float(np.sum(gradient * v)), float(np.sum(expected[smooth]))
    scale = max(float(np.linalg.norm(gradient)), abs(expected))
    return derivative, expected, TOLERANCE * scale + float(np.sum(error[smooth]))


def _direction(gradient: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half the gradient's direction and half a random one, which alone may be orthogonal to it."""
    v = rng.standard_normal(gradient.shape)
    v *= np.copysign(1 / np.linalg.norm(v), np.sum(v * gradient))
    v += gradient / max(np.linalg.norm(gradient), 1e-300)
    return v / np.linalg.norm(v)


def _explain(layer: Any, x: np.ndarray, parts: tuple[np.ndarray, ...], name: str) -> str:
    """Compare each cotangent's part of a wrong gradient separately, entry by entry."""
    value = _losses(layer, x, name, parts)[0]
    if value.size > MAX_ENTRIES:
        return ""
    compared = {}
    for i, label in enumerate(("dy", "dlog_det")[: len(parts)]):
        single = tuple(part if i == j else 0 * part for j, part in enumerate(parts))
        gradient = gradients(layer, _forward(layer, x)[1], *single)[name]
        _, losses = _losses(layer, x, name, single)
        expected, tolerance = np.zeros(value.shape), np.zeros(value.shape)
        for index in np.ndindex(value.shape):
            unit = np.zeros(value.shape)
            unit[index] = 1
            derivative, error, smooth = estimate_derivative(losses, value, unit, 1e-6)
            tolerance[index] = np.sum(error)
            expected[index] = np.sum(derivative) if np.all(smooth) else gradient[index]  # not compared
        compared[label] = gradient, expected, tolerance
    sentences = list(explain_gradient(compared, name, x))
    if name == "x":
        sentences += _explain_jacobian(layer, x, parts[0], *compared["dy"][:2])
    return " ".join(sentences)


def _explain_jacobian(layer: Any, x: np.ndarray, dy: np.ndarray, found: np.ndarray,
                      expected: np.ndarray) -> list[str]:
    """Whether the part of dx from dy, J^T dy, is another product with forward's Jacobian J."""
    if close(found, expected):
        return []
    try:
        jacobians = [numerical_jacobian(layer.forward, sample) for sample in x]
    except NotSmooth:
        return []
    if any(len(jacobian) != len(jacobian.T) for jacobian in jacobians):
        return []

    def product(matrix: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        columns = [matrix(jacobian) @ part.ravel() for jacobian, part in zip(jacobians, dy)]
        return np.array(columns).reshape(x.shape)

    others = {"J dy": lambda j: j, "J^-1 dy": np.linalg.inv, "J^-T dy": lambda j: np.linalg.inv(j).T}
    return [f"The part from dy is {label}, with J the Jacobian of forward, where it must be J^T dy."
            for label, matrix in others.items() if close(found, product(matrix))]


def _losses(layer: Any, x: np.ndarray, name: str, parts: tuple[np.ndarray, ...],
            ) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """One variable's value, and each sample's loss, (B,), as a function of that variable."""

    def with_input(x: np.ndarray) -> np.ndarray:
        y, _, log_det = _forward(layer, x)
        return sum((part * result).reshape(len(x), -1).sum(axis=1)
                   for part, result in zip(parts, (y, log_det)))

    if name == "x":
        return x, with_input
    array = next(owner.params[key] for path, owner, key in parameters(layer) if path == name)
    original = array.copy()

    def with_parameter(value: np.ndarray) -> np.ndarray:
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
