"""Save a flow's or a dequantizer's parameters to one file, and load them: atomic, verified, no pickle.

Floor 2.
A checkpoint is an uncompressed .npz: `parameters` (P,), each of the flow's constants, and
`manifest`, JSON in bytes: the format's version, minglow's, the recipe that the flow was built
by, every array's name, shape, dtype and SHA-256, and where each parameter lies in the vector.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from minglow.dequantizers import Dequantizer
from minglow.flow import Flow
from minglow.version import __version__

FORMAT = 1

Saved = Flow | Dequantizer


class CheckpointError(ValueError):
    """A file is not a checkpoint, is damaged, or doesn't fit the flow; the message names it."""


class Checkpoint(NamedTuple):
    """What a file holds: the recipe, and arrays by name."""

    path: Path
    recipe: dict[str, Any]
    arrays: dict[str, np.ndarray]
    parameters: dict[str, list[int]]  # name -> shape, in the order of the vector


def save(path: str | Path, flow: Saved, recipe: dict[str, Any]) -> None:
    """Write the flow to `path`; whatever stood there stays whole until the new file is.

    recipe: whatever JSON can say that the flow can be built from again.
    """
    path, arrays = Path(path), _arrays(flow)
    manifest = {
        "format": FORMAT,
        "minglow": __version__,
        "recipe": recipe,
        "arrays": {name: _description(array) for name, array in arrays.items()},
        "parameters": {name: list(shape) for name, (_, shape) in flow.flat.where.items()},
    }
    arrays["manifest"] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    with replacing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its name once it is whole and on the disk, or never."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: str | Path) -> Checkpoint:
    """Read and verify a checkpoint. Raises CheckpointError that says what is wrong with which file."""
    path = Path(path)
    check_file(path)
    content = path.read_bytes()
    if not content.startswith(b"PK\x03\x04"):
        raise CheckpointError(f"{path}: not a minglow checkpoint")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        manifest = json.loads(arrays.pop("manifest").tobytes())
        version, expected = manifest["format"], manifest["arrays"]
        recipe, parameters = manifest["recipe"], manifest["parameters"]
    except Exception as error:  # damaged archives raise half a dozen kinds of exception
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(f"{path}: not a minglow checkpoint, or damaged ({reason})") from None
    if version != FORMAT:
        raise CheckpointError(f"{path}: expected checkpoint format {FORMAT}, got {version}")
    if expected != {name: _description(array) for name, array in arrays.items()}:
        raise CheckpointError(f"{path}: damaged, its arrays differ from its manifest")
    return Checkpoint(path, recipe, arrays, parameters)


def check_file(path: Path) -> None:
    """Raise CheckpointError unless there is a file to read."""
    if not path.is_file():
        raise CheckpointError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")


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
    for name, target in targets.items():
        target[...] = checkpoint.arrays[name]


def _arrays(flow: Saved) -> dict[str, np.ndarray]:
    """Everything of a flow that is saved, by name."""
    constants = {
        f"{path}.{name}": array
        for path, module in flow.walk()
        for name, array in module.constants.items()
    }
    return {"parameters": flow.flat.value, **constants}


def _description(array: np.ndarray) -> list[Any]:
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return [list(array.shape), array.dtype.str, digest]
