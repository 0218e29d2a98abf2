"""One declaration for each thing: what is added from outside appears wherever its kind appears."""

import json
from dataclasses import KW_ONLY, dataclass, make_dataclass

import numpy as np
import pytest

import minglow as mg
from minglow.cli import main as cli
from minglow.data import readers
from minglow.data.dataset import every_tenth
from minglow.models.base import MODELS, ModelConfig
from minglow.models.glow import GlowConfig
from minglow.runs import config as run_config
from minglow.storage import checkpoint
from minglow.storage.settings import option
from minglow.testing import check_layer
from minglow.training import config as training_config
from minglow.training import loop
from minglow.training.config import TrainingConfig


def run(capsys, *words):
    """Exit status and output of one command."""
    try:
        status = cli.main([str(word) for word in words])
    except SystemExit as exit_:
        status = exit_.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


SHORT = ("--steps", 2, "--evaluate-every", 1, "-K", 1, "--hidden", 4)


@pytest.fixture
def toy_model():
    """A model with an option of its own, declared in one class."""
    @dataclass(frozen=True)
    class ToyConfig(ModelConfig, model="toy"):
        """Settings of a toy model."""

        _: KW_ONLY
        stretch: float = option(1.0, "factor of every pixel", above=0)

        def build_parts(self, rng):
            layers = mg.Flatten(self.shape), mg.Scaling(int(np.prod(self.shape)), self.chosen("dtype"))
            layers[1].params["log_scale"][...] = np.log(self.stretch)
            return mg.Chain(*layers), mg.StandardNormal((int(np.prod(self.shape)),))

        def min_parameters(self):
            return int(np.prod(self.shape))

    yield ToyConfig
    del MODELS["toy"]


def test_a_model_from_outside_is_on_the_command_line_in_files_and_in_info(toy_model, tmp_path, capsys):
    status, out, _ = run(capsys, "train", "--help")
    assert status == 0 and "toy" in out and "--stretch" in out and "factor of every pixel" in out
    status, _, err = run(capsys, "train", "--model", "toy", "--stretch", "0", "--runs", tmp_path)
    assert status == 2 and "expected stretch to be a number above 0, got 0" in err
    status, _, err = run(capsys, "train", "--stretch", "2", "--runs", tmp_path)
    assert status == 1 and "--stretch is an option of --model toy, not of glow" in err
    status, _, err = run(capsys, "train", "--model", "toy", "--stretch", "2.5", "--steps", 2,
                         "--evaluate-every", 1, "--runs", tmp_path, "--name", "a")
    assert status == 0, err
    stored = checkpoint.read(tmp_path / "a" / "model.npz").config
    assert stored["model"] == {"name": "toy", "shape": [8, 8, 1], "dtype": "float32", "stretch": 2.5}
    assert "stretch=2.5" in run(capsys, "info", tmp_path / "a")[1].splitlines()
    flow = mg.load(tmp_path / "a")
    assert flow.config == toy_model((8, 8, 1), stretch=2.5)
    with pytest.raises(ValueError, match="expected stretch to be a number above 0, got -1"):
        run_config.model_from_json({"model": stored["model"] | {"stretch": -1}})


def test_an_option_of_a_model_is_one_field(tmp_path, capsys):
    """A subclass with one field more, in Glow's place."""
    @dataclass(frozen=True)
    class WithOption(GlowConfig, model="glow"):
        """Glow with one option more."""

        flavor: str = option("sweet", "taste of the flow", choices=("sweet", "sour"), kw_only=True)

    try:
        assert "taste of the flow (of glow; default: sweet)" in " ".join(
            run(capsys, "train", "--help")[1].split())
        status, _, err = run(capsys, "train", *SHORT, "--flavor", "bitter", "--runs", tmp_path)
        assert status == 2 and "flavor" in err and "sweet, sour" in err
        status, _, _ = run(capsys, "train", *SHORT, "--flavor", "sour", "--runs", tmp_path, "--name",
                           "b")
        assert status == 0
        assert "flavor=sour" in run(capsys, "info", tmp_path / "b")[1].splitlines()
        assert checkpoint.read(tmp_path / "b" / "model.npz").config["model"]["flavor"] == "sour"
    finally:
        GlowConfig.model = "glow"
        MODELS["glow"] = GlowConfig


def test_an_option_of_training_is_one_field(monkeypatch, tmp_path, capsys):
    patience = "patience", int, option(7, "epochs to wait", minimum=1)
    wider = make_dataclass("TrainingConfig", [patience], bases=(TrainingConfig,), frozen=True,
                           kw_only=True)
    for module in training_config, loop, run_config, cli:
        monkeypatch.setattr(module, "TrainingConfig", wider)
    assert "--patience" in run(capsys, "train", "--help")[1]
    status, _, err = run(capsys, "train", *SHORT, "--patience", 0, "--runs", tmp_path)
    assert status == 2 and "expected patience to be a whole number of at least 1, got 0" in err
    with pytest.raises(ValueError, match="expected patience to be a whole number"):
        mg.train(mg.glow((8, 8, 1), rng=0), mg.data.digits(), patience=0)
    assert run(capsys, "train", *SHORT, "--patience", 3, "--runs", tmp_path, "--name", "c")[0] == 0
    assert "patience=3" in run(capsys, "info", tmp_path / "c")[1].splitlines()
    stored = checkpoint.read(tmp_path / "c" / "last.npz").config["training"]
    assert stored["patience"] == 3 and json.loads(json.dumps(stored)) == stored
    with pytest.raises(ValueError, match="an entry 'patience'"):
        wider.from_json({key: value for key, value in stored.items() if key != "patience"}, "x")


def test_a_data_format_is_one_row(monkeypatch, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), np.uint8)
    row = readers.Reader(".toy of raw bytes", lambda path, head: path.suffix == ".toy",
                         lambda path: every_tenth(images))
    monkeypatch.setattr(readers, "READERS", [row, *readers.READERS])
    (tmp_path / "x.toy").write_bytes(b"anything")
    (tmp_path / "x.unknown").write_bytes(b"anything")
    assert len(mg.data.load_images(tmp_path / "x.toy").train) == 18
    assert ".toy of raw bytes" in readers.formats()
    with pytest.raises(ValueError, match=r"\.toy of raw bytes"):
        mg.data.load_images(tmp_path / "x.unknown")
    status, _, err = run(capsys, "train", *SHORT, "-L", 1, "--batch-size", 4,
                         "--data", tmp_path / "x.toy", "--runs", tmp_path, "--name", "d")
    assert status == 0, err
    assert f"data={tmp_path / 'x.toy'}" in run(capsys, "info", tmp_path / "d")[1].splitlines()


class Doubling(mg.Bijection):
    """y = factor x: a layer from outside."""

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        size = x[0].size * np.log(self.factor)
        return x * x.dtype.type(self.factor), np.full(len(x), size, x.dtype), None

    def inverse(self, y):
        return y / y.dtype.type(self.factor), None

    def backward(self, dy, dlog_det, cache):
        return dy * dy.dtype.type(self.factor)


def test_a_layer_from_outside_is_checked_saved_and_described(tmp_path, capsys):
    check_layer(Doubling())
    flow = mg.Flow(mg.Chain(mg.ActNorm(4), Doubling(2.0)), mg.StandardNormal((4,)))
    mg.save(flow, tmp_path / "own.npz")
    status, out, _ = run(capsys, "info", tmp_path / "own.npz")
    assert status == 0 and "'factor': 2.0" in out
    other = mg.Flow(mg.Chain(mg.ActNorm(4), Doubling(2.0)), mg.StandardNormal((4,)))
    other.flat.value[...] = 1
    assert mg.load(tmp_path / "own.npz", into=other) is other
    np.testing.assert_array_equal(other.flat.value, flow.flat.value)
    wrong = mg.Flow(mg.Chain(mg.ActNorm(4), Doubling(3.0)), mg.StandardNormal((4,)))
    before = wrong.flat.value.copy()
    expected = "expected bijection.1 with the settings .*'factor': 3.0}, got .*'factor': 2.0}"
    with pytest.raises(ValueError, match=expected):
        mg.load(tmp_path / "own.npz", into=wrong)
    np.testing.assert_array_equal(wrong.flat.value, before)
    with pytest.raises(ValueError, match=r"minglow\.load\(path, into=flow\)"):
        mg.load(tmp_path / "own.npz")
