"""Time a step of training by one process, or by those that mpiexec starts, and the Allreduce's share.

    python benchmarks/ranks.py course --threads 2
    mpiexec -n 2 python benchmarks/ranks.py course --threads 1

Every step is one of `minglow.train`'s own, on random images: what train does beside the flow's pass,
random numbers, exchange and optimiser, is in it. Prints medians over the steps after the first three.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter

import numpy as np

import minglow
from minglow.data import Images
from minglow.ranks import Ranks, world
from minglow.train import train

# shape, levels, steps, hidden, batch, timed steps: docs/scaling.md says what these are
SIZES = {"course": ((8, 8, 1), 2, 8, 64, 64, 200), "paper": ((32, 32, 3), 3, 32, 512, 64, 3)}
WARM = 3  # steps that compile, and that take memory


def main() -> None:
    """Train for some steps, and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--threads", type=int, default=1, help="of each process's products")
    args = parser.parse_args()
    shape, levels, depth, hidden, batch, steps = SIZES[args.size]
    minglow.threads(args.threads)
    rng = np.random.default_rng(0)
    images = Images(rng.integers(256, size=(4 * batch, *shape), dtype=np.uint8),
                    rng.integers(256, size=(1, *shape), dtype=np.uint8), 256)
    flow = minglow.glow(shape, levels, depth, hidden, rng=0)
    ranks, ends, exchanged = world(), [perf_counter()], [0.0]
    average = ranks.average

    def timed(array: np.ndarray) -> None:
        ranks.comm.Barrier()  # what the others are behind is not the exchange's time
        start = perf_counter()
        average(array)
        exchanged[-1] += perf_counter() - start

    def report(_: object) -> None:
        ends.append(perf_counter())
        exchanged.append(0.0)

    if ranks.size > 1:
        ranks.average = timed  # type: ignore[method-assign]
    train(flow, images, steps=WARM + steps, batch=batch, evaluate_every=10**9, shift=0.0, ranks=ranks,
          report=report)
    if not ranks.rank:
        print_times(args, ranks, np.diff(ends)[WARM:-1], exchanged[WARM:-2])


def print_times(args: argparse.Namespace, ranks: Ranks, seconds: np.ndarray, exchanged: list[float],
                ) -> None:
    """One line of key=value."""
    step = median(seconds)
    print(f"size={args.size} processes={ranks.size} threads={args.threads} steps={len(seconds)} "
          f"step_ms={1000 * step:.1f} least_ms={1000 * min(seconds):.1f} "
          f"allreduce_ms={1000 * median(exchanged):.2f} share={median(exchanged) / step:.1%}")


if __name__ == "__main__":
    main()
