"""What a recipe may say: one that comes from a stranger is checked before it is followed. Floor 4.

A flow is built before a file's numbers are written into it, and a forged recipe could ask for one that
no memory holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite, prod
from reprlib import repr as shortened
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A kind of value, in words, and how to tell one."""

    words: str
    fits: Callable[[Any], bool]


def whole(first: int, last: int | None = None) -> Kind:
    """A whole number from the first to the last."""
    end = "" if last is None else f" to {last}"
    return Kind(f"a whole number from {first}{end}",
                lambda value: type(value) is int and first <= value and (last is None or value <= last))


def one_of(words: Any) -> Kind:
    """One of these words."""
    return Kind(f"one of {', '.join(map(str, words))}", lambda value: value in list(words))


def optional(kind: Kind) -> Kind:
    """A value of the kind, or none."""
    return Kind(f"{kind.words}, or none", lambda value: value is None or kind.fits(value))


TRUTH = Kind("true or false", lambda value: type(value) is bool)
TEXT = Kind("text", lambda value: type(value) is str)
AMOUNT = Kind("a number of at least 0",
              lambda value: type(value) in (int, float) and isfinite(value) and value >= 0)
SHAPE = Kind("[h, w, C], each at least 1", lambda value: type(value) is list and len(value) == 3
             and all(type(size) is int and size >= 1 for size in value))

def check(words: Any, kinds: Mapping[str, Kind], of: str) -> None:
    """Raise ValueError unless `words` says all of these things, each of its kind."""
    if not isinstance(words, dict):
        raise ValueError(f"expected {of} by name, got {shortened(words)}")
    for key, kind in kinds.items():
        if key not in words or not kind.fits(words[key]):
            got = shortened(words[key]) if key in words else "nothing"
            raise ValueError(f"expected {key} of {of} to be {kind.words}, got {got}")


def smallest_size(recipe: dict[str, Any]) -> int:
    """A number of parameters that every flow of this recipe has at least.

    It counts what grows with the product of two numbers, so that a flow has at most some thirty
    times as many: the largest matrices of each coupling, each 1x1 convolution, and the priors.
    """
    model, steps, levels, hidden = (recipe[key] for key in ("model", "steps", "levels", "hidden"))
    if model == "nice":
        return steps * hidden * (hidden + prod(recipe["shape"]) // 2)
    channels = recipe["shape"][2] * 2 ** (levels - 1)  # a level's conditioners meet as many, at least
    if model == "realnvp":  # four couplings a level or more; a residual net has four 3x3 convolutions
        inside = 36 if recipe["net"] == "residual" else 1
        return 4 * hidden * (levels * inside * hidden + 9 * channels)
    mixed = recipe["permutation"] in ("1x1", "lu")
    priors = recipe["classes"] * channels + (levels > 1) * recipe["learned_prior"] * channels**2
    return steps * hidden * (levels * hidden + 9 * channels) + mixed * steps * channels**2 + priors
