"""The training loop, to be read from top to bottom. Floor 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minglow import arguments
from minglow.bijection import SingularWeightError
from minglow.bits import bits_per_dim
from minglow.checkpoint import Checkpoint
from minglow.data import Images
from minglow.data.augment import check_shift, random_flips, random_shifts
from minglow.data.images import check_images
from minglow.dequantizers import Dequantizer, draw_for
from minglow.device import to_host
from minglow.diagnosis import first_fault
from minglow.distributions import Labels
from minglow.evaluation import dequantizer_for, evaluate, labels_for
from minglow.flow import Flow
from minglow.optim import Adam, clip_norm, warm_up_cosine
from minglow.ranks import ALONE, Ranks, check_parts, share
from minglow.state import State


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
          evaluate_every: int = 100, accumulate: int = 1, resume: Checkpoint | None = None,
          report: Callable[[Progress], None] = lambda progress: None,
          keep: Callable[[State, bool], None] = lambda state, best: None,
          stop: Callable[[], int] = lambda: 0, ranks: Ranks = ALONE) -> None:
    """Maximise the likelihood of `images.train`; leave the averaged parameters in `flow`.

    steps    optimiser steps          batch    images in each
    rate     largest learning rate: it rises over `warm_up` steps and falls along a cosine
    clip     largest norm of the gradient
    decay    of the Polyak average, which every evaluation uses: it looks back 1 / (1 - decay) steps, too
             far for a run of a few hundred, where 0.99 is better
    shift    largest random shift of a training image, in pixels, made to half of them; 0 for none
    whole    shift by whole pixels only
    flip     mirror half of the training images
    classification  weight of the class-conditional prior's classifier, in nats
    dequantizer     by default uniform; a variational one learns with the flow
    optimizer       Adam or Adamax
    accumulate      passes for a step, each of an equal part of the batch: less memory, the same step
    report   called with a Progress after every step; every `evaluate_every` steps and after the
             last with held_out_bits, in between with None
    resume   a checkpoint to go on from, of the same flow, images and arguments
    keep     called with the State after every evaluation, and whether it was the best so far
    stop     asked after every step: the number of a signal that wants training to end, or 0
    ranks    the processes that share each batch: equal parts of its `batch` images; by default this one

    A flow with classes is trained on the images' labels. The same arguments, flow and machine give
    the same result, interrupted in between or not. Raises ValueError for images or labels that the
    flow or `images.levels` doesn't fit, Diverged at the first NaN or inf, CheckpointError for another
    flow's checkpoint, Interrupted after a stop, once `keep` has had the State.
    """
    check_images(images)
    check_arguments(flow, images, ranks, steps=steps, batch=batch, evaluate_every=evaluate_every,
                    accumulate=accumulate, rate=rate, warm_up=warm_up, clip=clip, decay=decay,
                    shift=shift, classification=classification)
    dequantizer = dequantizer_for(images.levels, dequantizer)
    labels = labels_for(flow, images.train_labels, len(images.train))
    held_out_labels = labels_for(flow, images.held_out_labels, len(images.held_out))
    state = State(flow, dequantizer, optimizer, decay, seed, images)
    if resume is not None:
        state.restore(arguments.instance("resume", resume, Checkpoint))
    else:
        start(state, flow, dequantizer, images.train, batch)
    constants = [array for _, module in flow.walk() for array in module.constants.values()]
    ranks.check_same(*state.arrays().values(), *constants, state.facts(), steps, batch, rate, warm_up,
                     clip, decay, shift, whole, flip, classification, evaluate_every, accumulate)
    x, mine = None, ranks.share(batch)
    for step in range(state.step + 1, steps + 1):
        try:
            chosen = state.next_images(batch)
            pictures = random_shifts(images.train[chosen], shift, state.rng, whole)
            pictures = random_flips(pictures, state.rng) if flip else pictures
            state.forget_gradients()
            with ranks.together():
                x, log_q, cache = draw_for(flow, pictures, dequantizer, state.rng, mine)
                of_mine = None if labels is None else labels[chosen][mine]
                nll, dx = in_passes(flow, x, of_mine, classification, accumulate)
                dequantizer.backward(dx, np.full_like(log_q, 1 / len(x)), cache)
            log_prob, grad_norm = make_step(state, ranks, -nll - log_q.mean().astype(np.float64),
                                            clip, rate * warm_up_cosine(step, steps, warm_up))
            state.step, held_out_bits = step, None
            if step % evaluate_every == 0 or step == steps:
                with state.averaged():
                    held_out_bits = evaluate(flow, images.held_out, images.levels, ranks=ranks,
                                             dequantizer=dequantizer, labels=held_out_labels)
            bits = float(bits_per_dim(log_prob, x[0].size, images.levels))
            report(Progress(step, bits, grad_norm, held_out_bits))
            signal = ranks.largest(stop())
            if held_out_bits is not None or signal:
                state.check_finite()
                before, state.best = state.best, min(state.best, held_out_bits or state.best)
                keep(state, state.best < before)
            if signal:
                raise Interrupted(signal, step)
        except (FloatingPointError, SingularWeightError) as error:
            raise Diverged(step, ranks.from_culprit(first_fault(flow, x)), error) from error
    state.settle()


def in_passes(flow: Flow, x: np.ndarray, labels: Labels, classification: float, passes: int,
              ) -> tuple[float | np.ndarray, np.ndarray]:
    """`nll_and_grad` of x, a part after the other: each adds to the gradients, and their mean stays.

    The sums are those of as many processes with a pass each; of two, to the last bit (but for a
    dequantizer that learns, whose gradient is computed at once).
    """
    if passes == 1:
        return flow.nll_and_grad(x, labels, classification)
    nlls, dxs = [], []
    for i in range(passes):
        part = share(len(x), i, passes)
        of_part = None if labels is None else labels[part]
        nll, dx = flow.nll_and_grad(x[part], of_part, classification)
        nlls.append(nll)
        dxs.append(dx)
    flow.flat.grad /= passes
    return sum(nlls) / passes, np.concatenate(dxs) / passes


def make_step(state: State, ranks: Ranks, log_prob: np.floating | np.ndarray, clip: float, rate: float,
              ) -> tuple[float, float]:
    """Move the learners by the gradient of all processes' images.

    log_prob: of this process's; returns that of all, and the norm of the flow's gradient. Raises
    FloatingPointError, and moves nothing, where one is NaN or inf.
    """
    norms = []
    for learner in state.learners.values():
        ranks.average(learner.flat.grad)
        norms.append(clip_norm(learner.flat.grad, clip))
    # The one look at a device in a step: until here nobody has waited for it.
    figures = to_host(np.stack([log_prob, *norms]))
    mean = ranks.total(float(figures[0])) / ranks.size
    if not (np.isfinite(figures).all() and np.isfinite(mean)):
        raise FloatingPointError("the likelihood or the gradient is NaN or inf")
    for learner in state.learners.values():
        learner.optimizer.step(rate)
        learner.average.update()
    return mean, float(figures[1:2].sum())  # the flow's: a dequantizer's comes after it


def start(state: State, flow: Flow, dequantizer: Dequantizer, images: np.ndarray, batch: int) -> None:
    """The data-dependent start, by one whole batch in every process, at which the averages begin."""
    first = images[state.next_images(batch)]
    flow.initialize(draw_for(flow, first, dequantizer, state.rng)[0])
    state.start_averages()


class Diverged(FloatingPointError):
    """Training met NaN or inf; the message has the step, the first layer concerned, and advice."""

    def __init__(self, step: int, fault: str, error: Exception) -> None:
        super().__init__(f"training diverged in step {step}: {fault} ({error}); a lower rate, a longer "
                         "warm-up or a smaller clip may help")


class Interrupted(Exception):
    """Training ended on a signal, after a whole step, with its state kept."""

    def __init__(self, signal: int, step: int) -> None:
        super().__init__(f"interrupted after step {step}")
        self.signal = signal


def check_arguments(flow: Flow, images: Images, ranks: Ranks, *, steps: int, batch: int,
                    evaluate_every: int, accumulate: int, rate: float, warm_up: int, clip: float,
                    decay: float, shift: float, classification: float) -> None:
    """Raise ValueError for an argument of `train` that is none."""
    arguments.instance("flow", flow, Flow)
    for what, number in (("steps", steps), ("batch", batch), ("evaluate_every", evaluate_every),
                         ("accumulate", accumulate)):
        arguments.count(what, number)
    check_parts(batch, ranks.size, accumulate)
    arguments.count("warm_up", warm_up, 0)
    check_shift(shift, images.train.shape[1:])
    arguments.amount("classification", classification)
    arguments.amount("decay", decay, below=1.0)
    clips = clip == np.inf or arguments.amount("clip", clip) > 0
    if not (arguments.amount("rate", rate) > 0 and clips):
        raise ValueError(f"expected rate and clip above 0, got {rate} and {clip}")
