"""What a run was built by, in words that a checkpoint keeps, and back again. Floor 4.

The one place that turns words into classes.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

import minglow
from minglow import dequantizers, distributions, layers, memory, nets, optim
from minglow.dequantizers import Dequantizer
from minglow.flow import Flow
from minglow.words import AMOUNT, SHAPE, TEXT, TRUTH, check, one_of, optional, smallest_size, whole

PERMUTATIONS = {"1x1": layers.InvConv1x1, "lu": layers.InvConv1x1LU,
                "shuffle": layers.Shuffle, "reverse": layers.Reverse}
COUPLINGS = {"affine": layers.AffineCoupling, "additive": layers.AdditiveCoupling,
             "affine-exp": partial(layers.AffineCoupling, scale=layers.exp_scale)}
NETS = {"residual": nets.res_net, "plain": nets.conv_net}
BASES: dict[str, Any] = {"logistic": distributions.StandardLogistic,
                         "normal": distributions.StandardNormal}
DEQUANTIZERS = {"uniform": dequantizers.UniformDequantizer, "none": dequantizers.NoDequantizer}
OPTIMIZERS = {"adam": optim.Adam, "adamax": optim.Adamax, "published-adamax": optim.PublishedAdamax}

# What each model takes where nothing was said: K (couplings of NICE), L, width, learning rate.
DEFAULTS = {
    "glow": {"steps": 12, "levels": 2, "hidden": 32, "rate": 0.01},
    "published": {"steps": 12, "levels": 2, "hidden": 32, "rate": 0.003},
    "realnvp": {"steps": 1, "levels": 2, "hidden": 32, "rate": 0.01},
    "nice": {"steps": 4, "levels": 1, "hidden": 256, "rate": 0.002},
}
GLOWS = "glow", "published"
BELONGS = {  # which models have an option, or the word of a recipe that it sets
    "permutation": GLOWS, "coupling": GLOWS, "no_learned_prior": ("glow",), "learned_top": GLOWS,
    "conditional": GLOWS, "classification": GLOWS, "logit": ("glow", "realnvp"), "net": ("realnvp",),
    "base": ("nice",), "reversible": (*GLOWS, "realnvp"), "classes": GLOWS, "learned_prior": ("glow",),
}
# What recipes said nothing of before these could be chosen.
ONCE: dict[str, Any] = {"net": "residual", "base": "logistic", "learned_prior": True,
                        "learned_top": False, "classes": 0, "logit": 0.0, "dequantize": "uniform"}


def checked(recipe: Any) -> dict[str, Any]:
    """The recipe, with what it does not say. Raises ValueError unless a flow can be built from it."""
    full = ONCE | recipe if isinstance(recipe, dict) else recipe
    check(full, KINDS, "a recipe")
    check(full.get("reading", dict.fromkeys(READING)), READING, "a recipe's reading")
    return full


def check_memory(recipe: dict[str, Any]) -> None:
    """Raise ValueError for a flow whose training this machine's memory cannot hold.

    By a bound from below: five numbers for each parameter, Python's own for each step, and one in
    float32 for each pixel of a batch.
    """
    how, recipe = training(recipe), checked(recipe)
    size = np.dtype(recipe["dtype"]).itemsize
    needed = max(5 * size * smallest_size(recipe), 10_000 * recipe["steps"],
                 4 * prod(recipe["shape"]) * how["batch"])
    if needed > memory.installed():
        raise ValueError(f"expected training that {memory.installed() / 1e9:.0f} GB of memory hold, "
                         f"got one that takes {needed / 1e9:.3g} GB at least: a smaller model or batch?")


def training(recipe: dict[str, Any]) -> dict[str, Any]:
    """How a recipe says that its flow is trained. Raises ValueError unless it does."""
    said: Any = recipe.get("training")
    said = {"accumulate": 1} | said if isinstance(said, dict) else said  # older recipes do not say
    check(said, TRAINING, "a recipe's training")
    return {key: said[key] for key in TRAINING}


def build(recipe: dict[str, Any]) -> Flow:
    """The flow that a recipe describes, at its random start."""
    return MODELS[recipe["model"]](ONCE | recipe)


def build_dequantizer(recipe: dict[str, Any]) -> Dequantizer:
    """The dequantizer that a recipe describes, at its random start."""
    recipe = ONCE | recipe
    levels = recipe["grey_levels"]
    if recipe["dequantize"] != "variational":
        return DEQUANTIZERS[recipe["dequantize"]](levels)
    return dequantizers.VariationalDequantizer(
        tuple(recipe["shape"]), levels, recipe["hidden"], rng=recipe["seed"], dtype=_dtype(recipe))


def _glow(recipe: dict[str, Any]) -> Flow:
    return minglow.glow(
        tuple(recipe["shape"]), recipe["levels"], recipe["steps"], recipe["hidden"],
        permutation=PERMUTATIONS[recipe["permutation"]], coupling=COUPLINGS[recipe["coupling"]],
        learned_prior=recipe["learned_prior"], learned_top=recipe["learned_top"],
        classes=recipe["classes"], logit=recipe["logit"], reversible=recipe["reversible"],
        dtype=_dtype(recipe), rng=recipe["seed"],
    )


def _published(recipe: dict[str, Any]) -> Flow:
    return minglow.published_glow(
        tuple(recipe["shape"]), recipe["levels"], recipe["steps"], recipe["hidden"],
        permutation=PERMUTATIONS[recipe["permutation"]], additive=recipe["coupling"] == "additive",
        learned_top=recipe["learned_top"], classes=recipe["classes"], reversible=recipe["reversible"],
        dtype=_dtype(recipe), rng=recipe["seed"],
    )


def _realnvp(recipe: dict[str, Any]) -> Flow:
    return minglow.realnvp(
        tuple(recipe["shape"]), recipe["levels"], recipe["hidden"], net=NETS[recipe["net"]],
        logit=recipe["logit"], reversible=recipe["reversible"], dtype=_dtype(recipe), rng=recipe["seed"],
    )


def _nice(recipe: dict[str, Any]) -> Flow:
    return minglow.nice(tuple(recipe["shape"]), recipe["steps"], recipe["hidden"],
                        base=BASES[recipe["base"]], dtype=_dtype(recipe), rng=recipe["seed"])


def _dtype(recipe: dict[str, Any]) -> type:
    return np.dtype(recipe["dtype"]).type


MODELS = {"glow": _glow, "published": _published, "realnvp": _realnvp, "nice": _nice}

KINDS = {
    "model": one_of(MODELS), "shape": SHAPE, "levels": whole(1, 16), "steps": whole(1),
    "hidden": whole(1), "permutation": one_of(PERMUTATIONS), "coupling": one_of(COUPLINGS),
    "net": one_of(NETS), "base": one_of(BASES), "learned_prior": TRUTH, "learned_top": TRUTH,
    "classes": whole(0), "logit": AMOUNT, "dequantize": one_of([*DEQUANTIZERS, "variational"]),
    "reversible": TRUTH, "dtype": one_of(("float32", "float64")), "seed": whole(0), "data": TEXT,
    "grey_levels": whole(2, 256),
}
READING = {"grey_levels": optional(whole(2, 256)), "bits": optional(whole(1, 8)),
           "size": optional(whole(1)), "grey": optional(TRUTH)}
TRAINING = {
    "steps": whole(1), "batch": whole(1), "rate": AMOUNT, "decay": AMOUNT, "shift": AMOUNT,
    "whole": TRUTH, "flip": TRUTH, "classification": AMOUNT, "optimizer": one_of(OPTIMIZERS),
    "seed": whole(0), "evaluate_every": whole(1), "accumulate": whole(1),
}
