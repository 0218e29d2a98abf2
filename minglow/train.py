"""The training loop, to be read from top to bottom. Floor 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np

from minglow.bits import bits_per_dim
from minglow.data import Images
from minglow.data.augment import random_flips, random_shifts
from minglow.dequantizers import Dequantizer, UniformDequantizer, log_bound
from minglow.distributions import Labels
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
          whole: bool = False, flip: bool = False, classification: float = 0.0,
          dequantizer: Dequantizer | None = None, optimizer: type[Adam] = Adam, seed: int = 0,
          evaluate_every: int = 100,
          report: Callable[[Progress], None] = lambda progress: None) -> None:
    """Maximise the likelihood of `images.train`; leave the averaged parameters in `flow`.

    steps    optimiser steps          batch    images in each
    rate     largest learning rate: it rises over `warm_up` steps and falls along a cosine
    clip     largest norm of the gradient
    decay    of the Polyak average, which every evaluation uses
    shift    largest random shift of a training image, in pixels, made to half of them; 0 for none
    whole    shift by whole pixels only
    flip     mirror half of the training images
    classification  weight of the class-conditional prior's classifier, in nats
    dequantizer     by default uniform; a variational one learns with the flow
    optimizer       Adam or Adamax
    report   called with a Progress after every step; every `evaluate_every` steps and after the
             last with held_out_bits, in between with None

    A flow with classes is trained on the images' labels. The same arguments, flow and machine give
    the same result. Raises ValueError for images or labels that the flow or `images.levels` doesn't
    fit, FloatingPointError if training diverges.
    """
    if min(steps, batch, evaluate_every) < 1 or min(warm_up, shift) < 0:
        raise ValueError("expected steps, batch and evaluate_every of at least 1, warm_up and shift not "
                         f"below 0, got {steps}, {batch}, {evaluate_every}, {warm_up} and {shift}")
    if not (0 < rate < np.inf and clip > 0 and 0 <= decay < 1 and classification >= 0):
        raise ValueError("expected rate and clip above 0, decay from 0 to below 1, classification of "
                         f"at least 0, got {rate}, {clip}, {decay} and {classification}")
    rng = np.random.default_rng(seed)
    dequantizer = dequantizer_for(images.levels, dequantizer)
    batches = random_batches(images.train, labels_for(flow, images.train_labels), batch, rng)
    held_out_labels = labels_for(flow, images.held_out_labels)
    flow.initialize(dequantizer.draw(next(batches)[0], rng, flow.dtype)[0])
    vectors = [flat for flat in (flow.flat, dequantizer.flat) if flat.value.size]
    learners = [(flat, optimizer(flat), PolyakAverage(flat, decay)) for flat in vectors]
    for step in range(1, steps + 1):
        pictures, labels = next(batches)
        pictures = random_shifts(pictures, shift, rng, whole)
        if flip:
            pictures = random_flips(pictures, rng)
        x, log_q, cache = dequantizer.draw(pictures, rng, flow.dtype)
        for flat in vectors:
            flat.grad[...] = 0
        nll, dx = flow.nll_and_grad(x, labels, classification)
        dequantizer.backward(dx, np.full_like(log_q, 1 / batch), cache)
        grad_norm = clip_norm(flow.flat.grad, clip)
        clip_norm(dequantizer.flat.grad, clip)
        for _, learner, average in learners:
            learner.step(rate * warm_up_cosine(step, steps, warm_up))
            average.update()
        held_out_bits = None
        if step % evaluate_every == 0 or step == steps:
            with ExitStack() as averages:
                for _, _, average in learners:
                    averages.enter_context(average.applied())
                held_out_bits = evaluate(flow, images.held_out, images.levels, dequantizer=dequantizer,
                                         labels=held_out_labels)
        bits = float(bits_per_dim(-nll - float(log_q.mean()), x[0].size, images.levels))
        report(Progress(step, bits, grad_norm, held_out_bits))
    for flat, _, average in learners:
        flat.value[...] = average.average


def evaluate(flow: Flow, images: np.ndarray, levels: int, *, draws: int = 1, seed: int = 0,
             batch: int = 64, labels: Labels = None, dequantizer: Dequantizer | None = None) -> float:
    """Mean bits per dimension of integer images (N, h, w, C): an upper bound (see dequantize).

    `draws` independent dequantizations are averaged; with the same seed they are the same. labels
    (N,), of a flow that has classes: bits given the class.
    """
    if len(images) == 0 or draws < 1:
        raise ValueError(f"expected images and at least 1 draw, got {len(images)} and {draws}")
    rng = np.random.default_rng(seed)
    dequantizer = dequantizer_for(levels, dequantizer)
    parts = [slice(start, start + batch) for start in range(0, len(images), batch)]
    bounds = [
        log_bound(flow, images[part], dequantizer, rng, labels=None if labels is None else labels[part])
        for _ in range(draws) for part in parts
    ]
    return float(bits_per_dim(np.concatenate(bounds).mean(dtype=np.float64), images[0].size, levels))


def dequantizer_for(levels: int, dequantizer: Dequantizer | None) -> Dequantizer:
    """The dequantizer, by default uniform. Raises ValueError for one of other levels."""
    dequantizer = dequantizer or UniformDequantizer(levels)
    if dequantizer.levels != levels:
        raise ValueError(f"expected a dequantizer of {levels} levels, got one of {dequantizer.levels}")
    return dequantizer


def labels_for(flow: Flow, labels: Labels) -> Labels:
    """The labels of a set of images if the flow has classes, else None."""
    if not flow.base.classes:
        return None
    if labels is None:
        raise ValueError(f"expected labelled images for a flow of {flow.base.classes} classes, got none")
    return labels


def random_batches(images: np.ndarray, labels: Labels, batch: int, rng: np.random.Generator,
                   ) -> Iterator[tuple[np.ndarray, Labels]]:
    """Batches without end: every image once in random order, then all again in another order."""
    if len(images) == 0:
        raise ValueError("expected images to train on, got none")
    waiting = np.empty(0, int)
    while True:
        while len(waiting) < batch:
            waiting = np.concatenate([waiting, rng.permutation(len(images))])
        chosen, waiting = waiting[:batch], waiting[batch:]
        yield images[chosen], None if labels is None else labels[chosen]
