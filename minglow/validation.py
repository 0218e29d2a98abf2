"""Argument validation with single-line error messages.

`name` is the name of an argument, or a few words for it. Checks raise ValueError or return the value.
"""

import os
import sys
import traceback
from contextlib import suppress
from math import inf
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
MAX_COUNT = 2**63 - 1  # what 64 bits hold
MAX_LINE = 1000  # characters
MAX_AXES = 64


def check_count(name: str, value: Any, minimum: int = 1, maximum: int = MAX_COUNT) -> int:
    """A whole number, of Python or NumPy, from the minimum to the maximum."""
    if (not isinstance(value, (int, np.integer)) or isinstance(value, bool)
            or not minimum <= value <= maximum):
        bounds = f"at least {minimum}" if maximum == MAX_COUNT else f"{minimum} to {maximum}"
        raise ValueError(f"expected {name} to be a whole number of {bounds}, got {shortened(value)}")
    return int(value)


def check_number(name: str, value: Any, minimum: float = 0.0, below: float = inf,
                 above: float = -inf) -> float:
    """A finite number from the minimum, and above one bound, to below another."""
    kinds = int, float, np.integer, np.floating
    if (not isinstance(value, kinds) or isinstance(value, bool)
            or not (minimum <= value < below and above < value <= sys.float_info.max)):
        start = f"above {above:g}" if above >= minimum else f"of at least {minimum:g}"
        end = "" if below == inf else f" and below {below:g}"
        raise ValueError(f"expected {name} to be a number {start}{end}, got {shortened(value)}")
    return float(value)


def check_shape(value: Any, name: str = "shape") -> tuple[int, ...]:
    """A tuple or list of whole numbers of at least 1, no more than NumPy has axes."""
    if isinstance(value, (tuple, list)) and 1 <= len(value) <= MAX_AXES:
        with suppress(ValueError):
            return tuple(check_count(name, size) for size in value)
    raise ValueError(f"expected {name} to be a tuple of whole numbers of at least 1, "
                     f"got {shortened(value)}")


def check_all(name: str, value: Any, kind: type[str] | type[float]) -> tuple[Any, ...]:
    """A tuple or list of texts, or of finite numbers."""
    if isinstance(value, (tuple, list)):
        if kind is str and all(isinstance(part, str) for part in value):
            return tuple(value)
        with suppress(ValueError):
            if kind is float:
                return tuple(check_number(name, part, -sys.float_info.max) for part in value)
    raise ValueError(f"expected {name} to be a list of {'texts' if kind is str else 'numbers'}, "
                     f"got {shortened(value)}")


def check_array(name: str, value: Any) -> Any:
    """An array, of NumPy or of a library like it."""
    if not hasattr(value, "ndim") or not hasattr(value, "dtype"):
        raise ValueError(f"expected {name} to be an array, got {shortened(value)}")
    return value


def check_instance(name: str, value: Any, kind: type[T]) -> T:
    """An instance of a class."""
    if not isinstance(value, kind):
        got = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise ValueError(f"expected {name} to be a {kind.__name__}, got {got}")
    return value


def check_path(value: Any) -> Any:
    """The path of a file: str or pathlib.Path."""
    if not isinstance(value, (str, os.PathLike)) or "\0" in str(value) or value == "":
        raise ValueError(f"expected a path, got {shortened(value)}")
    return value


def single_line(text: object) -> str:
    """The text as one line of at most MAX_LINE printable characters, for untrusted texts."""
    words = " ".join(str(text).split())
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in words[:MAX_LINE])
    return "".join(shown) + "..." * (len(words) > MAX_LINE)


def describe_error(error: BaseException) -> str:
    """An exception, and the function and line that raised it, as a single line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"in {frame.name}, {Path(frame.filename).name}:{frame.lineno}"
    return single_line(f"raised {type(error).__name__} {place}: {error}")
