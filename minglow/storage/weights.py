"""Weights as a .safetensors file, which other frameworks read and write; see docs/weights.md.

The file holds every parameter and constant under its own name, such as `bijection.3.net.0.weight`. Its
metadata have one entry, "minglow", in JSON: the format's version, minglow's, the configuration and the
settings of each module. https://huggingface.co/docs/safetensors describes the format.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from minglow import validation
from minglow.arrays.device import to_host
from minglow.bijection import Module
from minglow.storage import checkpoint
from minglow.storage.archive import replacing
from minglow.storage.checkpoint import Checkpoint, CheckpointError
from minglow.version import __version__

FORMAT = 2


def export_safetensors(path: str | Path, module: Module, config: dict[str, Any] | None = None) -> None:
    """Write every array of a module to `path`; a file of that name stays until the new one is complete.

    config: what JSON can hold that the module can be built from again; stored in the metadata.
    Raises ImportError without the package safetensors.
    """
    about = {"format": FORMAT, "version": __version__, "config": config or {},
             "settings": checkpoint.settings_of(module)}
    # The package writes memory in its own order: an array that is not in C order would be scrambled.
    arrays = {name: np.ascontiguousarray(to_host(array))
              for name, array in checkpoint.named_arrays(module).items()}
    content = _package("safetensors.numpy").save(arrays, {"minglow": json.dumps(about)})
    with replacing(Path(path)) as file:
        file.write(content)


def import_safetensors(path: str | Path, module: Module) -> None:
    """Write a file's arrays into a module of the same structure, whichever program wrote the file.

    Raises CheckpointError, and leaves the module untouched, for what is not a safetensors file, and
    for arrays or settings that are not the module's; ImportError without the package safetensors.
    """
    checkpoint.restore(read_safetensors(path), module)


def read_safetensors(path: str | Path) -> Checkpoint:
    """A file's arrays, and what it says about itself: nothing, if another program wrote it.

    The package checks the header against the file's size. Raises CheckpointError, ImportError without
    the package safetensors.
    """
    path = Path(validation.check_path(path))
    package = _package("safetensors")
    checkpoint.check_file(path)
    try:
        with package.safe_open(path, framework="numpy") as file:
            about = dict(json.loads((file.metadata() or {}).get("minglow", "{}")))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except (package.SafetensorError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a safetensors file that NumPy can hold, or damaged "
                              f"({error})") from None
    if about.get("format", FORMAT) != FORMAT:
        raise CheckpointError(f"{path}: expected format {FORMAT}, got {about['format']!r}: another "
                              "version of minglow wrote it")
    config, settings = about.get("config", {}), about.get("settings", {})
    if not isinstance(config, dict) or not isinstance(settings, dict):
        raise CheckpointError(f"{path}: expected its config and settings by name")
    return Checkpoint(path, config, settings, arrays, {}, {})


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ImportError("a .safetensors file needs the package safetensors: "
                          "pip install 'minglow[safetensors]'") from None
