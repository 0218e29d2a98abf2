"""Explanations of wrong numbers. Each sentence states a relation that was tested and holds."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from minglow.arrays.shapes import pixels
from minglow.bijection import Bijection
from minglow.testing.numerical import numerical_jacobian


class PropertyFailed(AssertionError):
    """A bijection violates the contract; the message states the property, where, and what was found."""

    def __init__(self, name: str, where: str, found: object, expected: object, cause: str = "") -> None:
        message = f"{name} fails at {where}: found {_show(found)}, expected {_show(expected)}"
        if (isinstance(found, np.ndarray) and isinstance(expected, np.ndarray)
                and found.shape == expected.shape):
            message += f" (largest difference {np.max(np.abs(found - expected), initial=0):.1e})"
        super().__init__(f"{message}. {cause}".strip())


def describe(x: np.ndarray) -> str:
    """A batch's shape and dtype, for a message."""
    return f"x of shape {x.shape}, {x.dtype}"


def close(found: Any, expected: Any) -> bool:
    """Whether two quantities agree as far as finite differences can tell."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    return bool(np.allclose(found, expected, rtol=1e-5, atol=1e-6 * np.max(np.abs(expected), initial=0)))


def agree(found: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    """Whether two arrays are equal, NaN included, relative to the largest value or to 1."""
    scale = 1 + np.max(np.abs(expected), initial=0, where=np.isfinite(expected))
    return np.allclose(found, expected, rtol=0, atol=tolerance * scale, equal_nan=True)


def explain_ratio(found: np.ndarray, expected: np.ndarray, x: np.ndarray, name: str) -> str:
    """A sentence about the factor by which `name` is wrong in every entry; "" without a factor."""
    found, expected = np.ravel(found).astype(float), np.ravel(expected).astype(float)
    size = np.sum(expected * expected)
    if size == 0 or not np.all(np.isfinite(found)):
        return ""
    ratio = np.sum(found * expected) / size
    if not close(found, ratio * expected) or abs(ratio - 1) < 1e-4:
        return ""
    if abs(ratio) < 1e-6:
        return f"{name} is 0."
    if abs(ratio + 1) < 1e-6:
        return f"{name} has the wrong sign{'; it is that of the inverse map' * (name == 'log_det')}."
    height, width = x.shape[1:3] if x.ndim == 4 else (1, 1)
    for factor, symbol, advice in (
            (pixels(x), "h*w", ": each of the h*w pixels counts once"),
            (len(x), "B", ": a layer neither sums nor averages over the batch, the loss does"),
            (width / height, "w/h", "")):
        for quotient, direction in (ratio * factor, "small"), (ratio / factor, "large"):
            if abs(quotient - 1) < 1e-5:
                return f"{name} is too {direction} by a factor {symbol} = {factor:.6g}{advice}."
    several = np.sum(expected != 0) > 1
    return f"{name} is wrong by a factor {ratio:.6g} in every entry." if several else ""


def explain_total(log_det: np.ndarray, expected: np.ndarray) -> str:
    """A sentence if log_det, (B,), is a sum or mean over the batch; "" if not."""
    for name, value in ("sum", expected.sum()), ("mean", expected.mean()):
        if len(expected) > 1 and close(log_det, value) and not close(expected, value):
            return f"It is the {name} over the batch: log_det has one number per sample."
    return ""


def explain_log_det(layer: Bijection, x: np.ndarray, found: np.ndarray, expected: np.ndarray) -> str:
    """What a wrong log_det, (B,), is instead."""
    sentence = (explain_total(found, expected) or explain_ratio(found, expected, x, "log_det")
                or _explain_terms(layer, x, found, expected))
    if sentence:
        return sentence
    try:
        undone = close(layer.inverse(layer.forward(x)[0])[0], x)
    except (ValueError, ArithmeticError):
        return ""
    return ("inverse undoes forward: look at log_det." if undone else
            "inverse does not undo forward, either: look at forward first.")


def _explain_terms(layer: Bijection, x: np.ndarray, found: np.ndarray, expected: np.ndarray) -> str:
    """Whether log_det has only some of its terms, such as those of one half or of one pixel."""
    # For a triangular Jacobian each entry's log|dy_i/dx_i| is one term of log_det.
    jacobians = [numerical_jacobian(layer.forward, sample) for sample in x]
    with np.errstate(divide="ignore"):
        diagonals = np.log(np.abs([np.diag(jacobian) for jacobian in jacobians])).reshape(x.shape)
    if not close(diagonals.reshape(len(x), -1).sum(axis=1), expected):
        return ""
    for axis, label in list(enumerate(_axes(x)))[1:]:
        for index in range(x.shape[axis]) if x.shape[axis] > 1 else ():
            term = diagonals.take(index, axis).reshape(len(x), -1).sum(axis=1)
            if not close(expected - term, expected):
                if close(found, expected - term):
                    return f"The terms of {label} {index} are missing."
                if close(found, term):
                    return f"It has the terms of {label} {index} only."
    return ""


def explain_inverse(layer: Bijection, x: np.ndarray, found: np.ndarray,
                    log_det_holds: bool | None) -> str:
    """What inverse(forward(x)) is instead of x. Raises NotSmooth.

    log_det_holds: whether log_det is that of forward; None if unknown.
    """
    y = layer.forward(x)[0]
    if x.shape[-1] % 2 == 0 and (
            close(_swapped(found), x) or close(layer.inverse(_swapped(y))[0], x)):
        return "inverse undoes forward up to a swap of the halves."
    if y.shape == x.shape and close(found, layer.forward(y)[0]):
        return "inverse computes the same map as forward."
    jacobians = [numerical_jacobian(layer.forward, sample) for sample in x]
    inverses = [numerical_jacobian(layer.inverse, sample) for sample in y]
    if all(close(inverse, np.linalg.inv(jacobian).T) and not close(jacobian, jacobian.T)
           for inverse, jacobian in zip(inverses, jacobians)):
        return ("The Jacobian of inverse is J^-T, with J that of forward, where it must be J^-1: one of "
                "the two multiplies by a transpose.")
    right = np.array([close(found[..., c], x[..., c]) for c in range(x.shape[-1])])
    sentences = ([f"Only {_indices('channel', ~right)} not undone."]
                 if right.any() and not right.all() else [])
    scale, back = (np.ravel([np.diag(jacobian) for jacobian in kind]) for kind in (jacobians, inverses))
    wrong = (np.abs(scale * back - 1) > 1e-8) & (scale * back != 0)
    triangular = close(np.log(np.abs(scale[scale != 0])).sum(),
                       sum(np.linalg.slogdet(jacobian)[1] for jacobian in jacobians))
    if triangular and wrong.sum() > 1:  # as in an elementwise map or a coupling
        differences = 1 / back[wrong] - scale[wrong]
        if close(back[wrong], scale[wrong]):
            sentences.append("Where it is wrong, inverse has the derivative of forward, of which it "
                             "must have the reciprocal: it multiplies where it must divide, or the "
                             "other way.")
        elif np.ptp(differences) < 0.1 * abs(np.mean(differences)) < 1e-3:
            sentences.append("The scale that inverse divides by differs from forward's by a "
                             f"constant {np.mean(differences):.1e}, such as an epsilon.")
    if log_det_holds is not None:
        sentences.append("log_det agrees with forward." if log_det_holds else
                         "log_det disagrees with forward, too: look at forward first.")
    return " ".join(sentences)


def _swapped(x: np.ndarray) -> np.ndarray:
    return np.roll(x, x.shape[-1] // 2, axis=-1)


def explain_gradient(parts: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], name: str,
                     x: np.ndarray) -> Iterator[str]:
    """What is wrong with a gradient. backward is linear in dy and dlog_det.

    parts: "dy" and "dlog_det" -> (found, expected, tolerance) with the other cotangent 0, each of the
    gradient's shape.
    """
    scale = max(np.max(np.abs(expected)) for _, expected, _ in parts.values())
    for part, (found, expected, tolerance) in parts.items():
        wrong = np.abs(found - expected) > tolerance + 1e-8 * scale
        if not wrong.any():
            continue
        size = np.max(np.abs(found - expected)) / max(np.max(np.abs(expected)), 1e-300)
        yield explain_ratio(found, expected, x, f"The part from {part}") or (
            f"The part from {part} is wrong"
            + (f" by {size:.0e} of its largest entry." if size < 1e-2 else "."))
        if not np.any(expected):
            yield f"forward does not depend on {name}."
        elif found.size > 1 and close(found, np.full(found.shape, expected.sum())):
            yield "Each entry is the sum of all expected entries."
        elif found.ndim > 1 and found.shape[-1] == found.shape[-2] and close(
                found, np.swapaxes(expected, -1, -2)) and name != "x":
            yield "It is the transpose of the expected gradient."
        labels = _axes(x) if name == "x" else [f"entry of axis {axis}" for axis in range(wrong.ndim)]
        for axis, label in enumerate(labels):
            others = tuple(other for other in range(wrong.ndim) if other != axis)
            at = wrong.any(axis=others)
            if not at.all():
                yield f"In this batch only {_indices(label, at)} wrong."


def _axes(x: np.ndarray) -> list[str]:
    """The names of a batch's axes."""
    inner = {3: ["pixel"], 4: ["row", "column"]}.get(x.ndim)
    return ["sample", *(inner or [f"entry of axis {axis}" for axis in range(1, x.ndim - 1)]), "channel"]


def _indices(label: str, chosen: np.ndarray) -> str:
    """Such as "channels 0, 2 are" for the indices that are True."""
    indices = np.flatnonzero(chosen)
    name, *rest = label.split(" ", 1)
    plural = {"entry": "entries"}.get(name, name + "s") if len(indices) > 1 else name
    return " ".join([plural, ", ".join(map(str, indices)), *rest, "are" if len(indices) > 1 else "is"])


def _show(value: object) -> str:
    if isinstance(value, np.ndarray):
        shown = np.array2string(np.ravel(value)[:6], precision=6, max_line_width=1000)
        return shown + "..." * (value.size > 6)
    return f"{value:.9g}" if isinstance(value, (float, np.floating)) else str(value)
