"""Bounded reading of untrusted files: memory follows the bytes that are there, not the header."""

import gzip
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from minglow.validation import single_line

MAX_BYTES = 2**32  # the most bytes that a compressed file, or a folder of pictures, may decompress to
CHUNK = 2**18
HeaderCheck = Callable[[tuple[int, ...], np.dtype], None]


class BadFile(ValueError):
    """A file that cannot be read: the path, if known, and the reason, in one line."""

    def __init__(self, reason: str, path: Path | None = None) -> None:
        super().__init__(single_line(reason if path is None else f"{path}: {reason}"))
        self.reason, self.path = reason, path


@contextmanager
def open_untrusted(path: Path) -> Iterator[BinaryIO]:
    """Open a file to decode it. Any error while it is open becomes a BadFile that names the file."""
    with path.open("rb") as file:
        try:
            yield file
        except BadFile as error:
            raise BadFile(error.reason, error.path or path) from None
        except MemoryError:
            raise
        except Exception as error:  # damaged data make decoders raise a dozen kinds of exception
            raise BadFile(f"damaged ({type(error).__name__}: {error})", path) from None


def read_rest(file: IO[bytes] | gzip.GzipFile, count: int, available: int) -> np.ndarray:
    """The rest of a file, which has to be the `count` bytes that its header declares: (count,) uint8.

    Raises BadFile; for a count above the `available` bytes, before memory is allocated.
    """
    expected = f"expected {count:,} bytes of data by its header"
    if not 0 <= count <= available:
        raise BadFile(f"{expected}, got a file that can hold {available:,} at most")
    data = bytearray()
    while chunk := file.read(min(CHUNK, count - len(data))):
        data += chunk
    more = file.read(1)  # at the end of the file, gzip and zip compare its checksum
    if more or len(data) < count:
        raise BadFile(f"{expected}, got {'more' if more else f'{len(data):,}'}")
    return np.frombuffer(data, np.uint8)


def read_array(file: IO[bytes], available: int, check: HeaderCheck | None = None) -> np.ndarray:
    """The array of a .npy file of at most `available` bytes; `check` gets its header. Raises BadFile."""
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):  # later versions have headers of more than 64 KiB
            raise BadFile(f"expected version 1.0 of NumPy's format, got {version}")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except MemoryError:  # Python's parser raises it for deeply nested headers
        raise BadFile("its header is nested too deeply") from None
    if dtype.hasobject:
        raise BadFile("holds no array of numbers but pickled objects, which are never opened")
    if check:
        check(shape, dtype)
    data = read_rest(file, prod(shape) * dtype.itemsize, available - file.tell()).view(dtype)
    return data.reshape(shape, order="F" if fortran else "C")


def npz_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members of a .npz file by the names of their arrays. Raises BadFile for a repeated name."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if len(members) < len(archive.infolist()):
        raise BadFile("a member occurs twice")
    return members


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo,
                check: HeaderCheck | None = None) -> np.ndarray:
    """One array of a .npz file, as `read_array`."""
    available = {zipfile.ZIP_STORED: member.compress_size, zipfile.ZIP_DEFLATED: MAX_BYTES}
    if member.compress_type not in available:
        raise BadFile("expected members that are stored or deflated, got another compression")
    with archive.open(member) as file:
        return read_array(file, available[member.compress_type], check)
