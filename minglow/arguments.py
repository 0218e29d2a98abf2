"""What arguments have to be: a wrong one gets a line that says what was expected. Floor 1.

`what` is an argument's name, or a few words for it. All raise ValueError.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf
from reprlib import repr as shortened
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def count(what: str, value: Any, least: int = 1) -> int:
    """A whole number, of Python or NumPy, not below the least."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"expected {what} to be a whole number of at least {least}, "
                         f"got {shortened(value)}")
    return int(value)


def amount(what: str, value: Any, least: float = 0.0, below: float = inf) -> float:
    """A number from the least to below another."""
    kinds = int, float, np.integer, np.floating
    if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value < below:
        end = "" if below == inf else f" to below {below:g}"
        raise ValueError(f"expected {what} to be a number from {least:g}{end}, got {shortened(value)}")
    return float(value)


def shape(value: Any, what: str = "shape") -> tuple[int, ...]:
    """A tuple or list of whole numbers of at least 1."""
    if not isinstance(value, (tuple, list)) or not value or not all(
            isinstance(size, (int, np.integer)) and size >= 1 for size in value):
        raise ValueError(f"expected {what} to be a tuple of whole numbers of at least 1, "
                         f"got {shortened(value)}")
    return tuple(map(int, value))


def array(what: str, value: Any) -> Any:
    """An array, of NumPy or of a library like it."""
    if not hasattr(value, "ndim") or not hasattr(value, "dtype"):
        raise ValueError(f"expected {what} to be an array, got {shortened(value)}")
    return value


def instance(what: str, value: Any, kind: type[T]) -> T:
    """An instance of a class."""
    if not isinstance(value, kind):
        got = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise ValueError(f"expected {what} to be a {kind.__name__}, got {got}")
    return value


def maker(what: str, value: Any) -> Callable[..., Any]:
    """A class or a function that makes something."""
    if not callable(value):
        raise ValueError(f"expected {what} to be a class or a function, got {shortened(value)}")
    return value


def path(value: Any) -> Any:
    """The path of a file: text, or a pathlib.Path."""
    if not isinstance(value, (str, os.PathLike)) or "\0" in str(value) or value == "":
        raise ValueError(f"expected a path, got {shortened(value)}")
    return value
