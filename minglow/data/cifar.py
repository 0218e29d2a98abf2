"""CIFAR-10's binary version: 10,000 records a file, a label and the three colour planes. Floor 1.

Its "python" version is pickles, which can run any code when they are opened: they are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minglow.data.bounded import BadFile, read_rest
from minglow.data.images import Images, check_labels, every_tenth

RECORD = 1 + 3 * 32 * 32  # the label; then all red, all green, all blue bytes, row by row


def read_cifar(path: Path) -> Images:
    """The images (N, 32, 32, 3) and labels of one .bin file, every tenth held out. Raises BadFile."""
    return every_tenth(*_read([path]))


def read_cifar_folder(folder: Path) -> Images:
    """All data_batch_*.bin to train on, in order; test_batch.bin, if there, held out."""
    batches, test = training_files(folder), folder / "test_batch.bin"
    if not batches:
        raise BadFile(f"{folder}: expected data_batch_1.bin and so on beside {test.name}, got none")
    train, train_labels = _read(batches)
    if not test.is_file():
        return every_tenth(train, train_labels)
    held_out, held_out_labels = _read([test])
    return Images(train, held_out, 256, train_labels, held_out_labels)


def training_files(folder: Path) -> list[Path]:
    """data_batch_1.bin and so on, in the order of their numbers."""
    return sorted(folder.glob("data_batch_*.bin"), key=lambda path: (len(path.name), path.name))


def _read(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    counts = [_count(path) for path in files]
    images = np.empty((sum(counts), 32, 32, 3), np.uint8)
    labels = np.empty(sum(counts), np.int64)
    end = 0
    for path, count in zip(files, counts):
        with path.open("rb") as file:
            records = read_rest(path, file, count * RECORD, count * RECORD).reshape(count, RECORD)
        start, end = end, end + count
        labels[start:end] = check_labels(path, records[:, 0], 10)
        images[start:end] = records[:, 1:].reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, labels


def _count(path: Path) -> int:
    """How many records the file holds, by its size."""
    count, rest = divmod(path.stat().st_size, RECORD)
    if rest or count < 2:
        raise BadFile(f"{path}: expected 2 or more whole records of {RECORD:,} bytes each, as CIFAR-10 "
                      f"has them, got {path.stat().st_size:,} bytes: {count} and {rest:,} more")
    return count
