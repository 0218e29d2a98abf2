"""Save what training changes to one file, and load it: atomic, verified, no pickle. Floor 2.

A checkpoint is an archive (archive.py) of `parameters` (P,), each constant of the flow, whatever else
was given to be kept, and a manifest: the format's version, minglow's, the recipe that the flow was built
by, where each parameter lies in the vector, and whatever facts were given.
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minglow import archive, arguments
from minglow.dequantizers import Dequantizer
from minglow.device import beside, to_host
from minglow.flow import Flow
from minglow.text import one_line
from minglow.version import __version__

FORMAT = 2
OLDER = (1,)  # read, too: they hold no state of training

Saved = Flow | Dequantizer


class CheckpointError(ValueError):
    """A file is not a checkpoint, is damaged, or doesn't fit the flow; the message names it."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Checkpoint(NamedTuple):
    """What a file holds: the recipe, arrays by name, and facts of training."""

    path: Path
    recipe: dict[str, Any]
    arrays: dict[str, np.ndarray]
    parameters: dict[str, list[int]]  # name -> shape, in the order of the vector
    facts: dict[str, Any]


def save(path: str | Path, flow: Saved, recipe: dict[str, Any],
         arrays: dict[str, np.ndarray] | None = None, facts: dict[str, Any] | None = None) -> None:
    """Write the flow to `path`; whatever stood there stays whole until the new file is.

    recipe: whatever JSON can say that the flow can be built from again. arrays, facts: what else is to
    be kept, under names that the flow's own arrays don't have.
    """
    everything = {name: to_host(array) for name, array in (_arrays(flow) | (arrays or {})).items()}
    archive.write(Path(path), everything, {
        "format": FORMAT, "minglow": __version__, "recipe": recipe, "facts": facts or {},
        "parameters": {name: list(shape) for name, (_, shape) in flow.flat.where.items()},
    })


def read(path: str | Path) -> Checkpoint:
    """Read and verify a checkpoint. Raises CheckpointError that says what is wrong with which file."""
    path = Path(arguments.path(path))
    check_file(path)
    try:
        arrays, manifest = archive.read(path)
        version = manifest["format"]
        if version != FORMAT and version not in OLDER:
            raise CheckpointError(f"{path}: expected checkpoint format {FORMAT}, got {version!r}: "
                                  "another version of minglow wrote it")
        recipe, parameters, facts = manifest["recipe"], manifest["parameters"], manifest.get("facts", {})
        if not all(isinstance(part, dict) for part in (recipe, parameters, facts)):
            raise CheckpointError(f"{path}: not a minglow checkpoint, or damaged: expected its recipe, "
                                  "parameters and facts by name")
        return Checkpoint(path, recipe, arrays, parameters, facts)
    except archive.ArchiveError as error:
        raise CheckpointError(f"{path}: not a minglow checkpoint, or damaged: {error}") from None
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a minglow checkpoint, its manifest lacks {error}") from None


def check_file(path: Path) -> None:
    """Raise CheckpointError unless there is a file to read."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a pipe or a device" if path.exists() else ""
        raise CheckpointError(f"{path}: {what}, not a file" if what else f"{path}: no such file")


def load(path: str | Path, flow: Saved) -> None:
    """Read a checkpoint into a flow of the same shape; on CheckpointError the flow is untouched."""
    restore(read(path), flow)


def restore(checkpoint: Checkpoint, flow: Saved) -> None:
    """Write a checkpoint's arrays into a flow of the same shape."""
    expected = [(name, list(shape)) for name, (_, shape) in flow.flat.where.items()]
    saved = list(checkpoint.parameters.items())  # their order is that of the vector
    if expected != saved:
        differing = [pair for pair in zip_longest(expected, saved) if pair[0] != pair[1]]
        raise CheckpointError(f"{checkpoint.path}: holds another flow's parameters: "
                              f"expected {differing[0][0]}, got {differing[0][1]}")
    targets = _arrays(flow)
    for name, target in targets.items():
        found = checkpoint.arrays.get(name)
        if found is None or (found.shape, found.dtype) != (target.shape, target.dtype):
            got = "none" if found is None else f"{found.dtype} {found.shape}"
            raise CheckpointError(f"{checkpoint.path}: expected {name} as {target.dtype} "
                                  f"{target.shape}, got {got}")
    for name in targets:
        check_values(checkpoint.path, name, checkpoint.arrays[name])
    for name, target in targets.items():
        target[...] = beside(checkpoint.arrays[name], target)


def check_values(path: str | Path, name: str, array: np.ndarray) -> None:
    """Raise CheckpointError for numbers with which the flow would be no bijection."""
    if not np.isfinite(array).all():
        raise CheckpointError(f"{path}: expected {name} to be finite, got NaN or inf")
    constant = name.rsplit(".", 1)[-1]
    if constant == "order" and not np.array_equal(np.sort(array), np.arange(array.size)):
        raise CheckpointError(f"{path}: expected {name} to hold each channel once, got {array.tolist()}")
    if constant == "sign" and not (np.abs(array) == 1).all():
        raise CheckpointError(f"{path}: expected {name} to hold 1 and -1, got {array.tolist()}")


def _arrays(flow: Saved) -> dict[str, np.ndarray]:
    """Everything of a flow that is saved, by name."""
    constants = {
        f"{path}.{name}": array
        for path, module in flow.walk()
        for name, array in module.constants.items()
    }
    return {"parameters": flow.flat.value, **constants}
