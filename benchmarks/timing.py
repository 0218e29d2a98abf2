"""Times of several subjects, taken in turn so that machine noise affects all of them equally."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter, sleep

import numpy as np

from benchmarks.subject import Subject

# Idle threads of one library spin for some milliseconds before they sleep; they would slow the next.
SETTLE = 0.05
OURS = ("minglow", "minglow, reversible", "minglow, numpy")


def interleaved(operations: dict[str, Callable[[], object]], rounds: int, repeat: int = 1,
                ) -> dict[str, list[float]]:
    """Seconds of one call of each operation, `rounds` numbers each: A B C A B C ...

    In each round an operation is called once untimed, then `repeat` times timed together.
    """
    seconds: dict[str, list[float]] = {name: [] for name in operations}
    for call in operations.values():  # compile, allocate
        call()
        call()
    for _ in range(rounds):
        for name, call in operations.items():
            sleep(SETTLE)
            call()
            start = perf_counter()
            for _ in range(repeat):
                call()
            seconds[name].append((perf_counter() - start) / repeat)
    return seconds


def compare(subjects: Iterable[Subject], images: np.ndarray, rounds: int, repeat: int,
            what: Iterable[str] = ("train_step", "log_prob", "sample"),
            ) -> dict[str, dict[str, dict[str, float]]]:
    """operation -> subject -> median and quartiles of its milliseconds."""
    operations = {subject.name: subject.operations(images) for subject in subjects}
    return {
        name: {subject: summary(seconds) for subject, seconds in interleaved(
            {subject: calls[name] for subject, calls in operations.items()}, rounds, repeat).items()}
        for name in what
    }


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds."""
    low, median, high = 1e3 * np.quantile(seconds, (0.25, 0.5, 0.75))
    return {"median": round(median, 4), "low": round(low, 4), "high": round(high, 4)}


def exponent(sizes: list[float], milliseconds: list[float]) -> float:
    """The p of time = c * size^p, fitted by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(milliseconds), 1)[0])


def ratios(times: dict, limit: dict) -> dict[str, float]:
    """The fastest other library's median over minglow's, and two ratios of minglow's own."""
    medians = {what: {name: entry["median"] for name, entry in by_name.items()}
               for what, by_name in times.items()}
    found = {}
    for what, by_name in medians.items():
        fastest = min(value for name, value in by_name.items() if name not in OURS)
        eager = min(value for name, value in by_name.items()
                    if name not in OURS and "compiled" not in name)
        found[f"{what}: fastest other / minglow"] = fastest / by_name["minglow"]
        found[f"{what}: fastest other, eager / minglow"] = eager / by_name["minglow"]
    step = medians["train_step"]
    found["products / train_step"] = limit["train_step"]["median"] / step["minglow"]
    found["reversible / stored"] = step["minglow, reversible"] / step["minglow"]
    return {name: round(value, 3) for name, value in found.items()}
