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
from minglow.dequantization import Dequantizer
from minglow.flow import Flow
from minglow.runs import figures
from minglow.runs.config import ReadingConfig, RunConfig
from minglow.runs.folder import in_run
from minglow.runs.loading import SAFETENSORS, build, load_run, read, run_config
from minglow.storage.settings import pick
from minglow.storage.weights import export_safetensors
from minglow.training.diagnosis import invertibility
from minglow.training.evaluation import baseline, held_out, labels_for
from minglow.training.monitor import FINAL_VALUES, Explosion, explosion, sample_count
from minglow.validation import single_line

T = TypeVar("T", bound=Trainable)


def data_for(config: RunConfig, args: argparse.Namespace) -> data.Images | data.Table:
    """The data that the options name, or those that the model was trained on, read in the same way."""
    given = pick(vars(args), ReadingConfig)
    reading = replace(config.data, **given)
    named = reading.data in data.PACKAGED or reading.data in data.TOYS
    if "data" not in given and not named and not Path(reading.data).exists():
        raise ValueError(f"{reading.data}, which the model was trained on, does not exist: "
                         "give its path by --data")
    if reading.data in data.PACKAGED and "data" in given and "bins" not in given:
        reading = replace(reading, bins=None)  # a packaged data set knows its own
    samples = reading.load()
    shape, bins = samples.held_out.shape[1:], None if config.is_table else config.data.final_bins
    if shape != config.model.shape:
        raise ValueError(f"expected samples of the model's shape {config.model.shape}, got {shape} "
                         f"in {reading.data}")
    if samples.bins != bins:
        raise ValueError(f"expected the model's {bins} bins, got {samples.bins} in {reading.data}")
    if isinstance(samples, data.Table) and samples.columns != config.data.columns:
        raise ValueError(f"expected the model's columns {', '.join(config.data.columns)}, "
                         f"got {', '.join(samples.columns)} in {reading.data}")
    return samples


def to_backend(module: T) -> T:
    """Move a flow or a dequantizer to the GPU if the chosen backend computes there."""
    return to_device(module) if kernels.current_backend() == "cupy" else module


def run_evaluate(args: argparse.Namespace) -> None:
    """Print held-out bits per dimension, or nats of a table, and the round-trip error."""
    run = load_run(args.checkpoint)
    samples = data_for(run.config, args)
    report_quality(to_backend(run.flow), samples, to_backend(run.dequantizer))


def run_interpolate(args: argparse.Namespace) -> None:
    """Draw images between pairs of held-out ones."""
    run = load_run(args.checkpoint)
    images = data_for(run.config, args)
    if isinstance(images, data.Table):
        raise ValueError("expected a model of images to interpolate, got one of a table")
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
    flow, config = build(saved), None if saved.config.keys() == {"model"} else run_config(saved)
    parts = config or (flow.config,)
    print_facts(model=flow.config.model)
    for part in parts:  # validated, unlike saved.config
        print_facts(**{key: value for key, value in part.to_json().items() if value is not None})
    print_facts(parameters=flow.flat.value.size)
    if flow.context_size:
        print_facts(context=flow.context_size)
        return
    far = explosion_of(flow, config)
    x = flow.sample(min(256, far.samples), rng=0, on_bad="drop")
    x = np.clip(x, far.center - far.radius, far.center + far.radius)
    found = invertibility(flow, x.astype(flow.dtype))
    print_facts(largest_condition_number=f"{found.condition:.1f}", its_layer=found.worst_weight,
                smallest_scale=f"{found.scale:.1e}", its_coupling=found.worst_coupling,
                round_trip_error=f"{found.round_trip:.1e}")
    print_facts(samples_outside=f"{far.outside:.2%}", farthest_sample=f"{far.farthest:.1f} radii",
                round_trip_error_of_latents=f"{far.round_trip:.1e}", magnifies_most=far.layer)
    for warning in filter(None, (found.warning(), far.warning())):
        print_facts(warning=warning)


def run_export(args: argparse.Namespace) -> None:
    """Write a model's weights to a .safetensors file, which other frameworks read.

    The commands that take a run also take the file that was exported from it.
    """
    saved = read(args.checkpoint)
    stem = "model" if args.checkpoint.is_dir() else args.checkpoint.stem
    out = args.out or in_run(args.checkpoint, f"{stem}{SAFETENSORS}")
    out = out if out.suffix else out.with_suffix(SAFETENSORS)
    if out.suffix != SAFETENSORS:
        raise ValueError(f"expected a file that ends in {SAFETENSORS}, got {out}")
    export_safetensors(out, build(saved), saved.config)
    print_facts(weights=out)


def report_quality(flow: Flow, samples: data.Images | data.Table, dequantizer: Dequantizer) -> None:
    """Print the summary that train and evaluate share."""
    loss = held_out(flow, samples, dequantizer, samples=8 if samples.bins else 1)
    simple = baseline(samples)
    labels = labels_for(flow, samples.held_out_labels, len(samples.held_out))
    x = to_device_of(dequantizer.dequantize(samples.held_out[:256], 0, flow.dtype)[0], flow.flat.value)
    if samples.bins:
        print_facts(held_out_bits_per_dim=f"{loss:.3f}", uniform_model=f"{simple:.3f}")
    else:
        print_facts(held_out_nats=f"{loss:.3f}", **(
            {} if np.isnan(simple) else {"gaussian_nats": f"{simple:.3f}"}))
    print_facts(round_trip_error=f"{invertibility(flow, x).round_trip:.1e}")
    if labels is not None:
        likeliest = to_host(flow.log_prob_given_class(x).argmax(axis=1))
        print_facts(accuracy_by_bayes=f"{np.mean(likeliest == labels[:256]):.3f}")


def explosion_of(flow: Flow, config: RunConfig | None) -> Explosion:
    """How far samples lie from the data that a flow was trained on.

    Where a table's data lie is in the run's configuration. Without one, the data are replaced by other
    samples, without the outermost hundredth of each column.
    """
    if config is not None and config.is_table:
        center, radius = np.array(config.data.center), np.array(config.data.radius)
    elif flow.config is not None and len(flow.config.shape) == 3:
        center, radius = np.array(0.0), np.array(0.5)
    else:
        drawn = to_host(flow.sample(1000, rng=1, on_bad="drop"))
        center = np.median(drawn, axis=0)
        radius = np.percentile(np.abs(drawn - center), 99, axis=0)
    return explosion(flow, center, radius, sample_count(flow, FINAL_VALUES))


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
