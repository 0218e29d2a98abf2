"""gpu_check.sh: dry run, message without a GPU, exit code. Gradients of complete flows on a device."""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_device import close, device  # noqa: F401  pytest finds the fixture here

import minglow as mg
from minglow.testing import perturbed

SCRIPT = Path(__file__).with_name("gpu_check.sh")
PARTS = ("card and versions", "agreement of CuPy with NumPy", "other tests on the device",
         "training step beside PyTorch")


def run(*arguments, **variables):
    """The result of the script with this Python and without a GPU, unless `variables` differ."""
    if not shutil.which("timeout"):
        pytest.skip("the script needs the program timeout")
    environment = {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run([SCRIPT, *arguments], env=os.environ | environment | variables,
                          capture_output=True, text=True, check=False)


def exit_codes(output):
    """The exit code of each part, by the name of the part."""
    return {name: int(code) for name, code in re.findall(r"^== (.+): exit code (\d+), ", output, re.M)}


def test_the_dry_run_needs_no_gpu():
    pytest.importorskip("torch", reason="the benchmark is written with PyTorch, which is not installed")
    done = run("--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert exit_codes(done.stdout) == dict.fromkeys(PARTS, 0)
    counts = [int(line.split()[-1]) for line in lines if line.startswith("tests/arrays/test_device.py:")]
    assert len(counts) == 2 and min(counts) > 50
    assert any(line.startswith("training step: minglow ") for line in lines)


def test_a_missing_gpu_is_reported_in_one_line():
    done = run()
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("gpu_check.sh: no GPU to check: ImportError: expected ")
    assert done.stderr.count("\n") == 1


def test_an_unknown_argument_is_reported():
    done = run("--dry")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "gpu_check.sh: expected --dry-run or no argument, got --dry\n"


def test_every_part_runs_and_the_first_failure_is_the_exit_code(tmp_path):
    """In place of Python, a program that finds a GPU; the tests exit with 3, the benchmark with 4."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$*" >> "$0.log"\ncase "$*" in *pytest*) exit 3;; '
                      "*benchmarks.gpu*) exit 4;; esac\n", encoding="utf-8")
    python.chmod(0o755)
    done = run(PYTHON=str(python))
    assert done.returncode == 3
    assert exit_codes(done.stdout) == dict(zip(PARTS, (0, 3, 3, 4)))
    calls = (tmp_path / "python.log").read_text(encoding="utf-8")
    assert calls.count("pytest") == 2 and calls.endswith("-m benchmarks.gpu\n")
    assert "--collect-only" not in calls and "--dry-run" not in calls


@pytest.mark.parametrize("build", [mg.nice, mg.realnvp, mg.glow, mg.official_glow])
def test_every_gradient_of_a_flow_agrees(device, build):  # noqa: F811
    """The density, every gradient of bijection and base, and the inverse, in float64."""
    small = {"couplings": 2} if build is mg.nice else {"levels": 2}
    flow = perturbed(build((4, 4, 1), hidden=4, rng=0, dtype=np.float64, **small), 0, 0.05)
    twin = mg.to_device(copy.deepcopy(flow))
    x = np.random.default_rng(1).uniform(-0.4, 0.4, (3, 4, 4, 1))
    expected, found = flow.nll_backward(x), twin.nll_backward(mg.to_device(x))
    close(found.nll, np.array(expected.nll))
    close(found.dx, expected.dx)
    close(twin.flat.grad, flow.flat.grad)
    z = flow.latents(x)
    close(twin.from_latents(mg.to_device(z)), flow.from_latents(z))
