"""The loss of data that a flow was not trained on, and what it is compared with."""

from math import log, log2, pi

import numpy as np

from minglow import validation
from minglow.arrays.device import to_device_of, to_host
from minglow.bases.base import Labels
from minglow.data import Images, Table
from minglow.dequantization import Continuous, Dequantizer, UniformDequantizer, log_bound
from minglow.flow import Contexts, Flow
from minglow.training.distributed import SINGLE_PROCESS, ProcessGroup


def evaluate(flow: Flow, x: np.ndarray, bins: int | None = None, *, samples: int = 1, seed: int = 0,
             batch_size: int = 64, labels: Labels = None, context: Contexts = None,
             dequantizer: Dequantizer | None = None, processes: ProcessGroup = SINGLE_PROCESS) -> float:
    """Mean bits per dimension of integer images (N, h, w, C), or mean nats of real vectors (N, D).

    bins       number of intensity levels of images; their bits per dimension are an upper bound (see
               dequantize)
    samples    independent dequantizations of each image, whose bounds are averaged
    labels     (N,), for a flow that has classes: the loss given the class
    context    (N, K), for a flow that has one: the loss given the context
    processes  that share the work

    The same seed gives the same noise. Raises ValueError for no samples, and for what does not fit
    the flow.
    """
    if len(validation.check_array("x", x)) == 0:
        raise ValueError("expected samples to evaluate, got none")
    validation.check_count("samples", samples)
    validation.check_instance("flow", flow, Flow)
    rng = np.random.default_rng(seed)
    dequantizer = dequantizer_for(bins, dequantizer)
    batch_size *= processes.size
    parts = [slice(start, start + batch_size) for start in range(0, len(x), batch_size)]
    bounds = [np.empty(0)]
    with processes.together():
        for part in parts * samples:
            batch, own = x[part], processes.shard(len(x[part]))
            if own.start == own.stop:  # fewer samples than processes
                dequantizer.dequantize(batch, rng, flow.dtype)  # keeps the random numbers in step
                continue
            bound = log_bound(flow, batch, dequantizer, rng, shard=own,
                              labels=None if labels is None else labels[part],
                              context=context_at(flow, context, part))
            bounds.append(to_host(bound))
    total = processes.total(float(np.concatenate(bounds).sum(dtype=np.float64)))
    return float(dequantizer.loss(total / (samples * len(x)), x[0].size))


def held_out(flow: Flow, data: Images | Table, dequantizer: Dequantizer,
             processes: ProcessGroup = SINGLE_PROCESS, samples: int = 1) -> float:
    """`evaluate` of the held-out part of the data."""
    return evaluate(flow, data.held_out, data.bins, samples=samples,
                    batch_size=64 if data.bins else 1024,
                    labels=labels_for(flow, data.held_out_labels, len(data.held_out)),
                    context=data.held_out_context, dequantizer=dequantizer, processes=processes)


def dequantizer_for(bins: int | None, dequantizer: Dequantizer | None) -> Dequantizer:
    """The dequantizer, by default uniform, or none for real numbers.

    Raises ValueError for one of another number of bins.
    """
    dequantizer = dequantizer or (Continuous() if bins is None else UniformDequantizer(bins))
    if dequantizer.bins != (bins or 0):
        raise ValueError(f"expected a dequantizer of {bins} bins, got one of {dequantizer.bins}")
    return dequantizer


def labels_for(flow: Flow, labels: Labels, count: int) -> Labels:
    """The labels of `count` samples if the flow has classes, else None. Raises ValueError."""
    if not flow.base.classes:
        return None
    if labels is None:
        raise ValueError(f"expected labels for a flow of {flow.base.classes} classes, got none")
    if np.shape(labels) != (count,):
        raise ValueError(f"expected a label for each of {count} samples, got {np.shape(labels)}")
    return labels


def context_at(flow: Flow, context: Contexts, part: slice | np.ndarray) -> Contexts:
    """The context of some samples, where the flow's parameters are."""
    if context is None:
        return None
    return to_device_of(context[part], flow.flat.value)


def baseline(data: Images | Table) -> float:
    """The loss that any useful flow is below: of a uniform model of images, in bits per dimension; of a
    Gaussian fitted to a table's training part, on its held-out part, in nats."""
    return gaussian_nats(data.train, data.held_out) if data.bins is None else log2(data.bins)


def gaussian_nats(train: np.ndarray, held_out: np.ndarray) -> float:
    """Mean nats of vectors (M, D) under the Gaussian with the mean and covariance of others, (N, D).

    NaN where the covariance is singular or nearly so: the Gaussian has no density then.
    """
    mean, std = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    whitened = (held_out - mean) / std
    correlation = np.atleast_2d(np.corrcoef(train.astype(np.float64), rowvar=False))
    values, vectors = np.linalg.eigh(correlation)
    if len(train) <= len(values) or values[0] < 1e-10 * values[-1]:
        return float("nan")
    squares = ((whitened @ vectors) ** 2 / values).sum(axis=1)
    log_volume = np.log(std).sum() + 0.5 * np.log(values).sum()
    return float(0.5 * squares.mean() + log_volume + 0.5 * len(values) * log(2 * pi))
