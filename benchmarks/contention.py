"""A training step of course size while another process wants a core, with all threads and with one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import torch

import minglow
from benchmarks import ours, peers
from benchmarks.subject import COURSE
from benchmarks.timing import interleaved, summary


def measure(quick: bool = False) -> dict[str, object]:
    """Milliseconds of a step, idle and beside a process that never rests."""
    subjects = [ours.minglow_glow(COURSE), peers.normflows_glow(COURSE), peers.torch_glow(COURSE),
                peers.torch_glow(COURSE, compiled=True)]
    cores, images = torch.get_num_threads(), COURSE.images()
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
        if torch.get_num_threads() != threads:  # in the untimed call of a turn
            torch.set_num_threads(threads)
            minglow.threads(threads)
        return step()

    return run
