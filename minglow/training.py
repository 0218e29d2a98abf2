"""What `minglow train` does. Floor 4."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from minglow import blas, checkpoint, data, kernels, metrics, runs
from minglow.archive import sweep
from minglow.commands import data_for, load_data, placed, reading, report_quality, say
from minglow.dequantizers import Dequantizer
from minglow.device import select
from minglow.flow import Flow
from minglow.ranks import ALONE, Agreed, Ranks, check_parts, world
from minglow.recipes import BELONGS, DEFAULTS, OPTIMIZERS, build, build_dequantizer, training
from minglow.saved import load_dequantizer, load_flow, restored
from minglow.signals import asked_to_stop
from minglow.state import steps_done
from minglow.text import one_line
from minglow.train import Diverged, Interrupted, train


def run_train(args: argparse.Namespace) -> None:
    """Train a flow and write runs/<name>/, or go on with a run that was interrupted.

    `mpiexec -n N minglow train` shares each batch among N processes, of which the first one writes.
    """
    ranks = world()
    try:
        share_machine(args, ranks)
        run = ranks.agree(lambda: prepared(args, ranks))
        folder = ranks.first(lambda: run.last.path.parent if run.last else runs.new_folder(
            args.runs, args.name, Path(args.data).stem))
        if ranks.rank:
            learn(run, ranks)
        else:
            lead(folder, run, ranks)
    except (Agreed, Diverged, Interrupted):
        raise  # in every process, and said by the first
    except BaseException as error:
        if ranks.size > 1:
            print(f"minglow train: error in process {ranks.rank} of {ranks.size}: "
                  f"{one_line(error) or type(error).__name__}", file=sys.__stderr__, flush=True)
            ranks.abort()
            raise SystemExit(1) from error  # it has been said
        raise


class Run(NamedTuple):
    """All that a run starts from, or goes on from."""

    flow: Flow
    dequantizer: Dequantizer
    images: data.Images
    recipe: dict[str, Any]
    last: checkpoint.Checkpoint | None


def prepared(args: argparse.Namespace, ranks: Ranks = ALONE) -> Run:
    """What the command line asks for, checked: a model that can't be has no folder."""
    if args.resume:
        others = sorted(said(args) - {"resume", "backend", "threads", "data"})
        if others:
            raise ValueError(f"expected no other option of training beside --resume, got {others[0]}: "
                             "the run keeps those that it began with")
        last = checkpoint.read(last_of(args.resume))
        recipe, flow = last.recipe, restored(last)
        images = data_for(recipe, args if "data" in said(args) else None)
    else:
        last = None
        check_options(args)
        images = load_data(args.data, **reading(args))
        recipe = recipe_of(args, images)
        flow = build(recipe)
    how = training(recipe)
    check_parts(how["batch"], ranks.size, how["accumulate"])
    return Run(placed(flow), placed(build_dequantizer(recipe)), images, recipe, last)


def share_machine(args: argparse.Namespace, ranks: Ranks) -> None:
    """Give each process its part of its machine's cores, and one of its GPUs."""
    number, count = ranks.neighbours()
    if count > 1 and not args.threads and not any(map(os.environ.get, blas.VARIABLES)):
        blas.threads(max(1, blas.cores() // count))
    if ranks.size > 1 and kernels.current() == "cupy":
        select(number)


def learn(run: Run, ranks: Ranks = ALONE, **options: Any) -> None:
    """Train from the start, or from where the last checkpoint was written, to the end."""
    said = training(run.recipe)
    optimizer = OPTIMIZERS[said.pop("optimizer")]
    with asked_to_stop() as stop:
        train(run.flow, run.images, dequantizer=run.dequantizer, optimizer=optimizer, resume=run.last,
              stop=stop, ranks=ranks, **said, **options)


def lead(folder: Path, run: Run, ranks: Ranks = ALONE) -> None:
    """Train, and write what there is to write."""
    flow, images, recipe = run.flow, run.images, run.recipe
    sweep(folder)
    steps, done = training(recipe)["steps"], steps_done(run.last) if run.last else 0
    say(run=folder, parameters=flow.flat.value.size, images=len(images.train), backend=kernels.current(),
        **({"processes": ranks.size} if ranks.size > 1 else {}),
        **({"resumed": f"after step {done} of {steps}"} if run.last else {}))
    with metrics.Recorder(folder, steps, done=done) as recorder:
        keeper = runs.Keeper(folder, flow, run.dequantizer, recipe, recorder, images.held_out[:16])
        try:
            learn(run, ranks, report=recorder, keep=keeper)
        except Interrupted:
            print(f"minglow train --resume {folder}  # goes on", file=sys.stderr)
            raise
    flow = placed(load_flow(folder)[0])
    runs.pictures(folder, flow, images, recorder.curve, recipe["seed"])
    report_quality(flow, images, placed(load_dequantizer(folder, recipe)))
    say(pictures=", ".join(sorted(str(path) for path in folder.glob("*.png"))))


def last_of(run: Path) -> Path:
    """Where a run's training stands: the file in its folder, or the file itself that was named.

    Raises CheckpointError for a run that ended before it saved anything.
    """
    if run.name == runs.LAST:
        return run
    last = run / runs.LAST
    if run.is_dir() and not last.exists():
        raise checkpoint.CheckpointError(f"{last}: no such file, the run ended before it saved anything")
    return last


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
            "optimizer": args.optimizer, "seed": args.seed, "evaluate_every": args.evaluate_every,
            "accumulate": args.accumulate}
