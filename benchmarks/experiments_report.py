"""Tables and pictures of the experiments, written into docs/experiments.md and docs/images."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import minglow
from benchmarks.experiments import COUPLINGS, EXPERIMENTS, PERMUTATIONS, SEEDS, mnist_glow, photo_glow
from benchmarks.report import DOCS, fill, machine, save, table
from minglow import data
from minglow.data import Images
from minglow.flow import Flow
from minglow.runs.figures import interpolation_strip, sample_sheet, temperature_strip

DATA = {"digits": "digits, 8 x 8", "mnist5k": "MNIST-5k, 28 x 28"}
PUBLISHED_NICE = {  # Dinh et al. 2015, table 3: nats, dimensions, bins in an interval of width 1
    "MNIST, [0, 1]": (1980.50, 784, 256), "CIFAR-10, [-1, 1]": (5371.78, 3072, 128),
}
Runs = dict[str, Any]


def write(results: Path) -> str:
    """Fill the page in, draw the pictures, and return the tables."""
    found = read(results)
    text = tables(found)
    fill(DOCS / "experiments.md", text)
    save(curves(found["figure3"]["runs"]), "figure3")
    pictures(results / "mnist.npz", mnist_glow(), data.mnist5k)
    for bits in 5, 8:
        patches = partial(data.photo_patches, 32, bits)
        pictures(results / f"photos-{bits}-bits.npz", photo_glow(), patches)
    return text


def read(results: Path) -> dict[str, Any]:
    """The stored results of each experiment."""
    paths = {name: results / f"{name}.json" for name in EXPERIMENTS}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items()
            if path.is_file()}


def tables(found: dict[str, Any]) -> str:
    """All tables, in Markdown."""
    show = {"figure3": figure3, "family": family, "mnist": partial(trained, "MNIST-5k"),
            "photos": partial(trained, "Photographs")}
    parts = [machine(next(iter(found.values()))["machine"])]
    parts += [show[name](experiment["runs"]) for name, experiment in found.items()]
    return "\n".join([*parts, nice_in_bits()])


def figure3(found: Runs) -> str:
    """Mean over seeds, and each seed."""
    rows = []
    for source, title in DATA.items():
        for coupling in COUPLINGS:
            for permutation in PERMUTATIONS:
                mine = [found[f"{source}, {coupling}, {permutation}, seed {seed}"] for seed in SEEDS]
                bits = [run["bits"] for run in mine]
                rows.append([title, coupling, permutation, f"{np.mean(bits):.3f}",
                             ", ".join(f"{value:.3f}" for value in bits),
                             f"{np.mean([run['seconds'] for run in mine]):.0f} s"])
    return "### Figure 3\n\n" + table(
        ["data", "coupling", "permutation", "held-out bits/dim", "three seeds", "time"], rows)


def family(found: Runs) -> str:
    """Each model at the learning rate that was best for its first seed."""
    by_model: dict[str, dict[str, list[Runs]]] = defaultdict(lambda: defaultdict(list))
    for name, run in found.items():
        model, rate, _ = name.split(", ")
        by_model[model][rate].append(run)
    rows = []
    for model, by_rate in by_model.items():
        rate, chosen = next((rate, of) for rate, of in by_rate.items() if len(of) == len(SEEDS))
        bits = [run["bits"] for run in chosen]
        seconds = np.mean([run["seconds"] for run in chosen])
        rows.append([model, f"{chosen[0]['parameters']:,}", f"{seconds:.0f} s",
                     f"{chosen[0]['steps']:,}", rate.removeprefix("rate "), f"{np.mean(bits):.3f}",
                     ", ".join(f"{value:.3f}" for value in bits)])
    return "### NICE, RealNVP, Glow\n\n" + table(
        ["model", "parameters", "time", "steps", "learning rate", "held-out bits/dim", "three seeds"],
        rows)


def nice_in_bits() -> str:
    """NICE's published results by minglow's own function."""
    rows = [[name, f"{nats:.2f}", f"{minglow.bits_per_dim(nats, dims, bins):.2f}"]
            for name, (nats, dims, bins) in PUBLISHED_NICE.items()]
    return table(["NICE, as published", "nats", "bits/dim"], rows)


def trained(title: str, found: Runs) -> str:
    """One line for each flow."""
    rows = [[name, f"{run['parameters']:,}", f"{run['steps']:,}", f"{run['seconds'] / 60:.0f} min",
             f"{run['train bits']:.3f}", f"{run['bits']:.3f}", f"{run['of 16 samples']:.3f}"]
            for name, run in found.items()]
    return f"### {title}\n\n" + table(
        ["run", "parameters", "steps", "time, one thread", "bits/dim, training images",
         "held-out bits/dim", "the same, bound of 16 samples"], rows)


def curves(found: Runs) -> Figure:
    """Held-out bits by step: the mean over seeds, and the range."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    panels = figure.subplots(len(DATA), len(COUPLINGS), sharex="row")
    for row, (source, title) in zip(panels, DATA.items()):
        ends = []
        for axes, coupling in zip(row, COUPLINGS):
            for permutation, color in zip(PERMUTATIONS, ("#E69F00", "#0072B2", "#009E73")):
                by_seed = np.array([found[f"{source}, {coupling}, {permutation}, seed {seed}"]["curve"]
                                    for seed in SEEDS])
                steps, bits = by_seed[0, :, 0], by_seed[:, :, 3]
                axes.plot(steps, bits.mean(axis=0), color=color, label=permutation)
                axes.fill_between(steps, bits.min(axis=0), bits.max(axis=0), color=color, alpha=0.2,
                                  linewidth=0)
                ends.append(bits[:, len(steps) // 4:])
            axes.set_title(f"{title}, {coupling}", fontsize=10)
            axes.spines[["top", "right"]].set_visible(False)
        lowest, highest = np.min(ends), np.max(ends)
        for axes in row:
            axes.set_ylim(lowest - 0.05 * (highest - lowest), highest + 0.05 * (highest - lowest))
            axes.set_xlabel("step")
        row[0].set_ylabel("held-out bits per dimension")
    panels[0, 1].legend(frameon=False)
    return figure


def pictures(path: Path, flow: Flow, read: Callable[[], Images]) -> None:
    """Samples, temperatures and interpolations of the flow that an experiment saved beside its results.

    Without that file the pictures stay as they are.
    """
    if not path.is_file():
        return
    minglow.load(path, into=flow)
    images = read()
    save(sample_sheet(flow, 64, 0.8, 0, images.bins), f"{path.stem}-samples")
    save(temperature_strip(flow, 0, images.bins), f"{path.stem}-temperatures")
    held_out = images.held_out[np.random.default_rng(0).permutation(len(images.held_out))]
    save(interpolation_strip(flow, held_out, images.bins), f"{path.stem}-interpolation")
