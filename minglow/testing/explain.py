"""Likely causes of wrong numbers, for error messages."""

import numpy as np

from minglow.arrays.shapes import pixels


class PropertyFailed(AssertionError):
    """A bijection violates the contract; the message states the property, where, and a likely cause."""

    def __init__(self, name: str, where: str, found: object, expected: object, cause: str = "") -> None:
        message = f"{name} fails at {where}: found {_show(found)}, expected {_show(expected)}"
        if (isinstance(found, np.ndarray) and isinstance(expected, np.ndarray)
                and found.shape == expected.shape):
            message += f" (largest difference {np.max(np.abs(found - expected), initial=0):.1e})"
        super().__init__(f"{message}. {cause}".strip())


def describe(x: np.ndarray) -> str:
    """A batch's shape and dtype, for a message."""
    return f"x of shape {x.shape}, {x.dtype}"


def cause_of_log_det(found: np.ndarray, expected: np.ndarray, x: np.ndarray) -> str:
    """The usual cause of a wrong log_det, (B,)."""
    if np.allclose(found, 0) and not np.allclose(expected, 0):
        return "log_det is 0, but the map changes volume: it was left out."
    if len(x) > 1 and np.allclose(found, expected.sum(), rtol=1e-5):
        return "It is the sum over the batch: log_det has one number per sample, never summed."
    if np.ptp(expected) > 1e-4 and np.allclose(found, expected.mean(), rtol=1e-5):
        return "It is the mean over the batch: log_det has one number per sample."
    return cause_of_ratio(found, expected, x, "log_det") or (
        "Its ratio to the expected value differs between samples: often a term is missing, or it is "
        "computed from the wrong half or the wrong intermediate.")


def cause_of_ratio(found: np.ndarray, expected: np.ndarray, x: np.ndarray, name: str) -> str:
    """The usual cause of a quantity that is wrong by one factor in every entry; "" without a factor."""
    found, expected = np.ravel(found).astype(float), np.ravel(expected).astype(float)
    size = np.sum(expected * expected)
    if not np.all(np.isfinite(found)) or size == 0:
        return ""
    ratio = np.sum(found * expected) / size
    if not np.allclose(found, ratio * expected, rtol=1e-5, atol=1e-7 * size**0.5):
        return ""
    if abs(ratio) < 1e-6:
        return f"It is 0: {name} was left out."
    if abs(ratio + 1) < 1e-6:
        return f"The sign of {name} is wrong{'; it is that of the inverse map' * (name == 'log_det')}."
    for factor, symbol, advice in (
            (pixels(x), "h*w", "each of the h*w pixels counts once"),
            (len(x), "B", "a layer neither sums nor averages over the batch, the loss does")):
        for quotient, direction in (ratio * factor, "small"), (ratio / factor, "large"):
            if factor > 1 and abs(quotient - 1) < 1e-6:
                return f"It is too {direction} by a factor {symbol} = {factor}: {advice}."
    return f"It is wrong by a factor {ratio:.6g} in every entry."


def cause_of_gradient(parts: dict[str, tuple[np.ndarray, np.ndarray]], x: np.ndarray) -> str:
    """The usual cause of a wrong gradient. backward is linear in dy and dlog_det.

    parts: "dy" and "dlog_det" -> (found, expected) along several directions, with the other cotangent 0.
    """
    sentences = []
    scale = np.max(np.abs(list(parts.values())))
    for name, (found, expected) in parts.items():
        if not np.allclose(found, expected, rtol=1e-5, atol=1e-7 * scale):
            sentences.append(f"The part from {name} is wrong. " + (
                cause_of_ratio(found, expected, x, f"the part from {name}")
                or "It has no fixed ratio to the expected gradient: often a transpose (W for W^T, W^-1 "
                "for W^-T), swapped halves, a missing term, or a stale cache."))
    return " ".join(sentences) or "Each part is right, but their sum is wrong: is backward linear?"


def cause_of_inverse(found: np.ndarray, expected: np.ndarray) -> str:
    """The usual cause of a wrong inverse."""
    swapped = np.roll(found, found.shape[-1] // 2, axis=-1)
    if found.shape[-1] % 2 == 0 and np.allclose(swapped, expected, atol=1e-6):
        return "The halves are swapped."
    error = float(np.max(np.abs(found - expected)))
    if error < 1e-2:
        return (f"The largest error is {error:.1e}: small errors come from an epsilon in a divisor, "
                "from a scale near 0, or from a constant in another precision.")
    same = np.isclose(found, expected, rtol=1e-6, atol=1e-6).all(axis=tuple(range(found.ndim - 1)))
    if same.any():
        wrong = np.flatnonzero(~same).tolist()
        return f"Channels {wrong} are wrong, the others are right: is each step undone?"
    return "Does the inverse undo the steps in reverse order, each by its own inverse?"


def _show(value: object) -> str:
    if isinstance(value, np.ndarray):
        return np.array2string(np.ravel(value)[:6], precision=6) + "..." * (value.size > 6)
    return f"{value:.9g}" if isinstance(value, (float, np.floating)) else str(value)
