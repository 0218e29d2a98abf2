"""Weights that another framework reads and writes: the same values, under documented names."""

import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bijections import BIJECTIONS, NETS

import minglow as mg
from minglow.cli.main import main
from minglow.dequantization import VariationalDequantizer
from minglow.storage import archive, checkpoint
from minglow.storage.checkpoint import CheckpointError, named_arrays, settings_of
from minglow.storage.weights import export_safetensors, import_safetensors, read_safetensors
from minglow.testing import perturbed

safetensors = pytest.importorskip("safetensors", reason="needs safetensors: pip install 'minglow[test]'")
from safetensors.numpy import load_file, save_file  # noqa: E402

GUIDE = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
X = np.random.default_rng(9).uniform(-0.5, 0.5, (5, 4, 8, 1))


def glow(seed=0, make=mg.glow, **options):
    options = {"levels": 2, "flow_steps": 2, "hidden": 4, "permutation": mg.Shuffle, **options}
    return perturbed(make((4, 8, 1), rng=seed, **options), seed, 0.05)


def spline_flow(seed=0):
    flow = mg.spline_flow((4,), flow_steps=2, hidden=4, rng=seed)
    flow.initialize(np.random.default_rng(seed).normal(seed, 3, (50, 4)))
    return perturbed(flow, seed)


KINDS = {
    "1x1": partial(glow, permutation=mg.InvConv1x1), "shuffle": glow,
    "lu, float64": partial(glow, permutation=mg.InvConv1x1LU, dtype=np.float64),
    "official, by class": partial(glow, make=mg.official_glow, permutation=mg.InvConv1x1LU, classes=3),
    "nice": lambda seed=0: perturbed(mg.nice((4, 8, 1), 2, 4, rng=seed), seed),
    "realnvp": lambda seed=0: perturbed(mg.realnvp((4, 8, 1), 1, 4, rng=seed), seed),
    "spline couplings": partial(glow, coupling="spline"), "spline": spline_flow,
}


def batch(kind):
    """Images, or vectors."""
    return X[:, :, 0, 0] if kind == "spline" else X


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_changes_no_bit(kind, tmp_path):
    path, saved, other = tmp_path / "a.safetensors", KINDS[kind](0), KINDS[kind](1)
    x = batch(kind)
    export_safetensors(path, saved)
    assert np.any(other.log_prob(x) != saved.log_prob(x))
    views = [value for _, module in other.walk() for value in module.params.values()]
    import_safetensors(path, other)
    for name, array in named_arrays(saved).items():
        assert named_arrays(other)[name].tobytes() == array.tobytes(), name
    np.testing.assert_array_equal(other.log_prob(x), saved.log_prob(x))
    np.testing.assert_array_equal(other.sample(3, rng=0), saved.sample(3, rng=0))
    assert all(np.shares_memory(view, other.flat.value) for view in views)


def test_a_dequantizer_is_written_and_read(tmp_path):
    path = tmp_path / "a.safetensors"
    saved, other = (perturbed(VariationalDequantizer((4, 4, 1), 256, 4, 1, rng=seed), seed)
                    for seed in (0, 1))
    export_safetensors(path, saved)
    import_safetensors(path, other)
    images = np.zeros((2, 4, 4, 1), np.uint8)
    np.testing.assert_array_equal(other.dequantize(images, 0)[0], saved.dequantize(images, 0)[0])


def test_the_file_holds_names_constants_and_metadata(tmp_path):
    path, flow = tmp_path / "a.safetensors", glow(permutation=mg.InvConv1x1LU)
    export_safetensors(path, flow, {"a": 2})
    found = load_file(path)
    constants = {"bijection.steps.2.order", "bijection.steps.2.sign", "bijection.inner.5.sign"}
    assert set(flow.flat.where) | constants < set(found)
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    assert list(metadata) == ["minglow"]  # several would come in another order each time
    assert json.loads(metadata["minglow"]) == {
        "format": 2, "version": mg.__version__, "config": {"a": 2}, "settings": settings_of(flow)}
    assert re.findall("^\\| `(.*?)`", GUIDE.partition("## Layouts")[0], re.MULTILINE) == [
        "format", "version", "config", "settings"]
    saved = read_safetensors(path)
    assert saved.config == {"a": 2} and saved.module.keys() == found.keys()


def with_matrix(matrix):
    """A flow that has a constant in any memory order."""
    layer = mg.Shuffle(4, 0)
    layer.constants["matrix"] = matrix
    return mg.Flow(mg.Chain(layer), mg.StandardNormal((4,)))


@pytest.mark.parametrize("order", [np.asfortranarray, np.transpose, np.flip, lambda a: a[::2, 1:]])
def test_arrays_in_any_memory_order_keep_their_values(order, tmp_path):
    path, matrix = tmp_path / "a.safetensors", order(np.arange(24.0).reshape(4, 6))
    export_safetensors(path, with_matrix(matrix))
    np.testing.assert_array_equal(load_file(path)["bijection.0.matrix"], matrix)
    other = with_matrix(np.asfortranarray(np.zeros_like(matrix)))
    import_safetensors(path, other)
    np.testing.assert_array_equal(other.bijection.layers[0].constants["matrix"], matrix)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    export_safetensors(path, glow(0))
    first = path.read_bytes()

    def disk_full(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(archive.os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        export_safetensors(path, glow(1))
    assert path.read_bytes() == first and list(tmp_path.iterdir()) == [path]


WEIGHT, ORDER, SIGN = (f"bijection.steps.{name}" for name in ("3.net.0.weight", "2.order", "2.sign"))


def changed(name, change):
    def apply(arrays):
        arrays[name] = change(arrays[name])
    return apply


def poisoned(value):
    def change(array):
        array = array.copy()
        array.flat[1] = value
        return array
    return change


BAD_ARRAYS = {
    "missing": (lambda arrays: arrays.pop(WEIGHT), f"expected {WEIGHT}, got none"),
    "extra": (lambda arrays: arrays.update(a=np.zeros(2)), "expected no other array, got a"),
    "shape": (changed(WEIGHT, lambda a: a[1:]),
              rf"expected {WEIGHT} as float32 \(4, 3, 3, 2\), got float32 \(3, 3, 3, 2\)"),
    "transposed": (changed(WEIGHT, lambda a: np.ascontiguousarray(a.transpose(0, 3, 1, 2))),
                   rf"expected {WEIGHT} as float32 \(4, 3, 3, 2\), got float32 \(4, 2, 3, 3\)"),
    "dtype": (changed(WEIGHT, lambda a: a.astype(np.float64)), r"as float32 .*, got float64 \(4, 3, 3"),
    "half": (changed(WEIGHT, lambda a: a.astype(np.float16)), r"as float32 .*, got float16 "),
    "integers": (changed(ORDER, lambda a: a.astype(np.int32)), rf"{ORDER} as int64 \(4,\), got int32"),
    "nan": (changed(WEIGHT, poisoned(np.nan)), f"expected {WEIGHT} to be finite, got NaN or inf"),
    "inf": (changed(SIGN, poisoned(np.inf)), f"expected {SIGN} to be finite"),
    "order": (changed(ORDER, lambda a: a * 0),
              r"\.2: expected an order that holds each channel once, got \[0"),
    "sign": (changed(SIGN, poisoned(0.5)), r"\.steps\.2: expected signs 1 and -1, got \[.*0\.5"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_wrong_arrays_are_named_and_change_nothing(name, tmp_path):
    change, message = BAD_ARRAYS[name]
    path = tmp_path / "a.safetensors"
    export_safetensors(path, glow(0, permutation=mg.InvConv1x1LU))
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)
    refused(path, message)


def refused(path, message):
    flow = glow(3, permutation=mg.InvConv1x1LU)
    before = {name: array.copy() for name, array in named_arrays(flow).items()}
    with pytest.raises(CheckpointError, match=message) as error:
        import_safetensors(path, flow)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{path}: ")
    for array_name, array in named_arrays(flow).items():
        np.testing.assert_array_equal(array, before[array_name])


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    refused(path, "no such file")
    refused(tmp_path, "a folder, not a file")
    for content in (b"", b"text", np.random.default_rng(0).bytes(500), (2**40).to_bytes(8, "little")):
        path.write_bytes(content)
        refused(path, r"not a safetensors file that NumPy can hold, or damaged \(")
    checkpoint.save(path, glow(), {})
    refused(path, "not a safetensors file")
    export_safetensors(path, glow(permutation=mg.InvConv1x1LU))
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "not a safetensors file that NumPy can hold, or damaged")
    save_file({"a": np.zeros(2)}, path, {"minglow": '{"format": 3}'})
    refused(path, "expected format 2, got 3: another version of minglow wrote it")


def test_metadata_that_are_missing_or_damaged_get_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    flow, other = glow(), glow(1)
    save_file({name: np.ascontiguousarray(array) for name, array in named_arrays(flow).items()}, path)
    with pytest.raises(CheckpointError, match="expected the settings of a model, got none"):
        mg.load(path)
    mg.load(path, into=other)  # another program wrote no metadata: only the arrays are compared
    np.testing.assert_array_equal(other.flat.value, flow.flat.value)
    for text in "{", "7", '"a"', "[" * 100_000, '{"config": 3}', '{"settings": ["a"]}':
        save_file({"a": np.zeros(2)}, path, {"minglow": text})
        with pytest.raises(CheckpointError, match=r"a\.safetensors: ") as error:
            mg.load(path)
        assert "\n" not in str(error.value)
    export_safetensors(path, glow(), {"model": {"name": "gan"}})
    with pytest.raises(CheckpointError, match=r"cannot be used: expected a model among .*'gan'"):
        mg.load(path)


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch, capsys):
    flow = glow()
    for name in "safetensors", "safetensors.numpy":
        monkeypatch.setitem(sys.modules, name, None)
    for call in export_safetensors, import_safetensors:
        with pytest.raises(ImportError, match=r"^a \.safetensors file needs .*: pip install 'minglow\["):
            call(tmp_path / "a.safetensors", flow)
    assert main(["info", str(tmp_path / "a.safetensors")]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", "-K", "1", "--hidden", "4", "--steps", "4", "--batch-size", "8",
                 "--permutation", "lu", "--learned-top", "--runs", str(folder)]) == 0
    return folder / "digits-1"


def facts_of(capsys):
    """The key=value lines of stdout."""
    return dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())


def test_every_command_accepts_an_exported_file(run, tmp_path, capsys):
    capsys.readouterr()
    assert main(["export", str(run)]) == 0
    assert facts_of(capsys) == {"weights": str(run / "model.safetensors")}
    out = tmp_path / "digits"
    assert main(["export", str(run), "--out", str(out)]) == 0
    out = out.with_suffix(".safetensors")
    assert facts_of(capsys) == {"weights": str(out)}
    for command in ["info"], ["evaluate"]:
        assert main([*command, str(run)]) == 0
        expected = facts_of(capsys)
        assert main([*command, str(out)]) == 0
        assert facts_of(capsys) == expected and expected
    drawn = []
    for source in run, out:
        assert main(["sample", str(source), "-n", "3", "--out", str(tmp_path / "a.npy")]) == 0
        drawn.append(np.load(tmp_path / "a.npy"))
    np.testing.assert_array_equal(*drawn)
    assert main(["interpolate", str(out), "--pairs", "1"]) == 0
    assert (tmp_path / "interpolation-seed0.png").exists()
    assert main(["export", str(out), "--out", str(tmp_path / "again.safetensors")]) == 0
    assert (tmp_path / "again.safetensors").read_bytes() == out.read_bytes()


@pytest.mark.parametrize(("arguments", "message"), [
    (["export", "RUN", "--out", "RUN/model.npz"], "expected a file that ends in .safetensors, got "),
    (["export", "missing"], "missing: no such file"),
    (["export", "RUN", "--out", "nowhere/a.safetensors"], "No such file or directory"),
    (["sample", "missing.safetensors"], "missing.safetensors: no such file"),
    (["info", "text.safetensors"], "text.safetensors: not a safetensors file"),
])
def test_a_command_that_fails_prints_one_line(arguments, message, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.safetensors").write_text("text")
    before = (run / "model.npz").read_bytes()
    assert main([argument.replace("RUN", str(run)) for argument in arguments]) == 1
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1, shown
    assert (run / "model.npz").read_bytes() == before


def documented():
    """The guide's table of layouts: (class, array) -> number of axes."""
    table = {}
    for line in GUIDE.partition("## Layouts")[2].splitlines():
        if line.startswith("| `"):
            kinds, names, shape = (re.findall("`(.*?)`", cell) for cell in line.split(" | ")[:3])
            axes = len(re.findall(r"\w+", shape[0]))
            table |= {(kind, name): axes for kind in kinds for name in names}
    return table


def test_the_guide_has_every_array_of_every_layer_and_net():
    rng = np.random.default_rng(0)
    modules = [make(shapes[-1], rng, np.float32) for make, shapes in BIJECTIONS.values()]
    modules += [make(rng=rng) for make, _ in NETS.values()]
    modules += [mg.TopPrior(4, (4,), 2), mg.Permutation(np.arange(2))]
    found = {(type(part).__name__, name): array.ndim for module in modules for _, part in module.walk()
             for name, array in (part.params | part.constants).items()}
    assert documented() == found


@pytest.mark.parametrize("kind", [
    "shuffle", "lu, float64", "official, by class", "realnvp", "spline couplings", "spline"])
def test_pytorch_computes_the_density_from_the_file_and_writes_it(kind, tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'minglow[bench]'")
    from safetensors.torch import load_file, save_file  # noqa: PLC0415
    from torch_mirror import mirror  # noqa: PLC0415
    path, again = tmp_path / "a.safetensors", tmp_path / "again.safetensors"
    flow, structure = KINDS[kind](0), KINDS[kind](1)  # every value comes from the file
    export_safetensors(path, flow)
    tensors = load_file(path)
    for name, constant in ((f"{path}.{name}", constant) for path, module in structure.walk()
                           for name, constant in module.constants.items()):
        constant[...] = tensors[name]
    exact = {name: tensor.double() if tensor.is_floating_point() else tensor
             for name, tensor in tensors.items()}
    x = batch(kind)
    z, log_det = mirror(structure.bijection, exact, "bijection")(torch.tensor(x))
    mean, std = torch.zeros_like(z), torch.ones_like(z)
    labels = None
    if "base.mean" in exact:
        labels, top = np.array([0, 2, 1, 1, 0]), flow.base.top
        count = int(np.prod(top))
        for filled, values in (mean, exact["base.mean"]), (std, exact["base.log_std"].exp()):
            filled[:, -count:] = values[labels].repeat(1, count // top[-1])
    expected = torch.distributions.Normal(mean, std).log_prob(z).sum(1) + log_det
    tolerance = 1e-12 if flow.dtype is np.float64 else 1e-5
    np.testing.assert_allclose(flow.log_prob(x, labels), expected.detach().numpy(), rtol=tolerance)
    save_file(tensors, again)
    import_safetensors(again, structure)
    for name, array in named_arrays(flow).items():
        assert named_arrays(structure)[name].tobytes() == array.tobytes(), name


def test_a_dtype_that_numpy_does_not_have_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'minglow[bench]'")
    from safetensors.torch import load_file, save_file  # noqa: PLC0415
    path = tmp_path / "a.safetensors"
    export_safetensors(path, glow(permutation=mg.InvConv1x1LU))
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in load_file(path).items()}, path)
    refused(path, r"not a safetensors file that NumPy can hold, or damaged \(.*bfloat16")


def test_the_guides_example_runs(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'minglow[bench]'")
    monkeypatch.chdir(tmp_path)
    calls, example = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    exec(compile(example, "docs/weights.md", "exec"), {})
    flow = mg.glow((8, 8, 1), levels=1, flow_steps=1, hidden=16, rng=5)
    exec(compile(calls, "docs/weights.md", "exec"), {"flow": flow, "minglow": mg})
