"""What `minglow train` does. Floor 4."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from minglow import blas, checkpoint, data, kernels, metrics, runs
from minglow.archive import sweep
from minglow.commands import data_for, load_data, placed, reading, report_quality, say
from minglow.data.augment import check_shift
from minglow.dequantizers import Dequantizer
from minglow.device import select
from minglow.flow import Flow
from minglow.options import check_options, recipe_of
from minglow.ranks import ALONE, Agreed, Ranks, check_parts, world
from minglow.recipes import OPTIMIZERS, build, build_dequantizer, check_memory, training
from minglow.saved import load_dequantizer, load_flow, restored
from minglow.signals import asked_to_stop
from minglow.state import steps_done
from minglow.text import Unheard, one_line, tell
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
            with runs.held(folder), told_how_to_go_on(folder, args), \
                    redirect_stdout(Unheard(sys.stdout)):
                sweep(folder)
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


@contextmanager
def told_how_to_go_on(folder: Path, args: argparse.Namespace) -> Iterator[None]:
    """Where the block is stopped, and training itself has not failed, say what goes on from there."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt, OSError, MemoryError):
        if (folder / runs.LAST).exists():
            beside = {"backend", "threads", "data"} if args.resume else {"backend", "threads"}
            words = ["minglow", "train", "--resume", str(folder)]
            for key in sorted(beside & args.said):
                words += [f"--{key}", str(getattr(args, key))]
            tell(f"{one_line(shlex.join(words))}  # goes on")
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
        others = sorted(args.said - {"resume", "backend", "threads", "data"})
        if others:
            raise ValueError(f"expected no other option of training beside --resume, got {others[0]}: "
                             "the run keeps those that it began with")
        last = checkpoint.read(last_of(args.resume))
        if last.facts.get("best") != float("inf"):
            checkpoint.read(last.path.with_name(runs.CHECKPOINT))  # the best so far is there, and whole
        recipe, flow = last.recipe, restored(last)
        check_memory(recipe)
        images = data_for(recipe, args if "data" in args.said else None)
    else:
        last = None
        check_options(args)
        images = load_data(args.data, **reading(args))
        recipe = recipe_of(args, images)
        check_memory(recipe)
        flow = build(recipe)
    how = training(recipe)
    check_shift(how["shift"], images.train.shape[1:])
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
    steps, done = training(recipe)["steps"], steps_done(run.last) if run.last else 0
    say(run=folder, parameters=flow.flat.value.size, images=len(images.train), backend=kernels.current(),
        **({"processes": ranks.size} if ranks.size > 1 else {}),
        **({"resumed": f"after step {done} of {steps}"} if run.last else {}))
    with metrics.Recorder(folder, steps, done=done) as recorder:
        keeper = runs.Keeper(folder, flow, run.dequantizer, recipe, recorder, images.held_out[:16])
        learn(run, ranks, report=recorder, keep=keeper)
    flow = placed(load_flow(folder)[0])
    runs.pictures(folder, flow, images, recorder.curve, recipe["seed"])
    report_quality(flow, images, placed(load_dequantizer(folder, recipe)))
    say(pictures=", ".join(sorted(str(path) for path in folder.glob("*.png"))))


def last_of(run: Path) -> Path:
    """Where a run's training stands: the file in its folder, or the file itself that was named.

    Raises ValueError for another file, and for a run that ended before it saved anything.
    """
    if run.name == runs.LAST:
        return run
    if run.is_file():
        raise ValueError(f"expected a run's folder to go on with, or its {runs.LAST}, got {run}")
    last = run / runs.LAST
    if run.is_dir() and not last.exists():
        raise checkpoint.CheckpointError(f"{last}: no such file, the run ended before it saved anything")
    return last
