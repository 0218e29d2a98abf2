"""What the three methods hand back: nothing else can be looked at before that is right. Floor 2."""

from __future__ import annotations

from typing import Any

import numpy as np

from minglow.bijection import Bijection
from minglow.testing.examples import check_one_for_each, examples
from minglow.testing.explain import broken, described

Seed = int | np.random.Generator


def check_returns(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """forward returns (y, log_det, cache), inverse returns (x, cache), backward returns dx."""
    for candidate, batch in examples(layer, x, rng):
        y, log_det, cache = _parts("forward", candidate.forward(batch), ("y", "log_det", "cache"), batch)
        check_one_for_each(log_det, batch)
        _parts("inverse", candidate.inverse(y), ("x", "cache"), batch)
        dx = candidate.backward(np.ones_like(y), np.ones_like(log_det), cache)
        if np.shape(dx) != batch.shape:
            raise broken("what backward returns", described(batch), _kind(dx),
                         f"dx of shape {batch.shape}", _forgotten("backward", dx))


def _parts(method: str, came: Any, names: tuple[str, ...], batch: np.ndarray) -> tuple[Any, ...]:
    """What a method returned, if it is a tuple of so many parts that begins with an array."""
    if not isinstance(came, tuple) or len(came) != len(names) or not isinstance(came[0], np.ndarray):
        raise broken(f"what {method} returns", described(batch), _kind(came), f"({', '.join(names)})",
                     _forgotten(method, came))
    return came


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_kind, value))})"
    return f"an array {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _forgotten(method: str, came: Any) -> str:
    return f"Does {method} end in a return?" if came is None else ""
