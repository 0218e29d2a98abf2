"""Interrupted training resumes bit by bit; saved files stay intact, and damage is an error."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_disks import assert_same_module

import minglow as mg
from minglow import kernels
from minglow.cli import main as cli
from minglow.data import Images
from minglow.dequantization import UniformDequantizer, VariationalDequantizer
from minglow.runs import figures, folder, metrics
from minglow.runs.loading import load_run
from minglow.storage import archive, checkpoint
from minglow.storage.checkpoint import CheckpointError
from minglow.testing import perturbed
from minglow.training.diagnosis import first_nonfinite, invertibility
from minglow.training.loop import Diverged, Interrupted, train
from minglow.training.monitor import Monitor
from minglow.training.optimizers import Adamax
from minglow.training.state import TrainingState, next_indices

STEPS = 6


@pytest.fixture(autouse=True)
def hangup():
    """Tests that are run by nohup inherit an ignored SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def images():
    pixels = np.random.default_rng(0).integers(0, 16, (30, 4, 4, 1), np.uint8)
    return Images(pixels[:20], pixels[20:], np.int64(17), np.arange(20) % 3, np.arange(10) % 3)


def parts(seed=0, variational=True):
    flow = mg.glow((4, 4, 1), 1, 2, 4, classes=3, permutation=mg.InvConv1x1LU, rng=seed)
    return flow, VariationalDequantizer((4, 4, 1), 17, 4, rng=seed) if variational else None


def digest(*models):
    return hashlib.sha256(b"".join(model.flat.value.tobytes() for model in models)).hexdigest()


def learn(flow, dequantizer, steps=STEPS, **options):
    train(flow, images(), steps=steps, batch_size=7, learning_rate=0.01, warmup_steps=2, ema_decay=0.9,
          shift=1.0, flip=True, classification_weight=0.1, dequantizer=dequantizer, optimizer=Adamax,
          evaluate_every=2, **options)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("at", range(1, STEPS + 1))
def test_training_resumes_bit_by_bit_from_any_step(tmp_path, backend, at):
    check_resuming(tmp_path / "last.npz", backend, at, STEPS)


def check_resuming(path, backend, at, steps):
    """Training stops after step `at`, resumes in another flow, and ends with the same parameters.

    Batches of 7 of 20 images: in some steps it stops within an epoch.
    """
    with kernels.use(backend):
        uninterrupted = parts()
        learn(*uninterrupted, steps)
        flow, dequantizer = parts()
        numbers = iter(range(1, steps + 1))

        def save(state, best):
            checkpoint.save(path, flow, {}, state.arrays(), state.facts())

        with pytest.raises(Interrupted, match=f"after step {at}"):
            learn(flow, dequantizer, steps, on_evaluation=save,
                  should_stop=lambda: signal.SIGTERM * (next(numbers) == at))
        other = parts(seed=1)  # resuming also restores its constants
        learn(*other, steps, resume=checkpoint.read(path))
    assert digest(*other) == digest(*uninterrupted)


def test_another_state_is_refused_and_changes_nothing(tmp_path):
    flow, dequantizer = parts()
    state = TrainingState(flow, dequantizer, Adamax, 0.9, 0, images())
    state.step = 1
    path = tmp_path / "last.npz"
    checkpoint.save(path, flow, {}, state.arrays(), state.facts())
    saved = checkpoint.read(path)
    without = {name: array for name, array in saved.arrays.items() if name != "dequantizer.mean"}
    small = saved.arrays | {"flow.average": np.zeros(3, np.float32)}
    rotated = saved.arrays | {"flow.value": np.roll(saved.arrays["flow.value"], 1)}
    no_order = {name: array for name, array in saved.module.items() if not name.endswith(".order")}
    one_more = saved.module | {"bijection.unknown": np.zeros(2)}
    settings = saved.settings | {"bijection.1": {"factor": 3.0}}
    no_labels = {name: part for name, part in saved.facts["data"].items() if "labels" not in name}
    for changed, message in (
        (saved._replace(arrays=without), "expected dequantizer.mean as float32 .*got none"),
        (saved._replace(arrays=small), r"expected flow.average as .*got float32 \(3,\)"),
        (saved._replace(arrays=rotated), "flow.value to hold the flow's parameters in order"),
        (saved._replace(facts={}), "expected the data of the interrupted run"),
        (saved._replace(facts=saved.facts | {"step": None}), "state of training after a step, got None"),
        (saved._replace(facts=saved.facts | {"step": -1}), "after a step, got -1"),
        (saved._replace(facts=saved.facts | {"step": True}), "after a step, got True"),
        (saved._replace(facts=saved.facts | {"best": float("nan")}), "the best loss, .*, got nan, 0$"),
        (saved._replace(facts=saved.facts | {"best": 3}), "the best loss, .*, got 3, 0$"),
        (saved._replace(facts=saved.facts | {"since_best": -1}), "the best loss, .*, got inf, -1$"),
        (saved._replace(facts=saved.facts | {"since_best": None}), "the best loss, .*, got inf, None$"),
        (saved._replace(facts=saved.facts | {"since_best": True}), "the best loss, .*, got inf, True$"),
        (saved._replace(facts=saved.facts | {"rng": {"bit_generator": "MT"}}), "generator's state"),
        (saved._replace(arrays=saved.arrays | {"remaining": np.array([20])}), "indices of the 20"),
        (saved._replace(facts=saved.facts | {"data": no_labels}), "the data of the interrupted"),
        (saved._replace(facts=saved.facts | {"optimizer": "Adam"}), "the optimizer of the inter"),
        (saved._replace(module=one_more), "expected no other array, got bijection.unknown"),
        (saved._replace(module=no_order), r"expected bijection.*order, got none"),
        (saved._replace(settings=settings), "expected bijection.1 with the settings .*'factor': 1.0}"),
    ):
        other = TrainingState(*parts(seed=2), Adamax, 0.9, 5, images())
        before = {name: array.copy() for name, array in other.arrays().items()}
        with pytest.raises(CheckpointError, match=message):
            other.restore(changed)
        for name, array in other.arrays().items():
            np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("part", ["train", "held_out", "train_labels", "held_out_labels", "bins"])
def test_training_does_not_resume_with_other_images(tmp_path, part):
    path, (flow, dequantizer) = tmp_path / "last.npz", parts(variational=False)
    learn(flow, dequantizer, on_evaluation=lambda state, best: checkpoint.save(
        path, flow, {}, state.arrays(), state.facts()))
    last = checkpoint.read(path)
    changed = np.array(getattr(images(), part))
    changed.flat[0] = 2 - changed.flat[0] % 2 if part != "bins" else 16  # another value that is allowed
    changed = int(changed) if part == "bins" else changed
    before = digest(flow)
    with pytest.raises(CheckpointError, match="expected the data of the interrupted run"):
        train(flow, images()._replace(**{part: changed}), batch_size=7, optimizer=Adamax, resume=last)
    assert digest(flow) == before
    with pytest.raises(ValueError, match="expected resume to be a Checkpoint, got a str"):
        train(flow, images(), batch_size=7, optimizer=Adamax, resume="last.npz")


def test_the_command_resumes_after_a_signal(tmp_path, monkeypatch, capsys):
    """The metrics of the run have every step once, and the model is the same."""
    monkeypatch.chdir(tmp_path)
    command = ["train", "-K", "1", "-L", "1", "--hidden", "4", "--steps", "250", "--seed", "3"]
    assert cli.main([*command, "--name", "complete"]) == 0
    real = metrics.Recorder.__call__

    def signal_at_step_130(self, progress):
        real(self, progress)
        if progress.step == 130:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(metrics.Recorder, "__call__", signal_at_step_130)
    assert cli.main([*command, "--name", "cut"]) == 130
    assert "interrupted after step 130" in capsys.readouterr().err
    monkeypatch.setattr(metrics.Recorder, "__call__", real)
    (tmp_path / "runs/cut/model.npz.123.tmp").write_bytes(b"left by a killed process")
    with (tmp_path / "runs/cut/metrics.csv").open("a") as file:
        file.write("131,3.1,1.0,,9.9\n132,3.")  # of a process that was killed before it saved
    assert cli.main(["train", "--resume", "runs/cut"]) == 0
    complete, cut = (checkpoint.read(tmp_path / "runs" / name / "model.npz")
                     for name in ("complete", "cut"))
    assert_same_module(complete, cut)
    lines = {name: [line.rsplit(",", 1)[0] for line in
                    (tmp_path / f"runs/{name}/metrics.csv").read_text().splitlines()]
             for name in ("complete", "cut")}
    assert lines["complete"] == lines["cut"] and len(lines["cut"]) == 251
    assert not list((tmp_path / "runs/cut").glob("*.tmp"))
    capsys.readouterr()
    assert cli.main(["train", "--resume", "runs/cut/last.npz"]) == 0  # no step is left
    assert "resumed=after step 250 of 250\n" in capsys.readouterr().out
    assert cli.main(["train", "--resume", "runs/cut", "--steps", "9"]) == 1
    assert "--steps cannot be combined with --resume" in capsys.readouterr().err
    for option in ["--batch-size", "64"], ["--model", "glow"], ["--no-flip"], ["--runs", "a"]:
        assert cli.main(["train", "--resume", "runs/cut", *option]) == 1
        shown = capsys.readouterr().err
        assert f"{option[0].replace('no-', '')} cannot be combined with --resume" in shown
        assert shown.count("\n") == 1
    assert cli.main(["train", "--resume", "runs/none"]) == 1
    assert "none/last.npz: no such file\n" in capsys.readouterr().err
    (tmp_path / "runs/none").mkdir()
    assert cli.main(["train", "--resume", "runs/none"]) == 1
    assert "last.npz: no such file, the run ended before it saved anything" in capsys.readouterr().err


def test_a_run_that_stopped_before_its_first_evaluation_has_no_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    real = metrics.Recorder.__call__
    monkeypatch.setattr(metrics.Recorder, "__call__", lambda self, progress: (
        real(self, progress), os.kill(os.getpid(), signal.SIGTERM)))
    assert cli.main(["train", "-K", "1", "-L", "1", "--hidden", "4", "--steps", "9"]) == 143
    for command in "sample", "evaluate", "info":
        assert cli.main([command, "runs/digits-1"]) == 1
        shown = capsys.readouterr().err
        assert "digits-1/model.npz: no such file, a run writes it at its first evaluation" in shown
    monkeypatch.setattr(metrics.Recorder, "__call__", real)
    assert cli.main(["train", "--resume", "runs/digits-1"]) == 0
    assert cli.main(["info", "runs/digits-1"]) == 0


SHORT = ["-K", "1", "-L", "1", "--hidden", "4", "--steps", "20", "--evaluate-every", "5"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A short run that has ended, in the current folder: runs/a."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *SHORT, "--name", "a"]) == 0
    capsys.readouterr()
    return tmp_path / "runs/a"


TRAINING = "another process is training in this folder"


def test_two_processes_do_not_train_in_one_folder(run, capsys):
    (run.parent / "b").mkdir()
    for path, options in (run, ["--resume", "runs/a"]), (run.parent / "b", [*SHORT, "--name", "b"]):
        unfinished = path / "last.npz.1.tmp"  # of the process that holds the lock
        unfinished.write_bytes(b"half")
        with folder.lock_folder(path):
            before = {path: path.read_bytes() for path in run.iterdir()}
            assert cli.main(["train", *options]) == 1
        shown = capsys.readouterr().err
        assert f"runs/{path.name}: {TRAINING}" in shown and shown.count("\n") == 1
        assert unfinished.read_bytes() == b"half"
        assert {path: path.read_bytes() for path in run.iterdir()} == before
        unfinished.unlink()
    assert cli.main(["train", "--resume", "runs/a"]) == 0


def test_a_lock_ends_with_its_process(tmp_path):
    """Real processes: the second is refused in one line, until the first is killed."""
    command = [sys.executable, "-m", "minglow", "train", *SHORT[:-2], "--backend", "numpy",
               "--steps", "100000", "--evaluate-every", "1", "--name", "a"]
    resume = [sys.executable, "-m", "minglow", "train", "--resume", "runs/a"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True) as first:
        for line in first.stderr:
            if line.startswith("step=2 "):
                break
        for second in command, resume:
            refused = subprocess.run(second, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and not refused.stdout
        assert refused.stderr == f"minglow train: error: runs/a: {TRAINING}\n"
        first.kill()
    assert (tmp_path / "runs/a/.lock").exists()
    with subprocess.Popen(resume, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True) as third:
        assert next(line for line in third.stderr if line.startswith("step="))
        third.send_signal(signal.SIGINT)
        assert "interrupted after step" in third.stderr.read()
    assert third.returncode == 130


def test_a_folder_with_only_metrics_a_lock_and_unfinished_files_counts_as_empty(run):
    new = run.parent / "b"
    new.mkdir()
    for name in ".lock", "last.npz.123.tmp", "metrics.csv":
        (new / name).write_bytes(b"of a killed process")
    assert cli.main(["train", *SHORT, "--name", "b"]) == 0
    assert not list(new.glob("*.tmp"))
    (run.parent / "c").mkdir()
    (run.parent / "c/notes.txt").write_text("mine")
    assert cli.main(["train", *SHORT, "--name", "c"]) == 1
    assert [path.name for path in (run.parent / "c").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PK")])
def test_a_run_does_not_resume_without_its_best_model(run, capsys, damage):
    damage(run / "model.npz")
    assert cli.main(["train", "--resume", "runs/a"]) == 1
    assert "minglow train: error: runs/a/model.npz: no" in capsys.readouterr().err


def test_missing_metrics_do_not_stop_training(run, monkeypatch, capsys):
    real = metrics.Recorder.__call__
    monkeypatch.setattr(metrics.Recorder, "__call__", lambda self, progress: (
        real(self, progress), os.kill(os.getpid(), signal.SIGHUP if progress.step == 7 else 0)))
    assert cli.main(["train", *SHORT, "--name", "cut"]) == 129
    lines = (run.parent / "cut/metrics.csv").read_text().splitlines()
    (run.parent / "cut/metrics.csv").write_text("\n".join([*lines[:3], "3,much"]))
    assert cli.main(["train", "--resume", "runs/cut"]) == 1
    assert "got '3,much': fix the line or move the file away, then resume" in capsys.readouterr().err
    (run.parent / "cut/metrics.csv").unlink()
    assert cli.main(["train", "--resume", "runs/cut"]) == 0
    steps = [line.split(",")[0] for line in (run.parent / "cut/metrics.csv").read_text().splitlines()]
    assert steps == ["step", *map(str, range(8, 21))]
    models = [checkpoint.read(run.parent / name / "model.npz") for name in ("a", "cut")]
    assert_same_module(*models)


class ClosedPipe(io.StringIO):
    """A pipe whose reader has closed it."""

    def write(self, text=""):
        raise BrokenPipeError

    flush = write


@pytest.mark.parametrize("stream", [ClosedPipe(), None])
def test_a_closed_pipe_does_not_stop_training(run, monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    assert cli.main(["train", *SHORT, "--name", "b"]) == 0
    assert cli.main(["info", "missing"]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(figures, "save_pictures", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        assert cli.main(["train", "--resume", "runs/b"]) == 130


@pytest.mark.parametrize("output", ["| head -n 1", "2>/dev/full", ">/dev/full 2>&1", "2>&-", ">&- 2>&-"])
def test_training_succeeds_wherever_its_output_goes(tmp_path, output):
    """The real command, including its exit: output that a closed stream still holds is no error."""
    command = f"{sys.executable} -m minglow train {' '.join(SHORT)} --backend numpy --name a"
    ended = subprocess.run(["bash", "-c", f"({command}; echo $? >status) {output}"], cwd=tmp_path,
                           capture_output=True, text=True, check=False)
    assert (tmp_path / "status").read_text() == "0\n" and "Traceback" not in ended.stderr + ended.stdout
    assert checkpoint.read(tmp_path / "runs/a/last.npz").facts["step"] == 20


def test_an_interruption_of_the_pictures_prints_the_command_that_resumes(run, monkeypatch, capsys):
    before = (run / "samples.png").read_bytes()
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, file, **_: (
        file.write(b"half"), os.kill(os.getpid(), signal.SIGINT)))
    with kernels.use(kernels.current_backend()), mg.threads(1):  # restored after the command's choice
        assert cli.main(["train", "--resume", "runs/a", "--threads", "1", "--backend", "numpy"]) == 130
    assert capsys.readouterr().err == ("minglow train --resume runs/a --backend numpy --threads 1"
                                       "  # resumes the run\nminglow train: interrupted\n")
    assert cli.main(["sample", "runs/a", "--out", "runs/a/samples.png"]) == 130
    assert (run / "samples.png").read_bytes() == before and not list(run.glob("*.tmp"))


def test_a_dequantizer_that_is_nan_is_not_loaded(run):
    assert cli.main(["train", *SHORT, "--dequantizer", "variational", "--name", "v"]) == 0
    path = run.parent / "v/model.npz"
    saved = checkpoint.read(path)
    forged_arrays = saved.arrays | {"dequantizer": saved.arrays["dequantizer"] * np.float32("nan")}
    checkpoint.save(path, load_run(path).flow, saved.config, forged_arrays)
    with pytest.raises(CheckpointError, match="expected dequantizer to be finite"):
        load_run(path.parent)
    for arrays in {}, {"dequantizer": np.zeros(3, np.float32)}:
        checkpoint.save(path, mg.load(path), saved.config, arrays)
        with pytest.raises(CheckpointError, match=r"expected dequantizer as float32 \(\d+,\), got "):
            load_run(path.parent)


def test_an_exported_file_needs_the_dequantizer_of_its_run(run, capsys):
    pytest.importorskip("safetensors", reason="needs safetensors: pip install 'minglow[test]'")
    assert cli.main(["train", *SHORT, "--dequantizer", "variational", "--name", "v"]) == 0
    assert cli.main(["export", "runs/v"]) == 0
    assert cli.main(["evaluate", "runs/v/model.safetensors"]) == 0
    capsys.readouterr()
    (run.parent / "v/model.npz").unlink()
    assert cli.main(["evaluate", "runs/v/model.safetensors"]) == 1
    assert "expected the run's model.npz in the same folder" in capsys.readouterr().err


@given(left=st.integers(0, 9), count=st.integers(1, 5), batch_size=st.integers(1, 30))
def test_every_epoch_shows_each_image_once(left, count, batch_size):
    chosen, remaining = next_indices(np.arange(left), count, batch_size, np.random.default_rng(0))
    everything = np.concatenate([chosen, remaining])
    assert len(chosen) == batch_size and everything[:left].tolist() == list(range(left))
    epochs = everything[left:].reshape(-1, count)
    assert (np.sort(epochs, axis=1) == np.arange(count)).all() and len(remaining) < max(left, count)


# To the main thread: a signal to the process may reach a thread of OpenBLAS before it is unblocked.
AT_ONCE = """
import signal, threading
from minglow.cli.signals import catch_signals
with catch_signals() as should_stop:
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    for number in signal.SIGINT, signal.SIGTERM:
        signal.pthread_kill(threading.main_thread().ident, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    print("continues")
"""


def test_two_signals_at_once_end_the_process_without_output():
    ended = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True,
                           check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, "", "")


@pytest.mark.parametrize(("damage", "message"), [
    (lambda lines: lines[:2] + lines[3:], "of step 2 in line 3, got '3,"),
    (lambda lines: lines[:3], "of step 3 in line 4, got ''"),
    (lambda lines: [*lines[:2], "2,many,1,,0.1", *lines[3:]], "of step 2 in line 3, got '2,many"),
    (lambda lines: [], "of step 1 in line 2, got ''"),
])
def test_metrics_that_lack_a_line_are_refused_and_not_changed(tmp_path, damage, message):
    path = tmp_path / metrics.METRICS
    lines = ["step,loss,grad_norm,held_out_loss,seconds", *(f"{step},3,1,,0.1" for step in range(1, 6))]
    path.write_text("\n".join(lines))
    with metrics.Recorder(tmp_path, 9, stream=io.StringIO(), done=4):
        pass
    assert path.read_text().splitlines()[1:] == lines[1:5]
    path.write_text("\n".join(damage(lines)))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        metrics.Recorder(tmp_path, 9, stream=io.StringIO(), done=4)
    assert path.read_bytes() == before


def test_the_best_model_is_saved_and_not_the_last(tmp_path):
    flow = mg.glow((4, 4, 1), 1, 1, 4, permutation=mg.Shuffle, rng=0)
    (tmp_path / "run").mkdir()
    with metrics.Recorder(tmp_path / "run", 3, stream=io.StringIO()) as recorder:
        dequantizer = UniformDequantizer(17)
        checkpointer = folder.Checkpointer(tmp_path / "run", flow, dequantizer, {}, recorder,
                                           Monitor(flow, images(), dequantizer))
        state = TrainingState(flow, dequantizer, Adamax, 0.9, 0, images())
        for value, best in ((0.01, True), (0.02, False)):
            state.learners["flow"].average.average[...] = value
            flow.flat.value[...] = 10 * value
            checkpointer(state, best)
    model, last = (checkpoint.read(tmp_path / "run" / name) for name in (folder.CHECKPOINT, folder.LAST))
    assert all((model.module[name] == np.float32(0.01)).all() for name in flow.flat.where)
    for name, array in flow.flat.where.items():
        np.testing.assert_array_equal(last.module[name], np.full(array[1], 0.2, np.float32))
    np.testing.assert_array_equal(last.arrays["flow.value"], flow.flat.value)


@pytest.mark.parametrize("number", range(60))
def test_damage_is_an_error_or_changes_nothing(tmp_path, number):
    check_damage(tmp_path / "model.npz", number)


def check_damage(path, number):
    """Bits flipped, bytes changed, removed and repeated: an error of one kind, or nothing changes."""
    flow = mg.glow((2, 2, 1), 1, 1, 2, rng=0)
    checkpoint.save(path, flow, {"seed": 1}, {"a": np.arange(3)}, {"step": 7})
    intact, right, rng = path.read_bytes(), checkpoint.read(path), np.random.default_rng(number)
    for _ in range(20):
        damaged = bytearray(intact)
        position = int(rng.integers(len(intact)))
        kind = rng.integers(4)
        if kind == 0:
            damaged[position] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            damaged[position:position + 8] = rng.bytes(8)
        elif kind == 2:
            del damaged[position:]
        else:
            damaged[position:position] = damaged[position:position + 50]
        path.write_bytes(damaged)
        try:
            found = checkpoint.read(path)
        except CheckpointError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            continue
        assert (found.config, found.settings, found.facts) == (right.config, right.settings, right.facts)
        for arrays, expected in (found.module, right.module), (found.arrays, right.arrays):
            assert arrays.keys() == expected.keys()
            for name, array in expected.items():
                np.testing.assert_array_equal(arrays[name], array)


def forged(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)


def npy(shape, dtype="<f4", content=b"", fortran=False):
    header = f"{{'descr': {dtype!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


def manifest(**arrays):
    entries = {"format": 3, "config": {}, "settings": {}, "facts": {}, "arrays": arrays}
    content = json.dumps(entries).encode()
    return ("manifest.npy", npy((len(content),), "|u1", content))


HUGE = [[2**40], "<f4", ""]
BOMBS = {
    "a terabyte by its header": [manifest(parameters=HUGE), ("parameters.npy", npy((2**40,)))],
    "a size that is not a number": [manifest(parameters=HUGE), ("parameters.npy", npy("(1e99,)"))],
    "a negative size": [manifest(parameters=[[-4], "<f4", ""]), ("parameters.npy", npy((-4,)))],
    "objects": [manifest(parameters=[[2**40], "|O", ""]),
                ("parameters.npy", npy((1,), "|O", b"\x80"))],
    "a header without end": [manifest(parameters=HUGE), ("parameters.npy", npy("(" * 5000))],
    "no manifest": [("parameters.npy", npy((0,)))],
    "a manifest of numbers": [("manifest.npy", npy((1,), "<f8", b"01234567"))],
    "nested JSON": [("manifest.npy", npy((60000,), "|u1", b"[" * 60000))],
    "another manifest's": [manifest(), ("parameters.npy", npy((0,)))],
    "Fortran's order": [manifest(parameters=[[0, 0], "<f4", ""]),
                        ("parameters.npy", npy((0, 0), fortran=True))],
}


@pytest.mark.parametrize("name", BOMBS)
def test_forged_files_are_refused_before_memory_is_taken(tmp_path, name):
    forged(tmp_path / "model.npz", BOMBS[name])
    with pytest.raises(CheckpointError, match=r"model\.npz: ") as caught:
        checkpoint.read(tmp_path / "model.npz")
    assert "\n" not in str(caught.value)


def test_compressed_and_repeated_members_are_refused(tmp_path):
    path = tmp_path / "model.npz"
    zeros = ("parameters.npy", npy((2**24,), content=bytes(2**26)))
    forged(path, [zeros], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**17
    with pytest.raises(CheckpointError, match="got one compressed or encrypted"):
        checkpoint.read(path)
    with pytest.warns(UserWarning, match="Duplicate name"):
        forged(path, [manifest(), manifest()])
    with pytest.raises(CheckpointError, match="a member occurs twice"):
        checkpoint.read(path)


@pytest.mark.parametrize("version", [1, 2, 4, "3", None, [3]])
def test_another_format_version_gets_one_line(tmp_path, version):
    path = tmp_path / "model.npz"
    checkpoint.save(path, mg.glow((2, 2, 1), 1, 1, 2, rng=0), {})
    arrays, about = archive.read(path)
    archive.write(path, arrays, about | {"format": version})
    with pytest.raises(CheckpointError, match=r"expected checkpoint format 3, got .*: another") as error:
        checkpoint.read(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_file_keeps_its_mode_and_only_unfinished_files_are_removed(tmp_path):
    path = tmp_path / "model.npz"
    archive.write(path, {"a": np.arange(3)}, {})
    path.chmod(0o640)
    archive.write(path, {"a": np.arange(4)}, {"b": 2})
    assert path.stat().st_mode & 0o777 == 0o640
    arrays, about = archive.read(path)
    assert arrays["a"].tolist() == [0, 1, 2, 3] and about == {"b": 2}
    for name in ("model.npz.77.tmp", "mine.tmp", "model.npz.x.tmp"):
        (tmp_path / name).write_bytes(b"")
    assert [left.name for left in archive.sweep(tmp_path)] == ["model.npz.77.tmp"]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["mine.tmp", "model.npz", "model.npz.x.tmp"]


def paths():
    return list(mg.glow((4, 4, 1), 2, 1, 4, rng=0).flat.where)


@pytest.mark.parametrize("name", paths())
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_any_parameter_stops_training_and_is_named(name, value):
    flow = mg.glow((4, 4, 1), 2, 1, 4, rng=0)
    finite = []

    def poison(progress):
        if progress.step == 2:
            flow.flat.view(flow.flat.value, name)[...] = value

    message = rf"in step 2: the parameter {name} is NaN or inf .*lower learning rate"
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=message):
        train(flow, images(), steps=5, batch_size=4, evaluate_every=1, on_step=poison,
              on_evaluation=lambda state, best: finite.append(np.isfinite(flow.flat.value).all()))
    assert finite == [True]  # of step 1: the state with the NaN was not saved
    finite.clear()
    flow = mg.glow((4, 4, 1), 2, 1, 4, rng=0)
    message = rf"in step 3: the parameter {name} is NaN or inf"
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=message):
        train(flow, images(), steps=5, batch_size=4, evaluate_every=4, on_step=poison)


def test_the_first_layer_that_overflows_is_named():
    flow = mg.glow((4, 4, 1), 2, 1, 4, rng=0)
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 4, 4, 1)).astype(np.float32)
    flow.bijection.inner.layers[1].params["log_scale"][...] = 200  # exp(200) is more than float32 holds
    with np.errstate(all="ignore"):
        assert first_nonfinite(flow, x).startswith("ActNorm at bijection.inner.1 is the first layer")


def test_the_first_nonfinite_gradient_is_named():
    flow = mg.glow((4, 4, 1), 2, 1, 4, rng=0)
    names = list(flow.flat.where)
    for name in names[3], names[7]:  # backward begins with the last layer
        flow.flat.view(flow.flat.grad, name)[...] = np.nan
    x = np.zeros((2, 4, 4, 1), np.float32)
    assert first_nonfinite(flow, x) == f"the gradient of {names[7]} is the first that is NaN or inf"
    assert first_nonfinite(flow, x + np.nan) == "x is NaN or inf: the dequantizer has diverged"


def test_a_trace_is_forward():
    for start, shape in (
            (mg.glow((4, 4, 1), 2, 2, 4, rng=0), (4, 4, 1)),
            (mg.realnvp((4, 4, 1), 2, 4, rng=0), (4, 4, 1)), (mg.nice((4,), 2, 4, 1, rng=0), (4,))):
        flow = perturbed(start, 0, 0.1)
        x = np.random.default_rng(0).uniform(-0.5, 0.5, (3, *shape)).astype(np.float32)
        visits = list(flow.bijection.trace(x))
        total = sum(log_det for *_, log_det in visits)
        np.testing.assert_allclose(total, flow.bijection.forward(x)[1], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(visits[-1][2].reshape(3, -1)[:, -2:],
                                      flow.latents(x)[:, -2:])


def test_the_diagnosis_warns_before_a_flow_loses_its_inverse():
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (4, 4, 4, 1)).astype(np.float32)

    def fresh(**options):
        return mg.glow((4, 4, 1), 1, 2, 4, rng=0, **options)

    assert invertibility(fresh(), x).warning() == ""
    flow = fresh()
    flow.bijection.layers[2].params["weight"][0] *= 1e-6
    assert flow.reconstruction_error(x) < 0.1  # it is still invertible
    found = invertibility(flow, x)
    assert found.condition == pytest.approx(1e6, rel=0.1)
    assert found.warning().startswith("InvConv1x1 at bijection.2 is hardly invertible")
    flow = fresh(coupling=partial(mg.AffineCoupling, scale=mg.exp_scale), permutation=mg.InvConv1x1LU)
    flow.bijection.layers[3].net.nets[-1].params["shift"][2:] = np.log(1e-6)  # of s
    found = invertibility(flow, x)
    assert found.scale == pytest.approx(1e-6, rel=0.01)
    assert found.warning().startswith("AffineCoupling at bijection.3 is hardly invertible")
    assert flow.reconstruction_error(x) < 0.1
    assert found._replace(scale=1.0, round_trip=2e-3).warning().startswith("forward and inverse differ")
    assert found._replace(scale=1.0, condition=float("nan")).warning()


def test_training_and_info_warn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["train", "-K", "1", "-L", "1", "--hidden", "4", "--steps", "2", "--name", "a"]
    assert cli.main(command) == 0
    assert "warning" not in capsys.readouterr().err
    monkeypatch.setattr("minglow.training.diagnosis.ROUND_TRIP", 0.0)
    assert cli.main([*command[:-1], "b"]) == 0
    assert "step=2 warning=forward and inverse differ by" in capsys.readouterr().err
    assert cli.main(["info", "runs/b"]) == 0
    facts = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert float(facts["largest_condition_number"]) < 2
    assert facts["its_layer"] == "InvConv1x1 at bijection.2"
    assert 0.5 < float(facts["smallest_scale"]) < 1
    assert facts["its_coupling"] == "AffineCoupling at bijection.3"
    assert facts["warning"].startswith("forward and inverse differ by ")
