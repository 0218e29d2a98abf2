"""All that changes while a flow learns: what training needs to go on from any step. Floor 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minglow.archive import description
from minglow.checkpoint import Checkpoint, CheckpointError, restore
from minglow.data import Images
from minglow.dequantizers import Dequantizer
from minglow.device import all_finite, beside
from minglow.flow import Flow
from minglow.optim import Adam, PolyakAverage
from minglow.params import FlatParams


class Learner:
    """A vector of parameters, its optimiser and its average."""

    def __init__(self, flat: FlatParams, optimizer: type[Adam], decay: float) -> None:
        self.flat, self.optimizer, self.average = flat, optimizer(flat), PolyakAverage(flat, decay)

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array that a step changes, by name."""
        return {"value": self.flat.value, "mean": self.optimizer.mean, "second": self.optimizer.second,
                "average": self.average.average}


class State:
    """Where training stands: steps taken, random numbers, images still to come, and the learners.

    step      optimiser steps taken
    images    what it is trained on: levels, and each part's shape, dtype and SHA-256
    rng       every random number of training
    waiting   places of those training images that this round has not shown yet
    best      the lowest held-out bits per dimension so far
    learners  one for the flow, and one for a dequantizer that learns
    optimizer the name of their optimizers' class
    """

    def __init__(self, flow: Flow, dequantizer: Dequantizer, optimizer: type[Adam], decay: float,
                 seed: int, images: Images) -> None:
        self.step, self.best, self.rng = 0, float("inf"), np.random.default_rng(seed)
        self.flow, self.optimizer, self.count = flow, optimizer.__name__, len(images.train)
        self.images = {name: int(part) if name == "levels" else description(np.asarray(part))
                       for name, part in images._asdict().items() if part is not None}
        self.waiting = np.empty(0, np.int64)
        self.learners = {
            name: Learner(part.flat, optimizer, decay)
            for name, part in (("flow", flow), ("dequantizer", dequantizer)) if part.flat.value.size
        }

    def forget_gradients(self) -> None:
        """All gradients to 0: a step adds to them."""
        for learner in self.learners.values():
            learner.flat.grad[...] = 0

    def start_averages(self) -> None:
        """The averages begin at the parameters as they are now."""
        for learner in self.learners.values():
            learner.average.average[...] = learner.flat.value

    def next_images(self, batch: int) -> np.ndarray:
        """Places of the next images to train on, (batch,)."""
        chosen, self.waiting = take(self.waiting, self.count, batch, self.rng)
        return chosen

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array, by name."""
        learners = {f"{name}.{key}": array for name, learner in self.learners.items()
                    for key, array in learner.arrays().items()}
        return {"waiting": self.waiting, **learners}

    def facts(self) -> dict[str, Any]:
        """The rest, as JSON can say it."""
        return {"step": self.step, "best": self.best, "rng": self.rng.bit_generator.state,
                "images": self.images, "optimizer": self.optimizer}

    def restore(self, saved: Checkpoint) -> None:
        """Go on from where a checkpoint was written, the flow's constants included. Raises
        CheckpointError, and changes nothing, unless it holds such a state, of the same structure, of
        training by the same optimizer on the same images."""
        for name, target in self.arrays().items():
            found = saved.arrays.get(name)
            if found is None or found.dtype != target.dtype or (
                    name != "waiting" and found.shape != target.shape):
                got = "none" if found is None else f"{found.dtype} {found.shape}"
                raise CheckpointError(f"{saved.path}: expected {name} as {target.dtype} {target.shape} "
                                      f"to go on from, got {got}")
        waiting = saved.arrays["waiting"]
        if waiting.ndim != 1 or not ((waiting >= 0) & (waiting < self.count)).all():
            raise CheckpointError(f"{saved.path}: expected places of the {self.count} images to train "
                                  "on, got others: was it trained on these?")
        for key, words in (("images", "images and labels that it was trained on"),
                           ("optimizer", "optimizer that it was trained by")):
            if saved.facts.get(key, getattr(self, key)) != getattr(self, key):  # older ones do not say
                raise CheckpointError(f"{saved.path}: expected the {words} to go on with, got others")
        step, best, rng = steps_done(saved), saved.facts.get("best"), np.random.default_rng()
        try:
            rng.bit_generator.state = saved.facts["rng"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"{saved.path}: expected the random generator's state, "
                                  f"got none ({error!r})") from None
        if type(best) is not float or np.isnan(best):
            raise CheckpointError(f"{saved.path}: expected the best bits per dimension, got {best!r}")
        restore(saved, self.flow)
        self.step, self.best, self.rng, self.waiting = step, best, rng, waiting
        for name, learner in self.learners.items():
            learner.optimizer.steps = learner.average.steps = step
            for key, target in learner.arrays().items():
                target[...] = beside(saved.arrays[f"{name}.{key}"], target)

    def check_finite(self) -> None:
        """Raise FloatingPointError if a parameter or an average is NaN or inf: none such is kept."""
        for learner in self.learners.values():
            vectors = learner.flat.value, learner.average.average
            if not all(map(all_finite, vectors)):
                raise FloatingPointError("the parameters are NaN or inf")

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averages in the parameters' place, until the end of the block."""
        values = [learner.flat.value.copy() for learner in self.learners.values()]
        self.settle()
        try:
            yield
        finally:
            for learner, value in zip(self.learners.values(), values):
                learner.flat.value[...] = value

    def settle(self) -> None:
        """The averages in the parameters' place, for good."""
        for learner in self.learners.values():
            learner.flat.value[...] = learner.average.average


def steps_done(saved: Checkpoint) -> int:
    """After how many steps a checkpoint was written. Raises CheckpointError if it is no state."""
    step = saved.facts.get("step")
    if type(step) is not int or step < 1:
        raise CheckpointError(f"{saved.path}: expected the state of training after a step, got {step!r}")
    return step


def take(waiting: np.ndarray, count: int, batch: int, rng: np.random.Generator,
         ) -> tuple[np.ndarray, np.ndarray]:
    """The first `batch` of those waiting, and the rest: 0 .. count-1 in random order, over and over."""
    rounds = range(len(waiting), batch, count)
    waiting = np.concatenate([waiting, *(rng.permutation(count) for _ in rounds)])
    return waiting[:batch], waiting[batch:]
