"""The limit: how long the matrix products of a step take without anything else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.subject import Size


def products(size: Size, backward: bool = True) -> Callable[[], None]:
    """A call that makes every product of the conditioners of one step, forward or both ways.

    Each at its own shape, into outputs that exist: patches (N, 9 C/2), hidden (N, width) and taps
    (N, 9 C) of each flow step, for N = B * h * w pixels of C channels in each level.
    """
    rng = np.random.default_rng(0)
    work = []
    channels, pixels = size.shape[2], size.shape[0] * size.shape[1]
    for _ in range(size.levels):
        channels, pixels = 4 * channels, pixels // 4
        n, width = size.batch * pixels, size.hidden
        patches, hidden, taps = (rng.standard_normal((n, c), np.float32)
                                 for c in (9 * channels // 2, width, 9 * channels))
        first, middle, last = (rng.standard_normal(shape, np.float32) for shape in (
            (width, 9 * channels // 2), (width, width), (width, 9 * channels)))
        pairs = [(patches, first.T), (hidden, middle), (hidden, last)]
        if backward:
            pairs += [(hidden.T, taps), (taps, last.T), (hidden.T, hidden.copy()), (hidden, middle.T),
                      (hidden.T, patches), (hidden, first)]
        work += size.steps * [(a, b, np.empty((len(a), b.shape[1]), np.float32)) for a, b in pairs]
        channels //= 2  # the other half is factored out

    def run() -> None:
        for a, b, out in work:
            np.matmul(a, b, out=out)

    run.flop = sum(2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b, _ in work)  # type: ignore[attr-defined]
    return run
