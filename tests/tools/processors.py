"""Run notebooks and numeric tests with the arithmetic of other processors.

    python tests/tools/processors.py                 every check with every kernel and 1 and 2 threads
    python tests/tools/processors.py Haswell 08      only the checks whose lines contain all these words

The order of additions in a matrix product depends on OpenBLAS's kernel and on the number of threads, so
a check that passes on one processor can fail on another. A variant chooses the kernel, and restricts
NumPy's and Numba's vector instructions to those of the kernel's processors. The first variant sets
nothing: minglow then chooses the number of threads. A line names the kernel that threadpoolctl reports;
a kernel that this processor cannot run is skipped.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(ROOT.glob("notebooks/[0-9]*.py"))
TESTS = ROOT / "tests" / "contract", ROOT / "tests" / "numbers"
# OpenBLAS's kernel, how the names of the NumPy instruction sets begin that it does without, Numba's name
KERNELS = (
    ("SkylakeX", ("AVX512_ICL", "AVX512_SPR"), "skylake-avx512"),
    ("Haswell", ("AVX512", "X86_V4"), "haswell"),
    ("Nehalem", ("AVX512", "X86_V4", "X86_V3", "AVX2", "FMA3"), "nehalem"),
)
KERNEL = ("import numpy, threadpoolctl; "
          "print(*[library['architecture'] for library in threadpoolctl.threadpool_info()])")
SECONDS = 1800  # for one check


def variants():
    """Yield a description and the environment variables of each variant that this processor can run."""
    yield f"{reported({})}, default", {}
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    for kernel, missing, numba in KERNELS:
        variables = {"OPENBLAS_CORETYPE": kernel, "NUMBA_CPU_NAME": numba, "NPY_DISABLE_CPU_FEATURES":
                     " ".join(name for name in found if name.startswith(missing))}
        if reported(variables) != kernel:
            print(f"skip  {kernel}: this processor or this NumPy does not run it", flush=True)
            continue
        for threads in 1, 2:
            yield f"{kernel}, {threads} thread{'s' * (threads > 1)}", variables | {
                "OPENBLAS_NUM_THREADS": str(threads)}


def reported(variables):
    """The kernel that threadpoolctl finds in a process with these environment variables."""
    done = subprocess.run([sys.executable, "-c", KERNEL], env=os.environ | variables, check=True,
                          capture_output=True, text=True)
    return done.stdout.strip()


def run(path, variables):
    """Run a notebook's text as a script, or a folder of tests; return the exit code and the output."""
    test = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", str(path)]
    command = test if path.is_dir() else [sys.executable, path.name]
    environment = os.environ | {"MPLBACKEND": "Agg"} | variables
    done = subprocess.run(command, cwd=ROOT if path.is_dir() else path.parent, env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          timeout=SECONDS)
    return done.returncode, done.stdout


def main(words):
    """Print a line for each variant and check; return the number of failures."""
    failures = 0
    for variant, variables in variants():
        for path in (*NOTEBOOKS, *TESTS):
            check = f"{variant:20}  {path.relative_to(ROOT)}"
            if not all(word in check for word in words):
                continue
            start = time.perf_counter()
            code, output = run(path, variables)
            failures += code != 0
            seconds = time.perf_counter() - start
            print(f"{'FAIL' if code else 'pass'}  {check}  {seconds:.0f} s", flush=True)
            if code:
                print("\n".join(f"      {line}" for line in output.splitlines()[-12:]), flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
