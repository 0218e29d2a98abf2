"""Tables of numbers in text files: .csv, .tsv and .txt."""

import csv
import io
import re
from array import array
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from reprlib import repr as shortened

import numpy as np

from minglow.data.bounded import BadFile, open_untrusted
from minglow.data.table import (
    ENOUGH_ROWS,
    MIN_ROWS,
    MISSING,
    Table,
    column_fault,
    column_name,
    value_fault,
)
from minglow.validation import single_line

ENDINGS = (".csv", ".tsv", ".txt")
MAX_LINE_LENGTH = 2**20  # characters
MISSING_CELLS = {"", "-", "?", "n/a", "na", "nan", "none", "null"}


def matches(path: Path, head: bytes) -> bool:
    """Whether a path is a text file by its ending: text has no first bytes of its own."""
    return bool(head) and path.suffix.lower() in ENDINGS


def read_table(path: Path) -> Table:
    """The numbers of a text file as a Table of which no row is held out. Raises BadFile."""
    x, columns, _ = read_csv(path)
    return Table(x, x[:0], columns)


def read_csv(path: Path) -> tuple[np.ndarray, tuple[str, ...], int]:
    """The numbers (N, D), float64, the names of the columns, and the line of the first row.

    Cells are separated by a comma, a semicolon or a tab: the first line decides. They may be quoted. A
    first row in which any cell is text is the header; without one there are no names: (). Decimals have
    a point: a decimal comma is not supported. The text is UTF-8, and each row is one line.

    Raises BadFile, which names line and column, for text, missing, infinite or too large values, rows
    of different lengths, constant columns, and fewer than three rows. Memory is bounded by a few times
    the file's size.
    """
    with open_untrusted(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        rows = _rows(text)
        start = next(rows)
        width, header = len(start[1]), any(map(_is_text, start[1]))
        columns = tuple(map(single_line, start[1])) if header else ()
        first = start[0] + 1 if header else 1
        numbers = array("d")
        for expected, (line, cells) in enumerate(rows if header else chain([start], rows), first):
            if len(cells) != width:
                raise BadFile(f"line {line}: expected {width} cells as in line 1, got {len(cells)}")
            if line != expected:
                raise BadFile(f"line {expected}: expected one row a line, got a line break in a cell")
            try:
                numbers.extend(map(_number, cells))
            except ValueError:
                raise BadFile(f"line {line}, {_cell_fault(cells, columns)}") from None
        if len(numbers) < MIN_ROWS * width:
            raise BadFile(f"expected {ENOUGH_ROWS}, got {len(numbers) // width}"
                          + " below the header" * header)
        x = np.frombuffer(numbers).reshape(-1, width)
        if fault := value_fault(x, columns, row="line", first=first) or column_fault(x, columns):
            raise BadFile(fault)
        return x, columns, first


def _rows(text: io.TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
    """The rows, each with the number of its last line; blank lines at the end are left out."""
    lines = _lines(text)
    start = next(lines, "")
    reader = csv.reader(chain([start], lines), delimiter=_delimiter(start), skipinitialspace=True,
                        strict=True)
    blank = 0  # the number of the first blank line
    try:
        for cells in reader:
            if len(cells) > 1 or any(map(str.strip, cells)):
                if blank:
                    raise BadFile(f"line {blank}: expected a row of numbers, got a blank line")
                yield reader.line_num, cells
            else:
                blank = blank or reader.line_num
    except csv.Error as error:
        raise BadFile(f"line {reader.line_num}: {error}") from None
    if blank == 1:
        raise BadFile("expected rows of numbers, got blank lines")


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    """The lines of a text, of bounded length."""
    try:
        for number, line in enumerate(iter(partial(text.readline, MAX_LINE_LENGTH + 1), ""), 1):
            if len(line) > MAX_LINE_LENGTH:
                raise BadFile(f"line {number}: expected at most {MAX_LINE_LENGTH:,} characters, "
                              "got more")
            if "\0" in line:
                raise BadFile(f"line {number}: expected text, got a zero byte, as in binary files")
            yield line
    except UnicodeDecodeError:
        raise BadFile("expected text in UTF-8, got another encoding or a binary file") from None


def _delimiter(line: str) -> str:
    """The delimiter of the first line: the first of tab, semicolon and comma that is outside quotes."""
    outside = re.sub('"[^"]*"', "", line)
    return next((mark for mark in "\t;" if mark in outside), ",")


def _number(cell: str) -> float:
    if "_" in cell:  # Python's float takes 1_000
        raise ValueError
    return float(cell)


def _is_text(cell: str) -> bool:
    """Whether a cell is neither a number nor a missing value."""
    try:
        _number(cell)
    except ValueError:
        return not _is_missing(cell)
    return False


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING_CELLS


def _cell_fault(cells: list[str], columns: tuple[str, ...]) -> str:
    """The first cell that is no number, in words."""
    j = next(j for j, cell in enumerate(cells) if _is_missing(cell) or _is_text(cell))
    if _is_missing(cells[j]):
        return f"{column_name(columns, j)}: {MISSING}"
    cell = cells[j].strip()
    advice = ("write decimals with a point" if re.fullmatch(r"[+-]?\d+,\d+", cell) else
              "separate the cells by commas" if len(cells) == 1 and len(cell.split()) > 1 else
              "remove the column, or encode it as numbers")
    return f"{column_name(columns, j)}: {shortened(cell)} is not a number: {advice}"
