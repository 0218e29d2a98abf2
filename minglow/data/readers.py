"""All data sets by name or path: the table of formats, and the choice of the reader."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from minglow.data import cifar, delimited, idx, npy, pictures
from minglow.data.bounded import BadFile
from minglow.data.dataset import Images, check_bits, reduce_bits
from minglow.data.packaged import PACKAGED
from minglow.data.table import Table, split
from minglow.data.toys import TOYS, toy
from minglow.validation import check_count, check_number, check_path

MAX_SIDE = 4096


class Reader(NamedTuple):
    """One format.

    help      its name, for `--help` and for errors
    matches   whether a path, and the first bytes of the file (b"" for a folder), are of this format
    read      reads Images of 256 bins, or a Table, from a path; raises BadFile. `load` splits a Table
              of which no row is held out
    pictures  whether `read` also takes `size` and `grayscale`
    """

    help: str
    matches: Callable[[Path, bytes], bool]
    read: Callable[..., Images | Table]
    pictures: bool = False


READERS = [  # the first that matches reads
    Reader(".csv", delimited.matches, delimited.read_table),
    Reader(".npz (uint8 or float)", lambda path, head: head.startswith(b"PK\x03\x04"), npy.read_npz),
    Reader(".npy (uint8 or float)", lambda path, head: head.startswith(b"\x93NUMPY"), npy.read_npy),
    Reader("CIFAR-10's .bin", cifar.matches, cifar.read_cifar),  # before IDX: may start with any byte
    Reader("IDX (MNIST)", idx.matches, idx.read_idx),
    Reader("a folder of .png or .jpg", pictures.matches, pictures.read_pictures, pictures=True),
]


def formats() -> str:
    """The formats that `load` reads, in one line."""
    return ", ".join(reader.help for reader in READERS)


def load(name: str | Path, *, bins: int | None = None, bits: int | None = None, size: int | None = None,
         grayscale: bool = False, held_out: float | None = None) -> Images | Table:
    """A data set by its name, or the images or the table at a path. Raises ValueError in one line.

    `bins`, `bits`, `size` and `grayscale` are for images, see `load_images`. held_out: the fraction of a
    table's rows that are held out, at random but always the same; None is 0.1. It is for tables in
    files that hold out no rows of their own.
    """
    if held_out is not None:
        check_number("held_out", held_out, above=0.0, below=1.0)
    data: Images | Table
    if check_path(name) in PACKAGED:
        data = _packaged(str(name), bins, 8 if bits is None else bits, size is not None or grayscale)
    elif name in TOYS:
        data = toy(str(name))
    else:
        data = _read(Path(name), 256 if bins is None else bins, 8 if bits is None else bits, size,
                     grayscale)
    if isinstance(data, Table):
        if grayscale or (bins, bits, size) != (None, None, None):
            raise ValueError(f"expected bins, bits, size and grayscale for images, got one for {name}, "
                             "which is a table")
        if not len(data.held_out):
            return split(data.train, 0.1 if held_out is None else held_out, labels=data.train_labels,
                         context=data.train_context, columns=data.columns)
    if held_out is not None:
        raise ValueError(f"expected held_out for a table, got it for {name}, which has its own split")
    return data


def load_images(path: str | Path, bins: int = 256, *, bits: int = 8, size: int | None = None,
                grayscale: bool = False) -> Images:
    """Your own images, (N, h, w, C) uint8 with C 1 or 3, in one of the formats in READERS.

    The folders of MNIST and CIFAR-10 have their own test set, which is held out; of other data every
    tenth image is. Values have to be below `bins`. With `bits` below 8, 256 bins become 2^bits. `size`
    and `grayscale` are for folders of pictures, see `read_pictures`. Labels are int64. Raises
    ValueError, in one line that names the file. Memory is bounded by a few times the size of the data,
    whatever a header declares.
    """
    path = Path(check_path(path))
    images = _read(path, bins, bits, size, grayscale)
    if isinstance(images, Table):
        raise BadFile("expected images, got a table of real numbers: read it by minglow.data.load", path)
    return images


def _packaged(name: str, bins: int | None, bits: int, for_pictures: bool) -> Images:
    images = PACKAGED[name]()
    if bins not in (None, images.bins):
        raise ValueError(f"expected {images.bins} bins for {name}, got {bins}")
    if for_pictures:
        raise ValueError(f"expected size and grayscale for a folder of pictures, got one for {name}")
    return reduce_bits(images, bits)


def _read(path: Path, bins: int, bits: int, size: int | None, grayscale: bool) -> Images | Table:
    check_count("bins", bins, 2, 256)
    check_bits(bits, bins)
    if size is not None:
        check_count("size", size, 1, MAX_SIDE)
    reader = _reader(path)
    if (size is not None or grayscale) and not reader.pictures:
        raise BadFile("expected a folder of pictures, since size or grayscale was given", path)
    data = reader.read(path, size, grayscale) if reader.pictures else reader.read(path)
    if isinstance(data, Table):
        return data
    largest = max(data.train.max(), data.held_out.max())
    if largest >= bins:
        raise BadFile(f"expected values below {bins} bins, got {largest}", path)
    return reduce_bits(data._replace(bins=bins), bits)


def _reader(path: Path) -> Reader:
    """The reader for a path. Raises BadFile, which lists the formats."""
    head = b""
    if not path.is_dir():
        if not path.is_file():
            names = ", ".join([*PACKAGED, *TOYS])
            raise BadFile("expected a file or a folder, got a pipe or a device" if path.exists()
                          else f"no such file or folder; data sets are {names}", path)
        with path.open("rb") as file:
            head = file.read(8)
        if not head:
            raise BadFile("expected data, got an empty file", path)
    for reader in READERS:
        if reader.matches(path, head):
            return reader
    found = ("a pickle, which can run any code" if head.startswith(b"\x80") else
             f"a file that starts with {head!r}" if head else "a folder that has none of them")
    raise BadFile(f"expected one of the formats {formats()}; got {found}", path)
