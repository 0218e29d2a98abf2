"""The backend "cupy", on a stand-in for CuPy (device.py) and, if there is one, on a GPU.

Flows give the same results on the host and on the device. Nothing moves or blocks implicitly. Error
messages name a missing library, driver or GPU.
"""

import contextlib
import copy
import subprocess
import sys

import numpy as np
import pytest
from bijections import BIJECTIONS, NETS
from device import FUNCTIONS, UFUNCS, DeviceArray, installed
from test_kernels import arguments

import minglow as mg
from minglow import data, kernels
from minglow.bijection import Bijection
from minglow.cli import main as cli
from minglow.dequantization import UniformDequantizer, VariationalDequantizer, log_bound
from minglow.inference import anomaly_scores, interpolate, resample
from minglow.kernels import reference
from minglow.storage import checkpoint
from minglow.storage.weights import export_safetensors, import_safetensors
from minglow.testing import layer_checks, perturbed
from minglow.training.loop import Diverged, train
from minglow.training.optimizers import Adam, Adamax, clip_norm


def missing():
    """The error message for what this machine lacks, or an empty string."""
    try:
        with mg.use("cupy"):
            return ""
    except ImportError as error:
        return str(error)


GPU = pytest.param("gpu", marks=pytest.mark.skipif(bool(missing()), reason=missing()))


@pytest.fixture(params=["stand-in", GPU])
def device(request):
    """The backend "cupy" on the stand-in and, if there is one, on a GPU."""
    with contextlib.ExitStack() as stack:
        if request.param == "stand-in":
            stack.enter_context(installed())
        stack.enter_context(mg.use("cupy"))
        yield request.param


class OnDevice(Bijection):
    """A bijection with host arrays that computes on the device, for the property tests."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.children["layer"] = layer

    def _twin(self):
        return mg.to_device(copy.deepcopy(self.layer))

    def forward(self, x):
        twin = self._twin()
        y, log_det, cache = twin.forward(mg.to_device(x))
        return mg.to_host(y), mg.to_host(log_det), (twin, cache)

    def inverse(self, y):
        twin = self._twin()
        x, cache = twin.inverse(mg.to_device(y))
        return mg.to_host(x), (twin, cache)

    def backward(self, dy, dlog_det, cache):
        twin, cache = cache
        modules = zip(self.layer.walk(), twin.walk())
        pairs = [(grad, other.grads[name]) for (_, module), (_, other) in modules
                 for name, grad in module.grads.items()]
        for grad, other in pairs:
            other[...] = mg.to_device(grad)
        dx = twin.backward(mg.to_device(dy), mg.to_device(dlog_det), cache)
        for grad, other in pairs:
            grad[...] = mg.to_host(other)
        return mg.to_host(dx)

    def initialize(self, x):
        twin = self._twin()
        y = twin.initialize(mg.to_device(x))
        for (_, module), (_, other) in zip(self.layer.walk(), twin.walk()):
            for kind in "params", "constants":
                for name, value in getattr(other, kind).items():
                    getattr(module, kind)[name][...] = mg.to_host(value)
        return mg.to_host(y)


CASES = [(name, shape) for name, (_, shapes) in BIJECTIONS.items() for shape in (shapes[0], shapes[5])]


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_every_property_on_the_device(device, name, shape):
    """All checks but the comparison of CPU backends."""
    rng = np.random.default_rng(0)
    layer = BIJECTIONS[name][0](shape, rng, np.float32)
    for name_of_property, check in layer_checks(rng.standard_normal((2, *shape))):
        if name_of_property != "backends":
            check(OnDevice(perturbed(layer, rng, 0.05)))


def close(found, expected):
    """Equal within 1e-12, relative to the largest entry."""
    found = mg.to_host(found)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    scale = 1 + np.abs(expected).max(initial=0)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("name", BIJECTIONS)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_host_and_device_agree(device, backend, name):
    build, shapes = BIJECTIONS[name]
    rng = np.random.default_rng(1)
    layer = perturbed(build(shapes[-1], rng, np.float64), rng, 0.1)
    twin = mg.to_device(copy.deepcopy(layer))
    x = rng.standard_normal((3, *shapes[-1]))
    with mg.use(backend):
        y, log_det, cache = layer.forward(x)
        dy, dlog_det = rng.standard_normal(y.shape), rng.standard_normal(3)
        dx, back = layer.backward(dy, dlog_det, cache), layer.inverse(y)[0]
    found_y, found_log_det, cache = twin.forward(mg.to_device(x))
    close(found_y, y)
    close(found_log_det, log_det)
    close(twin.backward(mg.to_device(dy), mg.to_device(dlog_det), cache), dx)
    close(twin.inverse(mg.to_device(y))[0], back)
    for (_, module), (_, other) in zip(layer.walk(), twin.walk()):
        for key, grad in module.grads.items():
            close(other.grads[key], grad)


@pytest.mark.parametrize("name", NETS)
def test_conditioners_agree_on_host_and_device(device, name):
    build, shape = NETS[name]
    rng = np.random.default_rng(2)
    net = perturbed(build(rng=rng), rng)
    dtype = next(iter(p.dtype for _, m in net.walk() for p in m.params.values()), np.dtype(np.float64))
    twin, x = mg.to_device(copy.deepcopy(net)), rng.standard_normal((3, *shape)).astype(dtype)
    y, cache = net.forward(x)
    found, found_cache = twin.forward(mg.to_device(x))
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(mg.to_host(found), y, rtol=tolerance, atol=tolerance)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx, found_dx = net.backward(dy, cache), twin.backward(mg.to_device(dy), found_cache)
    np.testing.assert_allclose(mg.to_host(found_dx), dx, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("name", kernels.NAMES)
def test_every_kernel_on_the_device(device, name):
    for seed in range(5):
        args = arguments(name, np.random.default_rng(seed), 2, 3, 2, 4, np.float64)
        on_device = [mg.to_device(arg) if isinstance(arg, np.ndarray) else arg for arg in args]
        found, expected = getattr(kernels, name)(*on_device), getattr(reference, name)(*args)
        for result, other in zip([*as_tuple(found), *on_device], [*as_tuple(expected), *args]):
            if isinstance(other, np.ndarray):
                close(result, other)


def as_tuple(result):
    return result if isinstance(result, tuple) else () if result is None else (result,)


def flows(dtype=np.float64, **options):
    """The same perturbed flow on the host and on the device."""
    flow = mg.glow((4, 4, 1), levels=2, flow_steps=2, hidden=6, dtype=dtype, rng=0, **options)
    flow = perturbed(flow, 0, 0.05)
    return flow, mg.to_device(copy.deepcopy(flow))


@pytest.mark.parametrize("options", [
    {}, {"permutation": mg.InvConv1x1LU}, {"permutation": mg.Shuffle}, {"coupling": mg.AdditiveCoupling},
    {"learned_top": True}, {"classes": 3}, {"logit": 0.05}, {"reversible": True},
], ids=str)
def test_a_flow_on_the_device(device, options):
    flow, twin = flows(**options)
    rng = np.random.default_rng(3)
    x = rng.uniform(-0.5, 0.5, (6, 4, 4, 1))
    labels = rng.integers(3, size=6) if "classes" in options else None
    on_device = mg.to_device(x)
    close(twin.log_prob(on_device, labels), flow.log_prob(x, labels))
    close(twin.log_prob(on_device), flow.log_prob(x))
    z = flow.latents(x)
    close(twin.latents(on_device), z)
    close(twin.from_latents(mg.to_device(z)), flow.from_latents(z))
    close(twin.sample(4, 0, 0.7, labels if labels is None else 1),
          flow.sample(4, 0, 0.7, labels if labels is None else 1))
    close(twin.sample(4, 0), flow.sample(4, 0))
    if labels is not None:
        close(twin.log_prob_given_class(on_device), flow.log_prob_given_class(x))
        close(twin.base.cross_entropy(mg.to_device(z), labels), flow.base.cross_entropy(z, labels))
    weight = 0.5 if labels is not None else 0.0
    expected, found = flow.nll_backward(x, labels, weight), twin.nll_backward(on_device, labels, weight)
    close(found.nll, np.array(expected.nll))
    close(found.dx, expected.dx)
    if weight:
        close(found.cross_entropy, np.array(expected.cross_entropy))
    close(twin.flat.grad, flow.flat.grad)
    assert abs(twin.reconstruction_error(on_device) - flow.reconstruction_error(x)) < 1e-10
    twin.initialize(on_device)
    flow.initialize(x)
    close(twin.flat.value, flow.flat.value)
    assert mg.to_host(twin) is twin and isinstance(twin.flat.value, np.ndarray)


def test_other_models_and_inference_on_the_device(device):
    for model in (mg.nice((4, 4, 1), 2, 8, rng=0, dtype=np.float64),
                  mg.realnvp((4, 4, 1), 1, 4, rng=0, dtype=np.float64)):
        flow = perturbed(model, 0, 0.05)
        twin = mg.to_device(copy.deepcopy(flow))
        x = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 4, 4, 1))
        close(twin.log_prob(mg.to_device(x)), flow.log_prob(x))
        close(twin.sample(3, 1), flow.sample(3, 1))
    flow, twin = flows()
    close(interpolate(twin, mg.to_device(x), mg.to_device(x[::-1]), 4), interpolate(flow, x, x[::-1], 4))
    close(resample(twin, mg.to_device(x), ["level 1"], 5), resample(flow, x, ["level 1"], 5))
    images = np.random.default_rng(0).integers(16, size=(5, 4, 4, 1), dtype=np.uint8)
    found, expected = (anomaly_scores(model, images, 16, images, 0) for model in (twin, flow))
    for name, score in expected.items():
        np.testing.assert_allclose(found[name], score, rtol=1e-10)


@pytest.mark.parametrize("optimizer", [Adam, Adamax])
@pytest.mark.parametrize("dequantizer_class", [UniformDequantizer, VariationalDequantizer])
def test_training_on_the_device_is_training_on_the_host(device, optimizer, dequantizer_class, tmp_path):
    images, results, losses, saved = small_images(), [], [], []

    def fit(move, **options):
        flow = move(mg.glow((4, 4, 1), levels=1, flow_steps=2, hidden=6, dtype=np.float64, rng=0))
        if dequantizer_class is UniformDequantizer:
            dequantizer = dequantizer_class(5)
        else:
            dequantizer = move(dequantizer_class((4, 4, 1), 5, hidden=4, rng=0, dtype=np.float64))

        def save(state, best):
            checkpoint.save(tmp_path / "last.npz", flow, {}, state.arrays(), state.facts())
            checkpoints.append(checkpoint.read(tmp_path / "last.npz"))

        progress, checkpoints = [], []
        train(flow, images, steps=12, batch_size=8, evaluate_every=5, warmup_steps=3, learning_rate=0.01,
              dequantizer=dequantizer, optimizer=optimizer, on_step=progress.append,
              on_evaluation=save, **options)
        return mg.to_host(flow.flat.value), np.array(progress, float), checkpoints

    for move in (lambda thing: thing), mg.to_device:
        value, progress, checkpoints = fit(move)
        results.append(value)
        losses.append(progress)
        saved.append(checkpoints[0])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-8)
    # A checkpoint of one side resumes on the other.
    for checkpoint_of_other, move in (saved[1], lambda thing: thing), (saved[0], mg.to_device):
        resumed = fit(move, resume=checkpoint_of_other)[0]
        np.testing.assert_allclose(resumed, results[0], rtol=1e-8, atol=1e-10)


def small_images():
    rng = np.random.default_rng(0)
    return data.Images(rng.integers(5, size=(20, 4, 4, 1), dtype=np.uint8),
                       rng.integers(5, size=(7, 4, 4, 1), dtype=np.uint8), 5)


@pytest.mark.parametrize("options", [{}, {"permutation": mg.InvConv1x1LU}, {"logit": 0.05},
                                     {"reversible": True}], ids=str)
def test_a_training_step_reads_the_device_once(options):
    """A forward and a backward pass read no value; a training step reads once."""
    with installed(), mg.use("cupy"):
        _, twin = flows(np.float32, **options)
        x = mg.to_device(np.random.default_rng(0).uniform(-0.4, 0.4, (4, 4, 4, 1)).astype(np.float32))
        DeviceArray.reads = 0
        twin.nll_backward(x)
        assert DeviceArray.reads == 0
        reads = []
        train(twin, small_images(), steps=9, batch_size=4, evaluate_every=9,
              on_step=lambda progress: reads.append(DeviceArray.reads))
        assert set(np.diff(reads[:-1])) == {1}


@pytest.mark.parametrize("build", [mg.glow, mg.spline_flow])
def test_training_on_a_table_on_the_device(build):
    """The same as on the host; a step reads once."""
    rows = np.random.default_rng(0).normal([3, -20, 0.5], [1, 5, 0.1], (200, 3)).astype(np.float32)

    def fit(move):
        flow, reads, losses = move(build((3,), flow_steps=1, hidden=4, rng=0)), [], []

        def record(progress):
            reads.append(DeviceArray.reads)
            losses.append(progress.loss)

        train(flow, rows, steps=12, batch_size=20, evaluate_every=12, patience=1, on_step=record,
              on_warning=lambda line: None)
        return [np.array(losses), mg.to_host(flow.flat.value), mg.to_host(flow.sample(3, 0))], reads

    expected, _ = fit(lambda thing: thing)
    with installed(), mg.use("cupy"):
        results, reads = fit(mg.to_device)
    assert set(np.diff(reads[:-1])) == {1}
    for found, other in zip(results, expected):
        np.testing.assert_allclose(found, other, rtol=1e-3, atol=1e-5)


def test_arrays_of_both_sides_are_refused(device):
    flow, twin = flows()
    x = np.zeros((2, 4, 4, 1))
    with pytest.raises(ValueError, match="where its parameters are, got one on the host"):
        twin.log_prob(x)
    with pytest.raises(ValueError, match="got one on the device: minglow"):
        flow.log_prob(mg.to_device(x))
    for layer in mg.ActNorm(2), mg.Standardization(2), mg.Whitening(2), mg.Shuffle(2):
        name = type(layer).__name__
        with pytest.raises(ValueError, match=f"{name} expected an array where its parameters are, got"):
            mg.to_device(layer).forward(np.zeros((2, 2), np.float32))
    with mg.use("loops"), pytest.raises(ValueError, match="for a flow on a device, got the"):
        twin.log_prob(mg.to_device(x))
    with pytest.raises(TypeError):
        np.add(mg.to_device(x), x)


def test_nan_on_the_device_stops_training_and_names_the_parameter(device):
    flow = mg.to_device(mg.glow((4, 4, 1), levels=2, flow_steps=1, hidden=4, rng=0))
    name = next(key for key in flow.flat.where if key.endswith("log_scale"))

    def spoil(progress):
        flow.flat.view(flow.flat.value, name)[...] = np.nan

    with pytest.raises(Diverged, match=f"step 2: the parameter {name} is NaN"):
        train(flow, small_images(), steps=3, batch_size=4, evaluate_every=5, on_step=spoil)


def test_a_singular_weight_on_the_device_stops_training(device):
    flow = mg.to_device(mg.glow((4, 4, 1), levels=1, flow_steps=1, hidden=4, rng=0))
    name = next(key for key in flow.flat.where if key.endswith("weight") and "net" not in key)

    def spoil(progress):
        flow.flat.view(flow.flat.value, name)[...] = 0

    with pytest.raises(Diverged, match=r"step 2: InvConv1x1 at .* is the first layer whose output"):
        train(flow, small_images(), steps=3, batch_size=4, evaluate_every=5, on_step=spoil)


def test_a_long_gradient_is_clipped_on_the_device(device):
    for dtype in (np.float32, np.float64):
        grad = np.arange(1, 6, dtype=dtype)
        expected, found = grad.copy(), mg.to_device(grad)
        norm = clip_norm(expected, 2.0)
        np.testing.assert_allclose(mg.to_host(clip_norm(found, 2.0)), norm)
        np.testing.assert_allclose(mg.to_host(found), expected)
        assert expected.dtype == dtype


def test_files_from_host_and_device_are_equal(device, tmp_path):
    flow, twin = flows()
    checkpoint.save(tmp_path / "host.npz", flow, {"a": 1})
    checkpoint.save(tmp_path / "device.npz", twin, {"a": 1})
    assert (tmp_path / "host.npz").read_bytes() == (tmp_path / "device.npz").read_bytes()
    twin.flat.value[...] = 0
    checkpoint.restore(checkpoint.read(tmp_path / "host.npz"), twin)
    close(twin.flat.value, flow.flat.value)
    export_safetensors(tmp_path / "device.safetensors", twin)
    twin.flat.value[...] = 0
    import_safetensors(tmp_path / "device.safetensors", twin)
    close(twin.flat.value, flow.flat.value)


def test_a_bound_on_the_device(device):
    flow, twin = flows()
    images = np.random.default_rng(0).integers(5, size=(5, 4, 4, 1), dtype=np.uint8)
    uniform = UniformDequantizer(5)
    found, expected = (log_bound(model, images, uniform, 0, samples=3) for model in (twin, flow))
    close(found, expected)


def test_the_command_line_on_the_device(device, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["-K", "1", "-L", "1", "--hidden", "4", "--steps", "12", "--evaluate-every", "6"]
    train = ["train", "--backend", "cupy", "--dequantizer", "variational", "--name", "a"]
    assert cli.main([*train, *small]) == 0
    assert "backend=cupy" in capsys.readouterr().out
    for command in (["evaluate", "runs/a"], ["sample", "runs/a", "-n", "4"],
                    ["interpolate", "runs/a", "--pairs", "1"]):
        assert cli.main([*command, "--backend", "cupy"]) == 0, capsys.readouterr().err
    assert cli.main(["evaluate", "runs/a", "--backend", "numpy"]) == 0


def test_an_error_names_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match=r"expected CuPy for the backend cupy \(pip install"):
        mg.use("cupy")
    monkeypatch.undo()
    with installed(failure="cudaErrorInsufficientDriver: too old"), pytest.raises(
            ImportError, match="expected a recent enough NVIDIA driver for the backend cupy: "):
        mg.use("cupy")
    with installed(failure="cudaErrorNoDevice: no CUDA-capable device"), pytest.raises(
            ImportError, match="expected a GPU for the backend cupy: "):
        mg.use("cupy")
    assert kernels.current_backend() != "cupy"


def test_the_command_line_reports_what_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert cli.main(["train", "--backend", "cupy"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("minglow train: error: expected CuPy") and error.count("\n") == 1


def test_importing_minglow_imports_neither_cupy_nor_mpi():
    code = "import sys, minglow, minglow.cli; print({'cupy', 'mpi4py'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, text=True,
                          capture_output=True).stdout.strip() == "set()"


def test_the_stand_in_has_only_functions_of_cupy():
    cupy = pytest.importorskip("cupy")  # works without a GPU
    for module, names in FUNCTIONS.items():
        home = cupy.linalg if module == "numpy.linalg" else cupy
        assert [name for name in sorted(names) if not hasattr(home, name)] == []
    assert [name for name in sorted(UFUNCS) if not hasattr(cupy, name)] == []
    for name in ("all", "any", "argmax", "astype", "copy", "max", "mean", "min", "reshape", "std", "sum",
                 "transpose", "get", "T", "__array_function__", "__array_ufunc__"):
        assert hasattr(cupy.ndarray, name)


def test_the_stand_in_is_strict():
    with installed():
        x = mg.to_device(np.arange(3.0))
        for operation in (lambda: bool(x[0]), lambda: float(x[0]), lambda: x + np.arange(3),
                        lambda: np.array(x), lambda: list(x), lambda: x[np.array([0])],
                        lambda: np.concatenate([x, np.zeros(1)]), lambda: np.percentile(x, 3),
                        lambda: np.add.reduce(x), lambda: x.__setitem__(0, np.zeros(1))):
            with pytest.raises(TypeError):
                operation()
