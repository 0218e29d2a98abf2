"""minglow check: hold a user's own layer against the contract. Floor 4."""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
import traceback
from pathlib import Path
from typing import Any

from minglow.bijection import Bijection
from minglow.testing import BrokenPromise, examples, layer_checks
from minglow.text import one_line

KNOWN = {"channels": 4, "shape": (2, 3, 4), "rng": 0}  # arguments that a constructor may ask for


def run_check(args: argparse.Namespace) -> int:
    """Check every promise of a layer of your own, and print those kept and broken.

    A constructor's arguments channels, shape and rng are filled in; others need defaults. For a layer
    that takes only certain batches, use minglow.testing.check_layer(layer, x) in Python.
    """
    layer = make(args.target)
    try:
        shapes = ", ".join(str(x.shape) for _, x in examples(layer))
    except ValueError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise ValueError(f"{args.target}: {_raised(error)}") from None
    print(f"{type(layer).__name__}, on batches of shape {shapes}")
    broken = 0
    for name, check in layer_checks(rng=args.seed):
        try:
            check(layer)
            print(f"kept    {name:10}  {_promise(check)}")
        except BrokenPromise as error:
            print(f"BROKEN  {name:10}  {error}")
            broken += 1
            if name == "returns":
                print("The other promises are looked at once this one is kept.")
                break
        except Exception as error:  # the user's own code may raise anything
            print(f"BROKEN  {name:10}  {_raised(error)}")
            broken += 1
    print(f"{broken} broken" if broken else "all kept")
    return 1 if broken else 0


def make(target: str) -> Bijection:
    """The layer that module:name stands for: an instance, or what a class or function makes.

    Of a constructor's arguments without defaults, channels, shape and rng are known. Raises
    ValueError in one line for whatever goes wrong.
    """
    module_name, _, name = target.partition(":")
    if not module_name or not name or module_name.endswith(".py"):
        raise ValueError(f"expected module:name, such as my_module:MyLayer, got {target!r}")
    sys.path.insert(0, "")  # the folder that one is in, as `python -m` does
    try:
        found = getattr(importlib.import_module(module_name), name)
        layer = found if isinstance(found, Bijection) else found(**_arguments(found))
    except ValueError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise ValueError(f"{target} cannot be made: {_raised(error)}") from None
    finally:
        sys.path.remove("")
    if not isinstance(layer, Bijection):
        raise ValueError(f"{target}: expected a minglow.Bijection, got {type(layer).__name__}")
    return layer


def _arguments(maker: Any) -> dict[str, Any]:
    asked = [name for name, parameter in inspect.signature(maker).parameters.items()
             if parameter.default is parameter.empty
             and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)]
    unknown = [name for name in asked if name not in KNOWN]
    if unknown:
        raise ValueError(f"{maker.__name__} asks for {', '.join(unknown)}: name a function without "
                         "arguments that makes one")
    return {name: KNOWN[name] for name in asked}


def _raised(error: BaseException) -> str:
    """What was raised, in which function of which line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"in {frame.name}, {Path(frame.filename).name}:{frame.lineno}"
    return one_line(f"raised {type(error).__name__} {place}: {error}")


def _promise(check: Any) -> str:
    """The first line of a check's docstring."""
    return str(check.func.__doc__).strip().splitlines()[0].rstrip(".")
