"""minglow check: run the property tests on a user's own layer."""

import argparse
import importlib
import inspect
import sys
from typing import Any

from minglow.bijection import Bijection
from minglow.testing import PropertyFailed, examples, layer_checks
from minglow.validation import describe_error

ARGUMENTS = {"channels": 4, "shape": (2, 3, 4), "rng": 0}  # values of a constructor's arguments


def run_check(args: argparse.Namespace) -> int:
    """Check every property of the contract for a layer of your own, and print which ones failed.

    A constructor's arguments channels, shape and rng get values; others need defaults. For a layer
    that accepts only certain batches, call minglow.testing.check_layer(layer, x) in Python.
    """
    layer = load_target(args.target)
    try:
        shapes = ", ".join(str(x.shape) for _, x in examples(layer))
    except ValueError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise ValueError(f"{args.target}: {describe_error(error)}") from None
    print(f"{type(layer).__name__}, on batches of shape {shapes}")
    checks: Any = layer_checks(rng=args.seed)
    failed = 0
    for name, check in checks:
        try:
            check(layer)
            summary = str(check.func.__doc__).strip().splitlines()[0].rstrip(".")
            print(f"passed  {name:10}  {summary}")
        except Exception as error:  # the user's own code may raise anything
            failed += 1
            found = isinstance(error, PropertyFailed)
            print(f"FAILED  {name:10}  {error if found else describe_error(error)}")
            if found and name == "returns":
                print("The other properties are checked once the methods return the right values.")
                break
    total = len(checks)
    print(f"{failed} of {total} properties failed" if failed else f"all {total} properties passed")
    return 1 if failed else 0


def load_target(target: str) -> Bijection:
    """The layer at module:name: an instance, or what a class or a function returns.

    Raises ValueError with a single-line message for everything that goes wrong.
    """
    module_name, _, name = target.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")) or not name or (
            module_name.endswith(".py")):
        raise ValueError("expected the name of a module, as in import, and of a layer in it, such as "
                         f"my_module:MyLayer, got {target!r}")
    sys.path.insert(0, "")  # the current folder, as in `python -m`
    try:
        found = getattr(importlib.import_module(module_name), name)
        layer = found if isinstance(found, Bijection) else found(**_choose_arguments(found))
    except ValueError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise ValueError(f"{target} cannot be built: {describe_error(error)}") from None
    finally:
        sys.path.remove("")
    if not isinstance(layer, Bijection):
        raise ValueError(f"{target}: expected a minglow.Bijection, got {type(layer).__name__}")
    return layer


def _choose_arguments(function: Any) -> dict[str, Any]:
    """Values for the arguments without defaults. Raises ValueError for an unknown one."""
    required = [name for name, parameter in inspect.signature(function).parameters.items()
                if parameter.default is parameter.empty
                and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)]
    unknown = [name for name in required if name not in ARGUMENTS]
    if unknown:
        raise ValueError(f"{function.__name__} requires {', '.join(unknown)}: name a function without "
                         "arguments that builds the layer")
    return {name: ARGUMENTS[name] for name in required}
