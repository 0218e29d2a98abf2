"""Time a step of training by one process, or by those that mpiexec starts, and its Allreduce.

    python benchmarks/distributed.py small --threads 2
    mpiexec -n 2 python benchmarks/distributed.py small --threads 1

The steps are those of `minglow.train`, on random images: random numbers, communication and optimizer
are included. Prints medians over the steps after the first three.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter

import numpy as np

import minglow
from minglow.data import Images
from minglow.training.distributed import ProcessGroup, world

# shape, levels, steps, hidden, batch, timed steps: docs/scaling.md says what these are
SIZES = {"small": ((8, 8, 1), 2, 8, 64, 64, 200), "large": ((32, 32, 3), 3, 32, 512, 64, 3)}
WARM = 3  # untimed steps, which compile and allocate


def main() -> None:
    """Train for some steps, and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--threads", type=int, default=1, help="BLAS threads of each process")
    args = parser.parse_args()
    shape, levels, depth, hidden, batch, steps = SIZES[args.size]
    minglow.threads(args.threads)
    rng = np.random.default_rng(0)
    images = Images(rng.integers(256, size=(4 * batch, *shape), dtype=np.uint8),
                    rng.integers(256, size=(1, *shape), dtype=np.uint8), 256)
    flow = minglow.glow(shape, levels, depth, hidden, rng=0)
    processes, ends, exchanged = world(), [perf_counter()], [0.0]
    average = processes.average

    def timed(array: np.ndarray) -> None:
        processes.comm.Barrier()  # waiting for the other processes is not timed
        start = perf_counter()
        average(array)
        exchanged[-1] += perf_counter() - start

    def record(_: object) -> None:
        ends.append(perf_counter())
        exchanged.append(0.0)

    if processes.size > 1:
        processes.average = timed  # type: ignore[method-assign]
    minglow.train(flow, images, steps=WARM + steps, batch_size=batch, evaluate_every=10**6,
                  processes=processes, on_step=record)
    if not processes.rank:
        print_times(args, processes, np.diff(ends)[WARM:-1], exchanged[WARM:-2])


def print_times(args: argparse.Namespace, processes: ProcessGroup, seconds: np.ndarray,
                exchanged: list[float]) -> None:
    """Print one line of key=value."""
    step = median(seconds)
    print(f"size={args.size} processes={processes.size} threads={args.threads} steps={len(seconds)} "
          f"step_ms={1000 * step:.1f} least_ms={1000 * min(seconds):.1f} "
          f"allreduce_ms={1000 * median(exchanged):.2f} fraction={median(exchanged) / step:.1%}")


if __name__ == "__main__":
    main()
