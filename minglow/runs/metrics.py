"""metrics.csv of a run, one line for each step, and the progress on the terminal."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter
from typing import Any

from minglow.storage.archive import replacing
from minglow.training.loop import Progress

METRICS = "metrics.csv"


class Recorder:
    """Writes metrics.csv and shows progress; called with a Progress after each step.

    On a terminal it shows a progress bar, elsewhere a key=value line for each evaluation. A run that
    resumes after `done` steps keeps their lines, drops later ones, and continues to count the seconds.
    unit: the name of the losses there.
    """

    def __init__(self, folder: Path, steps: int, stream: Any, done: int = 0,
                 unit: str = "bits_per_dim") -> None:
        self.stream, self.unit = stream, unit
        self.curve: list[tuple[int, float, float]] = []  # step, mean training loss, held-out loss
        self.since: list[float] = []  # training losses since the last evaluation
        path = folder / METRICS
        lines = read_lines(path, done)
        with replacing(path) as file:
            header = ",".join((*Progress._fields, "seconds"))
            file.write("".join(f"{line}\n" for line in [header, *lines]).encode())
        for step, loss, held_out_loss, _ in map(figures, lines):
            self._remember(step, loss, held_out_loss)
        self.start = perf_counter() - (figures(lines[-1])[-1] if lines else 0.0)
        self.first, self.began = done, perf_counter()
        self.file = path.open("a", encoding="utf-8")
        from tqdm import tqdm  # noqa: PLC0415  `import minglow` need not wait for it

        tqdm.monitor_interval = 0  # no monitoring thread, which could outlive an interrupted run
        self.bar = tqdm(total=steps, initial=done, unit="step", file=stream, dynamic_ncols=True,
                        disable=not stream.isatty())

    def __call__(self, progress: Progress) -> None:
        """Record one step."""
        seconds = perf_counter() - self.start
        fields = ("" if value is None else f"{value:.6g}" for value in (*progress, seconds))
        self.file.write(",".join(fields) + "\n")
        self._remember(progress.step, progress.loss, progress.held_out_loss)
        if not self.bar.disable:
            held_out = f", held out {self.curve[-1][2]:.3f}" if self.curve else ""
            unit = self.unit.replace("_per_", "/")
            self.bar.set_postfix_str(f"{unit} {progress.loss:.3f}{held_out}", refresh=False)
            self.bar.update()
        elif progress.held_out_loss is not None:
            step, loss, held_out_loss = self.curve[-1]
            left = (perf_counter() - self.began) / (step - self.first) * (self.bar.total - step)
            print(f"step={step} {self.unit}={loss:.3f} held_out={held_out_loss:.3f} "
                  f"seconds={seconds:.1f} left={left:.0f}", file=self.stream, flush=True)

    def print(self, line: str) -> None:
        """Print a line above the progress bar."""
        self.bar.write(line, file=self.stream)

    def flush(self) -> None:
        """Write all records to the disk: a checkpoint must not be ahead of its metrics."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def _remember(self, step: int, loss: float, held_out_loss: float | None) -> None:
        self.since.append(loss)
        if held_out_loss is not None:
            self.curve.append((step, sum(self.since) / len(self.since), held_out_loss))
            self.since.clear()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.bar.close()


def read_lines(path: Path, done: int) -> list[str]:
    """The lines of metrics.csv of the first `done` steps, or none if there is no file.

    Raises ValueError for a file that lacks one of them.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[1:done + 1] if done else []
    for number in range(1, done + 1):
        line = lines[number - 1] if number <= len(lines) else ""
        try:
            complete = figures(line)[0] == number
        except ValueError:
            complete = False
        if not complete:
            raise ValueError(f"{path}: expected the figures of step {number} in line {number + 1}, "
                             f"got {line!r}: fix the line or move the file away, then resume")
    return lines


def figures(line: str) -> tuple[int, float, float | None, float]:
    """Step, training loss, held-out loss (or None), and seconds of a line of metrics.csv."""
    step, loss, _, held_out_loss, seconds = line.split(",")
    return int(step), float(loss), float(held_out_loss) if held_out_loss else None, float(seconds)
