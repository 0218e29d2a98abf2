"""The one entry to all readers: what a path holds decides which of them reads it. Floor 1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from minglow import arguments
from minglow.data import cifar, idx, npy
from minglow.data.bounded import BadFile
from minglow.data.folder import read_pictures
from minglow.data.images import Images, check_bits, reduce_bits

LARGEST_SIDE = 4096


def load_images(path: str | Path, levels: int = 256, *, bits: int = 8, size: int | None = None,
                grey: bool = False) -> Images:
    """Images of the user's own, (N, h, w, C) uint8 with C 1 or 3, from any of these.

    .npy, .npz    an array (N, h, w) or (N, h, w, C), uint8; in a .npz `images`, or the only one, and
                  `labels` (N,), if there
    IDX, gz too   MNIST's images file, with its labels if they lie beside it; or the folder
    .bin          one file of CIFAR-10's binary version, or the folder
    pictures      a folder of .png and .jpg: `read_pictures` says what `size` and `grey` do

    The folders of MNIST and CIFAR-10 hold their own test set out; of all else, it is every tenth.
    Values have to be below `levels`; with `bits` below 8, 256 levels become 2^bits. Labels are int64.
    Raises ValueError, in one line that names the file, for anything else, and for damage. No more
    memory is used than a few times what is really there: headers are checked before they are believed.
    """
    path = Path(arguments.path(path))
    if not 2 <= levels <= 256:
        raise ValueError(f"expected from 2 to 256 grey levels of uint8, got {levels}")
    check_bits(bits, levels)
    if size is not None and not 1 <= size <= LARGEST_SIDE:
        raise ValueError(f"expected a size of 1 to {LARGEST_SIDE} pixels, got {size}")
    reader = _reader(path)
    if reader is read_pictures:
        images = read_pictures(path, size, grey)
    elif size is not None or grey:
        raise BadFile(f"{path}: expected a folder of pictures, since size or grey was given")
    else:
        images = reader(path)
    largest = max(images.train.max(), images.held_out.max())
    if largest >= levels:
        raise BadFile(f"{path}: expected values below {levels} levels, got {largest}")
    return reduce_bits(images._replace(levels=levels), bits)


def _reader(path: Path) -> Callable[[Path], Images]:
    """The reader for what a path holds. Raises BadFile, which says what could be read."""
    if path.is_dir():
        return _folder_reader(path)
    if not path.is_file():
        raise BadFile(f"{path}: expected a file or a folder, got a pipe or a device" if path.exists()
                      else f"{path}: no such file or folder")
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        raise BadFile(f"{path}: expected images, got an empty file")
    if path.suffix == ".bin":  # first: its bytes may start in any way
        return cifar.read_cifar
    for signature, reader in ((b"PK\x03\x04", npy.read_npz), (b"\x93NUMPY", npy.read_npy),
                              (idx.GZ, idx.read_idx), (b"\0\0", idx.read_idx)):
        if start.startswith(signature):
            return reader
    if start.startswith((b"\x89PNG", b"\xff\xd8")):
        raise BadFile(f"{path}: expected the folder that the pictures are in, got one picture")
    if start.startswith(b"\x80"):
        raise BadFile(f"{path}: expected images, got a pickle, which can run any code")
    raise BadFile(f"{path}: not a .npy or .npz file, nor IDX, nor CIFAR-10's .bin, nor a folder; "
                  f"it starts with {start!r}")


def _folder_reader(folder: Path) -> Callable[[Path], Images]:
    if cifar.training_files(folder) or (folder / "test_batch.bin").is_file():
        return cifar.read_cifar_folder
    if (folder / "data_batch_1").is_file():
        raise BadFile(f"{folder}: expected CIFAR-10's binary version, data_batch_1.bin and so on, got "
                      "its pickled one, which can run any code")
    if idx.images_file(folder, "train") or idx.images_file(folder, "t10k"):
        return idx.read_idx_folder
    return read_pictures
