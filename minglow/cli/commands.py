"""The commands that use a trained model."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.figure import Figure

from minglow import data, kernels
from minglow.arrays.device import to_device, to_device_of, to_host
from minglow.arrays.trainable import Trainable
from minglow.dequantization import Dequantizer, dequantize
from minglow.flow import Flow
from minglow.runs import figures
from minglow.runs.config import ReadingConfig, RunConfig
from minglow.runs.folder import in_run
from minglow.runs.loading import SAFETENSORS, build, load_run, read, run_config
from minglow.storage.archive import replacing
from minglow.storage.settings import pick
from minglow.storage.weights import export_safetensors
from minglow.training.diagnosis import invertibility
from minglow.training.evaluation import evaluate, labels_for
from minglow.validation import single_line

T = TypeVar("T", bound=Trainable)


def data_for(config: RunConfig, args: argparse.Namespace) -> data.Images:
    """The images that the options name, or those that the model was trained on, read in the same way."""
    given = pick(vars(args), ReadingConfig)
    reading = replace(config.data, **given)
    if "data" not in given and reading.data not in data.PACKAGED and not Path(reading.data).exists():
        raise ValueError(f"{reading.data}, which the model was trained on, does not exist: "
                         "give its path by --data")
    if reading.data in data.PACKAGED and "data" in given and "bins" not in given:
        reading = replace(reading, bins=None)  # a packaged data set knows its own
    images = reading.load()
    shape, bins = images.held_out.shape[1:], config.data.final_bins
    if shape != config.model.shape:
        raise ValueError(f"expected images of the model's shape {config.model.shape}, got {shape} "
                         f"in {reading.data}")
    if images.bins != bins:
        raise ValueError(f"expected the model's {bins} bins, got {images.bins} in {reading.data}")
    return images


def to_backend(module: T) -> T:
    """Move a flow or a dequantizer to the GPU if the chosen backend computes there."""
    return to_device(module) if kernels.current_backend() == "cupy" else module


def run_evaluate(args: argparse.Namespace) -> None:
    """Print held-out bits per dimension and the round-trip error."""
    run = load_run(args.checkpoint)
    images = data_for(run.config, args)
    report_quality(to_backend(run.flow), images, to_backend(run.dequantizer))


def run_sample(args: argparse.Namespace) -> None:
    """Draw samples as a picture, or as an array."""
    run = load_run(args.checkpoint)
    flow, bins, label = to_backend(run.flow), run.config.data.final_bins, args.label
    suffix = "" if label is None else f"-label{label}"
    name = f"samples{suffix}-T{args.temperature:g}-seed{args.seed}.png"
    out = args.out or in_run(args.checkpoint, name)
    chosen = flow, args.number, args.temperature, args.seed, bins, label
    if out.suffix == ".npy":
        images = figures.sample_images(*chosen)
        with replacing(out) as file:
            np.save(file, images)
    else:
        out = save(figures.sample_sheet(*chosen), out)
    print_facts(samples=out)


def run_interpolate(args: argparse.Namespace) -> None:
    """Draw images between pairs of held-out ones."""
    run = load_run(args.checkpoint)
    images = data_for(run.config, args)
    order = np.random.default_rng(args.seed).permutation(len(images.held_out))
    figure = figures.interpolation_strip(to_backend(run.flow), images.held_out[order], images.bins,
                                         args.pairs, args.frames)
    out = args.out or in_run(args.checkpoint, f"interpolation-seed{args.seed}.png")
    print_facts(interpolation=save(figure, out))


def run_info(args: argparse.Namespace) -> None:
    """Print what a file holds, and how invertible its flow is."""
    saved = read(args.checkpoint)
    if not saved.config:  # layers of the user's own: what the file says about each
        print_facts(**{path or "flow": settings for path, settings in saved.settings.items()})
        print_facts(values=sum(array.size for array in saved.module.values()))
        return
    flow = build(saved)
    parts = (flow.config,) if saved.config.keys() == {"model"} else run_config(saved)
    print_facts(model=flow.config.model)
    for part in parts:  # validated, unlike saved.config
        print_facts(**{key: value for key, value in part.to_json().items() if value is not None})
    print_facts(parameters=flow.flat.value.size)
    found = invertibility(flow, np.clip(flow.sample(16, rng=0), -0.5, 0.5))
    print_facts(largest_condition_number=f"{found.condition:.1f}", its_layer=found.worst_weight,
                smallest_scale=f"{found.scale:.1e}", its_coupling=found.worst_coupling,
                round_trip_error=f"{found.round_trip:.1e}")
    if found.warning():
        print_facts(warning=found.warning())


def run_export(args: argparse.Namespace) -> None:
    """Write a model's weights to a .safetensors file, which other frameworks read.

    The commands that take a run also take the file that was exported from it.
    """
    saved = read(args.checkpoint)
    out = args.out or in_run(args.checkpoint, f"model{SAFETENSORS}")
    out = out if out.suffix else out.with_suffix(SAFETENSORS)
    if out.suffix != SAFETENSORS:
        raise ValueError(f"expected a file that ends in {SAFETENSORS}, got {out}")
    export_safetensors(out, build(saved), saved.config)
    print_facts(weights=out)


def report_quality(flow: Flow, images: data.Images, dequantizer: Dequantizer) -> None:
    """Print the summary that train and evaluate share."""
    labels = labels_for(flow, images.held_out_labels, len(images.held_out))
    bits = evaluate(flow, images.held_out, images.bins, samples=8, labels=labels,
                    dequantizer=dequantizer)
    x = to_device_of(dequantize(images.held_out[:256], images.bins, 0, flow.dtype), flow.flat.value)
    print_facts(held_out_bits_per_dim=f"{bits:.3f}", uniform_model=f"{np.log2(images.bins):.3f}",
                round_trip_error=f"{flow.reconstruction_error(x):.1e}")
    if labels is not None:
        likeliest = to_host(flow.log_prob_given_class(x).argmax(axis=1))
        print_facts(accuracy_by_bayes=f"{np.mean(likeliest == labels[:256]):.3f}")


def save(figure: Figure, out: Path) -> Path:
    """Save a figure, as a .png if its name has no ending; return its path."""
    if out.is_dir():
        raise ValueError(f"expected a file to write, got the folder {out}")
    out = out if out.suffix else out.with_suffix(".png")
    figures.save_figure(figure, out)
    return out


def print_facts(**facts: Any) -> None:
    """Print facts as key=value lines."""
    for key, value in facts.items():
        print(single_line(f"{key}={value}"), flush=True)
