"""Every reader of fuzz.py, briefly, and a reader that fails."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="needs Atheris: pip install 'minglow[fuzz]'")

FUZZ = Path(__file__).with_name("fuzz.py")
READERS = "checkpoint", "weights", "arrays", "table", "idx", "cifar", "pictures"


def fuzz(folder, *arguments):
    return subprocess.run([sys.executable, str(FUZZ), *arguments], cwd=folder, capture_output=True,
                          text=True, check=False)


@pytest.mark.parametrize("reader", READERS)
def test_a_few_thousand_inputs_crash_no_reader(reader, tmp_path):
    done = fuzz(tmp_path, reader, "8")
    assert done.returncode == 0 and "no crash" in done.stdout, done.stderr[-2000:]
    assert not list(tmp_path.iterdir())


def test_a_reader_that_raises_something_else_is_a_crash(tmp_path):
    code = ("import runpy, sys; sys.argv = ['fuzz.py', 'idx', '60']; names = runpy.run_path("
            f"{str(FUZZ)!r}); names['READERS']['idx'] = ('a-idx3-ubyte', lambda path: 1 / "
            "(path.read_bytes()[:2] != bytes(2)), *names['READERS']['idx'][2:]); names['main']()")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
                          check=False)
    assert done.returncode != 0 and "ZeroDivisionError" in done.stderr + done.stdout
