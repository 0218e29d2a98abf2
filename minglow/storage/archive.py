"""Archives: named arrays and a manifest in one file, written atomically and verified before use.

The file is an uncompressed .npz. Nothing in it is trusted: sizes are compared with the file's own before
memory is allocated; compressed, repeated and pickled members are refused; the manifest has the SHA-256
of every array.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from minglow.data.bounded import BadFile, npz_members, open_untrusted, read_member

MANIFEST = "manifest"
MAX_MANIFEST = 2**24  # bytes
TEMPORARY = ".{}.tmp"  # appended to a file's name, with the process's number


def write(path: Path, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Write arrays and JSON entries to a file, which is replaced only once all is on the disk."""
    manifest = about | {"arrays": {name: description(array) for name, array in arrays.items()}}
    manifest_bytes = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    with replacing(path) as file:
        np.savez(file, **arrays, **{MANIFEST: manifest_bytes})  # type: ignore[arg-type]


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the JSON entries of a file. Raises BadFile, and OSError if there is no file."""
    with open_untrusted(path) as file:
        if not zipfile.is_zipfile(file):
            raise BadFile("not a zip file, or cut off")
        with zipfile.ZipFile(file) as archive:
            return _read(archive, path.stat().st_size)


def _read(archive: zipfile.ZipFile, size: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    members = npz_members(archive)
    if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in members.values()):
        raise BadFile("expected uncompressed members, got one compressed or encrypted")
    if sum(info.file_size for info in members.values()) > size:
        raise BadFile("its members are larger than the file")
    if MANIFEST not in members or members[MANIFEST].file_size > MAX_MANIFEST:
        raise BadFile("expected a manifest, got none of a reasonable size")
    manifest = json.loads(read_member(archive, members.pop(MANIFEST)).tobytes())
    expected = manifest.pop("arrays")
    if members.keys() != expected.keys():
        raise BadFile("its members are not those of its manifest")
    arrays = {name: read_member(archive, member) for name, member in members.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or description(array) != expected[name]:
            raise BadFile(f"{name} differs from its manifest")
    return arrays, manifest


def description(array: np.ndarray) -> list[Any]:
    """An array's shape, dtype and SHA-256, as JSON can hold them."""
    content = np.ascontiguousarray(array)
    digest = hashlib.sha256(content.data if content.size else b"").hexdigest()
    return [list(array.shape), array.dtype.str, digest]


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which replaces the one at `path`, whose mode it takes, once it is on the disk."""
    temporary = path.with_name(path.name + TEMPORARY.format(os.getpid()))
    try:
        with temporary.open("wb") as file:
            if path.exists():
                os.chmod(temporary, path.stat().st_mode & 0o7777)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and not error.filename2:  # a full disk names none
            error.filename = str(path)
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Write a folder's list of names to the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def temporaries(folder: Path) -> list[Path]:
    """The unfinished files in a folder, of running and of killed processes."""
    return [path for path in folder.glob("*" + TEMPORARY.format("*"))
            if path.name.rsplit(".", 2)[1].isdecimal() and path.is_file()]


def sweep(folder: Path) -> list[Path]:
    """Remove the unfinished files of a folder, and return their paths."""
    unfinished = temporaries(folder)
    for path in unfinished:
        path.unlink(missing_ok=True)
    return unfinished
