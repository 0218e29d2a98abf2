"""One range for each setting of training: the command line, Python and files refuse the same values."""

import re

import numpy as np
import pytest

import minglow as mg
from minglow.cli import main as cli
from minglow.runs.config import DataConfig, RunConfig
from minglow.runs.loading import load_run
from minglow.storage import checkpoint
from minglow.training import TrainingConfig

# Every setting: a value just outside of each bound, and the values at the bounds that are accepted.
RANGES = {
    "steps": ([0], [1]),
    "batch_size": ([0], [1]),
    "learning_rate": ([0.0, -1e-9], [1e-300]),
    "warmup_steps": ([-1], [0]),
    "max_grad_norm": ([0.0, -1e-9], [1e-300, 1e300]),
    "ema_decay": ([-1e-9, 1.0], [0.0, float(np.nextafter(1, 0))]),
    "shift": ([-1e-9], [0.0]),
    "integer_shift": ([], [True, False]),
    "flip": ([], [True, False]),
    "classification_weight": ([-1e-9], [0.0]),
    "optimizer": (["sgd"], ["adam", "adamax", "official-adamax"]),
    "micro_batches": ([0], [1]),
    "evaluate_every": ([0], [1]),
    "patience": ([0], [1]),
    "seed": ([-1, 2**63], [0, 2**63 - 1]),
}
NO_NUMBER = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
NUMBERS = sorted(RANGES.keys() - {"integer_shift", "flip", "optimizer"})


def test_the_table_has_every_setting():
    assert RANGES.keys() == TrainingConfig.__dataclass_fields__.keys()


def images():
    pixels = np.zeros((8, 4, 4, 1), np.uint8)
    return mg.data.Images(pixels, pixels, 17)


def from_command_line(name, value, folder, capsys):
    """The error line of `minglow train` with this option."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "--runs", str(folder / "runs"), f"--{name.replace('_', '-')}={value}"])
    shown = capsys.readouterr().err
    assert exit_.value.code == 2 and shown.count("\n") == 1 and not (folder / "runs").exists()
    return shown


def from_python(name, value):
    """The error of minglow.train with this argument."""
    flow = mg.glow((4, 4, 1), 1, 1, 4, rng=0)
    before = flow.flat.value.copy()
    with pytest.raises(ValueError, match="expected") as error:
        mg.train(flow, images(), **{"steps": 1, name: value})
    np.testing.assert_array_equal(flow.flat.value, before)
    return str(error.value)


def from_file(name, value, folder):
    """The error of loading a file with this setting."""
    flow = mg.glow((4, 4, 1), 1, 1, 4, rng=0)
    config = RunConfig(flow.config, DataConfig(bins=17), TrainingConfig()).to_json()
    config["training"][name] = value
    checkpoint.save(folder / "a.npz", flow, config)
    with pytest.raises(checkpoint.CheckpointError) as error:
        load_run(folder / "a.npz")
    return str(error.value)


@pytest.mark.parametrize(("name", "value"), [
    *((name, value) for name, (refused, _) in RANGES.items() for value in refused),
    *((name, value) for name in NUMBERS for value in NO_NUMBER.values())])
def test_a_value_out_of_range_is_refused_everywhere_with_one_message(name, value, tmp_path, capsys):
    messages = [from_command_line(name, value, tmp_path, capsys), from_python(name, value),
                from_file(name, value, tmp_path)]
    cores = {re.search(r"expected .* to be .*(?=, got )", message).group() for message in messages}
    assert len(cores) == 1 and cores.pop().startswith(f"expected {name} to be ")
    for message in messages:  # 0 or 0.0: equal as numbers
        got = re.search(r", got '?([^ ()']+)", message).group(1)
        assert got == value if isinstance(value, str) else repr(float(got)) == repr(float(value))


@pytest.mark.parametrize(("name", "value"), [
    (name, value) for name, (_, accepted) in RANGES.items() for value in accepted])
def test_a_value_at_its_bound_is_accepted_everywhere(name, value, tmp_path):
    config = TrainingConfig(**{name: value})
    assert getattr(config, name) == value
    assert TrainingConfig.from_json(config.to_json(), "the settings of training") == config
    flag = name.replace("_", "-")
    option = [f"--{flag}={value}"]
    if isinstance(value, bool):
        option = [f"--{flag}" if value else f"--no-{flag}"]
    assert getattr(cli.parser().parse_args(["train", *option]), name) == value
