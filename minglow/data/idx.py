"""IDX files, the format of MNIST, Fashion-MNIST and EMNIST, gzipped or not."""

import gzip
import struct
from math import prod
from pathlib import Path

import numpy as np

from minglow.data import bounded
from minglow.data.bounded import BadFile, open_untrusted, read_rest
from minglow.data.dataset import Images, check_image_shape, check_labels, every_tenth

GZIP = b"\x1f\x8b"
UNSIGNED_BYTES = b"\0\0\x08"  # the start of an IDX file; the number of its dimensions is next


def matches(path: Path, head: bytes) -> bool:
    """Whether a path is an IDX file, perhaps gzipped, or a folder with the files of MNIST."""
    if head:
        return head.startswith((GZIP, UNSIGNED_BYTES[:2]))
    return any(_images_file(path, part) for part in ("train", "t10k"))


def read_idx(path: Path) -> Images:
    """Images, and their labels if the same folder has them, from one file or a folder. Raises BadFile.

    The labels of `train-images-idx3-ubyte.gz` are in `train-labels-idx1-ubyte`, gzipped or not. Held out
    are a folder's `t10k-images...`, or every tenth image where there are none.
    """
    if not path.is_dir():
        return every_tenth(*_images_and_labels(path))
    train_file, held_out_file = _images_file(path, "train"), _images_file(path, "t10k")
    if train_file is None:
        raise BadFile("expected train-images-idx3-ubyte as well as t10k-images, got none", path)
    train, train_labels = _images_and_labels(train_file)
    if held_out_file is None:
        return every_tenth(train, train_labels)
    held_out, held_out_labels = _images_and_labels(held_out_file)
    if train.shape[1:] != held_out.shape[1:]:
        raise BadFile(f"expected images {train.shape[1:]} as in {train_file.name}, "
                      f"got {held_out.shape[1:]}", held_out_file)
    return Images(train, held_out, 256, train_labels, held_out_labels)


def _images_file(folder: Path, part: str) -> Path | None:
    """The images of the part "train" or "t10k" in a folder, under any of their usual names."""
    names = [f"{part}-images{dot}idx3-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _images_and_labels(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    images = _read(path, 3)[..., None]
    name = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    candidates = [path.with_name(name + gz) for gz in ("", ".gz")]
    found = next((file for file in candidates if file.is_file()), None)
    if found is None or "images" not in path.name:
        return images, None
    labels = _read(found, 1)
    if len(labels) != len(images):
        raise BadFile(f"expected a label for each of {len(images)} images, got {len(labels)}", found)
    # MNIST, and the data sets that use its file names, have ten classes; EMNIST has more.
    return images, check_labels(labels, 10 if name.startswith(("train-", "t10k-")) else 256, found)


def _read(path: Path, dimensions: int) -> np.ndarray:
    with open_untrusted(path) as file:
        gzipped = file.read(2) == GZIP
        file.seek(0)
        content = gzip.GzipFile(fileobj=file) if gzipped else file
        available = bounded.MAX_BYTES if gzipped else path.stat().st_size
        header = content.read(4 + 4 * dimensions)
        if header[:4] != UNSIGNED_BYTES + bytes([dimensions]):
            raise BadFile(f"expected an IDX file of unsigned bytes in {dimensions} dimensions, "
                          f"got one that starts with {header[:4]!r}")
        shape = struct.unpack_from(f">{dimensions}I", header, 4)
        if dimensions == 3:
            check_image_shape(shape)
        return read_rest(content, prod(shape), available - len(header)).reshape(shape)
