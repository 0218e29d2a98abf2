"""CIFAR-10's binary version: 10,000 records a file, each a label and three color planes.

Its "python" version consists of pickles, which can run any code when they are opened; it is not read.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minglow.data.bounded import BadFile, open_untrusted, read_rest
from minglow.data.dataset import Images, check_labels, every_tenth

RECORD = 1 + 3 * 32 * 32  # the label; then all red, all green, all blue bytes, row by row


def matches(path: Path, head: bytes) -> bool:
    """Whether a path is a .bin file, or a folder of CIFAR-10 in either version."""
    if head:
        return path.suffix == ".bin"
    names = "test_batch.bin", "data_batch_1"
    return bool(_training_files(path)) or any((path / name).is_file() for name in names)


def read_cifar(path: Path) -> Images:
    """Images (N, 32, 32, 3) and labels of one .bin file or of a folder. Raises BadFile.

    Held out are a folder's test_batch.bin, or every tenth image where there is none.
    """
    if not path.is_dir():
        return every_tenth(*_read([path]))
    batches, test = _training_files(path), path / "test_batch.bin"
    if not batches:
        found = test.name if test.is_file() else "the pickled version, which can run any code"
        raise BadFile(f"expected CIFAR-10's data_batch_1.bin and so on, got {found}", path)
    train, train_labels = _read(batches)
    if not test.is_file():
        return every_tenth(train, train_labels)
    held_out, held_out_labels = _read([test])
    return Images(train, held_out, 256, train_labels, held_out_labels)


def _training_files(folder: Path) -> list[Path]:
    """data_batch_1.bin and so on, in the order of their numbers."""
    return sorted(folder.glob("data_batch_*.bin"), key=lambda path: (len(path.name), path.name))


def _read(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    parts = []
    for path in files:
        size = path.stat().st_size
        count, rest = divmod(size, RECORD)
        if rest or count < 2:
            raise BadFile(f"expected at least 2 complete CIFAR-10 records of {RECORD:,} bytes each, "
                          f"got {size:,} bytes: {count} records and {rest:,} bytes", path)
        with open_untrusted(path) as file:
            parts.append(read_rest(file, size, size).reshape(count, RECORD))
        check_labels(parts[-1][:, 0], 10, path)
    records = np.concatenate(parts)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int64)
