"""A training step, log_prob and sample, beside other libraries and beside the matrix products alone."""

from __future__ import annotations

from benchmarks import libraries, ours
from benchmarks.products import products
from benchmarks.subject import LARGE, SIZES
from benchmarks.timing import compare, exponent, interleaved, ratios, summary

ROUNDS = {"large": (15, 1), "small": (40, 10)}


def measure(quick: bool = False) -> dict[str, object]:
    """Both sizes: times of all subjects, the products' times, and the ratios."""
    results: dict[str, object] = {}
    for name, size in SIZES.items():
        subjects = [
            ours.minglow_glow(size), ours.minglow_glow(size, reversible=True),
            ours.minglow_glow(size, backend="numpy"),
            libraries.normflows_glow(size), libraries.torch_glow(size),
            libraries.torch_glow(size, compiled=True),
        ]
        rounds, repeat = (3, 1) if quick else ROUNDS[name]
        times = compare(subjects, size.images(), rounds, repeat)
        limit = {what: summary(seconds) for what, seconds in interleaved(
            {"train_step": products(size), "log_prob": products(size, backward=False)},
            rounds, repeat).items()}
        results[name] = {
            "size": size._asdict(), "rounds": rounds, "repeat": repeat,
            "parameters": {subject.name: subject.parameters for subject in subjects},
            "milliseconds": times, "products": limit,
            "gflop": {"train_step": products(size).flop / 1e9,
                      "log_prob": products(size, backward=False).flop / 1e9},
            "ratios": ratios(times, limit),
        }
    return results


def depth(quick: bool = False) -> dict[str, object]:
    """A training step of the large config by depth, beside other libraries."""
    found: dict[str, object] = {}
    for steps in (4,) if quick else (4, 16, 32):
        size = LARGE._replace(steps=steps)
        subjects = [ours.minglow_glow(size), ours.minglow_glow(size, reversible=True),
                    libraries.normflows_glow(size), libraries.torch_glow(size),
                    libraries.torch_glow(size, compiled=True)]
        times = compare(subjects, size.images(), 2 if quick else 3, 1, ("train_step",))
        found[f"K {steps}"] = times["train_step"]
    return {"milliseconds": found}


def scaling(quick: bool = False) -> dict[str, object]:
    """Time of a training step by depth, batch and resolution, with fitted exponents."""
    rounds = 2 if quick else 7
    series = {
        "depth": [(k, LARGE._replace(steps=k)) for k in (4, 8, 16, 32)],
        "batch": [(b, LARGE._replace(steps=4, batch=b)) for b in (4, 8, 16, 32)],
        "pixels": [(s * s, LARGE._replace(steps=4, shape=(s, s, 3))) for s in (16, 32, 64)],
    }
    if quick:
        series = {name: sizes[:2] for name, sizes in series.items()}
    results = {}
    for name, sizes in series.items():
        for reversible in (False, True):
            operations = {}
            for at, size in sizes:
                operations[at] = ours.minglow_glow(size, reversible).operations(size.images())
            times = interleaved({at: calls["train_step"] for at, calls in operations.items()}, rounds)
            medians = [summary(seconds)["median"] for seconds in times.values()]
            at = [point for point, _ in sizes]
            results[name + ", reversible" * reversible] = {
                "at": at, "milliseconds": medians, "exponent": round(exponent(at, medians), 3)}
    return results
