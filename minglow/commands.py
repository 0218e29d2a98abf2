"""What each command of the command line does. Floor 4.

The one place that turns words into classes.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import minglow
from minglow import checkpoint, data, kernels, layers, runs
from minglow.flow import Flow
from minglow.train import evaluate, train

PERMUTATIONS = {"1x1": layers.InvConv1x1, "lu": layers.InvConv1x1LU,
                "shuffle": layers.Shuffle, "reverse": layers.Reverse}
COUPLINGS = {"affine": layers.AffineCoupling, "additive": layers.AdditiveCoupling,
             "affine-exp": partial(layers.AffineCoupling, scale=layers.exp_scale)}


def build(recipe: dict[str, Any]) -> Flow:
    """The flow that a recipe describes, at its random start."""
    return minglow.glow(
        tuple(recipe["shape"]), recipe["levels"], recipe["steps"], recipe["hidden"],
        permutation=PERMUTATIONS[recipe["permutation"]], coupling=COUPLINGS[recipe["coupling"]],
        reversible=recipe["reversible"], dtype=np.dtype(recipe["dtype"]).type, rng=recipe["seed"],
    )


def read_checkpoint(path: str | Path) -> checkpoint.Checkpoint:
    """A checkpoint by its own path or by its run's folder. Raises CheckpointError."""
    path = Path(path)
    return checkpoint.read(path / runs.CHECKPOINT if path.is_dir() else path)


def load_flow(path: str | Path) -> tuple[Flow, dict[str, Any]]:
    """The flow in a checkpoint or in a run's folder, and its recipe. Raises CheckpointError."""
    saved = read_checkpoint(path)
    try:
        flow = build(saved.recipe)
    except (KeyError, TypeError, ValueError) as error:
        message = f"{saved.path}: its recipe cannot be followed ({error!r})"
        raise checkpoint.CheckpointError(message) from None
    checkpoint.restore(saved, flow)
    return flow, saved.recipe


def load_data(name: str, grey_levels: int | None) -> data.Images:
    """The digits, or the images in a file."""
    if name != "digits":
        return data.load_images(name, grey_levels or 256)
    if grey_levels not in (None, 17):
        raise ValueError(f"expected 17 grey levels for the digits, got {grey_levels}")
    return data.digits()


def data_for(args: argparse.Namespace, recipe: dict[str, Any]) -> data.Images:
    """The images that were asked for, or those that the model was trained on."""
    name = args.data or recipe["data"]
    if not args.data and name != "digits" and not Path(name).is_file():
        raise ValueError(f"{name}, which the model was trained on, is not there: name it by --data")
    images = load_data(name, args.grey_levels or (None if name == "digits" else recipe["grey_levels"]))
    if list(images.held_out.shape[1:]) != recipe["shape"]:
        raise ValueError(f"expected images of the model's shape {tuple(recipe['shape'])}, "
                         f"got {images.held_out.shape[1:]} in {name}")
    return images


def run_train(args: argparse.Namespace) -> None:
    """Train Glow and write runs/<name>/."""
    images = load_data(args.data, args.grey_levels)
    shift = float(args.data == "digits") if args.shift is None else args.shift
    recipe = {
        "model": "glow", "shape": list(images.train.shape[1:]), "levels": args.levels,
        "steps": args.flow_steps, "hidden": args.hidden, "permutation": args.permutation,
        "coupling": args.coupling, "reversible": args.reversible, "dtype": args.dtype,
        "seed": args.seed, "data": args.data, "grey_levels": images.levels,
    }
    flow = build(recipe)
    folder = runs.new_folder(args.runs, args.name, Path(args.data).stem)
    say(run=folder, parameters=flow.flat.value.size, images=len(images.train), backend=kernels.current())
    with runs.Recorder(folder, args.steps) as recorder:
        train(flow, images, steps=args.steps, batch=args.batch, rate=args.rate, shift=shift,
              seed=args.seed, report=recorder)
    runs.finish(folder, flow, images, recorder.curve, recipe)
    report_quality(flow, images)
    say(pictures=", ".join(sorted(str(path) for path in folder.glob("*.png"))))


def run_evaluate(args: argparse.Namespace) -> None:
    """Print held-out bits per dimension and the round-trip error."""
    flow, recipe = load_flow(args.checkpoint)
    images = data_for(args, recipe)
    report_quality(flow, images)


def run_sample(args: argparse.Namespace) -> None:
    """Draw samples as a picture, or as an array."""
    flow, recipe = load_flow(args.checkpoint)
    levels = recipe["grey_levels"]
    out = args.out or beside(args.checkpoint, f"samples-T{args.temperature:g}-seed{args.seed}.png")
    if out.suffix == ".npy":
        np.save(out, runs.sample_images(flow, args.number, args.temperature, args.seed, levels))
    else:
        figure = runs.sample_sheet(flow, args.number, args.temperature, args.seed, levels)
        out = save(figure, out)
    say(samples=out)


def run_interpolate(args: argparse.Namespace) -> None:
    """Draw images between pairs of held-out ones."""
    flow, recipe = load_flow(args.checkpoint)
    images = data_for(args, recipe)
    order = np.random.default_rng(args.seed).permutation(len(images.held_out))
    held_out = images.held_out[order]
    figure = runs.interpolation_strip(flow, held_out, images.levels, args.pairs, args.frames)
    out = args.out or beside(args.checkpoint, f"interpolation-seed{args.seed}.png")
    say(interpolation=save(figure, out))


def run_info(args: argparse.Namespace) -> None:
    """Print what a checkpoint holds."""
    saved = read_checkpoint(args.checkpoint)
    say(**saved.recipe, parameters=saved.arrays["parameters"].size)


def report_quality(flow: Flow, images: data.Images) -> None:
    """The summary that train and evaluate share."""
    bits = evaluate(flow, images.held_out, images.levels, draws=8)
    x = minglow.dequantize(images.held_out[:256], images.levels, np.random.default_rng(0), flow.dtype)
    say(held_out_bits_per_dim=f"{bits:.3f}", uniform_model=f"{np.log2(images.levels):.3f}",
        round_trip_error=f"{flow.reconstruction_error(x):.1e}")


def beside(path: Path, name: str) -> Path:
    """A file of this name in the run's folder."""
    return (path if path.is_dir() else path.parent) / name


def save(figure: Figure, out: Path) -> Path:
    """Save a figure, as a .png if its name has no ending; return where it is."""
    if out.is_dir():
        raise ValueError(f"expected a file to write, got the folder {out}")
    out = out if out.suffix else out.with_suffix(".png")
    figure.savefig(out, dpi=150)
    return out


def say(**facts: object) -> None:
    """Print facts as key=value lines."""
    for key, value in facts.items():
        print(f"{key}={value}", flush=True)
