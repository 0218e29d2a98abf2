"""Bits per dimension of images that a flow has not seen. Floor 3."""

from __future__ import annotations

import numpy as np

from minglow import arguments
from minglow.bits import bits_per_dim
from minglow.dequantizers import Dequantizer, UniformDequantizer, log_bound
from minglow.device import to_host
from minglow.distributions import Labels
from minglow.flow import Flow
from minglow.ranks import ALONE, Ranks


def evaluate(flow: Flow, images: np.ndarray, levels: int, *, draws: int = 1, seed: int = 0,
             batch: int = 64, labels: Labels = None, dequantizer: Dequantizer | None = None,
             ranks: Ranks = ALONE) -> float:
    """Mean bits per dimension of integer images (N, h, w, C): an upper bound (see dequantize).

    `draws` independent dequantizations are averaged; with the same seed they are the same. labels
    (N,), of a flow that has classes: bits given the class. ranks: processes that share the work.
    """
    if len(arguments.array("images", images)) == 0:
        raise ValueError("expected images, got none")
    arguments.count("draws", draws)
    arguments.instance("flow", flow, Flow)
    rng = np.random.default_rng(seed)
    dequantizer = dequantizer_for(levels, dequantizer)
    batch *= ranks.size
    parts = [slice(start, start + batch) for start in range(0, len(images), batch)]
    bounds = [np.empty(0)]
    with ranks.together():
        for some, of_some in ((images[part], labels if labels is None else labels[part])
                              for _ in range(draws) for part in parts):
            mine = ranks.share(len(some))
            if mine.start == mine.stop:  # fewer images than processes
                dequantizer.draw(some, rng, flow.dtype)  # keeps pace with the others' random numbers
            else:
                bound = log_bound(flow, some, dequantizer, rng, labels=of_some, part=mine)
                bounds.append(to_host(bound))
    total = ranks.total(float(np.concatenate(bounds).sum(dtype=np.float64)))
    return float(bits_per_dim(total / (draws * len(images)), images[0].size, levels))


def dequantizer_for(levels: int, dequantizer: Dequantizer | None) -> Dequantizer:
    """The dequantizer, by default uniform. Raises ValueError for one of other levels."""
    dequantizer = dequantizer or UniformDequantizer(levels)
    if dequantizer.levels != levels:
        raise ValueError(f"expected a dequantizer of {levels} levels, got one of {dequantizer.levels}")
    return dequantizer


def labels_for(flow: Flow, labels: Labels, count: int) -> Labels:
    """The labels of `count` images if the flow has classes, else None. Raises ValueError."""
    if not flow.base.classes:
        return None
    if labels is None:
        raise ValueError(f"expected labelled images for a flow of {flow.base.classes} classes, got none")
    if np.shape(labels) != (count,):
        raise ValueError(f"expected a label for each of {count} images, got {np.shape(labels)}")
    return labels
