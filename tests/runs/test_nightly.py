"""The long forms of what other tests do briefly: `pytest -m nightly`; see docs/reliability.md."""

import subprocess
import sys
from pathlib import Path

import pytest
from test_resume import check_damage, check_resuming

pytestmark = pytest.mark.nightly
TOOLS = Path(__file__).parents[1] / "tools"


@pytest.mark.parametrize("backend", ["loops", "numpy", "numba"])
@pytest.mark.parametrize("at", range(1, 21))
def test_training_resumes_bit_by_bit_from_each_of_20_steps(tmp_path, backend, at):
    check_resuming(tmp_path / "last.npz", backend, at, 20)


@pytest.mark.parametrize("number", range(100, 700))
def test_12000_damaged_checkpoints_are_errors_or_unchanged(tmp_path, number):
    check_damage(tmp_path / "model.npz", number)


@pytest.mark.parametrize(("signal", "times"), [("KILL", 200), ("INT", 25), ("TERM", 25)])
def test_training_is_killed_at_random_moments(signal, times):
    subprocess.run([sys.executable, TOOLS / "kill_loop.py", signal, str(times)], check=True)


@pytest.mark.parametrize("reader", ["checkpoint", "weights", "arrays", "idx", "cifar", "pictures"])
def test_an_hour_of_fuzzing_crashes_no_reader(tmp_path, reader):
    pytest.importorskip("atheris", reason="needs Atheris: pip install 'minglow[fuzz]'")
    subprocess.run([sys.executable, TOOLS / "fuzz.py", reader, "3600"], cwd=tmp_path, check=True)
