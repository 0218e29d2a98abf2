"""Reads no more than a header promises, and believes none that the file cannot keep. Floor 1."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from minglow.text import one_line

DEFLATE = 1032    # the most bytes that one byte of gz or zip can open to
LARGEST = 2**32   # the most bytes that a compressed file, or a folder of pictures, may open to
CHUNK = 2**18

Stream = IO[bytes] | gzip.GzipFile


class BadFile(ValueError):
    """A file that cannot be read: one line that begins with its name."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong inside into a BadFile that names the file."""
    try:
        yield
    except (BadFile, MemoryError):
        raise
    except Exception as error:  # decoders answer damage with a dozen kinds of exception
        raise BadFile(f"{path}: damaged ({type(error).__name__}: {error})") from None


def room(packed: int) -> int:
    """The most bytes that `packed` compressed bytes are allowed to open to."""
    return min(DEFLATE * packed, LARGEST)


def read_rest(path: Path, file: Stream, count: int, most: int) -> np.ndarray:
    """The `count` bytes that a header promises, which have to be all that is left in `file`.

    Returns (count,) uint8. A promise of more than `most` bytes is refused before anything is
    allocated; below that, memory grows with the bytes that come. Raises BadFile.
    """
    if count > most:
        raise BadFile(f"{path}: expected {count:,} bytes of data by its header, "
                      f"got a file that can hold {most:,} at most")
    data = bytearray()
    with naming(path):
        while chunk := file.read(min(CHUNK, count - len(data))):
            data += chunk
        more = file.read(1)  # where there is a checksum, reaching the end compares it
    if more or len(data) < count:
        came = "more" if more else f"{len(data):,}"
        raise BadFile(f"{path}: expected {count:,} bytes of data by its header, got {came}")
    return np.frombuffer(data, np.uint8)
