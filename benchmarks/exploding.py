"""Exploding inverses: the largest sample of Glow on vectors, by the scale of its affine couplings.

    python -m benchmarks.exploding                                 all cases and scales (an hour)
    python -m benchmarks.exploding --cases moons --seeds 0         a few of them
    python -m benchmarks.exploding --out exploding.json            resumes where the file ends
    python -m benchmarks.exploding --careful                       learning rate decays, gradient clipped

Every run trains one flow with Adam on standardized data, at a constant learning rate unless --careful.
A forward map that contracts has an inverse that expands, and the inverses of K couplings multiply
(Behrmann et al. 2021, "Understanding and Mitigating Exploding Inverses in Invertible Neural Networks").
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import minglow
from benchmarks.report import table
from minglow.data import toys
from minglow.flow import Flow
from minglow.training import Adam
from minglow.training.optimizers import clip_norm, warm_up_cosine

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
    """Six correlated columns: two log-normal, one squared, three normal."""
    mixing = np.random.default_rng(0).standard_normal((6, 6)) / 6**0.5
    g = rng.standard_normal((n, 6)) @ mixing
    return np.concatenate([np.exp(g[:, :2]), g[:, 2:3] ** 2, g[:, 3:]], axis=1)


def student(n: int, rng: np.random.Generator, dims: int = 2) -> np.ndarray:
    """Independent Student t variables with two degrees of freedom."""
    return rng.standard_t(2, (n, dims))


CASES: dict[str, tuple[Data, float]] = {  # data, and the peak of the learning rate
    "clusters": (clusters, 3e-3), "sine": (sine, 2e-3), "nonlinear": (nonlinear, 2e-3),
    "columns": (columns, 2e-3), "t2": (student, 2e-3), "t2-4d": (partial(student, dims=4), 2e-3),
    "moons": (toys.two_moons, 2e-3), "pinwheel": (toys.pinwheel, 2e-3),
    "checkerboard": (toys.checkerboard, 2e-3), "gaussians": (toys.eight_gaussians, 2e-3),
}


def arctan_scale(s: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """log scale = bound 2/pi arctan(s pi / (2 bound)), as FrEIA; its derivative vanishes as 1/s^2."""
    t = s * s.dtype.type(np.pi / (2 * bound))
    return s.dtype.type(bound * 2 / np.pi) * np.arctan(t), 1 / (1 + t * t)


def unequal_scale(s: np.ndarray, below: float, above: float) -> tuple[np.ndarray, np.ndarray]:
    """log scale = bound tanh(s / bound), with one bound for s < 0 and another for s > 0."""
    bound = np.where(s < 0, s.dtype.type(below), s.dtype.type(above))
    t = np.tanh(s / bound)
    return bound * t, 1 - t * t


SCALES: dict[str, Scale] = {
    "sigmoid": minglow.sigmoid_scale,
    "sigmoid floor .1": partial(minglow.sigmoid_scale, floor=0.1),
    "sigmoid floor .3": partial(minglow.sigmoid_scale, floor=0.3),
    "tanh .5": partial(minglow.tanh_scale, bound=0.5),
    "tanh 1": minglow.tanh_scale,
    "tanh 2": partial(minglow.tanh_scale, bound=2.0),
    "tanh log 10": partial(minglow.tanh_scale, bound=float(np.log(10))),
    "arctan 1": partial(arctan_scale, bound=1.0),
    "arctan 2": partial(arctan_scale, bound=2.0),
    "-.5 to 1": partial(unequal_scale, below=0.5, above=1.0),
    "-.5 to 2": partial(unequal_scale, below=0.5, above=2.0),
    "-1 to 2": partial(unequal_scale, below=1.0, above=2.0),
}


def run(case: str, scale: Scale, seed: int, steps: int = 1500, flow_steps: int = 8,
        careful: bool = False) -> dict[str, Any]:
    """Train one flow and measure it; {} if training diverges.

    careful  clip the gradient's norm at 100, warm up, and let the learning rate decay as a cosine
    """
    data, rate = CASES[case]
    rng = np.random.default_rng([seed, 1])
    train, fresh = data(50_000, rng), data(FRESH, rng)
    mean, std = train.mean(axis=0), train.std(axis=0)
    train, fresh = (((x - mean) / std).astype(np.float32) for x in (train, fresh))
    flow = minglow.glow(train.shape[1:], flow_steps=flow_steps, rng=seed,
                        coupling=partial(minglow.AffineCoupling, scale=scale))
    flow.initialize(train[:1000])
    optimizer = Adam(flow.flat)
    try:
        for step in range(1, steps + 1):
            flow.flat.grad[...] = 0
            flow.nll_backward(train[rng.integers(len(train), size=256)])
            if careful:
                clip_norm(flow.flat.grad, 100.0)
            optimizer.step(rate * (warm_up_cosine(step, steps, steps // 10) if careful else 1.0))
        return measure(flow, fresh)
    except (FloatingPointError, minglow.SingularWeightError):
        return {}


def measure(flow: Flow, fresh: np.ndarray) -> dict[str, Any]:
    """NLL of fresh data in nats, their round trip, and the size of as many samples."""
    z = np.random.default_rng(0).standard_normal(fresh.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = np.abs(flow.bijection.inverse_only(z)).max(axis=1)
        back = flow.bijection.inverse_only(flow.bijection.forward_only(fresh)[0])
    finite, data_size = np.isfinite(sizes), float(np.abs(fresh).max())
    largest = float(sizes[finite].max(initial=0))
    return {
        "nll": -float(flow.log_prob(fresh).astype(float).mean()),
        "largest sample": largest, "not finite": int((~finite).sum()),
        "ratio": largest / data_size,
        "beyond the data": float((~(sizes <= 3 * data_size)).mean()),
        "round trip": float(np.abs(back - fresh).max()),
        "path": path(flow, z[np.argmax(np.where(finite, sizes, 0))]),
    }


def path(flow: Flow, z: np.ndarray) -> list[tuple[str, float]]:
    """By which factor each inverse changes the norm of one sample, from the latent to the sample."""
    y, found = z[None], []
    assert isinstance(flow.bijection, minglow.Chain)
    for layer in reversed(flow.bijection.layers):
        x = layer.inverse_only(y)
        before, after = (float(np.linalg.norm(v.astype(float))) for v in (y, x))
        found.append((type(layer).__name__, after / before))
        y = x
    return found


def largest_factor(found: dict[str, Any]) -> str:
    """The layer of a path that magnifies most, as "AffineCoupling, 900 times"."""
    name, factor = max(found["path"], key=lambda entry: entry[1])
    return f"{name}, {factor:.3g} times"


def report(found: dict[str, Any]) -> str:
    """A row for each case and scale: medians over the seeds, and the worst of them."""
    rows = []
    for case in CASES:
        for scale in SCALES:
            prefix = f"{case}, {scale}, seed "
            runs = {name: entry for name, entry in found.items() if name.startswith(prefix)}
            if not runs:
                continue
            kept = [entry for entry in runs.values() if entry]
            if len(kept) < len(runs):
                rows.append([case, scale, f"{len(runs) - len(kept)} of {len(runs)} diverge"] + 6 * [""])
                continue
            worst = max(kept, key=lambda entry: entry["ratio"])
            losses = [entry["nll"] - found[name.replace(scale, "sigmoid")]["nll"]
                      for name, entry in runs.items() if found.get(name.replace(scale, "sigmoid"))]
            rows.append([case, scale, f"{np.median([entry['nll'] for entry in kept]):.3f}",
                         f"{np.mean(losses):+.3f}" if losses else "",
                         f"{np.median([entry['ratio'] for entry in kept]):.3g}", f"{worst['ratio']:.3g}",
                         f"{max(entry['beyond the data'] for entry in kept):.2%}",
                         f"{max(entry['round trip'] for entry in kept):.1e}", largest_factor(worst)])
    return table([
        "data", "scale", "NLL, nats", "minus sigmoid's", "largest sample / datum", "worst seed",
        "samples beyond 3 data", "round trip", "the inverse that magnifies most"], rows)


def main() -> None:
    """Do the runs that the file of results does not have, and print a table of all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exploding", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--scales", nargs="*", choices=SCALES, default=list(SCALES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1500, help="optimizer steps of a run")
    parser.add_argument("--flow-steps", type=int, default=8, help="K")
    parser.add_argument("--careful", action="store_true", help="clipping, warm-up, and a cosine")
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
                found[name] = run(case, SCALES[scale], seed, args.steps, args.flow_steps,
                                  args.careful)
                if args.out:
                    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(report(found))


if __name__ == "__main__":
    main()
