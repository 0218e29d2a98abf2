"""The training loop, to be read from top to bottom. Floor 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from minglow.bits import bits_per_dim, dequantize
from minglow.data import Images
from minglow.data.augment import random_shifts
from minglow.flow import Flow
from minglow.optim import Adam, PolyakAverage, clip_norm, warm_up_cosine


class Progress(NamedTuple):
    """One step of training; bits are bits per dimension."""

    step: int
    bits: float  # of this step's batch, before the step
    grad_norm: float  # of its gradient, before clipping
    held_out_bits: float | None  # of the images held out, under the averaged parameters


def train(flow: Flow, images: Images, *, steps: int = 2500, batch: int = 64, rate: float = 0.01,
          warm_up: int = 200, clip: float = 100.0, decay: float = 0.999, shift: float = 1.0,
          seed: int = 0, evaluate_every: int = 100,
          report: Callable[[Progress], None] = lambda progress: None) -> None:
    """Maximise the likelihood of `images.train`; leave the averaged parameters in `flow`.

    steps    optimiser steps          batch    images in each
    rate     Adam's largest learning rate: it rises over `warm_up` steps and falls along a cosine
    clip     largest norm of the gradient
    decay    of the Polyak average, which every evaluation uses
    shift    largest random shift of a training image, in pixels, made to half of them; 0 for none
    report   called with a Progress after every step; every `evaluate_every` steps and after the
             last with held_out_bits, in between with None

    The same arguments, flow and machine give the same result. Raises ValueError for images that
    the flow or `images.levels` doesn't fit, FloatingPointError if training diverges.
    """
    if min(steps, batch, evaluate_every) < 1 or min(warm_up, shift) < 0:
        raise ValueError("expected steps, batch and evaluate_every of at least 1, warm_up and shift not "
                         f"below 0, got {steps}, {batch}, {evaluate_every}, {warm_up} and {shift}")
    if not (0 < rate < np.inf and clip > 0 and 0 <= decay < 1):
        raise ValueError("expected rate and clip above 0 and decay from 0 to below 1, "
                         f"got {rate}, {clip} and {decay}")
    rng = np.random.default_rng(seed)
    batches = random_batches(images.train, batch, rng)
    flow.initialize(dequantize(next(batches), images.levels, rng, flow.dtype))
    optimizer, average = Adam(flow.flat), PolyakAverage(flow.flat, decay)
    for step in range(1, steps + 1):
        shifted = random_shifts(next(batches), shift, rng)
        x = dequantize(shifted, images.levels, rng, flow.dtype)
        flow.flat.grad[...] = 0
        nll, _ = flow.nll_and_grad(x)
        grad_norm = clip_norm(flow.flat.grad, clip)
        optimizer.step(rate * warm_up_cosine(step, steps, warm_up))
        average.update()
        held_out_bits = None
        if step % evaluate_every == 0 or step == steps:
            with average.applied():
                held_out_bits = evaluate(flow, images.held_out, images.levels)
        bits = float(bits_per_dim(-nll, x[0].size, images.levels))
        report(Progress(step, bits, grad_norm, held_out_bits))
    flow.flat.value[...] = average.average


def evaluate(flow: Flow, images: np.ndarray, levels: int, *, draws: int = 1, seed: int = 0,
             batch: int = 64) -> float:
    """Mean bits per dimension of integer images (N, h, w, C): an upper bound (see dequantize).

    `draws` independent dequantizations are averaged; with the same seed they are the same.
    """
    if len(images) == 0 or draws < 1:
        raise ValueError(f"expected images and at least 1 draw, got {len(images)} and {draws}")
    rng = np.random.default_rng(seed)
    log_probs = [
        flow.log_prob(dequantize(images[start:start + batch], levels, rng, flow.dtype))
        for _ in range(draws)
        for start in range(0, len(images), batch)
    ]
    return float(bits_per_dim(np.concatenate(log_probs).mean(dtype=np.float64), images[0].size, levels))


def random_batches(images: np.ndarray, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Batches without end: every image once in random order, then all again in another order."""
    if len(images) == 0:
        raise ValueError("expected images to train on, got none")
    waiting = np.empty(0, int)
    while True:
        while len(waiting) < batch:
            waiting = np.concatenate([waiting, rng.permutation(len(images))])
        yield images[waiting[:batch]]
        waiting = waiting[batch:]
