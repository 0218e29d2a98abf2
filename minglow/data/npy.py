"""NumPy's own files, .npy and .npz, without pickles and without trust in their headers. Floor 1."""

from __future__ import annotations

import zipfile
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from minglow.data.bounded import BadFile, naming, read_rest, room
from minglow.data.images import Images, check_labels, every_tenth, image_shape

ARRAY = ".npy"


def read_npy(path: Path) -> Images:
    """Images (N, h, w) or (N, h, w, C), uint8, from a .npy file. Raises BadFile."""
    with path.open("rb") as file:
        return every_tenth(_images(path, file, path.stat().st_size))


def read_npz(path: Path) -> Images:
    """The array `images` of a .npz file, or the only one beside `labels`. Raises BadFile.

    images: (N, h, w) or (N, h, w, C), uint8. labels: (N,), integers from 0 to N - 1, or absent.
    """
    with naming(path), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(ARRAY): info for info in archive.infolist()
                   if info.filename.endswith(ARRAY)}
        if len(set(archive.namelist())) < len(archive.namelist()):
            raise BadFile(f"{path}: expected each array once, got one twice")
        labels = members.pop("labels", None)
        name = "images" if "images" in members else next(iter(members)) if len(members) == 1 else None
        if name is None:
            raise BadFile(f"{path}: expected one array, or one called 'images', got {list(members)}")
        with archive.open(members[name]) as file:
            images = _images(path, file, _room(path, members[name]))
        if labels is None:
            return every_tenth(images)
        with archive.open(labels) as file:
            return every_tenth(images, _labels(path, file, _room(path, labels), len(images)))


def _images(path: Path, file: IO[bytes], most: int) -> np.ndarray:
    shape, fortran, dtype = _header(path, file)
    if dtype != np.uint8 or len(shape) not in (3, 4):
        raise BadFile(f"{path}: expected uint8 images (N, h, w) or (N, h, w, C), got {dtype} {shape}")
    full = image_shape(path, shape)
    data = read_rest(path, file, prod(full), most - file.tell())
    return data.reshape(full[::-1]).T if fortran else data.reshape(full)


def _labels(path: Path, file: IO[bytes], most: int, count: int) -> np.ndarray:
    shape, _, dtype = _header(path, file)
    if dtype.kind not in "iu" or shape != (count,):
        raise BadFile(f"{path}: expected integer labels ({count},), got {dtype} {shape}")
    data = read_rest(path, file, count * dtype.itemsize, most - file.tell())
    return check_labels(path, data.view(dtype), count)  # no more classes than images


def _header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    with naming(path):
        version = np.lib.format.read_magic(file)
        if version != (1, 0):  # later ones are for headers of more than 64 KiB, which images don't have
            raise BadFile(f"{path}: expected version 1.0 of NumPy's format, got {version}")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise BadFile(f"{path}: holds no array of numbers but pickled objects, which are never opened")
    return shape, fortran, dtype


def _room(path: Path, member: zipfile.ZipInfo) -> int:
    """The most bytes that a member can open to, whatever its own header says."""
    packed = min(member.compress_size, path.stat().st_size)
    if member.compress_type == zipfile.ZIP_STORED:
        return packed
    if member.compress_type == zipfile.ZIP_DEFLATED:
        return room(packed)
    raise BadFile(f"{path}: expected members that are stored or deflated, got another compression")
