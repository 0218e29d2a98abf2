"""All data sets by name or path: the table of formats, and the choice of the reader."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from minglow.data import cifar, idx, npy, pictures
from minglow.data.bounded import BadFile
from minglow.data.dataset import Images, check_bits, reduce_bits
from minglow.data.packaged import PACKAGED
from minglow.validation import check_count, check_path

MAX_SIDE = 4096


class Reader(NamedTuple):
    """One format.

    help      its name, for `--help` and for errors
    matches   whether a path, and the first bytes of the file (b"" for a folder), are of this format
    read      reads Images of 256 bins from a path; raises BadFile
    pictures  whether `read` also takes `size` and `grayscale`
    """

    help: str
    matches: Callable[[Path, bytes], bool]
    read: Callable[..., Images]
    pictures: bool = False


READERS = [  # the first that matches reads
    Reader(".npz (uint8)", lambda path, head: head.startswith(b"PK\x03\x04"), npy.read_npz),
    Reader(".npy (uint8)", lambda path, head: head.startswith(b"\x93NUMPY"), npy.read_npy),
    Reader("CIFAR-10's .bin", cifar.matches, cifar.read_cifar),  # before IDX: may start with any byte
    Reader("IDX (MNIST)", idx.matches, idx.read_idx),
    Reader("a folder of .png or .jpg", pictures.matches, pictures.read_pictures, pictures=True),
]


def formats() -> str:
    """The formats that `load_images` reads, in one line."""
    return ", ".join(reader.help for reader in READERS)


def load(name: str | Path, *, bins: int | None = None, bits: int | None = None,
         size: int | None = None, grayscale: bool = False) -> Images:
    """A packaged data set by its name, or the images at a path, as `load_images`. Raises ValueError."""
    bits = 8 if bits is None else bits
    if check_path(name) not in PACKAGED:
        bins = 256 if bins is None else bins
        return load_images(name, bins, bits=bits, size=size, grayscale=grayscale)
    images = PACKAGED[str(name)]()
    if bins not in (None, images.bins):
        raise ValueError(f"expected {images.bins} bins for {name}, got {bins}")
    if size is not None or grayscale:
        raise ValueError(f"expected size and grayscale for a folder of pictures, got one for {name}")
    return reduce_bits(images, bits)


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
    check_count("bins", bins, 2, 256)
    check_bits(bits, bins)
    if size is not None:
        check_count("size", size, 1, MAX_SIDE)
    reader = _reader(path)
    if (size is not None or grayscale) and not reader.pictures:
        raise BadFile("expected a folder of pictures, since size or grayscale was given", path)
    images = reader.read(path, size, grayscale) if reader.pictures else reader.read(path)
    largest = max(images.train.max(), images.held_out.max())
    if largest >= bins:
        raise BadFile(f"expected values below {bins} bins, got {largest}", path)
    return reduce_bits(images._replace(bins=bins), bits)


def _reader(path: Path) -> Reader:
    """The reader for a path. Raises BadFile, which lists the formats."""
    head = b""
    if not path.is_dir():
        if not path.is_file():
            raise BadFile("expected a file or a folder, got a pipe or a device" if path.exists()
                          else f"no such file or folder; data sets are {', '.join(PACKAGED)}", path)
        with path.open("rb") as file:
            head = file.read(8)
        if not head:
            raise BadFile("expected images, got an empty file", path)
    for reader in READERS:
        if reader.matches(path, head):
            return reader
    found = ("a pickle, which can run any code" if head.startswith(b"\x80") else
             f"a file that starts with {head!r}" if head else "a folder that has none of them")
    raise BadFile(f"expected one of the formats {formats()}; got {found}", path)
