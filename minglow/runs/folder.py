"""A run's folder: its name, its lock and its checkpoints."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from minglow.dequantization import Dequantizer
from minglow.flow import Flow
from minglow.runs.metrics import METRICS, Recorder
from minglow.storage import checkpoint
from minglow.storage.archive import temporaries
from minglow.training.monitor import Monitor
from minglow.training.state import TrainingState

CHECKPOINT = "model.npz"  # the best so far, and its dequantizer if that learns
LAST = "last.npz"  # the last state of training
LOCK = ".lock"
MAX_NAME = 200  # characters of a run's name: file systems take 255 bytes
COPIES = 11  # of the parameters: one in the model, five in the state, five while that is replaced


def create_run_folder(parent: str | Path, name: str | None, stem: str) -> Path:
    """Make parent/name, or the first free parent/stem-1, stem-2, ...; never one that has content.

    A folder that holds only metrics.csv, a lock or temporary files counts as empty: its run ended
    before anything was saved.
    """
    parent = Path(parent)
    if name is None:
        for folder in (parent / f"{stem}-{number}" for number in count(1)):
            with suppress(FileExistsError):
                folder.mkdir(parents=True)
                break
        return folder
    if Path(name).name != name or name in ("", "..") or len(name) > MAX_NAME:
        raise ValueError(f"expected the name of a folder in {parent}, got {name!r}")
    folder = parent / name
    if folder.is_dir() and set(folder.iterdir()) - {folder / METRICS, folder / LOCK,
                                                    *temporaries(folder)}:
        raise ValueError(f"expected a new run, got {folder}, which has content: choose another --name")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Let only this process train in the folder until the end of the block.

    The system releases the lock of a process that dies. Raises ValueError if another process is
    training there.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415  `import minglow` need not wait for it

    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{folder}: another process is training in this folder") from None
    except NotImplementedError:  # a file system without locks
        pass
    try:
        yield
    finally:
        lock.release()


def in_run(path: Path, name: str) -> Path:
    """A file of this name in the folder of a run, or of one of its files."""
    return (path if path.is_dir() else path.parent) / name


class Checkpointer:
    """Saves the best model of a run and the last state of training; prints the monitor's warnings."""

    def __init__(self, folder: Path, flow: Flow, dequantizer: Dequantizer, config: dict[str, Any],
                 recorder: Recorder, monitor: Monitor) -> None:
        self.folder, self.flow, self.dequantizer = folder, flow, dequantizer
        self.config, self.recorder, self.monitor = config, recorder, monitor
        self.warned = 0  # how many warnings the last evaluation had
        needed = COPIES * (flow.flat.value.nbytes + dequantizer.flat.value.nbytes)
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise OSError(f"{folder}: expected {needed / 1e6:.1f} MB of free space for its checkpoints, "
                          f"got {free / 1e6:.1f} MB")

    def __call__(self, state: TrainingState, best: bool) -> None:
        """Write the metrics, the model if it is the best so far, and the state, in this order: what the
        state counts as done has to be on the disk before it."""
        self.recorder.flush()
        if best:
            with state.averaged():
                checkpoint.save(self.folder / CHECKPOINT, self.flow, self.config,
                                {"dequantizer": self.dequantizer.flat.value})
        checkpoint.save(self.folder / LAST, self.flow, self.config, state.arrays(), state.facts())
        found = self.monitor.around_data()
        with state.averaged():  # what is saved, and will be sampled
            found += self.monitor.around_samples()
        if len(found) > self.warned:  # a run that has been warned is not warned again at each evaluation
            for warning in found:
                self.recorder.print(f"step={state.step} warning={warning}")
        self.warned = len(found)
