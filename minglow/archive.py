"""Named arrays and a manifest in one file: written whole or not at all, verified before use. Floor 1.

The file is an uncompressed .npz, which NumPy reads, too. Nothing in it is trusted: sizes are compared
with the file's own before memory is taken, members that are compressed, doubled or of an object's type
are refused, and every array has its SHA-256 in the manifest. There is no pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MANIFEST = "manifest"
LARGEST_HEADER = 10_000  # bytes of an array's header
LARGEST_MANIFEST = 2**24
TEMPORARY = ".{}.tmp"  # behind a file's name, with the process's number


class ArchiveError(ValueError):
    """A file is no archive, or is damaged; the message says how, and does not name it."""


def write(path: Path, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Write arrays and what JSON can say about them; until all is on the disk, the old file stays."""
    manifest = about | {"arrays": {name: description(array) for name, array in arrays.items()}}
    manifest_bytes = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    with replacing(path) as file:
        np.savez(file, **arrays, **{MANIFEST: manifest_bytes})  # type: ignore[arg-type]


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays, and what was said about them. Raises ArchiveError, OSError where there is no file."""
    with path.open("rb") as file:
        try:
            return _read(file)
        except ArchiveError:
            raise
        except Exception as error:  # damaged archives raise a dozen kinds of exception
            raise ArchiveError(f"damaged ({type(error).__name__}: {error})") from None


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its name once it is whole and on the disk, or never.

    Where there is a file of that name, its mode is kept. An OSError names it.
    """
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
    """Put a folder's list of names onto the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporaries(folder: Path) -> list[Path]:
    """What writers in a folder have not finished, or never will: they were killed."""
    return [path for path in folder.glob("*" + TEMPORARY.format("*"))
            if path.name.rsplit(".", 2)[1].isdecimal() and path.is_file()]


def sweep(folder: Path) -> list[Path]:
    """Remove what writers that were killed have left in a folder; return what it was."""
    left = temporaries(folder)
    for path in left:
        path.unlink(missing_ok=True)
    return left


def description(array: np.ndarray) -> list[Any]:
    """An array's shape, dtype and SHA-256, as JSON can say them."""
    content = np.ascontiguousarray(array)
    digest = hashlib.sha256(content.data if content.size else b"").hexdigest()
    return [list(array.shape), array.dtype.str, digest]


def _read(file: BinaryIO) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    size = os.fstat(file.fileno()).st_size
    if not zipfile.is_zipfile(file):
        raise ArchiveError("not a zip file, or cut off")
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise ArchiveError("damaged, a member occurs twice")
        if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1
               for info in members.values()):
            raise ArchiveError("expected members as they are, got one compressed or encrypted")
        if sum(info.file_size for info in members.values()) > size:
            raise ArchiveError("damaged, its members are larger than the file")
        if MANIFEST not in members or members[MANIFEST].file_size > LARGEST_MANIFEST:
            raise ArchiveError("expected a manifest, got none of a reasonable size")
        manifest = json.loads(_array(archive, members.pop(MANIFEST), None).tobytes())
        expected = manifest.pop("arrays")
        if members.keys() != expected.keys():
            raise ArchiveError("damaged, its members are not those of its manifest")
        arrays = {name: _array(archive, info, expected[name]) for name, info in members.items()}
    for name, array in arrays.items():
        if description(array) != expected[name]:
            raise ArchiveError(f"damaged, {name} differs from its manifest")
    return arrays, manifest


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo,
           expected: list[Any] | None) -> np.ndarray:
    """One member's array, of the shape and dtype that were expected; nothing is read before they are."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version != (1, 0):
            raise ArchiveError(f"expected arrays of version 1.0, got {version} in {info.filename}")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member, LARGEST_HEADER)
        if dtype.kind not in "biuf" or fortran:
            raise ArchiveError(f"expected numbers in C's order, got {dtype} in {info.filename}")
        if expected is not None and [list(shape), dtype.str] != expected[:2]:
            raise ArchiveError(f"damaged, {info.filename} differs from its manifest")
        count = prod(shape) * dtype.itemsize
        if member.tell() + count != info.file_size:
            raise ArchiveError(f"damaged, {info.filename} has another size than its shape")
        content = member.read()  # to the end, so that its checksum is compared, too
    return np.frombuffer(content, dtype).reshape(shape).copy()

