"""What is measured: a flow of some size, as minglow or another library builds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Size(NamedTuple):
    """An architecture and a batch."""

    shape: tuple[int, int, int]
    levels: int
    steps: int
    hidden: int
    batch: int

    def images(self) -> np.ndarray:
        """A batch, (B, h, w, C) float32 in [-1/2, 1/2)."""
        rng = np.random.default_rng(0)
        return rng.uniform(-0.5, 0.5, (self.batch, *self.shape)).astype(np.float32)


LARGE = Size((32, 32, 3), levels=3, steps=8, hidden=512, batch=16)
SMALL = Size((8, 8, 1), levels=2, steps=8, hidden=64, batch=64)
SIZES = {"large": LARGE, "small": SMALL}


class Subject(NamedTuple):
    """One flow with its optimizer, ready to be timed."""

    name: str
    parameters: int
    load: Callable[[np.ndarray], Any]  # images (B, h, w, C) -> what the next two take
    train_step: Callable[[Any], float]  # one step of Adam; the loss before it
    log_prob: Callable[[Any], Any]
    sample: Callable[[int], Any]

    def operations(self, images: np.ndarray) -> dict[str, Callable[[], Any]]:
        """What is timed, by name."""
        x = self.load(images)
        return {"train_step": lambda: self.train_step(x), "log_prob": lambda: self.log_prob(x),
                "sample": lambda: self.sample(len(images))}
