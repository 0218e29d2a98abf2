"""What each command of the command line does. Floor 4."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.figure import Figure

import minglow
from minglow import data, kernels, runs
from minglow.archive import replacing
from minglow.dequantizers import Dequantizer
from minglow.device import beside, to_device, to_host
from minglow.diagnosis import Invertibility, invertibility
from minglow.flow import Flow
from minglow.recipes import BELONGS
from minglow.saved import WEIGHTS, in_run_of, load_dequantizer, load_flow
from minglow.text import one_line
from minglow.train import evaluate, labels_for
from minglow.weights import export_safetensors

T = TypeVar("T", Flow, Dequantizer)
PACKAGED = {"digits": data.digits, "mnist5k": data.mnist5k, "photos": data.photo_patches}


def load_data(name: str, *, grey_levels: int | None = None, bits: int | None = None,
              size: int | None = None, grey: bool | None = None) -> data.Images:
    """The digits, MNIST's 5,000, patches of photographs, or the images at a path."""
    if name not in PACKAGED:
        return data.load_images(name, grey_levels or 256, bits=bits or 8, size=size, grey=bool(grey))
    images = PACKAGED[name]()
    if grey_levels not in (None, images.levels):
        raise ValueError(f"expected {images.levels} grey levels for {name}, got {grey_levels}")
    if size or grey:
        raise ValueError(f"expected --size and --grey for a folder of pictures, got one for {name}")
    return data.reduce_bits(images, bits or 8)


def reading(args: argparse.Namespace) -> dict[str, Any]:
    """How the command line says that images are to be read; None where it says nothing."""
    return {key: getattr(args, key) for key in ("grey_levels", "bits", "size", "grey")}


def data_for(recipe: dict[str, Any], args: argparse.Namespace | None = None) -> data.Images:
    """The images that were asked for, or those that the model was trained on, read in the same way."""
    asked, said = (args.data, reading(args)) if args else (None, {})
    name = recipe["data"] if asked is None else asked
    if asked is None and name not in PACKAGED and not Path(name).exists():
        raise ValueError(f"{name}, which the model was trained on, is not there: name it by --data")
    before = recipe.get("reading", {"grey_levels": recipe["grey_levels"]})
    images = load_data(name, **before | {key: value for key, value in said.items() if value})
    if list(images.held_out.shape[1:]) != recipe["shape"]:
        raise ValueError(f"expected images of the model's shape {tuple(recipe['shape'])}, "
                         f"got {images.held_out.shape[1:]} in {name}")
    if images.levels != recipe["grey_levels"]:
        raise ValueError(f"expected the model's {recipe['grey_levels']} grey levels, "
                         f"got {images.levels} in {name}")
    return images


def placed(module: T) -> T:
    """A flow or a dequantizer where the backend that was asked for computes."""
    return to_device(module) if kernels.current() == "cupy" else module


def run_evaluate(args: argparse.Namespace) -> None:
    """Print held-out bits per dimension and the round-trip error."""
    flow, recipe = load_flow(args.checkpoint)
    images = data_for(recipe, args)
    report_quality(placed(flow), images, placed(load_dequantizer(args.checkpoint, recipe)))


def run_sample(args: argparse.Namespace) -> None:
    """Draw samples as a picture, or as an array."""
    flow, recipe = load_flow(args.checkpoint)
    flow, levels, label = placed(flow), recipe["grey_levels"], args.label
    of = "" if label is None else f"-label{label}"
    name = f"samples{of}-T{args.temperature:g}-seed{args.seed}.png"
    out = args.out or in_run_of(args.checkpoint, name)
    if out.suffix == ".npy":
        images = runs.sample_images(flow, args.number, args.temperature, args.seed, levels, label)
        with replacing(out) as file:
            np.save(file, images)
    else:
        figure = runs.sample_sheet(flow, args.number, args.temperature, args.seed, levels, label)
        out = save(figure, out)
    say(samples=out)


def run_interpolate(args: argparse.Namespace) -> None:
    """Draw images between pairs of held-out ones."""
    flow, recipe = load_flow(args.checkpoint)
    images = data_for(recipe, args)
    order = np.random.default_rng(args.seed).permutation(len(images.held_out))
    held_out = images.held_out[order]
    figure = runs.interpolation_strip(placed(flow), held_out, images.levels, args.pairs, args.frames)
    out = args.out or in_run_of(args.checkpoint, f"interpolation-seed{args.seed}.png")
    say(interpolation=save(figure, out))


def run_info(args: argparse.Namespace) -> None:
    """Print what a checkpoint holds, and how invertible it is."""
    flow, recipe = load_flow(args.checkpoint)
    model = recipe["model"]
    of_the_model = {key: value for key, value in recipe.items() if model in BELONGS.get(key, [model])}
    say(**of_the_model | {"parameters": flow.flat.value.size})
    say(**monitored(invertibility(flow, np.clip(flow.sample(16, rng=0), -0.5, 0.5))))


def run_export(args: argparse.Namespace) -> None:
    """Write a model's weights to a .safetensors file, which other frameworks read.

    Every command that takes a checkpoint takes such a file, too.
    """
    flow, recipe = load_flow(args.checkpoint)
    out = args.out or in_run_of(args.checkpoint, f"model{WEIGHTS}")
    out = out if out.suffix else out.with_suffix(WEIGHTS)
    if out.suffix != WEIGHTS:
        raise ValueError(f"expected a file that ends in {WEIGHTS}, got {out}")
    export_safetensors(flow, out, recipe)
    say(weights=out)


def monitored(found: Invertibility) -> dict[str, str]:
    """How invertible a flow is, as facts to print."""
    facts = {"condition_number": f"{found.condition:.1f}", "of": found.worst_weight,
             "smallest_scale": f"{found.scale:.1e}", "in": found.worst_coupling,
             "round_trip_error": f"{found.round_trip:.1e}"}
    return facts | ({"warning": found.warning()} if found.warning() else {})


def report_quality(flow: Flow, images: data.Images, dequantizer: Dequantizer) -> None:
    """The summary that train and evaluate share."""
    labels = labels_for(flow, images.held_out_labels, len(images.held_out))
    bits = evaluate(flow, images.held_out, images.levels, draws=8, labels=labels,
                    dequantizer=dequantizer)
    x = minglow.dequantize(images.held_out[:256], images.levels, np.random.default_rng(0), flow.dtype)
    x = beside(x, flow.flat.value)
    say(held_out_bits_per_dim=f"{bits:.3f}", uniform_model=f"{np.log2(images.levels):.3f}",
        round_trip_error=f"{flow.reconstruction_error(x):.1e}")
    if labels is not None:
        likeliest = to_host(flow.class_log_prob(x).argmax(axis=1))
        say(accuracy_by_bayes=f"{np.mean(likeliest == labels[:256]):.3f}")


def save(figure: Figure, out: Path) -> Path:
    """Save a figure, as a .png if its name has no ending; return where it is."""
    if out.is_dir():
        raise ValueError(f"expected a file to write, got the folder {out}")
    out = out if out.suffix else out.with_suffix(".png")
    runs.save_figure(figure, out)
    return out


def say(**facts: object) -> None:
    """Print facts as key=value lines."""
    for key, value in facts.items():
        print(f"{key}={one_line(value)}", flush=True)
