"""The command line: train, sample, evaluate, interpolate, info, export, check.

Whatever goes wrong is a single line on stderr and a non-zero exit status.
"""

import argparse
import inspect
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from difflib import get_close_matches
from typing import Any

import numpy as np

import minglow
from minglow import kernels
from minglow.cli.check import run_check
from minglow.cli.commands import run_evaluate, run_export, run_info, run_interpolate
from minglow.cli.parser import Parser, add_config, add_model, count, parse, path
from minglow.cli.sample import run_sample
from minglow.cli.terminal import discard_output, print_error
from minglow.cli.train import run_train
from minglow.runs.config import DataConfig, ReadingConfig
from minglow.storage.settings import Option
from minglow.training import Interrupted, TrainingConfig
from minglow.training.distributed import ProcessError, launched
from minglow.validation import single_line


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = Parser(prog="minglow", description=minglow.__doc__)
    top.add_argument("--version", action="version", version=f"minglow {minglow.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(run: Any, example: str, machine: bool = True, out: str = "") -> argparse.ArgumentParser:
        name, text = example.split()[1], inspect.cleandoc(run.__doc__)
        sub = commands.add_parser(
            name, help=text.splitlines()[0], description=text, epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.set_defaults(run=run, parser=sub)
        if name not in ("train", "check"):
            sub.add_argument("checkpoint", type=path,
                             help="a run's folder, its model.npz, or a file that `minglow export` wrote")
        if out:
            sub.add_argument("--out", type=path, help=f"file to write (default: {out} folder)")
        if machine:
            sub.add_argument("--backend", choices=kernels.BACKENDS, default=argparse.SUPPRESS,
                             help="implementation of the hot loops (default: numba)")
            sub.add_argument("--threads", type=count("threads"), default=argparse.SUPPRESS,
                             help="BLAS threads (default: all cores for large flows, 1 for small ones)")
        return sub

    def add_seed(sub: argparse.ArgumentParser, what: str) -> None:
        sub.add_argument("--seed", type=count("seed", 0), default=0, help=f"seed of {what} (default: 0)")

    sub = command(run_train, "minglow train --data photos.npz -L 3 -K 8 --hidden 128")
    add_config(sub.add_argument_group("data"), DataConfig)
    add_model(sub.add_argument_group("model"))
    add_config(sub.add_argument_group("training"), TrainingConfig)
    sub.add_argument("--runs", type=path, default=argparse.SUPPRESS,
                     help="folder of all runs (default: runs)")
    sub.add_argument("--name", default=argparse.SUPPRESS,
                     help="name of this run's folder (default: the data's name and a number)")
    sub.add_argument("--resume", type=path, metavar="RUN", default=argparse.SUPPRESS,
                     help="resume an interrupted run with the options that it was started with")

    sub = command(run_sample, "minglow sample runs/digits-1 -n 64 --temperature 0.8",
                  out="a .png, or the .csv of a table, in the model's")
    add_seed(sub, "the samples")
    sub.add_argument("-n", dest="number", type=count("n"), default=argparse.SUPPRESS,
                     help="number of samples (default: 80 images, 1000 rows of a table)")
    sub.add_argument("--temperature", type=parse("temperature", Option(""), float),
                     default=argparse.SUPPRESS,
                     help="factor of the latents' noise (default: 0.8 for images, 1 for tables)")
    sub.add_argument("--label", type=count("label", 0),
                     help="class of all samples, for a model with --classes")

    sub = command(run_evaluate, "minglow evaluate runs/digits-1")
    add_config(sub, ReadingConfig, defaults=False)

    sub = command(run_interpolate, "minglow interpolate runs/digits-1 --pairs 4 --seed 3",
                  out="a .png in the model's")
    add_config(sub, ReadingConfig, defaults=False)
    add_seed(sub, "the choice of images")
    sub.add_argument("--pairs", type=count("pairs"), default=6, help="number of pairs (default: 6)")
    sub.add_argument("--frames", type=count("frames", 2), default=9,
                     help="images for each pair (default: 9)")

    command(run_info, "minglow info runs/digits-1", machine=False)
    command(run_export, "minglow export runs/digits-1 --out digits.safetensors", machine=False,
            out="model.safetensors in the run's")

    sub = command(run_check, "minglow check my_module:MyLayer", machine=False)
    sub.add_argument("target", help="module:name of a Bijection, or of what builds one")
    add_seed(sub, "the parameters and the batches")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status.

    Among the processes of an mpiexec only the first one prints. A closed stream prints nothing.
    """
    with open(os.devnull, "w", encoding="utf-8") as nowhere, \
            redirect_stdout(nowhere if launched() or sys.stdout is None else sys.stdout), \
            redirect_stderr(nowhere if launched() or sys.stderr is None else sys.stderr):
        return run(argv)


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command and report any error in a single line; return the exit status."""
    args, unknown = parser().parse_known_args(argv)
    if unknown:  # reported by the command, whose help lists its options
        # At 0.85 a slip of the keyboard finds its option, and --count does not find --out.
        close = get_close_matches(unknown[0].split("=")[0], args.parser._option_string_actions, 1, 0.85)
        hint = f", did you mean {close[0]}?" if close else ""
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    try:
        if "backend" in args:
            minglow.use(args.backend)
        if "threads" in args:
            minglow.threads(args.threads)
        with np.errstate(all="ignore"):  # Flow checks for NaN and inf, and reports where they arose
            return args.run(args) or 0
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        discard_output(sys.stdout)
        return 128 + 13
    except (ProcessError, ValueError, ArithmeticError, OSError, ImportError, MemoryError) as error:
        print_error(f"minglow {args.command}: error: {single_line(error)}")
        return 1
    except Interrupted as interruption:
        print_error(f"minglow {args.command}: {interruption}")
        return 128 + interruption.signal
    except KeyboardInterrupt:
        print_error(f"minglow {args.command}: interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
