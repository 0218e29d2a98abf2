"""The command line: train, sample, evaluate, interpolate, info, export, check. Floor 4.

Whatever goes wrong is one line on stderr and a non-zero exit.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NoReturn

import numpy as np

import minglow
from minglow import kernels
from minglow.check import run_check
from minglow.commands import (
    PACKAGED,
    run_evaluate,
    run_export,
    run_info,
    run_interpolate,
    run_sample,
)
from minglow.options import add_model, add_training, amount, natural, path, positive
from minglow.ranks import Agreed, launched
from minglow.text import lead_nowhere, one_line, tell
from minglow.train import Interrupted
from minglow.training import run_train


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what was wrong and where help is; exit with 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """All that can be said on the command line."""
    top = Parser(prog="minglow", description=minglow.__doc__)
    top.add_argument("--version", action="version", version=f"minglow {minglow.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=run.__doc__, description=run.__doc__, epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.set_defaults(run=run, parser=sub, backend=None, threads=None)
        return sub

    def add_common(sub: argparse.ArgumentParser, seed: str = "") -> None:
        sub.add_argument("--backend", choices=kernels.BACKENDS, help="who runs the hot loops")
        sub.add_argument("--threads", type=positive, help="of the matrix products (all cores)")
        if seed:
            sub.add_argument("--seed", type=natural, default=0, help=f"{seed} (0)")

    sub = command("train", run_train, "minglow train --data photos.npz -L 3 -K 8 --hidden 128")
    add_common(sub, "of the start, the batches and the samples")
    add_data(sub, default="digits")
    add_model(sub)
    add_training(sub)
    sub.add_argument("--runs", default="runs", help="folder of all runs (runs)")
    sub.add_argument("--resume", type=path, metavar="RUN",
                     help="go on with a run that was interrupted, all else being as it was")
    sub.add_argument("--name", help="folder of this run; by default the data's name and a number")

    sub = command("sample", run_sample, "minglow sample runs/digits-1 -n 64 --temperature 0.8")
    add_checkpoint(sub, out=True)
    add_common(sub, "of the samples")
    sub.add_argument("-n", dest="number", type=positive, default=80, help="how many (80)")
    sub.add_argument("--temperature", type=amount, default=0.8, help="of the latents' noise (0.8)")
    sub.add_argument("--label", type=natural, help="of all samples, of a model trained --conditional")

    sub = command("evaluate", run_evaluate, "minglow evaluate runs/digits-1")
    add_checkpoint(sub)
    add_common(sub)
    add_data(sub)

    sub = command("interpolate", run_interpolate, "minglow interpolate runs/digits-1 --pairs 4 --seed 3")
    add_checkpoint(sub, out=True)
    add_common(sub, "of the choice of images")
    add_data(sub)
    sub.add_argument("--pairs", type=positive, default=6, help="lines (6)")
    sub.add_argument("--frames", type=positive, default=9, help="images in a line (9)")

    add_checkpoint(command("info", run_info, "minglow info runs/digits-1"))

    sub = command("export", run_export, "minglow export runs/digits-1 --out digits.safetensors")
    add_checkpoint(sub)
    sub.add_argument("--out", type=path, help="file to write; by default model.safetensors beside it")

    sub = command("check", run_check, "minglow check my_module:MyLayer")
    sub.add_argument("target", help="module:name of a Bijection, or of what makes one")
    sub.add_argument("--seed", type=natural, default=0, help="of the parameters and the batches (0)")
    return top


def add_checkpoint(sub: argparse.ArgumentParser, out: bool = False) -> None:
    """Which model; and where a result goes."""
    sub.add_argument("checkpoint", type=path,
                     help="a run's folder, its model.npz, or a .safetensors file")
    if out:
        sub.add_argument("--out", type=path, help="file to write; by default a .png beside the model")


def add_data(sub: argparse.ArgumentParser, default: str | None = None) -> None:
    """Which images, and how many values a pixel can take."""
    sub.add_argument("--data", default=default,
                     help=f"{', '.join(PACKAGED)}, or the path of images: .npz or .npy of uint8 "
                          "(N, h, w[, C]), IDX (MNIST), CIFAR-10's .bin, or a folder of these or of "
                          ".png and .jpg"
                          + ("" if default else "; by default what the model was trained on"))
    sub.add_argument("--grey-levels", type=positive,
                     help="values that a pixel of a file can take (256)")
    sub.add_argument("--bits", type=positive, help="keep so many bits of 8")
    sub.add_argument("--size", type=positive,
                     help="scale and crop the pictures of a folder to this size")
    sub.add_argument("--grey", action="store_true", default=None,
                     help="read the pictures of a folder as grey")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status.

    Of the processes of an mpiexec the first one speaks for all. A stream that was closed is silent.
    """
    with open(os.devnull, "w", encoding="utf-8") as nowhere, \
            redirect_stdout(nowhere if launched() or sys.stdout is None else sys.stdout), \
            redirect_stderr(nowhere if launched() or sys.stderr is None else sys.stderr):
        return run(argv)


def said(args: argparse.Namespace, argv: Sequence[str] | None) -> set[str]:
    """The options that a command line sets, be it to their defaults."""
    args.parser.set_defaults(**dict.fromkeys(vars(args)))
    words = list(sys.argv[1:] if argv is None else argv)
    set_to = vars(args.parser.parse_args(words[words.index(args.command) + 1:]))
    return {key for key, value in set_to.items() if value is not None}


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command, with whatever can go wrong told in one line; return the exit status."""
    args, unknown = parser().parse_known_args(argv)
    if unknown:  # said by the command, whose help would have told: parse_args sends to another one
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    args.said = said(args, argv)
    try:
        if args.backend:
            minglow.use(args.backend)
        if args.threads:
            minglow.threads(args.threads)
        with np.errstate(all="ignore"):  # Flow looks for NaN and inf, and says where they came from
            return args.run(args) or 0
    except BrokenPipeError:  # whoever read has seen enough, as `head` does
        lead_nowhere(sys.stdout)
        return 128 + 13
    except (Agreed, ValueError, ArithmeticError, OSError, ImportError, MemoryError) as error:
        tell(f"minglow {args.command}: error: {one_line(error)}")
        return 1
    except Interrupted as interruption:
        tell(f"minglow {args.command}: {interruption}")
        return 128 + interruption.signal
    except KeyboardInterrupt:
        tell(f"minglow {args.command}: interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
