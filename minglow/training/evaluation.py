"""Bits per dimension of images that a flow was not trained on."""

import numpy as np

from minglow import validation
from minglow.arrays.device import to_host
from minglow.bases.base import Labels
from minglow.dequantization import Dequantizer, UniformDequantizer, bits_per_dim, log_bound
from minglow.flow import Flow
from minglow.training.distributed import SINGLE_PROCESS, ProcessGroup


def evaluate(flow: Flow, images: np.ndarray, bins: int, *, samples: int = 1, seed: int = 0,
             batch_size: int = 64, labels: Labels = None, dequantizer: Dequantizer | None = None,
             processes: ProcessGroup = SINGLE_PROCESS) -> float:
    """Mean bits per dimension of integer images (N, h, w, C): an upper bound (see dequantize).

    samples    independent dequantizations of each image, whose bounds are averaged
    labels     (N,), for a flow that has classes: bits given the class
    processes  that share the work

    The same seed gives the same noise. Raises ValueError for no images, and for what does not fit
    the flow.
    """
    if len(validation.check_array("images", images)) == 0:
        raise ValueError("expected images, got none")
    validation.check_count("samples", samples)
    validation.check_instance("flow", flow, Flow)
    rng = np.random.default_rng(seed)
    dequantizer = dequantizer_for(bins, dequantizer)
    batch_size *= processes.size
    parts = [slice(start, start + batch_size) for start in range(0, len(images), batch_size)]
    bounds = [np.empty(0)]
    with processes.together():
        for part in parts * samples:
            batch, own = images[part], processes.shard(len(images[part]))
            if own.start == own.stop:  # fewer images than processes
                dequantizer.dequantize(batch, rng, flow.dtype)  # keeps the random numbers in step
                continue
            bound = log_bound(flow, batch, dequantizer, rng, shard=own,
                              labels=None if labels is None else labels[part])
            bounds.append(to_host(bound))
    total = processes.total(float(np.concatenate(bounds).sum(dtype=np.float64)))
    return float(bits_per_dim(total / (samples * len(images)), images[0].size, bins))


def dequantizer_for(bins: int, dequantizer: Dequantizer | None) -> Dequantizer:
    """The dequantizer, by default uniform. Raises ValueError for one of another number of bins."""
    dequantizer = dequantizer or UniformDequantizer(bins)
    if dequantizer.bins != bins:
        raise ValueError(f"expected a dequantizer of {bins} bins, got one of {dequantizer.bins}")
    return dequantizer


def labels_for(flow: Flow, labels: Labels, count: int) -> Labels:
    """The labels of `count` images if the flow has classes, else None. Raises ValueError."""
    if not flow.base.classes:
        return None
    if labels is None:
        raise ValueError(f"expected labeled images for a flow of {flow.base.classes} classes, got none")
    if np.shape(labels) != (count,):
        raise ValueError(f"expected a label for each of {count} images, got {np.shape(labels)}")
    return labels
