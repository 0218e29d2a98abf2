"""Held-out bits per dimension on the digits by wall-clock, beside normflows.

Both are trained as `minglow train` trains: L 2, K 12, width 32, batches of 64 with random
shifts, Adam with warm-up and a cosine that ends with the clock, clipped gradients, and an average of
the parameters, which is evaluated. The clock includes all of the loop, evaluation included.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from math import cos, pi
from time import perf_counter

import numpy as np
import torch

import minglow
from benchmarks.libraries import normflows_flow
from benchmarks.subject import Size
from minglow import data
from minglow.data.augment import random_shifts
from minglow.training.optimizers import Adam, PolyakAverage, clip_norm
from minglow.training.state import next_indices

SIZE = Size((8, 8, 1), levels=2, steps=12, hidden=32, batch=64)
LEARNING_RATES = {"minglow": (0.01,), "normflows": (0.01, 0.003, 0.001)}
WARM_UP, MAX_GRAD_NORM, EMA_DECAY = 0.08, 100.0, 0.999  # the first is a fraction of the clock
EVERY = 5.0  # seconds between evaluations


def measure(quick: bool = False) -> dict[str, object]:
    """Curves of (seconds, held-out bits/dim) for three seeds each, one run after the other.

    normflows gets the best of three learning rates, chosen by its first seed.
    """
    limit, seeds = (5.0, (0,)) if quick else (60.0, (0, 1, 2))
    curves: dict[str, list[list[tuple[float, float]]]] = {}
    rates = {}
    for name, train in ("minglow", train_minglow), ("normflows", train_normflows):
        first = {rate: list(train(seeds[0], limit, rate)) for rate in LEARNING_RATES[name]}
        rates[name] = min(first, key=lambda rate: first[rate][-1][1])
        curves[name] = [first[rates[name]]]
        curves[name] += [list(train(seed, limit, rates[name])) for seed in seeds[1:]]
    last = {name: [curve[-1][1] for curve in by_seed] for name, by_seed in curves.items()}
    return {"seconds": limit, "seeds": seeds, "rates": rates, "curves": curves, "at the end": last}


def clocked(step: Callable[[float], object], held_out: Callable[[], float], limit: float,
            ) -> Iterator[tuple[float, float]]:
    """Train until the limit; yield (seconds, bits) every few seconds and at the end."""
    start, due = perf_counter(), EVERY
    while True:
        elapsed = perf_counter() - start
        if elapsed >= min(due, limit):
            yield round(elapsed, 2), round(held_out(), 4)
            due = EVERY * (1 + (perf_counter() - start) // EVERY)
            if elapsed >= limit:
                return
        done = elapsed / limit
        step(min(1, done / WARM_UP) * 0.5 * (1 + cos(pi * done)))


def batches_of(seed: int) -> Iterator[np.ndarray]:
    """Shifted and dequantized batches of the training images."""
    images, rng = data.digits(), np.random.default_rng(seed)
    remaining = np.empty(0, int)
    while True:
        chosen, remaining = next_indices(remaining, len(images.train), SIZE.batch, rng)
        yield minglow.dequantize(random_shifts(images.train[chosen], 1.0, rng), images.bins, rng)


def train_minglow(seed: int, limit: float, rate: float) -> Iterator[tuple[float, float]]:
    """minglow's curve."""
    images, batches = data.digits(), batches_of(seed)
    flow = minglow.glow(SIZE.shape, SIZE.levels, SIZE.steps, SIZE.hidden, rng=seed)
    flow.initialize(next(batches))
    optimizer, average = Adam(flow.flat), PolyakAverage(flow.flat, EMA_DECAY)

    def step(factor: float) -> None:
        flow.flat.grad[...] = 0
        flow.nll_backward(next(batches))
        clip_norm(flow.flat.grad, MAX_GRAD_NORM)
        optimizer.step(rate * factor)
        average.update()

    def held_out() -> float:
        value = flow.flat.value.copy()
        flow.flat.value[...] = average.average
        bits = minglow.evaluate(flow, images.held_out, images.bins)
        flow.flat.value[...] = value
        return bits

    return clocked(step, held_out, limit)


def train_normflows(seed: int, limit: float, rate: float) -> Iterator[tuple[float, float]]:
    """normflows' curve; its first batch sets its actnorms."""
    torch.manual_seed(seed)
    images, batches = data.digits(), batches_of(seed)
    flow = normflows_flow(SIZE)

    def load(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()

    with torch.no_grad():
        flow.log_prob(load(next(batches)), None)
    parameters = list(flow.parameters())
    optimizer, averaged, steps = torch.optim.Adam(parameters, lr=rate), copy.deepcopy(flow), 0

    def step(factor: float) -> None:
        nonlocal steps
        steps += 1
        optimizer.param_groups[0]["lr"] = rate * factor
        optimizer.zero_grad()
        flow.forward_kld(load(next(batches))).backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.parameters()), parameters,
                                 max(1 - EMA_DECAY, 1 / (steps + 1)))

    def held_out() -> float:
        x = minglow.dequantize(images.held_out, images.bins, np.random.default_rng(0))
        with torch.no_grad():
            nats = averaged.log_prob(load(x), None).mean().item()
        return minglow.bits_per_dim(nats, x[0].size, images.bins)

    return clocked(step, held_out, limit)
