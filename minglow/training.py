"""What `minglow train` does. Floor 4."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from minglow import checkpoint, data, kernels, metrics, runs
from minglow.archive import sweep
from minglow.commands import data_for, load_data, reading, report_quality, say
from minglow.flow import Flow
from minglow.recipes import BELONGS, DEFAULTS, OPTIMIZERS, build, build_dequantizer, training
from minglow.saved import load_dequantizer, load_flow, restored
from minglow.signals import asked_to_stop
from minglow.state import steps_done
from minglow.train import Interrupted, train


def run_train(args: argparse.Namespace) -> None:
    """Train a flow and write runs/<name>/, or go on with a run that was interrupted."""
    if args.resume:
        others = sorted(said(args) - {"resume", "backend", "threads", "data"})
        if others:
            raise ValueError(f"expected no other option of training beside --resume, got {others[0]}: "
                             "the run keeps those that it began with")
        last = checkpoint.read(args.resume / runs.LAST)
        flow = restored(last)
        images = data_for(last.recipe, args if "data" in said(args) else None)
        learn(args.resume, flow, last.recipe, images, last)
        return
    check_options(args)
    images = load_data(args.data, **reading(args))
    recipe = recipe_of(args, images)
    flow = build(recipe)  # a model that can't be has no folder
    learn(runs.new_folder(args.runs, args.name, Path(args.data).stem), flow, recipe, images)


def learn(folder: Path, flow: Flow, recipe: dict[str, Any], images: data.Images,
          last: checkpoint.Checkpoint | None = None) -> None:
    """Train from the start, or from where the last checkpoint was written, to the end."""
    dequantizer, options = build_dequantizer(recipe), training(recipe)
    sweep(folder)
    done = steps_done(last) if last else 0
    say(run=folder, parameters=flow.flat.value.size, images=len(images.train), backend=kernels.current())
    with metrics.Recorder(folder, options["steps"], done=done) as recorder, asked_to_stop() as stop:
        keeper = runs.Keeper(folder, flow, dequantizer, recipe, recorder, images.held_out[:16])
        optimizer = OPTIMIZERS[options.pop("optimizer")]
        try:
            train(flow, images, dequantizer=dequantizer, optimizer=optimizer, resume=last,
                  report=recorder, keep=keeper, stop=stop, **options)
        except Interrupted:
            print(f"minglow train --resume {folder}  # goes on", file=sys.stderr)
            raise
    flow, _ = load_flow(folder)
    runs.pictures(folder, flow, images, recorder.curve, recipe["seed"])
    report_quality(flow, images, load_dequantizer(folder, recipe))
    say(pictures=", ".join(sorted(str(path) for path in folder.glob("*.png"))))


def said(args: argparse.Namespace) -> set[str]:
    """The options that the command line set to something else than their defaults."""
    return {key for key, value in vars(args.unsaid).items() if getattr(args, key) != value}


def check_options(args: argparse.Namespace) -> None:
    """Raise ValueError for an option that its model does not have."""
    for key in sorted(said(args) & BELONGS.keys()):
        if args.model not in BELONGS[key]:
            models = " or ".join(BELONGS[key])
            raise ValueError(f"expected --{key.replace('_', '-')} with --model {models}, "
                             f"got --model {args.model}")
    if args.classification and not args.conditional:
        raise ValueError("expected --classification with --conditional, got it alone")


def recipe_of(args: argparse.Namespace, images: data.Images) -> dict[str, Any]:
    """All that a flow is built from, as JSON can say it."""
    defaults = DEFAULTS[args.model]
    classes = 0
    if args.conditional:
        if images.train_labels is None:
            raise ValueError(f"expected labelled images for --conditional, got none in {args.data}")
        classes = int(images.train_labels.max()) + 1
    read_as = 256 if args.bits else images.levels  # before bits are taken away
    return {
        "model": args.model, "shape": list(images.train.shape[1:]),
        "levels": args.levels or defaults["levels"], "steps": args.flow_steps or defaults["steps"],
        "hidden": args.hidden or defaults["hidden"], "permutation": args.permutation,
        "coupling": args.coupling, "net": args.net, "base": args.base,
        "learned_prior": not args.no_learned_prior, "learned_top": args.learned_top,
        "classes": classes, "logit": args.logit, "dequantize": args.dequantize,
        "reversible": args.reversible, "dtype": args.dtype, "seed": args.seed, "data": args.data,
        "grey_levels": images.levels, "reading": reading(args) | {"grey_levels": read_as},
        "training": training_of(args),
    }


def training_of(args: argparse.Namespace) -> dict[str, Any]:
    """How it is trained: the arguments of `train`, as JSON can say them."""
    shift = float(args.data == "digits") if args.shift is None else args.shift
    rate = DEFAULTS[args.model]["rate"] if args.rate is None else args.rate
    return {"steps": args.steps, "batch": args.batch, "rate": rate, "decay": args.decay, "shift": shift,
            "whole": args.whole, "flip": args.flip, "classification": args.classification,
            "optimizer": args.optimizer, "seed": args.seed, "evaluate_every": args.evaluate_every}
