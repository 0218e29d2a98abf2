"""minglow.save and minglow.load: what a file says about a flow's layers, and how loading uses it."""

from functools import partial

import numpy as np
import pytest

import minglow as mg
from minglow.cli import main as cli
from minglow.layers.scale import sigmoid_scale, tanh_scale
from minglow.nets import mlp
from minglow.storage import checkpoint
from minglow.storage.checkpoint import CheckpointError, named_arrays
from minglow.testing import perturbed

ENDINGS = pytest.mark.parametrize("ending", [".npz", ".safetensors"])


@pytest.fixture(autouse=True)
def needs_safetensors(request):
    if ".safetensors" in request.node.name:
        pytest.importorskip("safetensors", reason="needs safetensors: pip install 'minglow[test]'")


def in_flow(*layers):
    """A flow of these layers, without None, on vectors of four numbers; its parameters are perturbed."""
    return perturbed(mg.Flow(mg.Chain(*filter(None, layers)), mg.StandardNormal((4,))), 0, 0.05)


def coupling(scale):
    return mg.AffineCoupling(mlp(2, 4, 4, rng=0), scale)


# What changes the function but no array: the layer that is saved, and one that must not take its file.
SETTINGS = {
    "sigmoid or tanh": (lambda: coupling(sigmoid_scale), lambda: coupling(tanh_scale)),
    "default or exp": (lambda: coupling(None), lambda: coupling(mg.exp_scale)),
    "sigmoid's floor": (lambda: coupling(sigmoid_scale),
                        lambda: coupling(partial(sigmoid_scale, floor=0.1))),
    "another floor": (lambda: coupling(partial(sigmoid_scale, floor=0.2)),
                      lambda: coupling(partial(sigmoid_scale, floor=0.1))),
    "tanh's bound": (lambda: coupling(partial(tanh_scale, bound=1.0)),
                     lambda: coupling(partial(tanh_scale, bound=2.0))),
    "actnorm's factor": (lambda: mg.ActNorm(4), lambda: mg.ActNorm(4, factor=3.0)),
    "logit's margin": (lambda: mg.Logit(0.05), lambda: mg.Logit(0.1)),
    "a layer more": (lambda: None, lambda: mg.Logit(0.05)),
    "a layer less": (lambda: mg.Logit(0.05), lambda: None),
}


@ENDINGS
@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_another_value_is_refused(name, ending, tmp_path):
    path = tmp_path / f"a{ending}"
    build, build_other = SETTINGS[name]
    flow, other = in_flow(mg.ActNorm(4), build()), in_flow(mg.ActNorm(4), build_other())
    mg.save(flow, path)
    other.flat.value[...] = 0.5
    before = {name: array.copy() for name, array in named_arrays(other).items()}
    with pytest.raises(CheckpointError, match=r"expected bijection\.1 with the settings ") as error:
        mg.load(path, into=other)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    expected, got = message.split(" with the settings ")[1].split(", got ", 1)
    assert expected != got
    for array_name, array in named_arrays(other).items():
        np.testing.assert_array_equal(array, before[array_name])
    same = in_flow(mg.ActNorm(4), build())
    same.flat.value[...] = 0.5
    assert mg.load(path, into=same) is same
    np.testing.assert_array_equal(same.flat.value, flow.flat.value)


MODELS = {
    "glow": lambda rng: mg.glow((4, 4, 1), 2, 2, 4, permutation="lu", logit=0.05, classes=3, rng=rng),
    "glow by classes": lambda rng: mg.glow(
        (4, 4, 1), 1, 1, 4, permutation=mg.Shuffle, coupling=mg.AdditiveCoupling, rng=rng),
    "glow for vectors": lambda rng: mg.glow((6,), flow_steps=2, hidden=4, dtype=np.float64, rng=rng),
    "official": lambda rng: mg.official_glow((4, 4, 1), 2, 1, 4, coupling="additive", rng=rng),
    "realnvp": lambda rng: mg.realnvp((4, 4, 1), 1, 4, scale="sigmoid", reversible=True, rng=rng),
    "nice": lambda rng: mg.nice((4, 4, 1), 2, 4, 1, base="normal", rng=rng),
}


@ENDINGS
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_built_from_its_file(name, ending, tmp_path, capsys):
    path, build = tmp_path / f"a{ending}", MODELS[name]
    flow = perturbed(build(0), 0, 0.05)
    mg.save(flow, path)
    loaded = mg.load(path)
    assert loaded.config == flow.config and loaded.dtype is flow.dtype
    for array_name, array in named_arrays(flow).items():
        np.testing.assert_array_equal(named_arrays(loaded)[array_name], array)
    np.testing.assert_array_equal(loaded.sample(3, rng=0), flow.sample(3, rng=0))
    other = build(1)
    assert mg.load(path, into=other) is other
    np.testing.assert_array_equal(other.sample(3, rng=0), flow.sample(3, rng=0))
    assert cli.main(["info", str(path)]) == 0
    facts = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert facts["model"] == flow.config.model and facts["shape"] == str(list(flow.config.shape))
    assert facts["parameters"] == str(flow.flat.value.size) and "round_trip_error" in facts


@ENDINGS
def test_own_layers_are_loaded_into_a_flow(ending, tmp_path, capsys):
    path = tmp_path / f"a{ending}"
    flow, other = (in_flow(mg.ActNorm(4, factor=3.0), coupling(tanh_scale)) for _ in range(2))
    mg.save(flow, path)
    other.flat.value[...] = 0
    assert mg.load(path, into=other) is other
    np.testing.assert_array_equal(other.flat.value, flow.flat.value)
    with pytest.raises(CheckpointError, match=r"settings of a model, got none: .*into=flow"):
        mg.load(path)
    assert cli.main(["info", str(path)]) == 0
    facts = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert facts["bijection.0"] == "{'class': 'ActNorm', 'factor': 3.0}"
    assert "tanh_scale" in facts["bijection.1"]
    assert facts["values"] == str(flow.flat.value.size)
    for command in "evaluate", "sample", "interpolate", "export":
        assert cli.main([command, str(path)]) == 1
        shown = capsys.readouterr().err
        assert f"{path}: " in shown and shown.count("\n") == 1


def plain_net(channels, hidden, outputs, rng=None, dtype=np.float32):
    return mlp(channels, hidden, outputs, rng, dtype)


def test_a_model_with_a_function_of_the_users_own_is_loaded_into_a_flow(tmp_path):
    path = tmp_path / "a.npz"
    flow, other = (mg.glow((4,), 1, 1, 4, net=plain_net, rng=seed) for seed in (0, 1))
    mg.save(flow, path)
    assert checkpoint.read(path).config == {}
    with pytest.raises(CheckpointError, match="into=flow"):
        mg.load(path)
    mg.load(path, into=other)
    np.testing.assert_array_equal(other.flat.value, flow.flat.value)


class WithOrder(mg.ActNorm):
    """A layer whose constant has the name that permutations use, and holds anything."""

    def __init__(self, order):
        super().__init__(4)
        self.constants["order"] = np.array(order)


@ENDINGS
def test_a_constant_named_order_may_hold_anything(ending, tmp_path):
    path, order = tmp_path / f"a{ending}", [3, 3, -1]
    flow, other = in_flow(WithOrder(order)), in_flow(WithOrder([0, 0, 0]))
    mg.save(flow, path)
    mg.load(path, into=other)
    assert other.bijection.layers[0].constants["order"].tolist() == order


@pytest.mark.parametrize(("call", "message"), [
    (lambda path: mg.save("flow", path), "expected flow to be a Flow, got a str"),
    (lambda path: mg.load(path, into=mg.Chain()), "expected into to be a Flow, got a Chain"),
    (lambda path: mg.load(""), "expected a path, got ''"),
    (lambda path: mg.load(path.with_name("b.npz")), "b.npz: no such file"),
])
def test_arguments_that_are_no_flow_or_no_file_are_refused(call, message, tmp_path):
    path = tmp_path / "a.npz"
    mg.save(in_flow(mg.ActNorm(4)), path)
    with pytest.raises(ValueError, match=message):
        call(path)


@ENDINGS
def test_a_base_of_another_class_is_refused_and_a_reversible_chain_is_the_same(ending, tmp_path):
    """The class is a setting, where it changes the function."""
    flow = mg.Flow(mg.Chain(mg.ActNorm(2)), mg.StandardNormal((2,)))
    mg.save(flow, tmp_path / f"flow{ending}")
    with pytest.raises(ValueError, match=r"expected base with the settings .*StandardLogistic"):
        mg.load(tmp_path / f"flow{ending}", mg.Flow(mg.Chain(mg.ActNorm(2)), mg.StandardLogistic((2,))))
    same = mg.Flow(mg.ReversibleChain(mg.ActNorm(2)), mg.StandardNormal((2,)))
    assert mg.load(tmp_path / f"flow{ending}", same) is same


def test_numbers_of_numpy_are_settings():
    layer = mg.ActNorm(2)
    layer.bound = np.float32(3)
    assert layer.settings()["bound"] == 3.0
