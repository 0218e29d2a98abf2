"""Save a module to one file and load it: atomic, verified, no pickle.

A checkpoint is an archive (archive.py) of every parameter and constant under its own name, such as
`bijection.3.net.0.weight`, of whatever extra arrays were given, and of a manifest: the versions of the
format and of minglow, the configuration, the settings of each module, and whatever facts were given.
"""

from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, NamedTuple

import numpy as np

from minglow import validation
from minglow.arrays.device import to_device_of, to_host
from minglow.bijection import Module
from minglow.data.bounded import BadFile
from minglow.storage import archive
from minglow.validation import single_line
from minglow.version import __version__

FORMAT = 3
EXTRA = "extra/"  # before the names of extra arrays, which then are no module's


class CheckpointError(ValueError):
    """A file is not a checkpoint, is damaged, or does not fit the module; the message names it."""

    def __init__(self, message: str) -> None:
        super().__init__(single_line(message))


class Checkpoint(NamedTuple):
    """The content of a file."""

    path: Path
    config: dict[str, Any]  # what the module can be built from; empty if it was saved without
    settings: dict[str, Any]  # path of a module -> its settings
    module: dict[str, np.ndarray]  # the module's parameters and constants by name
    arrays: dict[str, np.ndarray]  # extra arrays by name
    facts: dict[str, Any]


def save(path: str | Path, module: Module, config: dict[str, Any] | None = None,
         arrays: Mapping[str, np.ndarray] | None = None, facts: dict[str, Any] | None = None) -> None:
    """Write a module to `path`; a file of that name stays intact until the new one is complete.

    config: what JSON can hold that the module can be built from again. arrays, facts: what else is to
    be stored.
    """
    extra = {f"{EXTRA}{name}": array for name, array in (arrays or {}).items()}
    everything = {name: to_host(array) for name, array in (named_arrays(module) | extra).items()}
    archive.write(Path(path), everything, {
        "format": FORMAT, "minglow": __version__, "config": config or {}, "facts": facts or {},
        "settings": settings_of(module)})


def read(path: str | Path) -> Checkpoint:
    """Read and verify a checkpoint. Raises CheckpointError that says what is wrong with which file."""
    path = Path(validation.check_path(path))
    check_file(path)
    bad = f"{path}: not a minglow checkpoint"
    try:
        arrays, manifest = archive.read(path)
        if manifest["format"] != FORMAT:
            raise CheckpointError(f"{path}: expected checkpoint format {FORMAT}, got "
                                  f"{manifest['format']!r}: another version of minglow wrote it")
        parts = config, settings, facts = [manifest[key] for key in ("config", "settings", "facts")]
    except BadFile as error:
        raise CheckpointError(f"{bad}, or damaged: {error.reason}") from None
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{bad}, its manifest lacks {error}") from None
    if not all(isinstance(part, dict) for part in parts):
        raise CheckpointError(f"{bad}, or damaged: expected its config, settings and facts by name")
    own = {name: array for name, array in arrays.items() if not name.startswith(EXTRA)}
    extra = {name.removeprefix(EXTRA): array for name, array in arrays.items() if name not in own}
    return Checkpoint(path, config, settings, own, extra, facts)


def check_file(path: Path) -> None:
    """Raise CheckpointError unless there is a file to read."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a pipe or a device" if path.exists() else ""
        raise CheckpointError(f"{path}: {what}, not a file" if what else f"{path}: no such file")


def restore(saved: Checkpoint, module: Module) -> None:
    """Write a checkpoint into a module of the same structure and, where the file has them, settings.

    Raises CheckpointError, and leaves the module untouched, for a setting of another value, for an
    array that is missing, unknown, not finite, or of another shape or dtype, and for constants that
    `Module.check_constants` refuses.
    """
    path, arrays, targets, own = saved.path, saved.module, named_arrays(module), settings_of(module)
    found = saved.settings or own
    for name in sorted(own.keys() | found.keys()):
        if found.get(name) != own.get(name):
            expected, got = (shortened(part[name]) if name in part else "none" for part in (own, found))
            raise CheckpointError(f"{path}: expected {name or 'the module'} with the settings "
                                  f"{expected}, got {got}")
    for name in sorted(targets.keys() ^ arrays.keys()):
        expected, got = (name, "none") if name in targets else ("no other array", name)
        raise CheckpointError(f"{path}: expected {expected}, got {got}")
    for name, target in targets.items():
        check_like(path, name, arrays[name], target)
    for name, part in module.walk():
        constants = {key: arrays[_join(name, key)] for key in part.constants}
        try:
            part.check_constants(constants)
        except ValueError as error:
            raise CheckpointError(f"{path}: {name}: {error}") from None
    for name, target in targets.items():
        target[...] = to_device_of(arrays[name], target)


def check_like(path: Path, name: str, array: np.ndarray | None, target: np.ndarray) -> None:
    """Raise CheckpointError unless an array is finite and has the target's shape and dtype."""
    if array is None or (array.shape, array.dtype) != (target.shape, target.dtype):
        got = "none" if array is None else f"{array.dtype} {array.shape}"
        raise CheckpointError(f"{path}: expected {name} as {target.dtype} {target.shape}, got {got}")
    if not np.isfinite(array).all():
        raise CheckpointError(f"{path}: expected {name} to be finite, got NaN or inf")


def named_arrays(module: Module) -> dict[str, np.ndarray]:
    """Every parameter and constant by its full name."""
    return {_join(path, name): array for path, part in module.walk()
            for name, array in (part.params | part.constants).items()}


def settings_of(module: Module) -> dict[str, Any]:
    """Every module's settings by its path, where it has some."""
    found = {path: part.settings() for path, part in module.walk()}
    return {path: settings for path, settings in found.items() if settings}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
