"""Start-up times, each in a new process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from time import perf_counter

from benchmarks.timing import summary

IMPORT = "import minglow"
FIRST_STEP = """
import numpy as np, minglow
from minglow.training import Adam
flow = minglow.glow((8, 8, 1), levels=2, flow_steps=8, hidden=64, rng=0)
optimizer = Adam(flow.flat)
flow.nll_backward(np.zeros((64, 8, 8, 1), np.float32))
optimizer.step(1e-3)
"""


def measure(quick: bool = False) -> dict[str, dict[str, float]]:
    """Milliseconds of a bare interpreter, of an import, and to the end of the first step."""
    runs = 2 if quick else 9
    with tempfile.TemporaryDirectory() as cache:
        warm = {**os.environ, "NUMBA_CACHE_DIR": cache}
        cold = []
        for _ in range(1 if quick else 3):
            with tempfile.TemporaryDirectory() as empty:
                cold.append(seconds(FIRST_STEP, {**os.environ, "NUMBA_CACHE_DIR": empty}))
        seconds(FIRST_STEP, warm)  # fills the cache
        return {
            "python alone": summary([seconds("pass", warm) for _ in range(runs)]),
            "import minglow": summary([seconds(IMPORT, warm) for _ in range(runs)]),
            "to the first step, warm cache": summary([seconds(FIRST_STEP, warm) for _ in range(runs)]),
            "to the first step, first ever compile": summary(cold),
        }


def seconds(code: str, environment: dict[str, str]) -> float:
    """Wall-clock time of a process that runs `code`."""
    start = perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    return perf_counter() - start
