"""The training loop, to be read from top to bottom."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minglow import validation
from minglow.arrays.device import to_host
from minglow.bases.base import Labels
from minglow.bijection import SingularWeightError
from minglow.data import Images
from minglow.data.augment import check_shift, random_flips, random_shifts
from minglow.data.dataset import check_dataset
from minglow.dequantization import Dequantizer, bits_per_dim
from minglow.dequantization.dequantizers import dequantize_for
from minglow.flow import Flow
from minglow.storage.checkpoint import Checkpoint
from minglow.storage.settings import accepts
from minglow.training.config import TrainingConfig
from minglow.training.diagnosis import first_nonfinite
from minglow.training.distributed import SINGLE_PROCESS, ProcessGroup, check_batch_divides, shard
from minglow.training.evaluation import dequantizer_for, evaluate, labels_for
from minglow.training.optimizers import clip_norm, warm_up_cosine
from minglow.training.state import TrainingState


class Progress(NamedTuple):
    """One step of training; bits are bits per dimension."""

    step: int
    bits: float  # of this step's batch, before the step
    grad_norm: float  # of its gradient, before clipping
    held_out_bits: float | None  # of the held-out images, with the averaged parameters


@accepts(TrainingConfig)
def train(flow: Flow, images: Images, *, dequantizer: Dequantizer | None = None,
          resume: Checkpoint | None = None,
          on_step: Callable[[Progress], None] | None = None,
          on_evaluation: Callable[[TrainingState, bool], None] | None = None,
          should_stop: Callable[[], int] | None = None, processes: ProcessGroup = SINGLE_PROCESS,
          **options: Any) -> None:
    """Maximize the likelihood of `images.train`; leave the averaged parameters in `flow`.

    dequantizer    by default uniform; a variational one learns with the flow
    resume         a checkpoint to resume from, of the same flow, images and settings
    on_step        called with a Progress after every step, which has held_out_bits after an evaluation
    on_evaluation  called with the TrainingState after every evaluation, and whether it was the best
    should_stop    asked after every step: the number of a signal that asks training to end, or 0
    processes      the processes that share each batch, in equal shards; by default this one

    A flow with classes is trained on the images' labels. The same arguments, flow and machine give
    the same result, interrupted in between or not. Raises ValueError for images or labels that do not
    fit the flow or `images.bins`, Diverged at the first NaN or inf, CheckpointError for another
    flow's checkpoint, Interrupted after a stop, once `on_evaluation` has had the state.

    The settings of training:
    """
    validation.check_instance("flow", flow, Flow)
    check_dataset(images, flow.config.shape if flow.config else None)
    config = TrainingConfig(**options).resolved(flow.config, images)
    peak_rate, shift = config.learning_rate or 0.0, config.shift or 0.0
    check_shift(shift, images.train.shape[1:])
    check_batch_divides(config.batch_size, processes.size, config.micro_batches)
    dequantizer = dequantizer_for(images.bins, dequantizer)
    labels = labels_for(flow, images.train_labels, len(images.train))
    held_out_labels = labels_for(flow, images.held_out_labels, len(images.held_out))
    state = TrainingState(flow, dequantizer, config.chosen("optimizer"), config.ema_decay, config.seed,
                          images)
    if resume is not None:
        state.restore(validation.check_instance("resume", resume, Checkpoint))
    else:  # the data-dependent initialization, by one complete batch in every process
        first = images.train[state.next_batch(config.batch_size)]
        flow.initialize(dequantize_for(flow, first, dequantizer, state.rng)[0])
        state.reset_averages()
    constants = [array for _, module in flow.walk() for array in module.constants.values()]
    processes.check_same(*state.arrays().values(), *constants, state.facts(), config)
    x, own = None, processes.shard(config.batch_size)
    for step in range(state.step + 1, config.steps + 1):
        try:
            chosen = state.next_batch(config.batch_size)
            batch = random_shifts(images.train[chosen], shift, state.rng, config.integer_shift)
            batch = random_flips(batch, state.rng) if config.flip else batch
            state.zero_grad()
            with processes.together():
                x, log_q, cache = dequantize_for(flow, batch, dequantizer, state.rng, own)
                own_labels = None if labels is None else labels[chosen][own]
                nll, dx = accumulate_gradients(flow, x, own_labels, config)
                dequantizer.backward(dx, np.full_like(log_q, 1 / len(x)), cache)
            learning_rate = peak_rate * warm_up_cosine(step, config.steps, config.warmup_steps)
            log_prob, grad_norm = take_step(state, processes, -nll - log_q.mean().astype(np.float64),
                                            config.max_grad_norm, learning_rate)
            state.step, held_out_bits = step, None
            if step % config.evaluate_every == 0 or step == config.steps:
                with state.averaged():
                    held_out_bits = evaluate(flow, images.held_out, images.bins, processes=processes,
                                             dequantizer=dequantizer, labels=held_out_labels)
            bits = float(bits_per_dim(log_prob, x[0].size, images.bins))
            if on_step:
                on_step(Progress(step, bits, grad_norm, held_out_bits))
            signal = processes.largest(should_stop() if should_stop else 0)
            if held_out_bits is not None or signal:
                state.check_finite()
                before, state.best = state.best, min(state.best, held_out_bits or state.best)
                if on_evaluation:
                    on_evaluation(state, state.best < before)
            if signal:
                raise Interrupted(signal, step)
        except (FloatingPointError, SingularWeightError) as error:
            raise Diverged(step, processes.from_culprit(first_nonfinite(flow, x)), error) from error
    state.apply_averages()


def accumulate_gradients(flow: Flow, x: np.ndarray, labels: Labels, config: TrainingConfig,
                         ) -> tuple[float | np.ndarray, np.ndarray]:
    """The mean NLL of x and its derivative, computed in micro-batches that add to the gradients.

    The sums are those of as many processes with one micro-batch each; of two, to the last bit (but for
    a dequantizer that learns, whose gradient is computed at once).
    """
    parts = config.micro_batches
    if parts == 1:
        return flow.nll_backward(x, labels, config.classification_weight)[:2]
    losses = [flow.nll_backward(x[part], None if labels is None else labels[part],
                                config.classification_weight)
              for part in (shard(len(x), i, parts) for i in range(parts))]
    flow.flat.grad /= parts
    return sum(loss.nll for loss in losses) / parts, np.concatenate([loss.dx for loss in losses]) / parts


def take_step(state: TrainingState, processes: ProcessGroup, log_prob: np.floating | np.ndarray,
              max_grad_norm: float | None, learning_rate: float) -> tuple[float, float]:
    """Move the learners by the mean gradient over all processes.

    log_prob: this process's mean; returns the mean over all, and the norm of the flow's gradient.
    Raises FloatingPointError, and moves nothing, where one is NaN or inf.
    """
    norms = []
    for learner in state.learners.values():
        processes.average(learner.flat.grad)
        norms.append(clip_norm(learner.flat.grad, np.inf if max_grad_norm is None else max_grad_norm))
    # The only read of a device's values in a step: until here nothing has waited for it.
    figures = to_host(np.stack([log_prob, *norms]))
    mean = processes.total(float(figures[0])) / processes.size
    if not (np.isfinite(figures).all() and np.isfinite(mean)):
        raise FloatingPointError("the likelihood or the gradient is NaN or inf")
    for learner in state.learners.values():
        learner.optimizer.step(learning_rate)
        learner.average.update()
    return mean, float(figures[1:2].sum())  # the flow's: a dequantizer's comes after it


class Diverged(FloatingPointError):
    """Training met NaN or inf; the message has the step, the first layer concerned, and advice."""

    def __init__(self, step: int, fault: str, error: Exception) -> None:
        super().__init__(f"training diverged in step {step}: {fault} ({error}); a lower learning rate, "
                         "a longer warm-up or a smaller max_grad_norm may help")


class Interrupted(Exception):
    """Training ended on a signal, after a complete step, with its state saved."""

    def __init__(self, signal: int, step: int) -> None:
        super().__init__(f"interrupted after step {step}")
        self.signal = signal
