"""Exploding inverses: the largest sample of Glow on vectors, by the scale of its affine couplings.

    python -m benchmarks.exploding                                 all cases, two scales, half an hour
    python -m benchmarks.exploding --cases moons --seeds 0         a few of them
    python -m benchmarks.exploding --out exploding.json            resumes where the file ends

Every run trains `minglow.glow` by `minglow.train`, at the default settings of both but the scale. A
forward map that contracts has an inverse that expands; those of K couplings multiply (Behrmann et al.
2021, "Understanding and Mitigating Exploding Inverses in Invertible Neural Networks").
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import minglow
from benchmarks.report import table
from minglow.data import Table, toys
from minglow.flow import Flow
from minglow.training import Diverged
from minglow.training.monitor import data_range, explosion

FRESH = 20_000  # data that no run trains on, and samples
Data = Callable[[int, np.random.Generator], np.ndarray]
Scale = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def clusters(n: int, rng: np.random.Generator) -> np.ndarray:
    """Two clusters of standard deviation 1e-3 at (1, 1, 1, 1) and (-1, -1, -1, -1)."""
    return rng.choice([-1.0, 1.0], (n, 1)) + 1e-3 * rng.standard_normal((n, 4))


def sine(n: int, rng: np.random.Generator) -> np.ndarray:
    """A sine and a scale mixture that share a variable: (n, 2)."""
    a, e, f = rng.standard_normal((3, n))
    return np.stack([np.sin(2 * a) + 0.1 * e, np.exp(0.5 * a) * f], axis=1)


def nonlinear(n: int, rng: np.random.Generator) -> np.ndarray:
    """Four columns, each a nonlinear function of those before it, with noise."""
    a, b, e, f = rng.standard_normal((4, n))
    return np.stack([a, np.sin(2 * a) + 0.1 * e, np.exp(0.5 * b), a * b + 0.1 * f], axis=1)


def columns(n: int, rng: np.random.Generator) -> np.ndarray:
    """Five correlated columns: two log-normal, one squared, two normal."""
    mixing = np.random.default_rng(0).standard_normal((5, 5)) / 5**0.5
    g = rng.standard_normal((n, 5)) @ mixing
    return np.concatenate([np.exp(g[:, :2]), g[:, 2:3] ** 2, g[:, 3:]], axis=1)


def student(n: int, rng: np.random.Generator, dims: int = 2) -> np.ndarray:
    """Independent Student t variables with two degrees of freedom."""
    return rng.standard_t(2, (n, dims))


CASES: dict[str, Data] = {
    "clusters": clusters, "sine": sine, "nonlinear": nonlinear, "columns": columns, "t2": student,
    "t2-4d": partial(student, dims=4), "moons": toys.two_moons, "pinwheel": toys.pinwheel,
    "checkerboard": toys.checkerboard, "gaussians": toys.eight_gaussians,
}


def arctan_scale(s: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """log scale = bound 2/pi arctan(s pi / (2 bound)), as FrEIA; its derivative vanishes as 1/s^2."""
    t = s * s.dtype.type(np.pi / (2 * bound))
    return s.dtype.type(bound * 2 / np.pi) * np.arctan(t), 1 / (1 + t * t)


SCALES: dict[str, str | Scale] = {
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "sigmoid floor .1": partial(minglow.sigmoid_scale, floor=0.1),
    "tanh 2": partial(minglow.tanh_scale, bound=2.0),
    "arctan 1": partial(arctan_scale, bound=1.0),
}


def run(case: str, scale: str | Scale, seed: int, **options: Any) -> dict[str, Any]:
    """Train one flow and measure it; {} if training diverges."""
    rng, warnings = np.random.default_rng([seed, 1]), list[str]()
    data = Table(CASES[case](50_000, rng), CASES[case](5_000, rng))
    flow = minglow.glow(data.train.shape[1:], scale=scale, rng=seed)
    try:
        minglow.train(flow, data, seed=seed, on_warning=warnings.append, **options)
    except Diverged:
        return {}
    return measure(flow, data, CASES[case](FRESH, rng)) | {"warnings": warnings}


def measure(flow: Flow, data: Table, fresh: np.ndarray) -> dict[str, Any]:
    """Mean nats of fresh data, and the size of as many samples."""
    found = explosion(flow, *data_range(data), FRESH)
    samples = flow.sample(FRESH, rng=0, on_bad="keep")
    finite = np.isfinite(samples).all(axis=1)
    return {
        "nats": minglow.evaluate(flow, fresh, batch_size=1024), "not finite": int((~finite).sum()),
        "ratio": float(np.abs(samples[finite]).max(initial=0) / np.abs(fresh).max()),
        "outside": found.outside, "layer": found.layer, "factor": found.factor,
        "round trip": found.round_trip,
    }


def report(found: dict[str, Any]) -> str:
    """A row for each case and scale: the mean over the seeds, and the worst of them."""
    rows = []
    for case in CASES:
        for scale in SCALES:
            runs = {name: entry for name, entry in found.items()
                    if name.startswith(f"{case}, {scale}, seed ")}
            kept = [entry for entry in runs.values() if entry]
            if len(kept) < len(runs):
                rows.append([case, scale, f"{len(runs) - len(kept)} of {len(runs)} diverge", *6 * [""]])
            elif runs:
                worst = max(kept, key=lambda entry: (entry["not finite"], entry["ratio"]))
                pairs = [(entry, found.get(name.replace(f", {scale},", ", sigmoid,")))
                         for name, entry in runs.items()]
                losses = [entry["nats"] - other["nats"] for entry, other in pairs if other]
                rows.append([case, scale, f"{np.mean([entry['nats'] for entry in kept]):.3f}",
                             f"{np.mean(losses):+.3f}" if losses else "", f"{worst['ratio']:.3g}",
                             str(worst["not finite"]), f"{worst['outside']:.2%}",
                             f"{worst['layer']}, {worst['factor']:.3g}",
                             str(sum(bool(entry["warnings"]) for entry in kept))])
    return table(["data", "scale", "nats", "minus sigmoid's", "largest sample / largest datum",
                  "not finite", "outside", "layer that magnifies most, times", "runs that warn"], rows)


def main() -> None:
    """Do the runs that the file of results does not have, and print a table of all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exploding", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--scales", nargs="*", choices=SCALES, default=["sigmoid", "tanh"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=2500, help="optimizer steps of a run")
    parser.add_argument("--out", type=Path, help="a JSON file of results, to resume")
    args = parser.parse_args()
    minglow.threads(1)
    found = json.loads(args.out.read_text(encoding="utf-8")) if args.out and args.out.is_file() else {}
    for seed in args.seeds:
        for case in args.cases:
            for scale in args.scales:
                name = f"{case}, {scale}, seed {seed}"
                if name in found:
                    continue
                found[name] = run(case, SCALES[scale], seed, steps=args.steps)
                if args.out:
                    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(report(found))


if __name__ == "__main__":
    main()
