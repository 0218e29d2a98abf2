"""Tables: samples of real numbers, split into those to train on and those held out."""

from bisect import bisect_left
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from minglow import validation
from minglow.bijection import Rng

MISSING = "missing value: remove the row, or fill it in"
MIN_ROWS = 3
ENOUGH_ROWS = f"at least {MIN_ROWS} rows, two to train on and one held out"
LARGEST = np.sqrt(np.finfo(np.float64).max)  # squares of larger values overflow


class Table(NamedTuple):
    """Samples (N, D) of real numbers, float32 or float64, split into two parts.

    columns: names of the columns, () if unknown. Labels are (N,) integers. Contexts are (N, K) real
    numbers: what the density is conditioned on. A table has no bins, and training does not shift it.
    """

    train: np.ndarray
    held_out: np.ndarray
    columns: tuple[str, ...] = ()
    train_labels: np.ndarray | None = None
    held_out_labels: np.ndarray | None = None
    train_context: np.ndarray | None = None
    held_out_context: np.ndarray | None = None
    bins: None = None
    shift: float = 0.0


def split(x: np.ndarray, held_out: float = 0.1, rng: Rng = 0, *, labels: np.ndarray | None = None,
          context: np.ndarray | None = None, columns: tuple[str, ...] = ()) -> Table:
    """Hold out a random fraction of the rows of x (N, D): at least one, and all but two at most.

    Both parts keep the order and the dtype of x. Raises ValueError.
    """
    rows = len(check_samples("x", x))
    if rows < MIN_ROWS:
        raise ValueError(f"expected x of {ENOUGH_ROWS}, got {rows}")
    fraction = validation.check_number("held_out", held_out, above=0.0, below=1.0)
    if labels is not None:
        _check_labels("labels", labels, rows)
    if context is not None:
        _check_part("context", context, context, rows=rows)
    chosen = np.zeros(rows, bool)
    count = min(max(round(fraction * rows), 1), rows - 2)
    chosen[np.random.default_rng(rng).permutation(rows)[:count]] = True
    train_labels, train_context = (None if a is None else a[~chosen] for a in (labels, context))
    chosen_labels, chosen_context = (None if a is None else a[chosen] for a in (labels, context))
    return Table(x[~chosen], x[chosen], tuple(columns), train_labels, chosen_labels, train_context,
                 chosen_context)


def check_table(table: Table, shape: tuple[int, ...] | None = None,
                dtype: DTypeLike = np.float32) -> None:
    """Raise ValueError unless a flow in this dtype can be trained on the table.

    Both parts have to be finite, of one D, and within the range of the dtype. No column may be constant,
    the dtype has to distinguish the values of each column, and the columns have to be linearly
    independent. shape: that of the model, (D,), if known.
    """
    validation.check_instance("table", table, Table)
    columns, train = table.columns, check_samples("train", table.train, 2)
    if len(columns) not in (0, train.shape[1]):
        raise ValueError(f"expected {train.shape[1]} names of columns, got {len(columns)}")
    _check_part("train", train, train, dtype, columns)
    _check_part("held_out", table.held_out, train, dtype, columns)
    if fault := column_fault(train, columns, dtype) or dependence(train, columns):
        raise ValueError(fault)
    if shape not in (None, train.shape[1:]):
        raise ValueError(f"expected samples of the model's shape {shape}, got {train.shape[1:]}")
    for name, first, second in (("labels", table.train_labels, table.held_out_labels),
                                ("context", table.train_context, table.held_out_context)):
        if (first is None) != (second is None):
            raise ValueError(f"expected {name} of both parts or of none, got those of one")
        if first is None or second is None:
            continue
        for part, array, rows in ((f"train_{name}", first, len(train)),
                                  (f"held_out_{name}", second, len(table.held_out))):
            if name == "context":
                _check_part(part, array, first, dtype, rows=rows)
            else:
                _check_labels(part, array, rows)


def check_samples(name: str, x: Any, rows: int = 1) -> np.ndarray:
    """Samples (N, D), float32 or float64, of at least so many rows. Raises ValueError."""
    right = _check_array(name, x).dtype in (np.float32, np.float64)
    if right and x.ndim == 2 and len(x) >= rows and x.size:
        return x
    cure = ".astype(float)" * (not right) + "[:, None]" * (x.ndim == 1)
    advice = ("" if not cure or x.dtype.kind not in "biuf" or x.ndim not in (1, 2) else
              f": {name}{cure} {'converts it' if x.ndim == 2 else 'makes it one column'}")
    raise ValueError(f"expected {name} to be float32 or float64 samples (N, D) with N of at least "
                     f"{rows}, got {x.dtype} {tuple(x.shape)}{advice}")


def value_fault(x: np.ndarray, columns: tuple[str, ...] = (), dtype: DTypeLike = np.float64,
                row: str = "row", first: int = 1) -> str | None:
    """The first value of x (N, D) that a flow in the dtype cannot take, in words; None if there is none.

    row: how a row is called. first: the number of the first one.
    """
    outside = ~(np.abs(x) <= np.minimum(LARGEST, np.finfo(dtype).max))
    if not outside.any():
        return None
    i, j = divmod(int(outside.argmax()), x.shape[1])
    value = x[i, j]
    reason = (MISSING if np.isnan(value) else f"{value:g} is not finite" if np.isinf(value) else
              f"{value:g} is too large: rescale the column" if abs(value) > LARGEST else
              f"{np.dtype(dtype)} cannot hold {value:g}: rescale the column, or use dtype float64")
    return f"{row} {i + first}, {column_name(columns, j)}: {reason}"


def column_fault(x: np.ndarray, columns: tuple[str, ...] = (),
                 dtype: DTypeLike = np.float64) -> str | None:
    """The first column of x (N, D) that has no density in the dtype, in words; None if there is none."""
    constant = (x == x[0]).all(axis=0)
    if constant.any():
        j = int(constant.argmax())
        return f"{column_name(columns, j)} is constant, {x[0, j]:g} in all rows: remove it"
    largest = np.abs(x).max(axis=0)  # without it, squares of large numbers would overflow
    scaled = x / largest
    mean, std = (f(scaled, axis=0, dtype=np.float64) * largest for f in (np.mean, np.std))
    limits = np.finfo(dtype)
    advice = "" if limits.dtype == np.float64 else ", or use dtype float64"
    for j in map(int, np.flatnonzero(std < limits.tiny)):
        return (f"{column_name(columns, j)} has standard deviation {std[j]:.3g}, too small for "
                f"{limits.dtype}: multiply it by a constant{advice}")
    # A standard deviation of fewer than 64 steps of the dtype: a ratio of 1.3e5 in float32.
    for j in map(int, np.flatnonzero(np.abs(mean) * limits.eps > std / 64)):
        return (f"{column_name(columns, j)} has mean {mean[j]:.3g} and standard deviation {std[j]:.3g}: "
                f"{limits.dtype} cannot distinguish its values: subtract its mean{advice}")
    return None


def dependence(x: np.ndarray, columns: tuple[str, ...] = ()) -> str | None:
    """The first columns of x (N, D) that depend on each other linearly, in words; None if none do.

    No column may be constant. N <= D points always lie on a plane: there the answer is None.
    """
    width = x.shape[1]
    if len(x) <= width:
        return None
    scaled = x / np.abs(x).max(axis=0)  # as in column_fault
    correlations = np.corrcoef(scaled, rowvar=False, dtype=np.float64).reshape(width, width)
    smallest, largest = np.linalg.eigvalsh(correlations)[[0, -1]]
    limit = 1e-12 * largest
    if smallest > limit:
        return None
    # Of the fewest first columns that are dependent, one direction has no variance, and only one.
    last = bisect_left(range(width), True, key=lambda j: np.linalg.eigvalsh(
        correlations[:j + 1, :j + 1])[0] <= limit)
    weights = np.abs(np.linalg.eigh(correlations[:last + 1, :last + 1])[1][:, 0])
    order = [int(j) for j in np.argsort(-weights) if weights[j] > 1e-5 * weights.max()]
    shown = sorted(order if len(order) < 5 else order[:3])
    names = [column_name(columns, j).removeprefix("column ") for j in shown]
    names += [f"{len(order) - 3} others"] * (len(order) > 4)
    return f"columns {', '.join(names[:-1])} and {names[-1]} depend on each other linearly: remove one"


def column_name(columns: tuple[str, ...], j: int) -> str:
    """How errors call column j: by its name, or by its number, from 1."""
    return f"column {columns[j] if columns and columns[j] else j + 1}"


def _check_array(name: str, array: Any, rows: int | None = None, kind: str = "float") -> Any:
    """An array of so many rows, if they are known. kind: what its elements should be."""
    if isinstance(array, (list, tuple)) or (hasattr(array, "__array__") and not hasattr(array, "dtype")):
        raise ValueError(f"expected {name} to be an array, got a {type(array).__name__}: "
                         f"np.array({name}, {kind}) makes one")
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(f"expected {name} to be an array without a mask, got a masked array: "
                         "fill or remove masked values")
    validation.check_array(name, array)
    if rows is not None and (array.ndim < 1 or len(array) != rows):
        raise ValueError(f"expected {name} of {rows} rows, got an array {array.shape}")
    return array


def _check_labels(name: str, labels: Any, rows: int) -> None:
    _check_array(name, labels, rows, "int")
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or labels.min() < 0:
        raise ValueError(f"expected {name} to be integers (N,) of at least 0, "
                         f"got {labels.dtype} {labels.shape}")


def _check_part(name: str, x: Any, first: np.ndarray, dtype: DTypeLike = np.float64,
                columns: tuple[str, ...] = (), rows: int | None = None) -> None:
    """Check one part against the first part."""
    if check_samples(name, _check_array(name, x, rows)).shape[1] != first.shape[1]:
        raise ValueError(f"expected {first.shape[1]} columns in {name}, got {x.shape[1]}")
    if fault := value_fault(x, columns, dtype, f"{name}, row"):
        raise ValueError(fault)
