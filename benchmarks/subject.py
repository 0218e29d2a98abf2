"""What is measured: a flow of some size, as minglow or a peer builds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Size(NamedTuple):
    """An architecture and a batch."""

    shape: tuple[int, int, int]
    levels: int
    steps: int
    hidden: int
    batch: int


PAPER = Size((32, 32, 3), 3, 8, 512, 16)
COURSE = Size((8, 8, 1), 2, 8, 64, 64)


class Subject(NamedTuple):
    """One flow, ready to be timed."""

    name: str
    parameters: int
    load: Callable[[Any], Any]  # NumPy images (B, h, w, C) -> what the others take
    train_step: Callable[[Any], float]
    log_prob: Callable[[Any], Any]
    sample: Callable[[int], Any]
