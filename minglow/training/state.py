"""The state of training: everything that a step changes, so that training resumes from any step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minglow.arrays.device import all_finite, to_device_of
from minglow.arrays.trainable import Trainable
from minglow.data import Images, Table
from minglow.dequantization import Dequantizer
from minglow.flow import Flow
from minglow.storage.archive import description
from minglow.storage.checkpoint import Checkpoint, CheckpointError, restore
from minglow.training.optimizers import Adam, PolyakAverage


class Interrupted(Exception):
    """Training ended on a signal, after a complete step, with its state saved."""

    def __init__(self, signal: int, step: int) -> None:
        super().__init__(f"interrupted after step {step}")
        self.signal = signal


class Learner:
    """A vector of parameters, its optimizer, its average and, if they are wanted, its best averages."""

    def __init__(self, module: Trainable, optimizer: type[Adam], ema_decay: float,
                 keep_best: bool) -> None:
        self.flat = module.flat
        self.optimizer, self.average = optimizer(self.flat), PolyakAverage(self.flat, ema_decay)
        self.best = self.average.average.copy() if keep_best else None

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array that a step changes, by name."""
        return {"value": self.flat.value, "mean": self.optimizer.mean, "second": self.optimizer.second,
                "average": self.average.average} | ({} if self.best is None else {"best": self.best})


class TrainingState:
    """Steps taken, random numbers, samples still to come in this epoch, and the learners.

    step        optimizer steps taken
    data        what it is trained on: the number of bins, and each part's shape, dtype and SHA-256
    rng         the source of every random number of training
    remaining   indices of the training samples that this epoch has not shown yet
    best        the lowest held-out loss so far
    since_best  evaluations after the one that found it
    learners    one for the flow, and one for a dequantizer that learns
    optimizer   the name of their optimizers' class

    keep_best: whether the learners keep the averages of the best evaluation, for `apply_averages`.
    """

    def __init__(self, flow: Flow, dequantizer: Dequantizer, optimizer: type[Adam], ema_decay: float,
                 seed: int, data: Images | Table, keep_best: bool = False) -> None:
        self.step, self.best, self.since_best = 0, float("inf"), 0
        self.rng, self.count = np.random.default_rng(seed), len(data.train)
        self.flow, self.optimizer = flow, optimizer.__name__
        self.data = {"bins": None if data.bins is None else int(data.bins)} | {
            name: description(part) for name, part in data._asdict().items()
            if isinstance(part, np.ndarray)}
        self.remaining = np.empty(0, np.int64)
        self.learners = {
            name: Learner(module, optimizer, ema_decay, keep_best)
            for name, module in (("flow", flow), ("dequantizer", dequantizer)) if module.flat.value.size}

    def zero_grad(self) -> None:
        """Set all gradients to 0: a step adds to them."""
        for learner in self.learners.values():
            learner.flat.grad[...] = 0

    def reset_averages(self) -> None:
        """Restart the averages from the parameters as they are now."""
        for learner in self.learners.values():
            learner.average.average[...] = learner.flat.value

    def next_batch(self, batch_size: int) -> np.ndarray:
        """Indices of the next samples to train on, (batch_size,)."""
        chosen, self.remaining = next_indices(self.remaining, self.count, batch_size, self.rng)
        return chosen

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array, by name."""
        learners = {f"{name}.{key}": array for name, learner in self.learners.items()
                    for key, array in learner.arrays().items()}
        return {"remaining": self.remaining, **learners}

    def facts(self) -> dict[str, Any]:
        """Everything else, as JSON can hold it."""
        return {"step": self.step, "best": self.best, "since_best": self.since_best,
                "rng": self.rng.bit_generator.state, "data": self.data, "optimizer": self.optimizer}

    def restore(self, saved: Checkpoint) -> None:
        """Resume from a checkpoint, the flow's constants included.

        Raises CheckpointError, and changes nothing, unless it holds such a state, of the same
        structure, of training by the same optimizer on the same data.
        """
        at = f"{saved.path}: expected"
        for name, target in self.arrays().items():
            found = saved.arrays.get(name)
            if found is None or found.dtype != target.dtype or (
                    name != "remaining" and found.shape != target.shape):
                got = "none" if found is None else f"{found.dtype} {found.shape}"
                raise CheckpointError(f"{at} {name} as {target.dtype} {target.shape} to resume from, "
                                      f"got {got}")
        remaining = saved.arrays["remaining"]
        if remaining.ndim != 1 or not ((remaining >= 0) & (remaining < self.count)).all():
            raise CheckpointError(f"{at} indices of the {self.count} training samples, got others: "
                                  "was it trained on these?")
        for key, name in ("data", "data"), ("optimizer", "optimizer"):
            if saved.facts.get(key) != getattr(self, key):
                raise CheckpointError(f"{at} the {name} of the interrupted run, got others")
        step, rng = completed_steps(saved), np.random.default_rng()
        best, since_best = saved.facts.get("best"), saved.facts.get("since_best")
        try:
            rng.bit_generator.state = saved.facts["rng"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"{at} the random generator's state, got none ({error!r})") from None
        if type(best) is not float or np.isnan(best) or type(since_best) is not int or since_best < 0:
            raise CheckpointError(f"{at} the best loss, and evaluations since, got {best!r}, "
                                  f"{since_best!r}")
        names, value = self.flow.flat.where.keys(), saved.arrays.get("flow.value")
        if value is not None and names <= saved.module.keys() and not np.array_equal(
                value, np.concatenate([saved.module[name].ravel() for name in names])):
            raise CheckpointError(f"{at} flow.value to hold the flow's parameters in order, got others")
        restore(saved, self.flow)
        self.step, self.best, self.since_best = step, best, since_best
        self.rng, self.remaining = rng, remaining
        for name, learner in self.learners.items():
            learner.optimizer.steps = learner.average.steps = step
            for key, target in learner.arrays().items():
                target[...] = to_device_of(saved.arrays[f"{name}.{key}"], target)

    def record(self, held_out_loss: float) -> bool:
        """Whether an evaluation with the averages is the best so far, which is then remembered."""
        if not held_out_loss < self.best:
            self.since_best += 1
            return False
        self.best, self.since_best = held_out_loss, 0
        for learner in self.learners.values():
            if learner.best is not None:
                learner.best[...] = learner.average.average
        return True

    def check_finite(self) -> None:
        """Raise FloatingPointError if a parameter or an average is NaN or inf: none such is saved."""
        for learner in self.learners.values():
            if not (all_finite(learner.flat.value) and all_finite(learner.average.average)):
                raise FloatingPointError("the parameters are NaN or inf")

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the averages as parameters until the end of the block."""
        values = [learner.flat.value.copy() for learner in self.learners.values()]
        self.apply_averages()
        try:
            yield
        finally:
            for learner, value in zip(self.learners.values(), values):
                learner.flat.value[...] = value

    def apply_averages(self, best: bool = False) -> None:
        """Replace the parameters by their averages, or by those of the best evaluation, for good."""
        for learner in self.learners.values():
            learner.flat.value[...] = learner.best if best else learner.average.average


def completed_steps(saved: Checkpoint) -> int:
    """After how many steps a checkpoint was written. Raises CheckpointError if it is no state."""
    step = saved.facts.get("step")
    if type(step) is not int or step < 1:
        raise CheckpointError(f"{saved.path}: expected the state of training after a step, got {step!r}")
    return step


def next_indices(remaining: np.ndarray, count: int, batch_size: int, rng: np.random.Generator,
                 ) -> tuple[np.ndarray, np.ndarray]:
    """The first `batch_size` of those remaining, and the rest: 0 .. count-1 shuffled, epoch by epoch."""
    epochs = range(len(remaining), batch_size, count)
    remaining = np.concatenate([remaining, *(rng.permutation(count) for _ in epochs)])
    return remaining[:batch_size], remaining[batch_size:]
