"""The return values of forward, inverse and backward; every other check relies on them."""

from typing import Any

import numpy as np

from minglow.bijection import Bijection
from minglow.testing.examples import Seed, check_one_per_sample, examples
from minglow.testing.explain import describe, property_failed


def check_returns(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """forward returns (y, log_det, cache), inverse returns (x, cache), backward returns dx."""
    for candidate, batch in examples(layer, x, rng):
        y, log_det, cache = _parts("forward", candidate.forward(batch), ("y", "log_det", "cache"), batch)
        check_one_per_sample(log_det, batch)
        _parts("inverse", candidate.inverse(y), ("x", "cache"), batch)
        dx = candidate.backward(np.ones_like(y), np.ones_like(log_det), cache)
        if np.shape(dx) != batch.shape:
            raise property_failed("backward's return value", describe(batch), _kind(dx),
                                  f"dx of shape {batch.shape}", _hint("backward", dx))


def _parts(method: str, result: Any, names: tuple[str, ...], batch: np.ndarray) -> tuple[Any, ...]:
    """The result, if it is a tuple with these parts that begins with an array."""
    if (not isinstance(result, tuple) or len(result) != len(names)
            or not isinstance(result[0], np.ndarray)):
        raise property_failed(f"{method}'s return value", describe(batch), _kind(result),
                              f"({', '.join(names)})", _hint(method, result))
    return result


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_kind, value))})"
    return f"an array {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _hint(method: str, result: Any) -> str:
    return f"Does {method} end in a return?" if result is None else ""
