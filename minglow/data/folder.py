"""Folders of PNG and JPEG pictures: every header is looked at before any picture is decoded. Floor 1."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minglow.data import bounded
from minglow.data.bounded import BadFile, naming
from minglow.data.images import Images, every_tenth

if TYPE_CHECKING:
    from PIL import Image

MEGAPIXELS = 64  # of one picture
FREE, PER_BYTE = 4, 100  # megapixels of however small a file; above, a byte of it may open to so many
ENDINGS = (".png", ".jpg", ".jpeg")
ORIENTATION, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # Exif's tag, and its values that swap the sides


def read_pictures(folder: Path, size: int | None = None, grey: bool = False) -> Images:
    """The .png and .jpg pictures of a folder in the order of their names, every tenth held out.

    With a size, each is scaled until its shorter side has `size` pixels, and cropped to its centre:
    (N, size, size, C); without, they have to be of one size. C is 3, or 1 if `grey`. Palettes are
    looked up, and what is transparent shows white. If each picture lies in a sub-folder, its label
    is its sub-folder's place in the alphabet, from 0. Raises BadFile, which names the file at fault.
    """
    files = picture_files(folder)
    height, width = _common_size(files, size)
    shape = (len(files), height, width, 1 if grey else 3)
    if prod(shape) > bounded.LARGEST:
        raise BadFile(f"{folder}: expected pictures of at most {bounded.LARGEST:,} bytes in all, "
                      f"got an array {shape}")
    data = bytearray()  # grows with what has been decoded: a header alone sets no memory aside
    for path in files:
        data += decode(path, size, grey).tobytes()
    return every_tenth(np.frombuffer(data, np.uint8).reshape(shape), _labels(folder, files))


def picture_files(folder: Path) -> list[Path]:
    """The pictures in a folder and in its sub-folders, sorted; hidden ones are left out."""
    files = sorted(path for path in folder.rglob("*")
                   if path.suffix.lower() in ENDINGS and not path.is_dir()
                   and not any(part.startswith((".", "__")) for part in path.relative_to(folder).parts))
    for path in files:
        if folder not in (path.parent, path.parent.parent):
            raise BadFile(f"{path}: expected pictures in {folder} or its sub-folders, got one below")
        if not path.is_file():
            raise BadFile(f"{path}: expected a picture, got a dead link, a pipe or a device")
    if len(files) < 2:
        raise BadFile(f"{folder}: expected MNIST's files, CIFAR-10's .bin files, or at least 2 .png or "
                      f".jpg pictures, got {len(files)}")
    return files


def decode(path: Path, size: int | None = None, grey: bool = False) -> np.ndarray:
    """One picture (h, w, C), uint8, upright; scaled and cropped if there is a size. Raises BadFile."""
    from PIL import Image, ImageOps  # noqa: PLC0415 (only those who read pictures wait for it)

    with opened(path) as file:
        picture = file if file.format == "PNG" else ImageOps.exif_transpose(file)
        if "transparency" in picture.info or picture.mode in ("LA", "PA", "RGBA"):
            picture = picture.convert("RGBA")
            white = Image.new("RGB", picture.size, "white")
            white.paste(picture, mask=picture.getchannel("A"))
            picture = white
        picture = picture.convert("L" if grey else "RGB")
        if size is not None:
            picture = ImageOps.fit(picture, (size, size))
        return np.asarray(picture).reshape(picture.height, picture.width, -1)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture whose header has been read and is fit to be decoded. Raises BadFile, as in decoding."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    too_large = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    with path.open("rb") as file, naming(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Exif that is cut short, say: only pixels are asked for
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        head = file.read(25)
        if not head:
            raise BadFile(f"{path}: expected a picture, got an empty file")
        try:
            picture = Image.open(file, formats=("PNG", "JPEG"))
        except UnidentifiedImageError:
            raise BadFile(f"{path}: expected a PNG or JPEG picture, got none") from None
        except too_large:
            raise BadFile(f"{path}: expected at most {MEGAPIXELS} megapixels, got more") from None
        _check_kind(path, picture, head)
        yield picture


def _check_kind(path: Path, picture: Image.Image, head: bytes) -> None:
    megapixels = picture.width * picture.height / 1e6
    if megapixels > MEGAPIXELS:
        raise BadFile(f"{path}: expected at most {MEGAPIXELS} megapixels, got more")
    size = path.stat().st_size
    if megapixels > max(FREE, PER_BYTE * size / 1e6):  # photographs have some 10 pixels a byte
        raise BadFile(f"{path}: expected at most {FREE} megapixels in {size:,} bytes, "
                      f"got {megapixels:.0f}: is it a picture of nothing?")
    if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I"):
        raise BadFile(f"{path}: expected a grey or RGB picture, got {picture.mode}")
    if picture.format == "PNG" and head[24] == 16:  # of RGB, Pillow would drop the lower 8 bits unasked
        raise BadFile(f"{path}: expected a PNG of 8 bits a channel or fewer, got one of 16")
    # A JPEG of several frames is a photograph with a preview or a depth map behind it.
    if picture.format == "PNG" and getattr(picture, "is_animated", False):
        raise BadFile(f"{path}: expected a still picture, got an animated one")


def _common_size(files: list[Path], size: int | None) -> tuple[int, int]:
    """The height and width of all pictures; every header is checked on the way."""
    sizes = [_upright_size(path) for path in files]
    if size is not None:
        return size, size
    height, width = sizes[0]
    for path, (h, w) in zip(files, sizes):
        if (h, w) != (height, width):
            raise BadFile(f"{path}: expected the {height} x {width} pixels of {files[0].name}, got "
                          f"{h} x {w}; all are scaled and cropped if a size is given")
    return height, width


def _upright_size(path: Path) -> tuple[int, int]:
    with opened(path) as picture:
        turned = picture.format != "PNG" and picture.getexif().get(ORIENTATION) in QUARTER_TURNS
        return (picture.width, picture.height) if turned else (picture.height, picture.width)


def _labels(folder: Path, files: list[Path]) -> np.ndarray | None:
    if any(path.parent == folder for path in files):
        return None
    return np.unique([path.parent.name for path in files], return_inverse=True)[1].astype(np.int64)
