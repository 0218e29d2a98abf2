"""The machine and the libraries that a measurement was made with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from threadpoolctl import threadpool_info


def describe() -> dict[str, object]:
    """Processor, cores, versions, and every thread pool with its kernel."""
    return {
        "processor": _processor(), "cores": os.cpu_count(), "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("numpy", "numba", "torch", "normflows")},
        "threads": [f"{pool['internal_api']} {pool.get('version') or ''} "
                    f"{pool.get('architecture') or ''} {pool['num_threads']} threads".replace("  ", " ")
                    for pool in threadpool_info()],
        "variables": {name: value for name, value in os.environ.items()
                      if name.startswith(("OPENBLAS_", "OMP_", "MKL_", "NUMBA_", "MALLOC_"))},
    }


def _processor() -> str:
    """The processor's model, and the vector extensions that decide the speed of a product."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    facts = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    vectors = [flag for flag in ("avx2", "avx512f", "avx512_bf16") if flag in facts["flags"].split()]
    return (f"{facts['model name']}, family {facts['cpu family']} model {facts['model']}, "
            + " ".join(vectors))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
