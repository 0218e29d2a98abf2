"""The training loop, to be read from top to bottom."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minglow import validation
from minglow.arrays.device import to_host
from minglow.bases.base import Labels
from minglow.bijection import SingularWeightError
from minglow.data import Images, Table, split
from minglow.data.augment import check_shift, random_flips, random_shifts
from minglow.data.dataset import check_dataset
from minglow.data.table import check_table
from minglow.dequantization import Dequantizer
from minglow.dequantization.dequantizers import dequantize_for
from minglow.flow import Contexts, Flow
from minglow.storage.checkpoint import Checkpoint
from minglow.storage.settings import accepts
from minglow.training.config import TrainingConfig
from minglow.training.diagnosis import Diverged, first_nonfinite
from minglow.training.distributed import SINGLE_PROCESS, ProcessGroup, check_batch_divides, shard
from minglow.training.evaluation import context_at, dequantizer_for, held_out, labels_for
from minglow.training.monitor import Monitor, TrainingWarning
from minglow.training.optimizers import clip_norm, warm_up_cosine
from minglow.training.state import Interrupted, TrainingState

INITIAL_ROWS = 10_000  # of a table, that standardize it


class Progress(NamedTuple):
    """One step of training; losses are bits per dimension of images, nats per sample of tables."""

    step: int
    loss: float  # of this step's batch, before the step
    grad_norm: float  # of its gradient, before clipping
    held_out_loss: float | None  # with the averaged parameters


@accepts(TrainingConfig)
def train(flow: Flow, data: Images | Table | np.ndarray, *, dequantizer: Dequantizer | None = None,
          resume: Checkpoint | None = None,
          on_step: Callable[[Progress], None] | None = None,
          on_evaluation: Callable[[TrainingState, bool], None] | None = None,
          on_warning: Callable[[str], None] | None = None,
          should_stop: Callable[[], int] | None = None, processes: ProcessGroup = SINGLE_PROCESS,
          **options: Any) -> None:
    """Maximize the likelihood of `data.train`; leave the averaged parameters in `flow`.

    Of a table, and with `patience`, these are the averages of the best evaluation; of images the last.

    data           Images, a Table, or an array (N, D) of floats, of which a tenth is held out
    dequantizer    for images, by default uniform; a variational one learns with the flow
    resume         a checkpoint to resume from, of the same flow, data and settings
    on_step        called with a Progress after every step, which has held_out_loss after an evaluation
    on_evaluation  called with the TrainingState after every evaluation, and whether it was the best
    on_warning     called at the end with each line about a flow that is hardly invertible, whose samples
                   explode, or that is worse than a simple baseline; by default warnings.warn
    should_stop    asked after every step: the number of a signal that asks training to end, or 0
    processes      the processes that share each batch, in equal shards; by default this one

    A flow with classes is trained on the data's labels, a flow with a context on the data's context. The
    same arguments, flow and machine give the same result, interrupted in between or not. Raises
    ValueError for data that do not fit the flow, Diverged at the first NaN or inf, CheckpointError for
    another flow's checkpoint, Interrupted after a stop, once `on_evaluation` has had the state.

    The settings of training:
    """
    validation.check_instance("flow", flow, Flow)
    data = checked_data(flow, data)
    config = checked_config(flow, data, processes, options)
    batch_size, peak_rate = config.batch_size or 1, config.learning_rate or 0.0
    dequantizer = dequantizer_for(data.bins, dequantizer)
    labels = labels_for(flow, data.train_labels, len(data.train))
    labels_for(flow, data.held_out_labels, len(data.held_out))
    keep_best = data.bins is None or config.patience is not None
    state = TrainingState(flow, dequantizer, config.chosen("optimizer"), config.ema_decay or 0.0,
                          config.seed, data, keep_best)
    if resume is not None:
        state.restore(validation.check_instance("resume", resume, Checkpoint))
    else:
        initialize(state, data, dequantizer, batch_size)
    constants = [array for _, module in flow.walk() for array in module.constants.values()]
    processes.check_same(*state.arrays().values(), *constants, state.facts(), config)
    x, context, own = None, None, processes.shard(batch_size)
    for step in range(state.step + 1, config.steps + 1):
        if state.since_best >= (config.patience or np.inf):
            break
        try:
            chosen = state.next_batch(batch_size)
            batch = augmented(data.train[chosen], config, state.rng) if data.bins else data.train[chosen]
            state.zero_grad()
            with processes.together():
                x, log_q, cache = dequantize_for(flow, batch, dequantizer, state.rng, own)
                context = context_at(flow, data.train_context, chosen[own])
                own_labels = None if labels is None else labels[chosen][own]
                nll, dx = accumulate_gradients(flow, x, own_labels, context, config)
                dequantizer.backward(dx, np.full_like(log_q, 1 / len(x)), cache)
            learning_rate = peak_rate * warm_up_cosine(step, config.steps, config.warmup_steps)
            log_prob, grad_norm = take_step(state, processes, -nll - log_q.mean().astype(np.float64),
                                            config.max_grad_norm, learning_rate)
            state.step, held_out_loss, best = step, None, False
            if step % (config.evaluate_every or 100) == 0 or step == config.steps:
                with state.averaged():
                    held_out_loss = held_out(flow, data, dequantizer, processes)
            if on_step:
                on_step(Progress(step, dequantizer.loss(log_prob, x[0].size), grad_norm, held_out_loss))
            signal = processes.largest(should_stop() if should_stop else 0)
            if held_out_loss is not None or signal:
                state.check_finite()
                best = held_out_loss is not None and state.record(held_out_loss)
                if on_evaluation:
                    on_evaluation(state, best)
            if signal:
                raise Interrupted(signal, step)
        except (FloatingPointError, SingularWeightError) as error:
            raise Diverged(step, processes.from_culprit(first_nonfinite(flow, x, context)),
                           error) from error
    state.apply_averages(best=keep_best)
    for line in Monitor(flow, data, dequantizer).final_warnings(state.best, state.since_best):
        (on_warning or partial(warnings.warn, category=TrainingWarning, stacklevel=2))(line)


def checked_config(flow: Flow, data: Images | Table, processes: ProcessGroup,
                   options: dict[str, Any]) -> TrainingConfig:
    """The settings of training, complete. Raises ValueError for those that do not fit."""
    config = TrainingConfig(**options).resolved(flow.config, data)
    if data.bins:
        check_shift(config.shift or 0.0, data.train.shape[1:])
    check_batch_divides(config.batch_size or 1, processes.size, config.micro_batches)
    return config


def initialize(state: TrainingState, data: Images | Table, dequantizer: Dequantizer,
               batch_size: int) -> None:
    """The data-dependent initialization, by the same samples in every process."""
    chosen = state.next_batch(batch_size if data.bins else min(len(data.train), INITIAL_ROWS))
    x, _, _ = dequantize_for(state.flow, data.train[chosen], dequantizer, state.rng)
    state.flow.initialize(x, context_at(state.flow, data.train_context, chosen))
    state.reset_averages()


def augmented(images: np.ndarray, config: TrainingConfig, rng: np.random.Generator) -> np.ndarray:
    """Images (B, h, w, C), shifted and mirrored at random."""
    images = random_shifts(images, config.shift or 0.0, rng, config.integer_shift)
    return random_flips(images, rng) if config.flip else images


def checked_data(flow: Flow, data: Images | Table | np.ndarray) -> Images | Table:
    """The data, an array split into its parts. Raises ValueError for what does not fit the flow."""
    shape = flow.config.shape if flow.config else None
    data = data if isinstance(data, (Images, Table)) else split(data)
    if isinstance(data, Table):
        check_table(data, shape, flow.dtype)
    else:
        check_dataset(data, shape)
    return data


def accumulate_gradients(flow: Flow, x: np.ndarray, labels: Labels, context: Contexts,
                         config: TrainingConfig) -> tuple[float | np.ndarray, np.ndarray]:
    """The mean NLL of x and its derivative, computed in micro-batches that add to the gradients.

    The sums are those of as many processes with one micro-batch each; of two, to the last bit (but for
    a dequantizer that learns, whose gradient is computed at once).
    """
    parts = config.micro_batches
    if parts == 1:
        return flow.nll_backward(x, labels, config.classification_weight, context)[:2]
    losses = [flow.nll_backward(x[part], None if labels is None else labels[part],
                                config.classification_weight, None if context is None else context[part])
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
