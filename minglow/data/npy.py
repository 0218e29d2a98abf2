"""NumPy's own files, .npy and .npz."""

import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from minglow.data.bounded import BadFile, npz_members, open_untrusted, read_array, read_member
from minglow.data.dataset import Images, check_image_shape, check_labels, every_tenth


def read_npy(path: Path) -> Images:
    """Images (N, h, w) or (N, h, w, C), uint8, from a .npy file. Raises BadFile."""
    with open_untrusted(path) as file:
        return every_tenth(read_array(file, path.stat().st_size, _check_images))


def read_npz(path: Path) -> Images:
    """The array `images` of a .npz file, or its only array besides `labels`. Raises BadFile.

    images: (N, h, w) or (N, h, w, C), uint8. labels: (N,), integers from 0 to N - 1, optional.
    """
    with open_untrusted(path) as file, zipfile.ZipFile(file) as archive:
        members = {name: info for name, info in npz_members(archive).items() if name != info.filename}
        labels_member = members.pop("labels", None)
        name = "images" if "images" in members else next(iter(members)) if len(members) == 1 else None
        if name is None:
            raise BadFile(f"expected one array, or one called 'images', got {list(members)}")
        images = read_member(archive, members[name], _check_images)
        if labels_member is None:
            return every_tenth(images)
        labels = read_member(archive, labels_member, partial(_check_labels, len(images)))
        return every_tenth(images, check_labels(labels, len(images)))


def _check_images(shape: tuple[int, ...], dtype: np.dtype) -> None:
    if dtype != np.uint8 or len(shape) not in (3, 4):
        raise BadFile(f"expected uint8 images (N, h, w) or (N, h, w, C), got {dtype} {shape}")
    check_image_shape(shape)


def _check_labels(count: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if dtype.kind not in "iu" or shape != (count,):
        raise BadFile(f"expected integer labels ({count},), got {dtype} {shape}")
