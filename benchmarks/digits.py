"""Held-out bits per dimension on the digits by wall-clock, beside normflows.

Same architecture (L 2, K 8, width 64), batch of 64, Adamax at 1e-3, no augmentation, no average;
the clock includes all that the loop does, evaluation too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter

import numpy as np
import torch

import minglow
from benchmarks.peers import normflows_flow
from benchmarks.subject import COURSE
from minglow import data
from minglow.optim import Adamax
from minglow.train import evaluate, random_batches

RATE = 1e-3
EVERY = 5.0  # seconds between evaluations


def measure(quick: bool = False) -> dict[str, object]:
    """Curves of (seconds, held-out bits/dim) for three seeds each, one run after the other."""
    limit, seeds = (5.0, (0,)) if quick else (60.0, (0, 1, 2))
    curves: dict[str, list[list[tuple[float, float]]]] = {"minglow": [], "normflows": []}
    for seed in seeds:
        for name, run in ("minglow", train_minglow), ("normflows", train_normflows):
            curves[name].append(list(run(seed, limit)))
    last = {name: [curve[-1][1] for curve in by_seed] for name, by_seed in curves.items()}
    return {"seconds": limit, "seeds": seeds, "curves": curves, "at the end": last}


def clocked(step: Callable[[], object], held_out: Callable[[], float], limit: float,
            ) -> Iterator[tuple[float, float]]:
    """Train until the limit; yield (seconds, bits) every few seconds and at the end."""
    start, due = perf_counter(), EVERY
    while True:
        step()
        elapsed = perf_counter() - start
        if elapsed >= min(due, limit):
            yield round(elapsed, 2), round(held_out(), 4)
            due = EVERY * (1 + (perf_counter() - start) // EVERY)
            if elapsed >= limit:
                return


def batches_of(seed: int) -> Iterator[np.ndarray]:
    """Dequantized batches of the training images."""
    images, rng = data.digits(), np.random.default_rng(seed)
    for batch in random_batches(images.train, COURSE.batch, rng):
        yield minglow.dequantize(batch, images.levels, rng)


def train_minglow(seed: int, limit: float) -> Iterator[tuple[float, float]]:
    """minglow's curve."""
    images, batches = data.digits(), batches_of(seed)
    flow = minglow.glow(COURSE.shape, COURSE.levels, COURSE.steps, COURSE.hidden, rng=seed)
    flow.initialize(next(batches))
    optimizer = Adamax(flow.flat)

    def step() -> None:
        flow.flat.grad[...] = 0
        flow.nll_and_grad(next(batches))
        optimizer.step(RATE)

    return clocked(step, lambda: evaluate(flow, images.held_out, images.levels), limit)


def train_normflows(seed: int, limit: float) -> Iterator[tuple[float, float]]:
    """normflows' curve; its first batch sets its actnorms."""
    torch.manual_seed(seed)
    images, batches = data.digits(), batches_of(seed)
    flow = normflows_flow(COURSE)
    optimizer = torch.optim.Adamax(flow.parameters(), lr=RATE)

    def load(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()

    def step() -> None:
        optimizer.zero_grad()
        flow.forward_kld(load(next(batches))).backward()
        optimizer.step()

    def held_out() -> float:
        x = minglow.dequantize(images.held_out, images.levels, np.random.default_rng(0))
        with torch.no_grad():
            nats = flow.log_prob(load(x), None).mean().item()
        return minglow.bits_per_dim(nats, x[0].size, images.levels)

    return clocked(step, held_out, limit)
