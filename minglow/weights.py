"""Weights as a .safetensors file, which other frameworks read and write; docs/weights.md. Floor 2.

Every parameter and constant under its own name, such as `bijection.3.net.0.weight`: all the numbers of
the function that a flow computes. The metadata have one entry, "minglow", in JSON: the format's version,
minglow's, and the recipe where there is one. https://huggingface.co/docs/safetensors has the format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from minglow.archive import replacing
from minglow.checkpoint import CheckpointError, Saved, check_file, check_values
from minglow.device import beside, to_host
from minglow.version import __version__

FORMAT = 1


def export_safetensors(flow: Saved, path: str | Path, recipe: dict[str, Any] | None = None) -> None:
    """Write every array of the flow to `path`; whatever stood there stays whole until the file is.

    recipe: whatever JSON can say that the flow can be built from again; kept in the metadata.
    Raises ImportError without the package safetensors.
    """
    about = {"format": FORMAT, "version": __version__}
    if recipe is not None:
        about["recipe"] = recipe
    # The package writes memory as it lies: an array in another order than C's would be scrambled.
    arrays = {name: np.ascontiguousarray(to_host(array)) for name, array in named_arrays(flow).items()}
    content = _package("safetensors.numpy").save(arrays, {"minglow": json.dumps(about)})
    with replacing(Path(path)) as file:
        file.write(content)


def import_safetensors(flow: Saved, path: str | Path) -> None:
    """Write a file's arrays into a flow of the same structure, whoever wrote the file.

    Raises CheckpointError, and leaves the flow untouched, for what is not a safetensors file, and
    for an array that is missing, is not the flow's, has another shape or dtype, is not finite, or
    is no permutation or sign where one belongs; ImportError without the package safetensors.
    """
    targets = named_arrays(flow)
    with _opened(Path(path)) as (file, _):
        differing = sorted(targets.keys() ^ set(file.keys()))
        if differing:
            name = differing[0]
            expected, got = (name, "none") if name in targets else ("no other array", name)
            raise CheckpointError(f"{path}: expected {expected}, got {got}")
        for name, target in targets.items():
            found = file.get_slice(name)
            expected = f"{_dtype(target)} {target.shape}"
            got = f"{found.get_dtype()} {tuple(found.get_shape())}"
            if expected != got:
                raise CheckpointError(f"{path}: expected {name} as {expected}, got {got}")
        arrays = {name: file.get_tensor(name) for name in targets}
    for name, array in arrays.items():
        check_values(path, name, array)
    for name, target in targets.items():
        target[...] = beside(arrays[name], target)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The recipe in a file's metadata. Raises CheckpointError where there is none."""
    with _opened(Path(path)) as (_, about):
        if "recipe" not in about:
            raise CheckpointError(f"{path}: expected a recipe in its metadata, got none: only "
                                  "import_safetensors(flow, path) can read it")
        return about["recipe"]


def named_arrays(flow: Saved) -> dict[str, np.ndarray]:
    """Every parameter and constant by its full name."""
    return {
        f"{path}.{name}": array
        for path, module in flow.walk()
        for name, array in (module.params | module.constants).items()
    }


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A safetensors file, its header checked against its size, and what it says of itself.

    Raises CheckpointError. A file that minglow did not write says nothing.
    """
    package = _package("safetensors")
    check_file(path)
    try:
        file = package.safe_open(path, framework="numpy")
    except package.SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged ({error})") from None
    with file:
        try:
            about = dict(json.loads((file.metadata() or {}).get("minglow", "{}")))
        except (TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: expected metadata in JSON, got an error: {error}") from None
        if about.get("format", FORMAT) != FORMAT:
            raise CheckpointError(f"{path}: expected format {FORMAT}, got {about['format']}")
        yield file, about


def _dtype(array: np.ndarray) -> str:
    """The format's own word: F32, F64, I64."""
    return f"{array.dtype.kind.upper()}{8 * array.dtype.itemsize}"


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ImportError("a .safetensors file needs the package safetensors: "
                          "pip install 'minglow[safetensors]'") from None
