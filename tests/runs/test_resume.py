"""What was interrupted goes on as if it had not been; what was saved stays whole, or says what it is."""

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

import minglow as mg
from minglow import kernels
from minglow.cli import main as cli
from minglow.runs import folder, metrics
from minglow.storage import archive, checkpoint
from minglow.storage.checkpoint import CheckpointError
from minglow.data import Images
from minglow.dequantization.dequantizers import VariationalDequantizer
from minglow.training.diagnosis import first_nonfinite, invertibility, trace
from minglow.training.optimizers import Adamax
from minglow.runs.loading import load_dequantizer
from minglow.training.state import State, take
from minglow.testing import perturbed
from minglow.training.loop import Diverged, Interrupted, train

STEPS = 6


def images():
    pixels = np.random.default_rng(0).integers(0, 16, (30, 4, 4, 1), np.uint8)
    return Images(pixels[:20], pixels[20:], np.int64(17), np.arange(20) % 3, np.arange(10) % 3)


def parts(seed=0, variational=True):
    flow = mg.glow((4, 4, 1), 1, 2, 4, classes=3, permutation=mg.InvConv1x1LU, rng=seed)
    return flow, VariationalDequantizer((4, 4, 1), 17, 4, rng=seed) if variational else None


def digest(*models):
    return hashlib.sha256(b"".join(model.flat.value.tobytes() for model in models)).hexdigest()


def learn(flow, dequantizer, steps=STEPS, **options):
    train(flow, images(), steps=steps, batch_size=7, learning_rate=0.01, warmup_steps=2, ema_decay=0.9, flip=True,
          classification=0.1, dequantizer=dequantizer, optimizer=Adamax, evaluate_every=2, **options)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("at", range(1, STEPS + 1))
def test_training_goes_on_bit_by_bit_from_any_step(tmp_path, backend, at):
    goes_on(tmp_path / "last.npz", backend, at, STEPS)


def goes_on(path, backend, at, steps):
    """Stopped after step `at` and resumed by other parts, training ends with the same parameters.

    Batches of 7 of 20 images: some rounds are open when it stops.
    """
    with kernels.use(backend):
        whole = parts()
        learn(*whole, steps)
        flow, dequantizer = parts()
        numbers = iter(range(1, steps + 1))

        def keep(state, best):
            checkpoint.save(path, flow, {}, state.arrays(), state.facts())

        with pytest.raises(Interrupted, match=f"after step {at}"):
            learn(flow, dequantizer, steps, keep=keep,
                  stop=lambda: signal.SIGTERM * (next(numbers) == at))
        other = parts(seed=1)  # its constants, too, become those of the checkpoint
        learn(*other, steps, resume=checkpoint.read(path))
    assert digest(*other) == digest(*whole)


def test_another_states_checkpoint_is_refused_and_changes_nothing(tmp_path):
    flow, dequantizer = parts()
    state = State(flow, dequantizer, Adamax, 0.9, 0, images())
    state.step = 1
    path = tmp_path / "last.npz"
    checkpoint.save(path, flow, {}, state.arrays(), state.facts())
    saved = checkpoint.read(path)
    without = {name: array for name, array in saved.arrays.items() if name != "dequantizer.mean"}
    small = saved.arrays | {"flow.average": np.zeros(3, np.float32)}
    (first, size), *others = saved.parameters.items()
    renamed = {first + " renamed": size, **dict(others)}
    no_order = {name: array for name, array in saved.arrays.items() if not name.endswith(".order")}
    no_labels = {name: part for name, part in saved.facts["images"].items() if "labels" not in name}
    for changed, message in (
        (saved._replace(arrays=without), "expected dequantizer.mean as float32 .*got none"),
        (saved._replace(arrays=small), r"expected flow.average as .*got float32 \(3,\)"),
        (saved._replace(facts={}), "expected the state of training after a step, got None"),
        (saved._replace(facts=saved.facts | {"step": -1}), "after a step, got -1"),
        (saved._replace(facts=saved.facts | {"best": float("nan")}), "the best bits .*, got nan"),
        (saved._replace(facts=saved.facts | {"rng": {"bit_generator": "MT"}}), "generator's state"),
        (saved._replace(arrays=saved.arrays | {"waiting": np.array([20])}), "places of the 20 images"),
        (saved._replace(facts=saved.facts | {"images": no_labels}), "the images and labels that it was"),
        (saved._replace(facts=saved.facts | {"optimizer": "Adam"}), "the optimizer that it was trained"),
        (saved._replace(parameters=renamed), "holds another flow's parameters: .*renamed"),
        (saved._replace(arrays=no_order), r"expected bijection.*order as int64 \(4,\), got none"),
    ):
        other = State(*parts(seed=2), Adamax, 0.9, 5, images())
        before = {name: array.copy() for name, array in other.arrays().items()}
        with pytest.raises(CheckpointError, match=message):
            other.restore(changed)
        for name, array in other.arrays().items():
            np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("part", ["train", "held_out", "train_labels", "held_out_labels", "levels"])
def test_training_does_not_go_on_with_other_images(tmp_path, part):
    path, (flow, dequantizer) = tmp_path / "last.npz", parts(variational=False)
    learn(flow, dequantizer, keep=lambda state, best: checkpoint.save(path, flow, {}, state.arrays(),
                                                                      state.facts()))
    last = checkpoint.read(path)
    changed = np.array(getattr(images(), part))
    changed.flat[0] = 2 - changed.flat[0] % 2 if part != "levels" else 16  # another that is allowed
    changed = int(changed) if part == "levels" else changed
    before = digest(flow)
    with pytest.raises(CheckpointError, match="expected the images and labels that it was trained on"):
        train(flow, images()._replace(**{part: changed}), batch_size=7, optimizer=Adamax, resume=last)
    assert digest(flow) == before
    with pytest.raises(ValueError, match="expected resume to be a Checkpoint, got a str"):
        train(flow, images(), batch_size=7, optimizer=Adamax, resume="last.npz")
    silent = {key: value for key, value in last.facts.items() if key != "images"}  # as older states are
    train(flow, images(), steps=STEPS, batch_size=7, ema_decay=0.9, optimizer=Adamax,
          resume=last._replace(facts=silent))


def test_the_command_goes_on_after_a_signal(tmp_path, monkeypatch, capsys):
    """The run's metrics have every step once, and the same model comes out."""
    monkeypatch.chdir(tmp_path)
    command = ["train", "-K", "1", "-L", "1", "--hidden", "4", "--steps", "250", "--seed", "3"]
    assert cli.main([*command, "--name", "whole"]) == 0
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
        file.write("131,3.1,1.0,,9.9\n132,3.")  # written by a process that was killed before it saved
    assert cli.main(["train", "--resume", "runs/cut"]) == 0
    whole, cut = (checkpoint.read(tmp_path / "runs" / name / "model.npz") for name in ("whole", "cut"))
    np.testing.assert_array_equal(whole.arrays["parameters"], cut.arrays["parameters"])
    lines = {name: [line.rsplit(",", 1)[0] for line in
                    (tmp_path / f"runs/{name}/metrics.csv").read_text().splitlines()]
             for name in ("whole", "cut")}
    assert lines["whole"] == lines["cut"] and len(lines["cut"]) == 251
    assert not list((tmp_path / "runs/cut").glob("*.tmp"))
    capsys.readouterr()
    assert cli.main(["train", "--resume", "runs/cut/last.npz"]) == 0  # nothing to do, and nothing lost
    assert "resumed=after step 250 of 250\n" in capsys.readouterr().out
    assert cli.main(["train", "--resume", "runs/cut", "--steps", "9"]) == 1
    assert "expected no other option of training beside --resume, got steps" in capsys.readouterr().err
    assert cli.main(["train", "--resume", "runs/cut", "--batch", "64"]) == 1  # its default, but said
    assert "beside --resume, got batch" in capsys.readouterr().err
    assert cli.main(["train", "--resume", "runs/none"]) == 1
    assert "none/last.npz: no such file\n" in capsys.readouterr().err
    (tmp_path / "runs/none").mkdir()
    assert cli.main(["train", "--resume", "runs/none"]) == 1
    assert "last.npz: no such file, the run ended before it saved anything" in capsys.readouterr().err


def test_a_run_that_was_stopped_before_its_first_evaluation_has_no_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    real = metrics.Recorder.__call__
    monkeypatch.setattr(metrics.Recorder, "__call__", lambda self, progress: (
        real(self, progress), os.kill(os.getpid(), signal.SIGTERM)))
    assert cli.main(["train", "-K", "1", "-L", "1", "--hidden", "4", "--steps", "9"]) == 143
    for command in "sample", "evaluate", "info":
        assert cli.main([command, "runs/digits-1"]) == 1
        assert "runs/digits-1/model.npz: no such file, a run has it from its" in capsys.readouterr().err
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


def test_two_processes_do_not_train_in_one_folder(run, capsys):
    (run.parent / "b").mkdir()
    before = {path: path.read_bytes() for path in run.iterdir()}
    for folder, words in (run, ["--resume", "runs/a"]), (run.parent / "b", [*SHORT, "--name", "b"]):
        live = folder / "last.npz.1.tmp"  # of the one that holds it
        live.write_bytes(b"half")
        with folder.held(folder):
            assert cli.main(["train", *words]) == 1
        assert "expected a run that no other process is training" in capsys.readouterr().err
        assert live.read_bytes() == b"half"
        live.unlink()
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    assert cli.main(["train", "--resume", "runs/a"]) == 0


def test_a_half_written_file_takes_no_name(run):
    folder = run.parent / "b"
    folder.mkdir()
    (folder / "last.npz.123.tmp").write_bytes(b"left by a killed process")
    assert cli.main(["train", *SHORT, "--name", "b"]) == 0
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PK")])
def test_a_run_does_not_go_on_without_its_best_model(run, capsys, damage):
    damage(run / "model.npz")
    assert cli.main(["train", "--resume", "runs/a"]) == 1
    assert "minglow train: error: runs/a/model.npz: no" in capsys.readouterr().err


def test_metrics_that_are_gone_stop_no_training(run, monkeypatch, capsys):
    real = metrics.Recorder.__call__
    monkeypatch.setattr(metrics.Recorder, "__call__", lambda self, progress: (
        real(self, progress), os.kill(os.getpid(), signal.SIGHUP if progress.step == 7 else 0)))
    assert cli.main(["train", *SHORT, "--name", "cut"]) == 129
    lines = (run.parent / "cut/metrics.csv").read_text().splitlines()
    (run.parent / "cut/metrics.csv").write_text("\n".join([*lines[:3], "3,much"]))
    assert cli.main(["train", "--resume", "runs/cut"]) == 1
    assert "got '3,much': mend it, or move the file away" in capsys.readouterr().err
    (run.parent / "cut/metrics.csv").unlink()
    assert cli.main(["train", "--resume", "runs/cut"]) == 0
    steps = [line.split(",")[0] for line in (run.parent / "cut/metrics.csv").read_text().splitlines()]
    assert steps == ["step", *map(str, range(8, 21))]
    models = [checkpoint.read(run.parent / name / "model.npz") for name in ("a", "cut")]
    assert models[0].arrays["parameters"].tobytes() == models[1].arrays["parameters"].tobytes()


class Gone(io.StringIO):
    """A pipe that nobody reads any more."""

    def write(self, text=""):
        raise BrokenPipeError

    flush = write


@pytest.mark.parametrize("stream", [Gone(), None])
def test_a_reader_who_goes_stops_no_training(run, monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    assert cli.main(["train", *SHORT, "--name", "b"]) == 0
    assert cli.main(["info", "missing"]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(runs, "pictures", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        assert cli.main(["train", "--resume", "runs/b"]) == 130


@pytest.mark.parametrize("place", ["| head -n 1", "2>/dev/full", ">/dev/full 2>&1", "2>&-", ">&- 2>&-"])
def test_training_ends_well_whoever_listens(tmp_path, place):
    """The real command, to its exit: what a dead stream has not passed on is no error there, either."""
    words = f"{sys.executable} -m minglow train {' '.join(SHORT)} --backend numpy --name a"
    ended = subprocess.run(["bash", "-c", f"({words}; echo $? >status) {place}"], cwd=tmp_path,
                           capture_output=True, text=True, check=False)
    assert (tmp_path / "status").read_text() == "0\n" and "Traceback" not in ended.stderr + ended.stdout
    assert checkpoint.read(tmp_path / "runs/a/last.npz").facts["step"] == 20


def test_a_stop_while_pictures_are_drawn_says_what_goes_on(run, monkeypatch, capsys):
    before = (run / "samples.png").read_bytes()
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, file, **_: (
        file.write(b"half"), os.kill(os.getpid(), signal.SIGINT)))
    with kernels.use(kernels.current_backend()), mg.threads(1):  # what holds again after what is said here
        assert cli.main(["train", "--resume", "runs/a", "--threads", "1", "--backend", "numpy"]) == 130
    assert capsys.readouterr().err == ("minglow train --resume runs/a --backend numpy --threads 1"
                                       "  # goes on\nminglow train: interrupted\n")
    assert cli.main(["sample", "runs/a", "--out", "runs/a/samples.png"]) == 130
    assert (run / "samples.png").read_bytes() == before and not list(run.glob("*.tmp"))


def test_a_dequantizer_that_is_nan_is_not_loaded(run):
    assert cli.main(["train", *SHORT, "--dequantize", "variational", "--name", "v"]) == 0
    path = run.parent / "v/model.npz"
    saved = checkpoint.read(path)
    forged_arrays = saved.arrays | {"dequantizer": saved.arrays["dequantizer"] * np.float32("nan")}
    archive.write(path, forged_arrays, {"format": 2, "recipe": saved.recipe,
                                        "parameters": saved.parameters})
    with pytest.raises(CheckpointError, match="expected dequantizer to be finite"):
        load_dequantizer(path.parent, saved.recipe)


@given(left=st.integers(0, 9), count=st.integers(1, 5), batch=st.integers(1, 30))
def test_images_come_in_rounds(left, count, batch):
    chosen, waiting = take(np.arange(left), count, batch, np.random.default_rng(0))
    everything = np.concatenate([chosen, waiting])
    assert len(chosen) == batch and everything[:left].tolist() == list(range(left))
    rounds = everything[left:].reshape(-1, count)
    assert (np.sort(rounds, axis=1) == np.arange(count)).all() and len(waiting) < max(left, count)


AT_ONCE = """
import os, signal
from minglow.cli.signals import asked_to_stop
with asked_to_stop() as stop:
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    for number in signal.SIGINT, signal.SIGTERM:
        os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    print("goes on")
"""


def test_two_signals_at_one_moment_end_the_process_without_a_word():
    ended = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True,
                           check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, "", "")


@pytest.mark.parametrize(("damage", "message"), [
    (lambda lines: lines[:2] + lines[3:], "of step 2 in line 3, got '3,"),
    (lambda lines: lines[:3], "of step 3 in line 4, got ''"),
    (lambda lines: [*lines[:2], "2,many,1,,0.1", *lines[3:]], "of step 2 in line 3, got '2,many"),
    (lambda lines: [], "of step 1 in line 2, got ''"),
])
def test_a_run_whose_metrics_lack_a_line_is_left_as_it_is(tmp_path, damage, message):
    path = tmp_path / metrics.METRICS
    lines = ["step,bits,grad_norm,held_out_bits,seconds", *(f"{step},3,1,,0.1" for step in range(1, 6))]
    path.write_text("\n".join(lines))
    with metrics.Recorder(tmp_path, 9, stream=io.StringIO(), done=4):
        pass
    assert path.read_text().splitlines()[1:] == lines[1:5]
    path.write_text("\n".join(damage(lines)))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        metrics.Recorder(tmp_path, 9, stream=io.StringIO(), done=4)
    assert path.read_bytes() == before


def test_the_best_model_is_kept_and_not_the_last(tmp_path):
    flow = mg.glow((4, 4, 1), 1, 1, 4, permutation=mg.Shuffle, rng=0)
    (tmp_path / "run").mkdir()
    with metrics.Recorder(tmp_path / "run", 3, stream=io.StringIO()) as recorder:
        dequantizer = mg.dequantizers.UniformDequantizer(17)
        keeper = folder.Checkpointer(tmp_path / "run", flow, dequantizer, {}, recorder, images().train[:4])
        state = State(flow, dequantizer, Adamax, 0.9, 0, images())
        for value, best in ((0.01, True), (0.02, False)):
            state.learners["flow"].average.average[...] = value
            flow.flat.value[...] = 10 * value
            keeper(state, best)
    model, last = (checkpoint.read(tmp_path / "run" / name) for name in (folder.CHECKPOINT, folder.LAST))
    assert (model.arrays["parameters"] == np.float32(0.01)).all()
    np.testing.assert_allclose(last.arrays["parameters"], 0.2)
    np.testing.assert_array_equal(last.arrays["parameters"], flow.flat.value)


@pytest.mark.parametrize("number", range(60))
def test_damage_is_an_error_or_changes_nothing(tmp_path, number):
    survives_damage(tmp_path / "model.npz", number)


def survives_damage(path, number):
    """Bits flipped, bytes changed, cut and repeated: never another exception, never other numbers."""
    flow = mg.glow((2, 2, 1), 1, 1, 2, rng=0)
    checkpoint.save(path, flow, {"seed": 1}, facts={"step": 7})
    whole, right, rng = path.read_bytes(), checkpoint.read(path), np.random.default_rng(number)
    for _ in range(20):
        damaged = bytearray(whole)
        place = int(rng.integers(len(whole)))
        kind = rng.integers(4)
        if kind == 0:
            damaged[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            damaged[place:place + 8] = rng.bytes(8)
        elif kind == 2:
            del damaged[place:]
        else:
            damaged[place:place] = damaged[place:place + 50]
        path.write_bytes(damaged)
        try:
            found = checkpoint.read(path)
        except CheckpointError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            continue
        assert (found.recipe, found.facts, found.parameters) == (
            right.recipe, right.facts, right.parameters)
        for name, array in right.arrays.items():
            np.testing.assert_array_equal(found.arrays[name], array)


def forged(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)


def npy(shape, dtype="<f4", content=b"", fortran=False):
    header = f"{{'descr': {dtype!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


def manifest(**arrays):
    text = json.dumps({"format": 2, "recipe": {}, "parameters": {}, "arrays": arrays}).encode()
    return ("manifest.npy", npy((len(text),), "|u1", text))


HUGE = [[2**40], "<f4", ""]
BOMBS = {
    "a terabyte by its header": [manifest(parameters=HUGE), ("parameters.npy", npy((2**40,)))],
    "a size that is no number": [manifest(parameters=HUGE), ("parameters.npy", npy("(1e99,)"))],
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


def test_compressed_and_doubled_members_are_refused(tmp_path):
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


def test_format_1_is_read(tmp_path):
    flow, path = mg.glow((2, 2, 1), 1, 1, 2, rng=0), tmp_path / "model.npz"
    arrays = {"parameters": flow.flat.value}
    archive.write(path, arrays, {"format": 1, "recipe": {"a": 1}, "parameters": {
        name: list(shape) for name, (_, shape) in flow.flat.where.items()}})
    other = mg.glow((2, 2, 1), 1, 1, 2, rng=1)
    checkpoint.load(path, other)
    np.testing.assert_array_equal(other.flat.value, flow.flat.value)
    assert checkpoint.read(path).facts == {}


def test_a_file_keeps_its_mode_and_only_what_writers_left_is_swept(tmp_path):
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
    kept = []

    def poison(progress):
        if progress.step == 2:
            flow.flat.view(flow.flat.value, name)[...] = value

    message = rf"in step 2: the parameter {name} is NaN or inf .*lower rate"
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=message):
        train(flow, images(), steps=5, batch_size=4, evaluate_every=1, on_step=poison,
              on_evaluation=lambda state, best: kept.append(np.isfinite(flow.flat.value).all()))
    assert kept == [True]  # of step 1: the state with the NaN was not kept
    kept.clear()
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


def test_of_gradients_the_first_to_go_is_named():
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
        visits = list(trace(flow.bijection, x))
        total = sum(log_det for *_, log_det in visits)
        np.testing.assert_allclose(total, flow.bijection.forward(x)[1], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(visits[-1][2].reshape(3, -1)[:, -2:],
                                      flow.latents(x)[:, -2:])


def test_the_monitor_sees_each_danger_before_it_breaks():
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (4, 4, 4, 1)).astype(np.float32)

    def fresh(**options):
        return mg.glow((4, 4, 1), 1, 2, 4, rng=0, **options)

    assert invertibility(fresh(), x).warning() == ""
    flow = fresh()
    flow.bijection.layers[2].params["weight"][0] *= 1e-6
    assert flow.reconstruction_error(x) < 0.1  # it still is invertible
    found = invertibility(flow, x)
    assert found.condition == pytest.approx(1e6, rel=0.1)
    assert found.warning().startswith("InvConv1x1 at bijection.2 is hardly invertible")
    flow = fresh(coupling=partial(mg.AffineCoupling, scale=mg.exp_scale), permutation=mg.InvConv1x1LU)
    flow.bijection.layers[3].net.nets[-1].params["shift"][2:] = np.log(1e-6)  # of raw
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
    said = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert float(said["condition_number"]) < 2 and said["of"] == "InvConv1x1 at bijection.2"
    assert 0.5 < float(said["smallest_scale"]) < 1 and said["in"] == "AffineCoupling at bijection.3"
    assert said["warning"].startswith("forward and inverse differ by ")
