"""A training step of the small config beside a busy process, with all threads and with one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import torch

import minglow
from benchmarks import libraries, ours
from benchmarks.subject import SMALL
from benchmarks.timing import interleaved, summary


def measure(quick: bool = False) -> dict[str, object]:
    """Milliseconds of a step, idle and beside a process that computes without a pause."""
    subjects = [ours.minglow_glow(SMALL), libraries.normflows_glow(SMALL), libraries.torch_glow(SMALL),
                libraries.torch_glow(SMALL, compiled=True)]
    cores, images = torch.get_num_threads(), SMALL.images()
    operations: dict[str, Callable[[], object]] = {}
    for subject in subjects:
        step = subject.operations(images)["train_step"]
        for threads in cores, 1:
            operations[f"{subject.name}, threads: {threads}"] = with_threads(step, threads)
    found = {}
    for state in "idle", "another process on a core":
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if state != "idle" else None
        try:
            times = interleaved(operations, 3 if quick else 20, 10)
        finally:
            if busy:
                busy.kill()
        found[state] = {name: summary(seconds) for name, seconds in times.items()}
    return {"milliseconds": found}


def with_threads(step: Callable[[], object], threads: int) -> Callable[[], object]:
    """The step, under a number of threads of NumPy's and of PyTorch's own."""

    def run() -> object:
        if torch.get_num_threads() != threads:  # in the untimed call of a round
            torch.set_num_threads(threads)
            minglow.threads(threads)
        return step()

    return run
