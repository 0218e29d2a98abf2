"""Full disks, files in the place of folders, and writes that fail: nothing saved is lost."""

import errno
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from bombs import in_a_process

from minglow.cli import main as cli
from minglow.storage import archive, checkpoint

TRAIN = ["train", "-K", "1", "-L", "1", "--hidden", "4", "--batch-size", "8", "--steps", "6",
         "--evaluate-every", "1"]


def assert_same_module(first, second):
    """Two checkpoints hold the same parameters and constants."""
    assert first.module.keys() == second.module.keys()
    for name, array in first.module.items():
        np.testing.assert_array_equal(array, second.module[name])


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def half_written(file, **arrays):
    """What np.savez does on a disk that fills up."""
    file.write(b"PK\x03\x04 and so on")
    full()


FAULTS = {"savez": (np, half_written), "fsync": (archive.os, full), "replace": (archive.os, full),
          "chmod": (archive.os, full)}


@pytest.mark.parametrize("name", FAULTS)
def test_a_write_that_fails_leaves_the_old_file(name, tmp_path, monkeypatch):
    path, (where, fault) = tmp_path / "model.npz", FAULTS[name]
    archive.write(path, {"a": np.arange(3)}, {"b": 1})
    before = path.read_bytes()
    monkeypatch.setattr(where, name, fault)
    with pytest.raises(OSError, match="No space left"):
        archive.write(path, {"a": np.arange(4)}, {"b": 2})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["model.npz"]


def test_a_file_that_cannot_be_opened_or_a_folder_that_cannot_be_synced(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="No such file"):
        archive.write(tmp_path / "none/model.npz", {}, {})
    monkeypatch.setattr(archive, "sync_folder", full)
    with pytest.raises(OSError, match="No space left"):
        archive.write(tmp_path / "model.npz", {"a": np.arange(3)}, {})
    assert archive.read(tmp_path / "model.npz")[0]["a"].tolist() == [0, 1, 2]  # it was renamed before


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """The last checkpoint of a run that writes all its files."""
    folder = tmp_path_factory.mktemp("runs")
    assert cli.main([*TRAIN, "--runs", str(folder), "--name", "complete"]) == 0
    return checkpoint.read(folder / "complete" / "last.npz")


@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("number", [1, 2, 7, 12])
def test_a_run_whose_disk_fills_up_can_be_resumed(number, name, complete, tmp_path, monkeypatch, capsys):
    """The number-th call fails, for any file, and so do all later calls."""
    monkeypatch.chdir(tmp_path)
    calls, real = [], getattr(os, name)

    def count(*arguments):
        calls.append(arguments)
        if len(calls) >= number:
            full()
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive.os, name, count)
        assert cli.main([*TRAIN, "--name", "cut"]) == 1
    shown = capsys.readouterr().err.splitlines()
    assert "No space left on device" in shown[-1] and not any("Traceback" in line for line in shown)
    assert not list((tmp_path / "runs/cut").glob("*.tmp"))
    if (tmp_path / "runs/cut/last.npz").exists():
        assert cli.main(["train", "--resume", "runs/cut"]) == 0
    else:  # nothing had been saved: the name can be used again
        assert cli.main([*TRAIN, "--name", "cut"]) == 0
    assert_same_module(complete, checkpoint.read(tmp_path / "runs/cut/last.npz"))


def test_a_file_that_may_not_grow_is_an_error_of_the_system(tmp_path):
    """The kernel itself stops the write of the first checkpoint, no planted fault."""
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    options = [*TRAIN, "--backend", "numpy", "--hidden", "16", "--name", "a"]
    done = subprocess.run([sys.executable, "-B", "-m", "minglow", *options], cwd=tmp_path,
                          preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "minglow train: error: [Errno 27] File too large: 'runs/a/model.npz'")
    assert sorted(os.listdir(tmp_path / "runs/a")) == [".lock", "metrics.csv"]


def test_too_little_space_is_found_before_the_first_step(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 999))
    assert cli.main(TRAIN) == 1
    assert "MB of free space for its checkpoints, got 0.0 MB" in capsys.readouterr().err
    assert (tmp_path / "runs/digits-1/metrics.csv").read_text().count("\n") == 1  # its header


def test_a_file_in_the_place_of_a_folder_is_found_before_the_first_step(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/a").write_text("mine")
    (tmp_path / "b").write_text("mine")
    for options in ["--name", "a"], ["--runs", "b"], ["--runs", "b/c"]:
        assert cli.main([*TRAIN, *options]) == 1
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1 and ("File exists" in shown or "Not a directory" in shown)
    assert (tmp_path / "runs/a").read_text() == (tmp_path / "b").read_text() == "mine"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_read_only_folder_is_found_before_the_first_step(tmp_path):
    (tmp_path / "runs/old").mkdir(parents=True)
    for folder in tmp_path / "runs/old", tmp_path / "runs":
        folder.chmod(0o555)

    def as_nobody():
        os.chdir(tmp_path)
        if os.geteuid() == 0:
            os.setuid(65534)  # root can write into a read-only folder
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return [cli.main([*TRAIN, "--name", name]) for name in ("new", "old")]

    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    assert in_a_process(as_nobody) == "[1, 1]"
    for folder in tmp_path / "runs", tmp_path / "runs/old":
        folder.chmod(0o755)
    assert not list((tmp_path / "runs/old").iterdir()) and len(list((tmp_path / "runs").iterdir())) == 1
