"""A training step of minglow by CuPy beside PyTorch, eager, on the same GPU. No GPU has run it yet.

    python -m benchmarks.gpu              the official size for CIFAR-10: K 32, L 3, width 512
    python -m benchmarks.gpu --quick      a small flow
    python -m benchmarks.gpu --dry-run    the small flow on the CPU, with NumPy in place of CuPy

Both sides compute in float32 without TF32. Each operation ends with its result on the host, so that its
time includes all of its work. Prints milliseconds, the memory that the pool of each library has
reserved, and the ratio of PyTorch's number to minglow's.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable

import torch

from benchmarks.libraries import torch_glow
from benchmarks.ours import minglow_glow
from benchmarks.subject import Size, Subject
from benchmarks.timing import compare
from minglow.arrays.device import cupy

OFFICIAL = Size((32, 32, 3), levels=3, steps=32, hidden=512, batch=64)
QUICK = Size((8, 8, 3), levels=2, steps=2, hidden=16, batch=8)
OPERATIONS = "train_step", "log_prob", "sample"


def measure(size: Size, rounds: int, device: str = "cuda", backend: str = "cupy",
            what: Iterable[str] = OPERATIONS) -> dict[str, dict[str, dict[str, float]]]:
    """operation -> subject -> median and quartiles of its milliseconds."""
    os.environ["CUPY_TF32"] = "0"  # CuPy's default, which it reads before its first product
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    subjects = [minglow_glow(size, backend=backend), torch_on(device, size)]
    return compare(subjects, size.images(), rounds, repeat=1, what=what)


def torch_on(device: str, size: Size) -> Subject:
    """The Glow in PyTorch on a device. The device is the default only where an array is created."""
    with torch.device(device):
        subject = torch_glow(size)

    def sample(n):
        with torch.device(device):
            return subject.sample(n).cpu()

    return subject._replace(sample=sample)


def reserved() -> tuple[float, float]:
    """MiB that the memory pools of CuPy and of PyTorch have reserved at most, parameters included."""
    pool = cupy().get_default_memory_pool()  # returns no memory to the driver: its size is a peak
    return pool.total_bytes() / 2**20, torch.cuda.max_memory_reserved() / 2**20


def main() -> None:
    """Measure, and print a line for the time and a line for the memory of a training step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small flow, to see that it works")
    parser.add_argument("--dry-run", action="store_true", help="the small flow, on the CPU")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick or arguments.dry_run else OFFICIAL
    device, backend = ("cpu", "numpy") if arguments.dry_run else ("cuda", "cupy")
    card = "none, times mean nothing" if arguments.dry_run else torch.cuda.get_device_name()
    print(f"card: {card}\nsize: {size}, float32\nTF32: off in CuPy (CUPY_TF32=0) and in PyTorch "
          "(matmul.allow_tf32 and cudnn.allow_tf32 are False)")
    found = measure(size, 1 if arguments.dry_run else 10, device, backend, ["train_step"])["train_step"]
    steps = found[f"minglow, {backend}"], found["PyTorch"]
    texts = ["{median:.1f} ms ({low:.1f} to {high:.1f})".format(**step) for step in steps]
    print(f"training step: minglow {texts[0]}, PyTorch {texts[1]}, "
          f"PyTorch / minglow {steps[1]['median'] / steps[0]['median']:.2f}")
    if not arguments.dry_run:
        ours, theirs = reserved()
        print(f"peak memory: minglow {ours:,.0f} MiB, PyTorch {theirs:,.0f} MiB, "
              f"PyTorch / minglow {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
