"""Options of models and training: their kinds of numbers, and the recipe that they make. Floor 4."""

from __future__ import annotations

import argparse
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from minglow import arguments, data
from minglow.commands import reading
from minglow.recipes import (
    BASES,
    BELONGS,
    COUPLINGS,
    DEFAULTS,
    DEQUANTIZERS,
    MODELS,
    NETS,
    OPTIMIZERS,
    PERMUTATIONS,
)


def add_model(sub: argparse.ArgumentParser) -> None:
    """Which flow, and what it is made of."""
    def defaults(key: str) -> str:
        return ", ".join(f"{model} {values[key]}" for model, values in DEFAULTS.items())

    sub.add_argument("--model", choices=MODELS, default="glow",
                     help="'published' is Glow as its published code computes it (glow)")
    sub.add_argument("-K", dest="flow_steps", type=positive,
                     help=f"flow steps a level, or NICE's couplings ({defaults('steps')})")
    sub.add_argument("-L", dest="levels", type=positive, help=f"levels ({defaults('levels')})")
    sub.add_argument("--hidden", type=positive, help=f"width of the conditioners ({defaults('hidden')})")
    sub.add_argument("--permutation", choices=PERMUTATIONS, default="1x1",
                     help="what mixes the channels of a flow step of Glow (1x1)")
    sub.add_argument("--coupling", choices=COUPLINGS, default="affine",
                     help="of Glow: affine scales by a sigmoid, affine-exp by exp as the paper writes "
                          "(affine)")
    sub.add_argument("--net", choices=NETS, default="residual", help="RealNVP's conditioner (residual)")
    sub.add_argument("--base", choices=BASES, default="logistic", help="NICE's base (logistic)")
    sub.add_argument("--no-learned-prior", action="store_true",
                     help="Glow's latents that leave early are N(0, I)")
    sub.add_argument("--learned-top", action="store_true",
                     help="Glow's latents of the last level have a learned mean and scale")
    sub.add_argument("--conditional", action="store_true",
                     help="Glow's latents of the last level have a mean and scale for each label")
    sub.add_argument("--classification", type=amount, default=0.0,
                     help="with --conditional: weight, in nats, of a classifier's cross entropy (0)")
    sub.add_argument("--logit", type=amount, default=0.0, metavar="MARGIN",
                     help="Glow and RealNVP begin with a logit: 0.05 in RealNVP's paper, 0.0005 is good "
                          "for scanned handwriting; 0 for none (0)")
    sub.add_argument("--dequantize", choices=[*DEQUANTIZERS, "variational"], default="uniform",
                     help="the noise that fills the grey levels' cells (uniform)")
    sub.add_argument("--reversible", action="store_true", help="recompute activations: less memory")
    sub.add_argument("--dtype", choices=("float32", "float64"), default="float32",
                     help="precision (float32)")


def add_training(sub: argparse.ArgumentParser) -> None:
    """How it is trained."""
    sub.add_argument("--steps", type=positive, default=2500, help="training steps (2500)")
    sub.add_argument("--batch", type=positive, default=64, help="images in a step (64)")
    sub.add_argument("--accumulate", type=positive, default=1, metavar="PASSES",
                     help="passes for a step, each of a part of its images: less memory (1)")
    sub.add_argument("--rate", type=above_0, help="largest learning rate (glow and realnvp 0.01)")
    sub.add_argument("--evaluate-every", type=positive, default=100, metavar="STEPS",
                     help="steps between evaluations, which save the run, too (100)")
    sub.add_argument("--optimizer", choices=OPTIMIZERS, default="adam",
                     help="Glow's published code has an adamax of its own (adam)")
    sub.add_argument("--decay", type=share, default=0.999,
                     help="of the parameters' average, which is what is evaluated and kept: it looks "
                          "back 1 / (1 - decay) steps; for short runs take 0.99 (0.999)")
    sub.add_argument("--shift", type=amount,
                     help="largest random shift of training images in pixels (the digits 1, others 0)")
    sub.add_argument("--whole", action="store_true", help="shift by whole pixels only: without blur")
    sub.add_argument("--flip", action="store_true", help="mirror half of the training images")


def check_options(args: argparse.Namespace) -> None:
    """Raise ValueError for an option that its model does not have."""
    for key in sorted(args.said & BELONGS.keys()):
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


def path(text: str) -> Path:
    """A path; the empty one, of a variable that was not set, is none."""
    try:
        return Path(arguments.path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """A whole number of at least 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    """A whole number of at most 18 digits: 64 bits hold it."""
    if not text.isdecimal() or len(text) > 18 or int(text) < least:
        end = " of at most 18 digits" if len(text) > 18 else ""
        raise argparse.ArgumentTypeError(
            f"expected a whole number of at least {least}{end}, got {shortened(text)}")
    return int(text)


def above_0(text: str) -> float:
    """A finite number above 0."""
    value = amount(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def share(text: str) -> float:
    """A number from 0 to below 1."""
    value = amount(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, got {text!r}")
    return value


def amount(text: str) -> float:
    """A finite number that is not below 0."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf") or "_" in text:  # Python's 1_000 is nobody else's
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return value
