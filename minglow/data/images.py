"""Integer images, split once and for all into those to train on and those held out. Floor 1."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Images(NamedTuple):
    """Images (N, h, w, C) of unsigned integers 0 .. levels-1, and what each shows, where known."""

    train: np.ndarray
    held_out: np.ndarray
    levels: int
    train_labels: np.ndarray | None = None
    held_out_labels: np.ndarray | None = None


def digits() -> Images:
    """Handwritten digits, 8 x 8 x 1, 17 levels: 1,500 to train on and the last 297 held out.

    UCI's optical recognition of handwritten digits (Alpaydin & Kaynak 1998), CC BY 4.0; the
    source is named in full in digits.txt beside the file, whose order is kept.
    """
    with (files("minglow.data") / "digits.npz").open("rb") as file, np.load(file) as archive:
        images, labels = archive["images"][..., None], archive["labels"]
    return Images(images[:1500], images[1500:], 17, labels[:1500], labels[1500:])


def load_images(path: str | Path, levels: int = 256) -> Images:
    """Images of the user's own, from a .npy or .npz file; every tenth of them is held out.

    The array is (N, h, w) or (N, h, w, C), uint8, C 1 or 3; in a .npz it is the array called
    `images`, or the only one. Raises ValueError that names the file for anything else, and for
    values of `levels` or more.
    """
    if not 2 <= levels <= 256:
        raise ValueError(f"expected from 2 to 256 grey levels of uint8, got {levels}")
    images = _read_array(Path(path))
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{path}: expected uint8 images (N, h, w) or (N, h, w, C), "
            f"got {images.dtype} {images.shape}"
        )
    images = images if images.ndim == 4 else images[..., None]
    if len(images) < 2 or 0 in images.shape:
        raise ValueError(f"{path}: expected at least 2 images, got an array {images.shape}")
    if images.shape[3] not in (1, 3):
        raise ValueError(f"{path}: expected 1 or 3 channels, and them last, got {images.shape}")
    if images.max() >= levels:
        raise ValueError(f"{path}: expected values below {levels} levels, got {images.max()}")
    every_tenth = np.arange(len(images)) % min(10, len(images)) == 0
    return Images(images[~every_tenth], images[every_tenth], levels)


def _read_array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
    with path.open("rb") as file:
        if not file.read(6).startswith((b"PK\x03\x04", b"\x93NUMPY")):
            raise ValueError(f"{path}: not a .npy or .npz file")
        file.seek(0)
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            names = loaded.files
            name = "images" if "images" in names else names[0] if len(names) == 1 else None
            if name is not None:
                return loaded[name]
        except Exception as error:  # np.load answers damage with half a dozen kinds of exception
            reason = " ".join(str(error).split())
            raise ValueError(f"{path}: holds no array of numbers, or is damaged ({reason})") from None
    raise ValueError(f"{path}: expected one array, or one called 'images', got {names}")
