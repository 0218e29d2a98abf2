"""NumPy's own files, .npy and .npz."""

import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from minglow.data.bounded import BadFile, npz_members, open_untrusted, read_array, read_member
from minglow.data.dataset import Images, check_image_shape, check_labels, every_tenth
from minglow.data.table import ENOUGH_ROWS, MIN_ROWS, Table, column_fault, value_fault

NAMES = ("images", "x", "data", "X")  # of the array to read in a .npz file that has others
PAIRS = (("train", "test"), ("x_train", "x_test"))  # of tables: the second is held out


def read_npy(path: Path) -> Images | Table:
    """Images or a table, as `read_npz`, from a .npy file. Raises BadFile."""
    with open_untrusted(path) as file:
        array = read_array(file, path.stat().st_size, _check_header)
        return every_tenth(array) if array.dtype == np.uint8 else _unsplit(_table(array))


def read_npz(path: Path) -> Images | Table:
    """Images or a table from a .npz file. Raises BadFile.

    The array is one of NAMES, or the only one besides `labels`. Images are (N, h, w) or (N, h, w, C),
    uint8. A table is (N, D) or (N,), float32 or float64; none of its rows is held out, except in a file
    with one of PAIRS. labels: (N,), integers from 0 to N - 1, optional.
    """
    with open_untrusted(path) as file, zipfile.ZipFile(file) as archive:
        members = {name: info for name, info in npz_members(archive).items() if name != info.filename}
        for pair in PAIRS:
            if members.keys() >= {*pair} and "images" not in members:
                return _pair(archive, members, *pair)
        labels_member = members.pop("labels", None)
        names = [name for name in NAMES if name in members] or list(members)
        if not names or (len(names) > 1 and names[0] not in NAMES):
            raise BadFile(f"expected one array, or one called 'images' or 'x', got {list(members)}")
        array = read_member(archive, members[names[0]], _check_header)
        labels, images = None, array.dtype == np.uint8
        if labels_member is not None:
            labels = read_member(archive, labels_member, partial(_check_labels, len(array)))
            labels = check_labels(labels, len(array), noun="image" if images else "index")
        return every_tenth(array, labels) if images else _unsplit(_table(array), labels)


def _pair(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], train: str, test: str) -> Table:
    """A table that a file splits into two arrays."""
    if "labels" in members:
        raise BadFile(f"expected labels beside one array, got them beside {train!r} and {test!r}")
    x, held_out = (_table(read_member(archive, members[name], _check_table), name)
                   for name in (train, test))
    if x.shape[1] != held_out.shape[1]:
        raise BadFile(f"expected {test!r} to have the {x.shape[1]} columns of {train!r}, "
                      f"got {held_out.shape[1]}")
    _check_columns(x)
    return Table(x, held_out)


def _unsplit(x: np.ndarray, labels: np.ndarray | None = None) -> Table:
    _check_columns(x)
    return Table(x, x[:0], train_labels=labels)


def _table(array: np.ndarray, name: str = "") -> np.ndarray:
    """Samples (N, D) in the machine's byte order, all finite."""
    x = np.ascontiguousarray(array.reshape(len(array), -1), array.dtype.newbyteorder("="))
    if fault := value_fault(x, row=f"{name}, row" if name else "row"):
        raise BadFile(fault)
    return x


def _check_columns(x: np.ndarray) -> None:
    if fault := column_fault(x):
        raise BadFile(fault)


def _check_header(shape: tuple[int, ...], dtype: np.dtype) -> None:
    if dtype.kind == "f" and len(shape) < 3:
        _check_table(shape, dtype)
        if shape[0] < MIN_ROWS:
            raise BadFile(f"expected {ENOUGH_ROWS}, got an array {shape}")
    elif dtype == np.uint8 and len(shape) in (3, 4):
        check_image_shape(shape)
    else:
        numbers = dtype.kind in "biu" and len(shape) in (1, 2)
        advice = "; save a table by np.save('table.npy', x.astype(float))" if numbers else ""
        raise BadFile("expected uint8 images (N, h, w) or (N, h, w, C), or a float table (N, D), "
                      f"got {dtype} {shape}{advice}")


def _check_table(shape: tuple[int, ...], dtype: np.dtype) -> None:
    if dtype.kind != "f" or dtype.itemsize not in (4, 8) or len(shape) not in (1, 2):
        raise BadFile(f"expected a float32 or float64 table (N, D), got {dtype} {shape}")
    if shape[0] < 2 or min(shape) < 1:
        raise BadFile(f"expected at least 2 rows of numbers, got an array {shape}")


def _check_labels(count: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if dtype.kind not in "iu" or shape != (count,):
        raise BadFile(f"expected integer labels ({count},), got {dtype} {shape}")
