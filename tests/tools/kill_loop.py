"""Kill training at random moments and check the files; the real command, real processes.

    python tests/tools/kill_loop.py KILL 200    SIGKILL within a save: every file is intact, and the next
                                                start removes the unfinished ones
    python tests/tools/kill_loop.py INT 25      Ctrl-C: every run resumes
    python tests/tools/kill_loop.py TERM 25

Prints a line for each kill and a summary; exits with 1 if anything was lost.
"""

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from minglow.storage import checkpoint

TRAIN = ["-m", "minglow", "train"]
NEW = ["-K", "1", "-L", "1", "--hidden", "4", "--batch-size", "8", "--steps", "100000",
       "--evaluate-every", "1", "--name", "run"]


def start(folder: Path, resume: bool) -> subprocess.Popen:
    """A new run, or the same run resumed."""
    arguments = ["--resume", "runs/run"] if resume else NEW
    return subprocess.Popen([sys.executable, *TRAIN, *arguments], cwd=folder, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)


def saved_steps(run: Path) -> int:
    """Steps of the last state, once both files are read and verified."""
    checkpoint.read(run / "model.npz")
    return checkpoint.read(run / "last.npz").facts["step"]


def wait_for_steps_after(steps: int, run: Path, process: subprocess.Popen) -> None:
    """Wait until a later step has been saved, or the process has ended."""
    while process.poll() is None and not ((run / "last.npz").exists() and saved_steps(run) > steps):
        time.sleep(0.01)


def wait_for_a_save(run: Path, process: subprocess.Popen) -> None:
    """Wait until a file is being written, or the process has ended.

    There is no pause between the checks, since writing takes milliseconds.
    """
    while process.poll() is None and not any(run.glob("*.tmp")):
        pass


def main() -> int:
    number, times = signal.Signals[f"SIG{sys.argv[1]}"], int(sys.argv[2])
    lost, halves, chance = [], 0, random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder, run = Path(name), Path(name, "runs", "run")
        steps = 0
        for kill in range(times):
            process = start(folder, resume=kill > 0)
            wait_for_steps_after(steps, run, process)
            stale = [path.name for path in run.glob("*.tmp") if str(process.pid) not in path.name]
            if number == signal.SIGKILL:
                wait_for_a_save(run, process)
            time.sleep(chance.uniform(0, 0.005 if number == signal.SIGKILL else 0.3))
            process.send_signal(number)
            error = process.communicate()[1]
            expected = -9 if number == signal.SIGKILL else 128 + number
            try:
                before, steps = steps, saved_steps(run)
                ok = steps > before and process.returncode == expected and not stale
            except checkpoint.CheckpointError as damage:
                ok, error = False, str(damage)
            left = [path.name for path in run.glob("*.tmp")]
            print(f"{kill + 1}: step {steps}, exit {process.returncode}, half-written {left}, "
                  f"stale after the start {stale}{'' if ok else f', LOST: {error[-300:]}'}", flush=True)
            lost += [] if ok else [kill]
            halves += bool(left)
    print(f"{times - len(lost)} of {times} resumable; {halves} were killed with a file half-written")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
