"""Folders of PNG and JPEG pictures. All headers are checked before the first picture is decoded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minglow.data import bounded
from minglow.data.bounded import BadFile, open_untrusted
from minglow.data.dataset import Images, every_tenth

if TYPE_CHECKING:
    from PIL import Image

MAX_MEGAPIXELS = 64  # of one picture
SMALL_MEGAPIXELS = 4  # allowed in a file of any size
PIXELS_PER_BYTE = 100  # the most in larger pictures; photographs have about 10
ENDINGS = (".png", ".jpg", ".jpeg")
ORIENTATION, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # Exif's tag, and its values that swap the sides


def matches(path: Path, head: bytes) -> bool:
    """Whether a path is a folder with pictures, or one picture, which `read_pictures` refuses."""
    return head.startswith((b"\x89PNG", b"\xff\xd8")) or (path.is_dir() and any(_pictures(path)))


def read_pictures(folder: Path, size: int | None = None, grayscale: bool = False) -> Images:
    """The .png and .jpg pictures of a folder in the order of their names, every tenth held out.

    With a size, each is scaled until its shorter side has `size` pixels, and cropped to its center: (N,
    size, size, C). Without, all have to be of one size. C is 3, or 1 if `grayscale`. Transparent pixels
    become white. If each picture is in a sub-folder, its label is the position of its sub-folder in
    alphabetical order, from 0. Raises BadFile.
    """
    if not folder.is_dir():
        raise BadFile("expected the folder that the pictures are in, got one picture", folder)
    files = sorted(_pictures(folder))
    for path in files:
        if folder not in (path.parent, path.parent.parent):
            raise BadFile(f"expected pictures in {folder} or its sub-folders, got one below", path)
        if not path.is_file():
            raise BadFile("expected a picture, got a dead link, a pipe or a device", path)
    if len(files) < 2:
        raise BadFile(f"expected at least 2 .png or .jpg pictures, got {len(files)}", folder)
    height, width = _common_size(files, size)
    shape = (len(files), height, width, 1 if grayscale else 3)
    if prod(shape) > bounded.MAX_BYTES:
        raise BadFile(f"expected pictures of at most {bounded.MAX_BYTES:,} bytes in all, "
                      f"got an array {shape}", folder)
    data = bytearray()  # grows as pictures are decoded: headers do not decide how much is allocated
    for path in files:
        data += decode(path, size, grayscale).tobytes()
    in_folders = all(path.parent != folder for path in files)
    labels = np.unique([path.parent.name for path in files], return_inverse=True)[1].astype(np.int64)
    return every_tenth(np.frombuffer(data, np.uint8).reshape(shape), labels if in_folders else None)


def _pictures(folder: Path) -> Iterator[Path]:
    """The pictures in a folder and its sub-folders, except hidden ones."""
    return (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and not path.is_dir()
            and not any(part.startswith((".", "__")) for part in path.relative_to(folder).parts))


def decode(path: Path, size: int | None = None, grayscale: bool = False) -> np.ndarray:
    """One picture (h, w, C), uint8, upright, scaled and cropped if a size is given. Raises BadFile."""
    from PIL import Image, ImageOps  # noqa: PLC0415 (imported only where pictures are read)

    with open_picture(path) as file:
        picture = file if file.format == "PNG" else ImageOps.exif_transpose(file)
        if "transparency" in picture.info or picture.mode in ("LA", "PA", "RGBA"):
            transparent = picture.convert("RGBA")
            picture = Image.new("RGB", transparent.size, "white")
            picture.paste(transparent, mask=transparent)
        picture = picture.convert("L" if grayscale else "RGB")
        if size is not None:
            picture = ImageOps.fit(picture, (size, size))
        return np.asarray(picture).reshape(picture.height, picture.width, -1)


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Open a picture and check its header. Raises BadFile, also for errors while it is open."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    with open_untrusted(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for example about damaged Exif data: only pixels are used
        head = file.read(25)
        if not head:
            raise BadFile("expected a picture, got an empty file")
        try:
            picture = Image.open(file, formats=("PNG", "JPEG"))
        except (UnidentifiedImageError, Image.DecompressionBombError):
            raise BadFile("expected a PNG or JPEG picture of at most "
                          f"{MAX_MEGAPIXELS} megapixels, got another file") from None
        _check_header(picture, head, path.stat().st_size)
        yield picture


def _check_header(picture: Image.Image, head: bytes, size: int) -> None:
    megapixels = picture.width * picture.height / 1e6
    if megapixels > MAX_MEGAPIXELS:
        raise BadFile(f"expected at most {MAX_MEGAPIXELS} megapixels, got more")
    if megapixels > max(SMALL_MEGAPIXELS, PIXELS_PER_BYTE * size / 1e6):
        raise BadFile(f"expected at most {SMALL_MEGAPIXELS} megapixels in {size:,} bytes, "
                      f"got {megapixels:.0f}: is the picture empty?")
    if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I"):
        raise BadFile(f"expected a gray or RGB picture, got {picture.mode}")
    if picture.format == "PNG" and head[24] == 16:  # Pillow would drop the lower 8 bits of RGB silently
        raise BadFile("expected a PNG of 8 bits a channel or fewer, got one of 16")
    # A JPEG of several frames is a photograph followed by a preview or a depth map.
    if picture.format == "PNG" and getattr(picture, "is_animated", False):
        raise BadFile("expected a still picture, got an animated one")


def _common_size(files: list[Path], size: int | None) -> tuple[int, int]:
    """The height and width of all pictures; checks every header."""
    first = None
    for path in files:
        with open_picture(path) as picture:
            turned = picture.format != "PNG" and picture.getexif().get(ORIENTATION) in QUARTER_TURNS
            h, w = picture.size if turned else picture.size[::-1]
        height, width = first = first or (h, w)
        if size is None and (h, w) != first:
            raise BadFile(f"expected the {height} x {width} pixels of {files[0].name}, got {h} x {w}; "
                          "all are scaled and cropped if a size is given", path)
    return (height, width) if size is None else (size, size)
