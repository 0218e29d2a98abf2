"""The command `minglow train`."""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from minglow import data, kernels
from minglow.arrays import threads
from minglow.arrays.device import select
from minglow.cli.commands import data_for, print_facts, report_quality, to_backend
from minglow.cli.parser import check_model_options, flag_of
from minglow.cli.signals import catch_signals
from minglow.cli.terminal import IgnoreClosedPipe, print_error
from minglow.data.table import column_name
from minglow.dequantization import Dequantizer
from minglow.flow import Flow
from minglow.runs import figures, metrics
from minglow.runs import folder as run_folder
from minglow.runs.config import DataConfig, RunConfig
from minglow.runs.loading import build, load_run, run_config
from minglow.storage import checkpoint
from minglow.storage.archive import sweep
from minglow.storage.settings import pick
from minglow.training import Diverged, Interrupted, train
from minglow.training.distributed import ProcessError, ProcessGroup, world
from minglow.training.loop import checked_config, checked_data
from minglow.training.monitor import Monitor
from minglow.training.state import completed_steps
from minglow.validation import single_line

WITH_RESUME = {"resume", "data", "backend", "threads"}  # options that a resumed run can be given
NOT_OPTIONS = {"command", "run", "parser"}


class Job(NamedTuple):
    """Everything that training starts from, or resumes from."""

    flow: Flow
    dequantizer: Dequantizer
    data: data.Images | data.Table
    config: RunConfig
    last: checkpoint.Checkpoint | None


def run_train(args: argparse.Namespace) -> None:
    """Train a flow and write runs/<name>/, or resume an interrupted run.

    `mpiexec -n N minglow train` shares each batch among N processes, of which the first one writes.
    """
    processes = world()
    try:
        divide_machine(args, processes)
        job = processes.agree(lambda: prepare(args, processes))
        folder = processes.first(lambda: job.last.path.parent if job.last else
                                 run_folder.create_run_folder(
                                     getattr(args, "runs", "runs"), getattr(args, "name", None),
                                     Path(job.config.data.data).stem))
        if processes.rank:
            train_job(job, processes)
        else:
            with run_folder.lock_folder(folder), print_resume_command(folder, args), \
                    redirect_stdout(IgnoreClosedPipe(sys.stdout)):
                sweep(folder)
                train_and_report(folder, job, processes)
    except (ProcessError, Diverged, Interrupted):
        raise  # in every process; the first one prints it
    except BaseException as error:
        if processes.size > 1:
            print(f"minglow train: error in process {processes.rank} of {processes.size}: "
                  f"{single_line(error) or type(error).__name__}", file=sys.__stderr__, flush=True)
            processes.abort()
            raise SystemExit(1) from error
        raise


@contextmanager
def print_resume_command(folder: Path, args: argparse.Namespace) -> Iterator[None]:
    """If the block is stopped, but training itself has not failed, print the command that resumes it."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt, OSError, MemoryError):
        if (folder / run_folder.LAST).exists():
            command = ["minglow", "train", "--resume", str(folder)]
            for key in sorted(WITH_RESUME - {"resume"} - ({"data"} if "resume" not in args else set())):
                command += [flag_of(key), str(getattr(args, key))] if key in args else []
            print_error(f"{single_line(shlex.join(command))}  # resumes the run")
        raise


def prepare(args: argparse.Namespace, processes: ProcessGroup) -> Job:
    """What the command line asks for, checked before a folder is made."""
    given = {key: value for key, value in vars(args).items() if key not in NOT_OPTIONS}
    if "resume" in given:
        others = sorted(given.keys() - WITH_RESUME)
        if others:
            raise ValueError(f"{flag_of(others[0])} cannot be combined with --resume: the run keeps the "
                             "options that it was started with")
        last = checkpoint.read(last_of(args.resume))
        if last.facts.get("best") != float("inf"):
            checkpoint.read(last.path.with_name(run_folder.CHECKPOINT))  # the best model is intact
        config = run_config(last)
        config.check_memory()
        flow, samples = build(last), data_for(config, args)
    else:
        last, model = None, given.pop("model", "glow")
        check_model_options(given, model)
        reading = DataConfig(**pick(given, DataConfig))
        samples = reading.load()
        config = RunConfig.for_data(given, model, reading, samples)
        check_classes(config, samples, reading.data)
        config.check_memory()
        flow = config.model.build(config.training.seed)
    checked_config(flow, checked_data(flow, samples), processes, vars(config.training))
    return Job(to_backend(flow), to_backend(config.build_dequantizer()), samples, config, last)


def check_classes(config: RunConfig, samples: data.Images | data.Table, name: str) -> None:
    """Raise ValueError unless the labels are those of the model's classes."""
    classes = getattr(config.model, "classes", 0)
    if config.training.classification_weight and not classes:
        raise ValueError("--classification-weight needs --classes")
    if not classes:
        return
    if samples.train_labels is None:
        raise ValueError(f"expected labels for --classes, got none in {name}")
    if (largest := int(samples.train_labels.max())) >= classes:
        raise ValueError(f"expected --classes {largest + 1} for labels 0 to {largest}, got {classes}")


def divide_machine(args: argparse.Namespace, processes: ProcessGroup) -> None:
    """Give each process its part of its machine's cores, and one of its GPUs."""
    number, count = processes.local_rank()
    if count > 1 and "threads" not in args and not any(map(os.environ.get, threads.VARIABLES)):
        threads.threads(max(1, threads.cores() // count))
    if processes.size > 1 and kernels.current_backend() == "cupy":
        select(number)


def train_job(job: Job, processes: ProcessGroup, **callbacks: Any) -> None:
    """Train from the initialization, or from the last checkpoint, to the end."""
    with catch_signals() as should_stop:
        train(job.flow, job.data, dequantizer=job.dequantizer, resume=job.last,
              should_stop=should_stop, processes=processes, **vars(job.config.training), **callbacks)


def train_and_report(folder: Path, job: Job, processes: ProcessGroup) -> None:
    """Train, and write the run's files."""
    flow, samples, config = job.flow, job.data, job.config
    kind, unit = ("rows", "nats") if config.is_table else ("images", "bits_per_dim")
    steps, done = config.training.steps, completed_steps(job.last) if job.last else 0
    print_facts(run=folder, parameters=flow.flat.value.size, **{kind: len(samples.train)},
                backend=kernels.current_backend(),
                **({"processes": processes.size} if processes.size > 1 else {}),
                **({"resumed": f"after step {done} of {steps}"} if job.last else {}))
    if isinstance(samples, data.Table) and (rounded := rounded_columns(samples)):
        print_facts(note=f"{', '.join(rounded)}: rounded values, whose likelihood has no bound; "
                         "--dither spreads them, and makes losses comparable")
    found: list[str] = []
    with metrics.Recorder(folder, steps, IgnoreClosedPipe(sys.stderr), done, unit) as recorder:
        checkpointer = run_folder.Checkpointer(folder, flow, job.dequantizer, config.to_json(), recorder,
                                               Monitor(flow, samples, job.dequantizer))
        train_job(job, processes, on_step=recorder, on_evaluation=checkpointer, on_warning=found.append)
    best = load_run(folder)
    flow = to_backend(best.flow)
    figures.save_pictures(folder, flow, samples, recorder.curve, config.training.seed)
    report_quality(flow, samples, to_backend(best.dequantizer))
    for warning in found:
        print_facts(warning=warning)
    print_facts(pictures=", ".join(sorted(str(path) for path in folder.glob("*.png"))))


def rounded_columns(table: data.Table) -> list[str]:
    """How the columns of a table are called whose values are rounded."""
    steps = data.rounding_steps(table.train)
    return [column_name(table.columns, j) for j in range(len(steps)) if steps[j]]


def last_of(run: Path) -> Path:
    """The last state of a run's training: the file in its folder, or the file itself that was named.

    Raises ValueError for another file, and for a run that ended before it saved anything.
    """
    if run.name == run_folder.LAST:
        return run
    if run.is_file():
        raise ValueError(f"expected a run's folder to resume, or its {run_folder.LAST}, got {run}")
    last = run / run_folder.LAST
    if run.is_dir() and not last.exists():
        raise checkpoint.CheckpointError(f"{last}: no such file, the run ended before it saved anything")
    return last
