"""The commands as users run them, the files that they leave, and the errors for wrong input."""

import csv
import io
import os
import subprocess
import sys
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest
from PIL import Image

import minglow
from minglow import data
from minglow.cli.main import main
from minglow.models.base import MODELS
from minglow.plots import image_sheet, tile
from minglow.runs import folder, metrics
from minglow.runs.loading import load_run
from minglow.storage import checkpoint
from minglow.training import Progress, evaluate, train

SMALL = ["-K", "1", "-L", "1", "--hidden", "4", "--steps", "8", "--batch-size", "16"]
MODEL_OPTIONS = {  # SMALL has options of Glow
    "nice": ["--hidden", "4", "--couplings", "2", "--depth", "1", *SMALL[6:]], "realnvp": SMALL[2:]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on the digits."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", *SMALL, "--runs", str(folder), "--seed", "3"]) == 0
    return folder / "digits-1"


def facts_of(capsys):
    """The key=value lines of stdout."""
    return dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_run_leaves_its_model_metrics_and_pictures(run):
    names = {path.name for path in run.iterdir()}
    pictures = {"curves.png", "samples.png", "temperatures.png", "interpolation.png"}
    assert names - {".lock"} == {"model.npz", "last.npz", "metrics.csv"} | pictures
    assert all(is_png(run / name) for name in pictures)
    with (run / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["step"]) for line in lines] == list(range(1, 9))
    assert all(np.isfinite(float(line["loss"])) for line in lines)
    assert [line["held_out_loss"] != "" for line in lines] == [False] * 7 + [True]


def test_evaluate_prints_the_figures_that_training_printed(run, tmp_path, capsys):
    arguments = [*SMALL, "--runs", str(tmp_path), "--seed", "3", "--name", "again"]
    assert main(["train", *arguments]) == 0
    trained = facts_of(capsys)
    assert main(["evaluate", str(run)]) == 0
    evaluated = facts_of(capsys)
    assert evaluated == {key: trained[key] for key in evaluated}  # the same seed, the same run
    assert float(evaluated["uniform_model"]) == pytest.approx(4.087, abs=1e-3)
    assert float(evaluated["round_trip_error"]) < 1e-4


def test_sample_follows_seed_and_temperature(run, tmp_path, capsys):
    def sample(*options):
        out = tmp_path / "a.npy"
        assert main(["sample", str(run), "-n", "6", "--out", str(out), *options]) == 0
        return np.load(out)

    first = sample("--seed", "1")
    assert first.shape == (6, 8, 8, 1) and first.dtype == np.uint8 and first.max() <= 16
    np.testing.assert_array_equal(sample("--seed", "1"), first)
    assert np.any(sample("--seed", "2") != first)
    frozen = sample("--temperature", "0")
    np.testing.assert_array_equal(frozen, np.broadcast_to(frozen[0], frozen.shape))
    capsys.readouterr()
    assert main(["sample", str(run / "model.npz")]) == 0
    assert facts_of(capsys) == {"samples": str(run / "samples-T0.8-seed0.png")}
    assert is_png(run / "samples-T0.8-seed0.png")


def test_interpolate_and_info(run, capsys):
    assert main(["interpolate", str(run), "--pairs", "2", "--frames", "4"]) == 0
    assert is_png(run / "interpolation-seed0.png")
    capsys.readouterr()
    assert main(["info", str(run)]) == 0
    facts = facts_of(capsys)
    assert facts["levels"] == "1" and facts["hidden"] == "4" and facts["data"] == "digits"
    assert int(facts["parameters"]) == minglow.load(run).flat.value.size
    assert facts["coupling"] == "affine" and not {"depth", "base"} & facts.keys()  # of other models
    assert facts["batch_size"] == "16" and facts["learning_rate"] == "0.01" and facts["seed"] == "3"
    assert main(["train", "--model", "nice", "--hidden", "4", "--steps", "1", "--name", "nice",
                 "--runs", str(run.parent)]) == 0
    capsys.readouterr()
    assert main(["info", str(run.parent / "nice")]) == 0
    facts = facts_of(capsys)
    assert not {"net", "permutation", "coupling", "classes", "learned_prior"} & facts.keys()
    assert facts["learning_rate"] == "0.002" and facts["depth"] == "5"


@pytest.mark.parametrize("options", [
    ["--permutation", "lu", "--coupling", "additive"], ["--permutation", "shuffle", "--reversible"],
    ["--permutation", "reverse", "--dtype", "float64", "--backend", "numpy"]])
def test_options_build_a_flow_that_is_loaded_again(options, tmp_path, capsys):
    before = minglow.kernels.current_backend()
    assert main(["train", *SMALL, "--runs", str(tmp_path), *options]) == 0
    minglow.use(before)
    run = load_run(tmp_path / "digits-1")
    held_out = float(facts_of(capsys)["held_out_bits_per_dim"])
    images = data.digits()
    assert evaluate(run.flow, images.held_out, 17, samples=8) == pytest.approx(held_out, abs=6e-4)
    assert run.config.data.final_bins == 17 and run.flow.config == run.config.model


@pytest.mark.parametrize("options", [
    ["--model", "nice", "--base", "normal"], ["--model", "realnvp", "--net", "plain"],
    ["--model", "realnvp", "--reversible", "--scale", "sigmoid"],
    ["--model", "official", "--optimizer", "official-adamax"],
    ["--model", "official", "--no-learned-top"],
    ["--model", "official", "--coupling", "additive", "--optimizer", "adamax"],
    ["--net", "paper", "--scale", "exp", "--micro-batches", "2", "--integer-shift"],
    ["--no-learned-prior", "-L", "2", "--dequantizer", "none", "--learned-top"],
    ["--dequantizer", "variational", "--flip"]],
    ids=" ".join)
def test_every_model_trains_and_is_loaded_again(options, tmp_path, capsys):
    model = options[1] if options[0] == "--model" else "glow"
    assert main(["train", *MODEL_OPTIONS.get(model, SMALL), "--runs", str(tmp_path), *options]) == 0
    trained = facts_of(capsys)
    run = tmp_path / "digits-1"
    dequantizer = checkpoint.read(run / "model.npz").arrays["dequantizer"]
    assert (dequantizer.size > 0) == ("variational" in options)
    assert main(["evaluate", str(run)]) == 0
    evaluated = facts_of(capsys)
    assert evaluated == {key: trained[key] for key in evaluated}
    assert main(["sample", str(run), "-n", "3"]) == 0
    assert main(["interpolate", str(run), "--pairs", "1"]) == 0


def test_a_conditional_model_samples_by_label(tmp_path, capsys):
    options = ["--classes", "10", "--classification-weight", "0.1", "--runs", str(tmp_path)]
    assert main(["train", *SMALL, *options]) == 0
    run = tmp_path / "digits-1"
    assert 0 <= float(facts_of(capsys)["accuracy_by_bayes"]) <= 1
    assert minglow.load(run).base.classes == 10

    def sample(*options):
        out = tmp_path / "a.npy"
        assert main(["sample", str(run), "-n", "4", "--out", str(out), *options]) == 0
        return np.load(out)

    assert np.any(sample("--label", "3") != sample("--label", "4"))
    capsys.readouterr()
    assert main(["sample", str(run), "--label", "3"]) == 0
    assert facts_of(capsys) == {"samples": str(run / "samples-label3-T0.8-seed0.png")}
    assert main(["sample", str(run), "--label", "10"]) == 1
    assert "expected labels from 0 to 9, got 10 to 10" in capsys.readouterr().err


def test_a_folder_of_pictures_is_read_again_in_the_same_way(tmp_path, capsys):
    rng, pictures = np.random.default_rng(0), tmp_path / "pictures"
    pictures.mkdir()
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (6 + i, 9, 3), np.uint8)).save(pictures / f"{i}.png")
    options = ["--size", "4", "--grayscale", "--bits", "5", "--data", str(pictures)]
    assert main(["train", *SMALL, *options, "--runs", str(tmp_path / "runs"), "--name", "a"]) == 0
    trained = facts_of(capsys)
    assert float(trained["uniform_model"]) == 5
    assert main(["evaluate", str(tmp_path / "runs" / "a")]) == 0
    evaluated = facts_of(capsys)
    assert evaluated == {key: trained[key] for key in evaluated}


def test_own_images_may_have_colors(tmp_path, capsys):
    pictures = np.random.default_rng(0).integers(0, 256, (12, 4, 8, 3), np.uint8)
    np.save(tmp_path / "photos.npy", pictures)
    path = str(tmp_path / "photos.npy")
    assert main(["train", *SMALL, "--data", path, "--runs", str(tmp_path)]) == 0
    assert main(["interpolate", str(tmp_path / "photos-1")]) == 0
    facts = facts_of(capsys)
    assert float(facts["uniform_model"]) == 8 and facts["images"] == "10"


def test_runs_are_numbered_and_never_overwritten(tmp_path):
    for expected in "a-1", "a-2":
        created = folder.create_run_folder(tmp_path, None, "a")
        assert created == tmp_path / expected
        (created / "model.npz").touch()
    with ThreadPool(8) as pool:  # at the same time: each gets its own
        folders = pool.map(lambda _: folder.create_run_folder(tmp_path, None, "a"), range(40))
    assert {created.name for created in folders} == {f"a-{number}" for number in range(3, 43)}
    (tmp_path / "empty").mkdir()
    assert folder.create_run_folder(tmp_path, "empty", "a") == tmp_path / "empty"
    with pytest.raises(ValueError, match="a-1, which has content: choose another --name"):
        folder.create_run_folder(tmp_path, "a-1", "a")
    with pytest.raises(ValueError, match=r"name of a folder in .*, got '\.\./a'"):
        folder.create_run_folder(tmp_path, "../a", "a")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_and_a_file_gets_lines(tmp_path):
    shown = {}
    for kind in Terminal, io.StringIO:
        stream = kind()
        with metrics.Recorder(tmp_path, 2, stream) as recorder:
            recorder(Progress(1, 4.0, 1.0, None))
            recorder(Progress(2, 3.0, 1.0, 3.25))
        shown[kind] = stream.getvalue()
        assert recorder.curve == [(2, 3.5, 3.25)]
    assert "2/2" in shown[Terminal] and "bits/dim 3.000, held out 3.250" in shown[Terminal]
    line = shown[io.StringIO]
    assert line.startswith("step=2 bits_per_dim=3.500 held_out=3.250 seconds=") and line.count("\n") == 1


BAD = {
    "no command": ([], "COMMAND"),
    "conditional RealNVP": (["train", "--model", "realnvp", "--classes", "10"],
                            "--classes is an option of --model glow or official, not of realnvp"),
    "NICE by logits": (["train", "--model", "nice", "--logit", "0.1"],
                       "--logit is an option of --model glow or realnvp, not of nice"),
    "another model's choice": (["train", "--net", "residual", "--model", "official"],
                               "--net is an option of --model glow or realnvp, not of official"),
    "another model's net": (["train", "--net", "plain"],
                            "expected --net to be one of conv, mlp, paper, residual, got 'plain'"),
    "unknown command": (["fly"], "invalid choice: 'fly'"),
    "steps": (["train", "--steps", "0"], "expected steps to be a whole number of at least 1, got 0"),
    "depth": (["train", "-K", "two"], "flow_steps to be a whole number of at least 1, got 'two'"),
    "levels": (["train", "-L", "4"], "divisible by 2^levels = 16, got shape (8, 8, 1)"),
    "rate": (["train", "--learning-rate", "-1"], "learning_rate to be a number above 0, got -1"),
    "nan": (["train", "--learning-rate", "nan"], "learning_rate to be a number above 0, got nan"),
    "no rate": (["train", "--learning-rate", "0"], "learning_rate to be a number above 0, got 0"),
    "divergence": (["train", "--learning-rate", "1e9", "-K", "2"], "diverged"),
    "backend": (["train", "--backend", "torch"], "invalid choice: 'torch'"),
    "bins": (["train", "--bins", "9"], "expected 17 bins for digits, got 9"),
    "data": (["train", "--data", "missing.npz"], "missing.npz: no such file"),
    "checkpoint": (["evaluate", "missing"], "missing: no such file"),
    "folder": (["sample", "."], "model.npz: no such file"),
    "text": (["info", "text"], "text: not a minglow checkpoint"),
    "temperature": (["sample", "RUN", "--temperature", "-1"],
                    "expected temperature to be a number of at least 0, got -1"),
    "out": (["sample", "RUN", "--out", "missing/a.png"], "No such file or directory: 'missing/a.png'"),
    "format": (["sample", "RUN", "--out", "a.xyz"], "'xyz' is not supported"),
    "other images": (["evaluate", "RUN", "--data", "photos.npy"],
                     "expected samples of the model's shape (8, 8, 1), got (4, 4, 1) in photos.npy"),
    "other bins": (["evaluate", "RUN", "--data", "digits.npy", "--bins", "16"],
                   "expected the model's 17 bins, got 16 in digits.npy"),
    "one bin": (["train", "--data", "photos.npy", "--bins", "1"],
                "expected bins to be a whole number of 2 to 256, got 1"),
    "the digits' bins": (["evaluate", "RUN", "--bins", "5"], "expected 17 bins for digits, got 5"),
    "hot": (["sample", "RUN", "--temperature", "1e38"], "samples at temperature 1e+38 are NaN"),
    "too many": (["interpolate", "RUN", "--pairs", "100000"], "at most 10000 images at once"),
    "a folder": (["train", "--data", "empty"], "empty: expected one of the formats .csv, .npz (uint8"),
    "text as data": (["train", "--data", "text"], "text: expected one of the formats .csv, .npz (uint8"),
    "mixed sizes": (
        ["train", "--data", "mixed"], "b.png: expected the 4 x 4 pixels of a.png, got 4 x 6"),
    "cut": (["train", "--data", "cut.npy"], "cut.npy: expected 48 bytes of data by its header"),
    "no folder to crop": (
        ["train", "--data", "photos.npy", "--size", "4"], "expected a folder of pictures"),
    "digits cropped": (["train", "--size", "4"], "expected size and grayscale for a folder of pictures"),
    "too few bits": (["train", "--bits", "5"], "expected 256 bins to reduce to 5 bits, got 17"),
    "no labels": (["train", "--data", "photos.npy", "--classes", "3"],
                  "expected labels for --classes, got none in photos.npy"),
    "too few classes": (["train", "--classes", "9"], "expected --classes 10 for labels 0 to 9, got 9"),
    "no classes": (["sample", "RUN", "--label", "3"], "expected no labels: it has no classes"),
    "model": (["train", "--model", "gan"], "invalid choice: 'gan'"),
    "odd for realnvp": (["train", "--model", "realnvp", "-L", "4"], "w by 16, got shape (8, 8, 1)"),
    "no classes to classify": (
        ["train", "--classification-weight", "1"], "--classification-weight needs --classes"),
    "no name": (["train", "--name", ""], "expected the name of a folder in runs, got ''"),
    "parent": (["train", "--name", ".."], "the name of a folder in runs, got '..'"),
    "out is a folder": (["sample", "RUN", "--out", "."], "expected a file to write, got the folder ."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_line_and_a_failing_exit(name, run, tmp_path, monkeypatch, capsys):
    arguments, message = BAD[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("text")
    np.save(tmp_path / "photos.npy", np.zeros((3, 4, 4, 1), np.uint8))
    np.save(tmp_path / "digits.npy", np.zeros((3, 8, 8, 1), np.uint8))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "photos.npy").read_bytes()[:-5])
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    for file, width in ("a.png", 4), ("b.png", 6):
        Image.new("RGB", (width, 4)).save(tmp_path / "mixed" / file)
    try:
        status = main([str(run) if argument == "RUN" else argument for argument in arguments])
    except SystemExit as exit:
        status = exit.code
    shown = capsys.readouterr().err
    assert status not in (0, None)
    assert message in shown and shown.count("\n") == 1, shown
    assert not (tmp_path / "runs").exists() or name == "divergence"


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def interrupted(args):
        """Print what a file holds."""
        raise KeyboardInterrupt

    monkeypatch.setattr("minglow.cli.main.run_info", interrupted)
    assert main(["info", "x"]) == 130
    assert capsys.readouterr().err == "minglow info: interrupted\n"


def test_a_pipe_that_its_reader_closed_is_no_error(run):
    """As in `minglow info ... | head -1`: the pipe is closed before anything is written."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "minglow", "info", str(run)], stdout=write,
                          stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_unusual_names_of_folders_are_accepted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    parent, name = "a b/ü ☃", "it's [*?] $HOME -n\u00a0"
    assert main(["train", *SMALL, "--runs", parent, "--name", name]) == 0
    for command in "info", "evaluate", "sample", "interpolate", "export":
        assert main([command, f"{parent}/{name}"]) == 0
    assert len({path.name for path in (tmp_path / parent / name).iterdir()} - {".lock"}) == 3 + 4 + 3
    assert not [line for line in capsys.readouterr().out.splitlines() if "=" not in line]


@pytest.mark.parametrize(
    "command", ["train", "sample", "evaluate", "interpolate", "info", "export", "check"])
def test_every_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    assert f"example:\n  minglow {command} " in capsys.readouterr().out


@pytest.mark.parametrize(("given", "message"), [
    (["--count", "9"], "--count 9"),
    (["--temprature=1"], "--temprature=1, did you mean --temperature?"),
])
def test_an_option_that_a_command_does_not_have_is_refused_by_that_command(given, message, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["sample", "a", *given])
    assert exit.value.code == 2
    assert capsys.readouterr().err == (f"minglow sample: error: unrecognized arguments: {message} "
                                       "(see minglow sample --help)\n")


def test_training_lowers_held_out_bits_and_leaves_the_average():
    images = data.digits()
    flow = minglow.glow((8, 8, 1), levels=2, flow_steps=2, hidden=8, rng=0)
    seen = []
    train(flow, images, steps=120, learning_rate=1e-2, warmup_steps=20, evaluate_every=40,
          on_step=seen.append)
    assert [progress.step for progress in seen] == list(range(1, 121))
    held_out = [p.held_out_loss for p in seen if p.held_out_loss is not None]
    assert len(held_out) == 3 and held_out[-1] < held_out[0] - 0.3 and held_out[-1] < np.log2(17)
    assert evaluate(flow, images.held_out, 17) == held_out[-1]  # of the averages


def one_step(**options):
    """The Progress of one step of training, and the flow after it."""
    flow, seen = minglow.glow((8, 8, 1), levels=1, flow_steps=1, hidden=4, rng=0), []
    train(flow, data.digits(), **{"steps": 1, "warmup_steps": 0, "on_step": seen.append, **options})
    return seen[0], flow


def test_training_images_are_shifted():
    assert one_step(shift=0.0)[0].loss != one_step(shift=2.0)[0].loss


def test_gradients_are_clipped_before_the_step():
    start = one_step(learning_rate=1e-12)[1].flat.value
    progress, flow = one_step(max_grad_norm=1e-12)
    assert progress.grad_norm > 1  # before clipping
    assert np.abs(flow.flat.value - start).max() < 1e-5
    assert np.abs(one_step()[1].flat.value - start).max() > 1e-3


def test_training_begins_with_the_data_dependent_initialization():
    _, flow = one_step(learning_rate=1e-12)
    actnorm = flow.bijection.layers[1]
    assert np.all(actnorm.params["log_scale"] > 0.5)  # the digits' deviation is well below 1


@pytest.mark.parametrize(("options", "message"), [
    ({"steps": 0}, "steps to be a whole number of at least 1, got 0"),
    ({"evaluate_every": 0}, "evaluate_every to be"), ({"warmup_steps": -1}, "of at least 0, got -1"),
    ({"max_grad_norm": np.nan}, "max_grad_norm to be a number above 0, got nan"),
    ({"ema_decay": 1.0}, "ema_decay to be a number of at least 0 and below 1, got 1.0"),
    ({"learning_rate": 0.0}, "learning_rate to be a number above 0, got 0.0"),
    ({"max_grad_norm": 0}, "max_grad_norm to be a number above 0, got 0")])
def test_training_refuses_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        one_step(**options)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--model", "nice", "-L", "5"],
     "--levels is an option of --model glow or official or realnvp, not of nice"),
    (["--model", "realnvp", "-K", "7"],
     "--flow-steps is an option of --model glow or official or spline, not of realnvp"),
    (["--model", "spline", "--scale", "exp"],
     "--scale is an option of --model glow or realnvp, not of spline"),
    (["--spline-bins", "4"], "--spline-bins is an option of --model spline, not of glow"),
    (["--couplings", "4"], "--couplings is an option of --model nice or realnvp, not of glow"),
    (["--model", "nice", "--reversible"],
     "--reversible is an option of --model glow or official or realnvp, not of nice"),
    (["--model", "official", "--no-learned-prior"],
     "--learned-prior is an option of --model glow, not of official"),
    (["--depth", "2"], "--depth is an option of --model nice, not of glow")])
def test_an_option_of_another_model_is_refused(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"minglow train: error: {message}") and shown.err.count("\n") == 1
    assert not shown.out and not list(tmp_path.iterdir())
    assert set(MODELS) == {"glow", "official", "realnvp", "nice", "spline"}  # as the messages say


def test_gradients_are_not_clipped_without_a_largest_norm():
    norm = one_step()[0].grad_norm
    unlimited, limited, clipped = (
        one_step(max_grad_norm=limit, learning_rate=1e-3)[1].flat.value
        for limit in (None, 2 * norm, 1e-12))
    np.testing.assert_array_equal(unlimited, limited)
    assert np.any(unlimited != clipped)


def test_tiles_are_in_reading_order_and_gaps_are_empty():
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(2, axis=2)
    picture = tile(images, 2, 3)
    gap = np.nan
    expected = [[0, 0, gap, 0.5, 0.5], [gap] * 5, [1, 1, gap, gap, gap]]
    np.testing.assert_array_equal(picture, expected)
    color = image_sheet(np.zeros((2, 2, 2, 3), np.uint8), 2, 256, row_labels=["a"])
    assert color.axes[0].get_yticklabels()[0].get_text() == "a"
