"""Published experiments on small images: bits per dimension of held-out images.

    figure3  {reverse, shuffle, 1x1} x {additive, affine}, as Kingma & Dhariwal 2018, figure 3
    family   NICE, RealNVP and Glow on the digits, with as many parameters and seconds each
    mnist    Glow on 5,000 of MNIST's digits, 28 x 28 x 1
    photos   Glow on 32 x 32 RGB patches of photographs, in 5 and in 8 bits

A finished run is stored in results/NAME.json; a second start makes only the runs that are missing.
All runs use one thread, so that two experiments can share two cores; seconds are the process's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

import minglow
from benchmarks.machine import describe
from minglow import data
from minglow.data import Images
from minglow.dequantization import UniformDequantizer, VariationalDequantizer, log_bound
from minglow.flow import Flow
from minglow.training import Progress

SEEDS = 0, 1, 2
LEARNING_RATES = 0.01, 0.003, 0.001
MARGIN = 0.0005  # of the logit for MNIST, four fifths of whose pixels are black
PERMUTATIONS = "reverse", "shuffle", "1x1"
COUPLINGS = "additive", "affine"
Run = Callable[[], dict[str, Any]]


def measure(name: str, folder: Path, quick: bool = False) -> dict[str, Any]:
    """Do those runs of an experiment that its file in `folder` does not have; return all of them."""
    minglow.threads(1)
    path = folder / f"{name}.json"
    fresh = {"machine": describe(), "quick": quick, "runs": {}}
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else fresh
    if found["quick"] != quick:
        raise ValueError(f"expected a folder without {path}, whose runs are "
                         f"{'quick' if found['quick'] else 'complete'}")
    for run, measure_one in EXPERIMENTS[name](found["runs"], folder, 50 if quick else 1):
        if run not in found["runs"]:
            found["runs"][run] = measure_one()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(f"{name} {run}: {found['runs'][run]['bits']:.4f} bits/dim, "
                  f"{found['runs'][run]['seconds']:.0f} s", flush=True)
    return found


def figure3(runs: dict[str, Any], folder: Path, faster: int) -> Iterator[tuple[str, Run]]:
    """The same steps, batches and widths for every permutation and coupling."""
    digits = {"steps": 2500 // faster, "batch_size": 64}
    mnist = {"steps": 3000 // faster, "batch_size": 16, "ema_decay": 0.99}
    for seed in SEEDS:
        for coupling in COUPLINGS:
            for permutation in PERMUTATIONS:
                options = {"permutation": permutation, "coupling": coupling, "rng": seed}
                yield (f"digits, {coupling}, {permutation}, seed {seed}",
                       partial(one, data.digits, partial(minglow.glow, (8, 8, 1), 2, 8, 32, **options),
                               seed, **digits))
                yield (f"mnist5k, {coupling}, {permutation}, seed {seed}",
                       partial(one, data.mnist5k,
                               partial(minglow.glow, (28, 28, 1), 2, 8, 32, logit=MARGIN, **options),
                               seed, **mnist))


def family(runs: dict[str, Any], folder: Path, faster: int) -> Iterator[tuple[str, Run]]:
    """About 91,000 parameters, within 3%, and as many steps as fit into forty seconds.

    Each at the best of three learning rates for the first seed.
    """
    flows = {
        "NICE": partial(minglow.nice, (8, 8, 1), 4, 92, 3),
        "RealNVP": partial(minglow.realnvp, (8, 8, 1), 2, 15),
        "Glow": partial(minglow.glow, (8, 8, 1), 2, 12, 32),
    }
    for name, make in flows.items():
        def at(rate: float, seed: int) -> tuple[str, Run]:
            run = partial(timed, make, seed, seconds=40 / faster, learning_rate=rate)  # noqa: B023
            return f"{name}, rate {rate:g}, seed {seed}", run  # noqa: B023

        yield from (at(rate, 0) for rate in LEARNING_RATES)
        best = min(LEARNING_RATES, key=lambda rate: runs[f"{name}, rate {rate:g}, seed 0"]["bits"])
        yield from (at(best, seed) for seed in SEEDS[1:])


def mnist_glow() -> Flow:
    """For 28 x 28 x 1 pixels in 256 bins."""
    return minglow.glow((28, 28, 1), 2, 8, 64, logit=MARGIN, rng=0)


def photo_glow() -> Flow:
    """For 32 x 32 RGB pixels."""
    return minglow.glow((32, 32, 3), 3, 8, 64, rng=0)


def mnist(runs: dict[str, Any], folder: Path, faster: int) -> Iterator[tuple[str, Run]]:
    """An hour of training."""
    yield "glow", partial(one, data.mnist5k, mnist_glow, 0, steps=64_000 // faster, batch_size=16,
                          ema_decay=0.995, shift=1.0, integer_shift=True, variational=16,
                          out=folder / "mnist.npz")


def photos(runs: dict[str, Any], folder: Path, faster: int) -> Iterator[tuple[str, Run]]:
    """The same flow and steps in 5 bits and in 8."""
    for bits in 5, 8:
        yield (f"{bits} bits",
               partial(one, partial(data.photo_patches, 32, bits), photo_glow, 0, steps=4_000 // faster,
                       batch_size=16, learning_rate=0.003, ema_decay=0.998, flip=True,
                       out=folder / f"photos-{bits}-bits.npz"))


def one(read: Callable[[], Images], make: Callable[[], Flow], seed: int, *, steps: int,
        variational: int = 0, out: Path | None = None, evaluations: int = 20,
        **options: Any) -> dict[str, Any]:
    """Train one flow, with a variational dequantizer of so many units, and save it to `out`."""
    images, flow, curve = read(), make(), []
    dequantizer = UniformDequantizer(images.bins)
    if variational:
        shape = images.train.shape[1:]
        dequantizer = VariationalDequantizer(shape, images.bins, variational, rng=seed)

    def record(progress: Progress) -> None:
        if progress.held_out_loss is not None:
            curve.append([progress.step, round(process_time() - start), round(progress.loss, 4),
                          round(progress.held_out_loss, 4)])
            if out:
                print(curve[-1], flush=True)

    start = process_time()
    minglow.train(flow, images, steps=steps, seed=seed, dequantizer=dequantizer, on_step=record,
                  evaluate_every=max(1, steps // evaluations), **options)
    seconds = process_time() - start
    if out:
        minglow.save(flow, out)
    bits = {
        name: minglow.evaluate(flow, part, images.bins, dequantizer=dequantizer, samples=samples)
        for name, part, samples in (("bits", images.held_out, 4), ("train bits", images.train[:500], 1))
    }
    return {"parameters": flow.flat.value.size + dequantizer.flat.value.size, "steps": steps,
            "seconds": round(seconds, 3), **{k: round(v, 4) for k, v in bits.items()},
            "of 16 samples": round(importance_weighted(flow, images, dequantizer), 4), "curve": curve}


def importance_weighted(flow: Flow, images: Images, dequantizer: Any, samples: int = 16) -> float:
    """Held-out bits by the importance-weighted bound."""
    rng = np.random.default_rng(0)
    bounds = [log_bound(flow, images.held_out[i:i + 64], dequantizer, rng, samples)
              for i in range(0, len(images.held_out), 64)]
    mean = np.concatenate(bounds).mean()
    return float(minglow.bits_per_dim(mean, images.held_out[0].size, images.bins))


def timed(make: Callable[..., Flow], seed: int, *, seconds: float, learning_rate: float,
          ) -> dict[str, Any]:
    """Train on the digits for as many steps as fit into the seconds, judged by a trial of 100 steps."""
    train_digits = partial(one, data.digits, partial(make, rng=seed), seed,
                           learning_rate=learning_rate, evaluations=1)
    for _ in range(2):  # the first may compile
        trial = train_digits(steps=100)
    return train_digits(steps=max(100, int(seconds * 100 / trial["seconds"])))


EXPERIMENTS = {"figure3": figure3, "family": family, "mnist": mnist, "photos": photos}
