"""Peak memory of a training step, above what parameters, gradients and Adam's moments take.

Each figure is a process of its own: the highest resident size of three steps, minus the size before
the flow was built, minus four arrays of its parameters' size.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.subject import LARGE

DEPTHS = (4, 8, 16, 32)
SUBJECTS = ("minglow", "minglow, reversible", "normflows", "PyTorch")


def measure(quick: bool = False) -> dict[str, object]:
    """MiB above parameters, by subject and depth, for the large config."""
    depths = DEPTHS[:2] if quick else DEPTHS
    mebibytes: dict[str, list[float]] = {}
    for subject in SUBJECTS:
        mebibytes[subject] = []
        for depth in depths:
            output = subprocess.run([sys.executable, "-W", "ignore", "-m", "benchmarks.memory", subject,
                                     str(depth)], check=True, capture_output=True, text=True).stdout
            mebibytes[subject].append(json.loads(output.splitlines()[-1]))
    found = {"depths": depths, "mebibytes": mebibytes}
    if not quick:
        at = {subject: dict(zip(depths, values)) for subject, values in mebibytes.items()}
        found["ratios"] = {
            "normflows / minglow, K 16": round(at["normflows"][16] / at["minglow"][16], 2),
            "normflows / minglow, reversible, K 16":
                round(at["normflows"][16] / at["minglow, reversible"][16], 2),
            "minglow, reversible: K 32 / K 4":
                round(at["minglow, reversible"][32] / at["minglow, reversible"][4], 3),
        }
    return found


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process in memory now, or at most so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def one(name: str, depth: int) -> float:
    """MiB of one subject, in this process."""
    from benchmarks import libraries, ours  # noqa: PLC0415  in the process that measures

    make = {"minglow": ours.minglow_glow, "normflows": libraries.normflows_glow,
            "minglow, reversible": lambda size: ours.minglow_glow(size, reversible=True),
            "PyTorch": libraries.torch_glow}[name]
    small = make(LARGE._replace(shape=(8, 8, 3), steps=1, hidden=8, batch=1))
    small.train_step(small.load(LARGE._replace(shape=(8, 8, 3), batch=1).images()))  # compiles
    before = resident()
    subject = make(LARGE._replace(steps=depth))
    x = subject.load(LARGE.images())
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # reset the peak
    for _ in range(3):
        subject.train_step(x)
    return round((resident("VmHWM") - before - 4 * 4 * subject.parameters) / 2**20, 1)


if __name__ == "__main__":
    print(json.dumps(one(sys.argv[1], int(sys.argv[2]))))
