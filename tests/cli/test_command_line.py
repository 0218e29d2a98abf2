"""The commands as their users run them, the pictures they leave, and what bad input gets."""

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
from minglow.runs import folder, metrics
from minglow.storage import checkpoint
from minglow.cli.main import main
from minglow.cli.commands import load_flow
from minglow.plots import image_sheet, tile
from minglow.training.loop import Progress, evaluate, train

SMALL = ["-K", "1", "-L", "1", "--hidden", "4", "--steps", "8", "--batch", "16"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on the digits; training, not what it reaches, is its subject."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", *SMALL, "--runs", str(folder), "--seed", "3"]) == 0
    return folder / "digits-1"


def said(capsys):
    """The key=value lines of stdout."""
    return dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_run_leaves_its_model_metrics_and_pictures(run):
    names = {path.name for path in run.iterdir()}
    pictures = {"curves.png", "samples.png", "temperatures.png", "interpolation.png"}
    assert names == {"model.npz", "last.npz", "metrics.csv"} | pictures
    assert all(is_png(run / name) for name in pictures)
    with (run / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["step"]) for line in lines] == list(range(1, 9))
    assert all(np.isfinite(float(line["bits"])) for line in lines)
    assert [line["held_out_bits"] != "" for line in lines] == [False] * 7 + [True]


def test_evaluate_says_what_training_said(run, tmp_path, capsys):
    arguments = [*SMALL, "--runs", str(tmp_path), "--seed", "3", "--name", "again"]
    assert main(["train", *arguments]) == 0
    trained = said(capsys)
    assert main(["evaluate", str(run)]) == 0
    evaluated = said(capsys)
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
    assert said(capsys) == {"samples": str(run / "samples-T0.8-seed0.png")}
    assert is_png(run / "samples-T0.8-seed0.png")


def test_interpolate_and_info(run, capsys):
    assert main(["interpolate", str(run), "--pairs", "2", "--frames", "4"]) == 0
    assert is_png(run / "interpolation-seed0.png")
    capsys.readouterr()
    assert main(["info", str(run)]) == 0
    facts = said(capsys)
    assert facts["levels"] == "1" and facts["hidden"] == "4" and facts["data"] == "digits"
    assert int(facts["parameters"]) == load_flow(run)[0].flat.value.size
    assert facts["coupling"] == "affine" and not {"net", "base"} & facts.keys()  # other models' words
    assert main(["train", "--model", "nice", "--hidden", "4", "--steps", "1", "--name", "nice",
                 "--runs", str(run.parent)]) == 0
    capsys.readouterr()
    assert main(["info", str(run.parent / "nice")]) == 0
    assert not {"net", "permutation", "coupling", "classes", "learned_prior"} & said(capsys).keys()


@pytest.mark.parametrize("options", [
    ["--permutation", "lu", "--coupling", "additive"], ["--permutation", "shuffle", "--reversible"],
    ["--permutation", "reverse", "--dtype", "float64", "--backend", "numpy"]])
def test_every_word_builds_a_flow_that_comes_back(options, tmp_path, capsys):
    before = minglow.kernels.current_backend()
    assert main(["train", *SMALL, "--runs", str(tmp_path), *options]) == 0
    minglow.use(before)
    flow, recipe = load_flow(tmp_path / "digits-1")
    held_out = float(said(capsys)["held_out_bits_per_dim"])
    images = data.digits()
    assert evaluate(flow, images.held_out, 17, samples=8) == pytest.approx(held_out, abs=6e-4)
    assert recipe["gray_levels"] == 17


@pytest.mark.parametrize("options", [
    ["--model", "nice", "--base", "normal"], ["--model", "realnvp", "--net", "plain"],
    ["--model", "realnvp", "--reversible"],
    ["--model", "published", "--learned-top", "--optimizer", "published-adamax"],
    ["--model", "published", "--coupling", "additive", "--optimizer", "adamax"],
    ["--no-learned-prior", "-L", "2", "--dequantize", "none"],
    ["--dequantize", "variational", "--flip"]],
    ids=" ".join)
def test_every_model_trains_and_comes_back(options, tmp_path, capsys):
    assert main(["train", *SMALL, "--runs", str(tmp_path), *options]) == 0
    trained = said(capsys)
    run = tmp_path / "digits-1"
    dequantizer = checkpoint.read(run / "model.npz").arrays["dequantizer"]
    assert (dequantizer.size > 0) == ("variational" in options)
    assert main(["evaluate", str(run)]) == 0
    evaluated = said(capsys)
    assert evaluated == {key: trained[key] for key in evaluated}
    assert main(["sample", str(run), "-n", "3"]) == 0
    assert main(["interpolate", str(run), "--pairs", "1"]) == 0


def test_a_conditional_model_samples_by_label(tmp_path, capsys):
    options = ["--conditional", "--classification", "0.1", "--runs", str(tmp_path)]
    assert main(["train", *SMALL, *options]) == 0
    run = tmp_path / "digits-1"
    assert 0 <= float(said(capsys)["accuracy_by_bayes"]) <= 1
    assert load_flow(run)[0].base.classes == 10

    def sample(*options):
        out = tmp_path / "a.npy"
        assert main(["sample", str(run), "-n", "4", "--out", str(out), *options]) == 0
        return np.load(out)

    assert np.any(sample("--label", "3") != sample("--label", "4"))
    capsys.readouterr()
    assert main(["sample", str(run), "--label", "3"]) == 0
    assert said(capsys) == {"samples": str(run / "samples-label3-T0.8-seed0.png")}
    assert main(["sample", str(run), "--label", "10"]) == 1
    assert "expected labels from 0 to 9, got 10 to 10" in capsys.readouterr().err


def test_a_folder_of_pictures_is_read_again_in_the_same_way(tmp_path, capsys):
    rng, folder = np.random.default_rng(0), tmp_path / "pictures"
    folder.mkdir()
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (6 + i, 9, 3), np.uint8)).save(folder / f"{i}.png")
    options = ["--size", "4", "--gray", "--bits", "5", "--data", str(folder)]
    assert main(["train", *SMALL, *options, "--runs", str(tmp_path / "runs"), "--name", "a"]) == 0
    trained = said(capsys)
    assert float(trained["uniform_model"]) == 5
    assert main(["evaluate", str(tmp_path / "runs" / "a")]) == 0
    evaluated = said(capsys)
    assert evaluated == {key: trained[key] for key in evaluated}


def test_images_of_ones_own_in_color(tmp_path, capsys):
    pictures = np.random.default_rng(0).integers(0, 256, (12, 4, 8, 3), np.uint8)
    np.save(tmp_path / "photos.npy", pictures)
    path = str(tmp_path / "photos.npy")
    assert main(["train", *SMALL, "--data", path, "--runs", str(tmp_path)]) == 0
    assert main(["interpolate", str(tmp_path / "photos-1")]) == 0
    facts = said(capsys)
    assert float(facts["uniform_model"]) == 8 and facts["images"] == "10"


def test_runs_are_numbered_and_never_overwritten(tmp_path):
    for expected in "a-1", "a-2":
        folder = folder.create_run_folder(tmp_path, None, "a")
        assert folder == tmp_path / expected
        (folder / "model.npz").touch()
    with ThreadPool(8) as pool:  # at one moment: each gets one of its own
        folders = pool.map(lambda _: folder.create_run_folder(tmp_path, None, "a"), range(40))
    assert {folder.name for folder in folders} == {f"a-{number}" for number in range(3, 43)}
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
    "conditional RealNVP": (["train", "--model", "realnvp", "--conditional"],
                            "--conditional with --model glow or published, got --model realnvp"),
    "NICE by logits": (["train", "--model", "nice", "--logit", "0.1"],
                       "expected --logit with --model glow or realnvp, got --model nice"),
    "unknown command": (["fly"], "invalid choice: 'fly'"),
    "steps": (["train", "--steps", "0"], "whole number of at least 1, got '0'"),
    "depth": (["train", "-K", "two"], "whole number of at least 1, got 'two'"),
    "levels": (["train", "-L", "4"], "divisible by 2^levels = 16, got shape (8, 8, 1)"),
    "rate": (["train", "--rate", "-1"], "number of at least 0, got '-1'"),
    "nan": (["train", "--rate", "nan"], "number of at least 0, got 'nan'"),
    "no rate": (["train", "--rate", "0"], "expected a number above 0"),
    "divergence": (["train", "--rate", "1e9", "-K", "2"], "diverged"),
    "backend": (["train", "--backend", "torch"], "invalid choice: 'torch'"),
    "gray levels": (["train", "--gray-levels", "9"], "expected 17 gray levels for digits"),
    "data": (["train", "--data", "missing.npz"], "missing.npz: no such file"),
    "checkpoint": (["evaluate", "missing"], "missing: no such file"),
    "folder": (["sample", "."], "model.npz: no such file"),
    "text": (["info", "text"], "text: not a minglow checkpoint"),
    "temperature": (["sample", "RUN", "--temperature", "-1"], "number of at least 0, got '-1'"),
    "out": (["sample", "RUN", "--out", "missing/a.png"], "No such file or directory: 'missing/a.png'"),
    "format": (["sample", "RUN", "--out", "a.xyz"], "'xyz' is not supported"),
    "other images": (["evaluate", "RUN", "--data", "photos.npy"],
                     "expected images of the model's shape (8, 8, 1), got (4, 4, 1) in photos.npy"),
    "one level": (["train", "--data", "photos.npy", "--gray-levels", "1"], "from 2 to 256 gray levels"),
    "digits' levels": (["evaluate", "RUN", "--gray-levels", "5"], "expected 17 gray levels"),
    "hot": (["sample", "RUN", "--temperature", "1e38"], "samples at temperature 1e+38 are NaN"),
    "too many": (["interpolate", "RUN", "--pairs", "100000"], "at most 10000 images at once"),
    "a folder": (["train", "--data", "empty"], "empty: expected MNIST's files, CIFAR-10's .bin files"),
    "text as data": (["train", "--data", "text"], "text: not a .npy or .npz file"),
    "mixed sizes": (
        ["train", "--data", "mixed"], "b.png: expected the 4 x 4 pixels of a.png, got 4 x 6"),
    "cut": (["train", "--data", "cut.npy"], "cut.npy: expected 48 bytes of data by its header"),
    "no folder to crop": (
        ["train", "--data", "photos.npy", "--size", "4"], "expected a folder of pictures"),
    "digits cropped": (["train", "--size", "4"], "expected --size and --gray for a folder of pictures"),
    "too few bits": (["train", "--bits", "5"], "expected 256 levels to reduce to 5 bits, got 17"),
    "no labels": (["train", "--data", "photos.npy", "--conditional"], "expected labeled images"),
    "no classes": (["sample", "RUN", "--label", "3"], "expected no labels: its base has no classes"),
    "model": (["train", "--model", "gan"], "invalid choice: 'gan'"),
    "odd for realnvp": (["train", "--model", "realnvp", "-L", "4"], "w by 16, got shape (8, 8, 1)"),
    "no classes to classify": (
        ["train", "--classification", "1"], "expected --classification with --conditional, got it"),
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
    (tmp_path / "cut.npy").write_bytes((tmp_path / "photos.npy").read_bytes()[:-5])
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    for file, width in ("a.png", 4), ("b.png", 6):
        Image.new("RGB", (width, 4)).save(tmp_path / "mixed" / file)
    try:
        status = main([str(run) if word == "RUN" else word for word in arguments])
    except SystemExit as exit:
        status = exit.code
    shown = capsys.readouterr().err
    assert status not in (0, None)
    assert message in shown and shown.count("\n") == 1, shown


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("minglow.cli.main.run_info", interrupted)
    assert main(["info", "x"]) == 130
    assert capsys.readouterr().err == "minglow info: interrupted\n"


def test_a_reader_that_has_seen_enough_is_no_error(run):
    """As with `minglow info ... | head -1`: the pipe is closed before anything comes."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "minglow", "info", str(run)], stdout=write,
                          stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_odd_names_are_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    parent, name = "a b/ü ☃", "it's [*?] $HOME -n\u00a0"
    assert main(["train", *SMALL, "--runs", parent, "--name", name]) == 0
    for command in "info", "evaluate", "sample", "interpolate", "export":
        assert main([command, f"{parent}/{name}"]) == 0
    assert len(list((tmp_path / parent / name).iterdir())) == 3 + 4 + 3
    assert not [line for line in capsys.readouterr().out.splitlines() if "=" not in line]


@pytest.mark.parametrize(
    "command", ["train", "sample", "evaluate", "interpolate", "info", "export", "check"])
def test_every_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    assert f"example:\n  minglow {command} " in capsys.readouterr().out


def test_an_option_that_a_command_does_not_have_is_refused_by_that_command(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["sample", "a", "--count", "9"])
    assert exit.value.code == 2
    assert capsys.readouterr().err == ("minglow sample: error: unrecognized arguments: --count 9 "
                                       "(see minglow sample --help)\n")


def test_training_lowers_held_out_bits_and_leaves_the_average():
    images = data.digits()
    flow = minglow.glow((8, 8, 1), levels=2, flow_steps=2, hidden=8, rng=0)
    seen = []
    train(flow, images, steps=120, learning_rate=1e-2, warmup_steps=20, evaluate_every=40, on_step=seen.append)
    assert [progress.step for progress in seen] == list(range(1, 121))
    held_out = [p.held_out_bits for p in seen if p.held_out_bits is not None]
    assert len(held_out) == 3 and held_out[-1] < held_out[0] - 0.3 and held_out[-1] < np.log2(17)
    assert evaluate(flow, images.held_out, 17) == held_out[-1]  # the last report was of what is left


def one_step(**options):
    """What one step of training reports, and the flow after it."""
    flow, seen = minglow.glow((8, 8, 1), levels=1, flow_steps=1, hidden=4, rng=0), []
    train(flow, data.digits(), **{"steps": 1, "warm_up": 0, "report": seen.append, **options})
    return seen[0], flow


def test_training_images_are_shifted():
    assert one_step(shift=0.0)[0].bits != one_step(shift=2.0)[0].bits


def test_gradients_are_clipped_before_the_step():
    start = one_step(rate=1e-12)[1].flat.value
    progress, flow = one_step(clip=1e-12)
    assert progress.grad_norm > 1  # before clipping
    assert np.abs(flow.flat.value - start).max() < 1e-5
    assert np.abs(one_step()[1].flat.value - start).max() > 1e-3


def test_training_begins_with_the_data_dependent_start():
    _, flow = one_step(rate=1e-12)
    actnorm = flow.bijection.layers[1]
    assert np.all(actnorm.params["log_scale"] > 0.5)  # the digits' deviation is well below 1


@pytest.mark.parametrize(("options", "message"), [
    ({"steps": 0}, "steps to be a whole number of at least 1, got 0"),
    ({"evaluate_every": 0}, "evaluate_every to be"), ({"warm_up": -1}, "of at least 0, got -1"),
    ({"clip": np.nan}, "clip to be a number from 0, got nan"),
    ({"decay": 1.0}, "decay to be a number from 0 to below 1"),
    ({"rate": 0.0}, "rate and clip above 0")])
def test_a_loop_that_cannot_run_says_why(options, message):
    with pytest.raises(ValueError, match=message):
        one_step(**options)


def test_tiles_stand_in_reading_order_and_gaps_are_empty():
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(2, axis=2)
    picture = tile(images, 2, 3)
    gap = np.nan
    expected = [[0, 0, gap, 0.5, 0.5], [gap] * 5, [1, 1, gap, gap, gap]]
    np.testing.assert_array_equal(picture, expected)
    color = image_sheet(np.zeros((2, 2, 2, 3), np.uint8), 2, 256, line_labels=["a"])
    assert color.axes[0].get_yticklabels()[0].get_text() == "a"
