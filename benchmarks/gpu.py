"""A training step of minglow by CuPy beside PyTorch, eager, on the same GPU. No GPU has run it yet.

    python -m benchmarks.gpu [--quick]

The official size for CIFAR-10, float32 without TF32 on both sides. Each operation ends with its result
on the host, so that its time includes all of its work. Prints milliseconds, and PyTorch's time over
minglow's.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.libraries import torch_glow
from benchmarks.ours import minglow_glow
from benchmarks.subject import Size
from benchmarks.timing import compare

OFFICIAL = Size((32, 32, 3), levels=3, steps=32, hidden=512, batch=64)
QUICK = Size((8, 8, 3), levels=2, steps=2, hidden=16, batch=8)


def measure(size: Size, rounds: int, device: str = "cuda") -> dict[str, dict[str, dict[str, float]]]:
    """operation -> subject -> median and quartiles of its milliseconds."""
    torch.set_default_device(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        subjects = [minglow_glow(size, backend="cupy"), torch_glow(size)]
        return compare(subjects, size.images(), rounds, repeat=1)
    finally:
        torch.set_default_device("cpu")


def main() -> None:
    """Measure, and print a line for each operation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small flow, to see that it works")
    quick = parser.parse_args().quick
    found = measure(QUICK if quick else OFFICIAL, rounds=3 if quick else 15)
    print(f"card={torch.cuda.get_device_name()} torch={torch.__version__}")
    for operation, by_subject in found.items():
        ours, theirs = by_subject["minglow, cupy"], by_subject["PyTorch"]
        print(f"{operation}: minglow {ours['median']} ms ({ours['low']} to {ours['high']}), PyTorch "
              f"{theirs['median']} ms ({theirs['low']} to {theirs['high']}), "
              f"PyTorch / minglow {theirs['median'] / ours['median']:.2f}")


if __name__ == "__main__":
    main()
