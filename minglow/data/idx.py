"""IDX files, the format of MNIST, Fashion-MNIST and their kin, gz or not. Floor 1."""

from __future__ import annotations

import gzip
from math import prod
from pathlib import Path

import numpy as np

from minglow.data.bounded import BadFile, Stream, naming, read_rest, room
from minglow.data.images import Images, check_labels, every_tenth, image_shape

GZ = b"\x1f\x8b"
UNSIGNED_BYTES = b"\0\0\x08"  # how an IDX file starts; the number of its dimensions is next


def read_idx(path: Path) -> Images:
    """Images from one IDX file, every tenth held out, with their labels if those lie beside it.

    `train-images-idx3-ubyte.gz` has its labels in `train-labels-idx1-ubyte`, gz or not.
    Raises BadFile, as for labels that are not as many as the images.
    """
    return every_tenth(*_images_and_labels(path))


def read_idx_folder(folder: Path) -> Images:
    """MNIST's folder: `train-images...` to train on, and `t10k-images...`, if there, held out."""
    found = {part: path for part in ("train", "t10k") if (path := images_file(folder, part))}
    if "train" not in found:
        raise BadFile(f"{folder}: expected train-images-idx3-ubyte beside t10k-images, got none")
    train, train_labels = _images_and_labels(found["train"])
    if "t10k" not in found:
        return every_tenth(train, train_labels)
    held_out, held_out_labels = _images_and_labels(found["t10k"])
    if train.shape[1:] != held_out.shape[1:]:
        raise BadFile(f"{found['t10k']}: expected images {train.shape[1:]} as in {found['train'].name}, "
                      f"got {held_out.shape[1:]}")
    return Images(train, held_out, 256, train_labels, held_out_labels)


def images_file(folder: Path, part: str) -> Path | None:
    """The images of the part "train" or "t10k" in a folder, under any of their usual names."""
    names = [f"{part}-images{dot}idx3-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _images_and_labels(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    images = _read(path, 3)[..., None]
    name = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    beside = [path.with_name(name + gz) for gz in ("", ".gz") if "images" in path.name]
    found = next((file for file in beside if file.is_file()), None)
    if found is None:
        return images, None
    labels = _read(found, 1)
    if len(labels) != len(images):
        raise BadFile(f"{found}: expected a label for each of {len(images)} images, got {len(labels)}")
    # MNIST and those that took its names have ten classes; EMNIST has more.
    return images, check_labels(found, labels, 10 if name.startswith(("train-", "t10k-")) else 256)


def _read(path: Path, dimensions: int) -> np.ndarray:
    with path.open("rb") as file:
        size, packed = path.stat().st_size, file.read(2) == GZ
        file.seek(0)
        if not packed:
            return _parse(path, file, size, dimensions)
        with gzip.open(file) as opened:
            return _parse(path, opened, room(size), dimensions)


def _parse(path: Path, file: Stream, most: int, dimensions: int) -> np.ndarray:
    with naming(path):
        header = file.read(4 + 4 * dimensions)
    if header[:4] != UNSIGNED_BYTES + bytes([dimensions]):
        raise BadFile(f"{path}: expected an IDX file of unsigned bytes in {dimensions} dimensions, "
                      f"got one that starts with {header[:4]!r}")
    if len(header) < 4 + 4 * dimensions:
        raise BadFile(f"{path}: expected {dimensions} sizes in its header, got a file that ends before")
    shape = tuple(np.frombuffer(header, ">u4", offset=4).tolist())
    if dimensions == 3:
        image_shape(path, shape)
    return read_rest(path, file, prod(shape), most - len(header)).reshape(shape)
