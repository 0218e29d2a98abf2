"""Initialization, seeds, defaults and names of what constructors build, and the default backend."""

import sys
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

import minglow as mg
from minglow import kernels
from minglow.bases import Base
from minglow.dequantization.dequantizers import VariationalDequantizer
from minglow.layers.invconv import random_rotation
from minglow.layers.invconv_lu import lu_factors
from minglow.models.autoencoder import fit
from minglow.models.glow import split_prior
from minglow.models.vae import VAE
from minglow.nets import (
    AsNet,
    Conv,
    Dense,
    EdgeBias,
    NormReLU,
    ReLU,
    Residual,
    Sequence,
    ShiftScale,
    TransposedConv,
    conv_net,
    mlp,
    official_conv_net,
    paper_conv_net,
    res_net,
)
from minglow.params import parameters
from minglow.testing import perturbed
from minglow.training.optimizers import PolyakAverage


def arrays(module):
    return {f"{path}.{name}": value for path, part in module.walk()
            for kind in (part.params, part.constants) for name, value in kind.items()}


SEEDED = {
    "InvConv1x1": lambda rng: mg.InvConv1x1(6, rng), "InvConv1x1LU": lambda rng: mg.InvConv1x1LU(6, rng),
    "Shuffle": lambda rng: mg.Shuffle(12, rng), "Conv": lambda rng: Conv(2, 3, rng=rng),
    "TransposedConv": lambda rng: TransposedConv(3, 2, rng=rng),
    "Dense": lambda rng: Dense(2, 3, rng=rng), "conv_net": lambda rng: conv_net(2, 6, 4, rng),
    "mlp": lambda rng: mlp(2, 6, 4, rng),
    "res_net": lambda rng: res_net(2, 6, 4, rng), "EdgeBias": lambda rng: EdgeBias(6, rng=rng),
    "paper_conv_net": lambda rng: paper_conv_net(2, 6, 4, rng),
    "official_conv_net": lambda rng: official_conv_net(2, 6, 4, rng),
    "glow": lambda rng: mg.glow((4, 4, 1), flow_steps=1, hidden=4, rng=rng),
    "official_glow": lambda rng: mg.official_glow((4, 4, 1), 1, 1, 4, rng=rng),
    "nice": lambda rng: mg.nice((4,), 2, 4, 2, rng=rng),
    "realnvp": lambda rng: mg.realnvp((4, 4, 1), 2, 4, rng=rng),
}


@pytest.mark.parametrize("name", SEEDED)
def test_an_initialization_follows_its_seed(name):
    one, same, other = (arrays(SEEDED[name](seed)) for seed in (1, 1, 2))
    assert one.keys() == same.keys()
    for key, value in one.items():
        np.testing.assert_array_equal(value, same[key])
    fixed = () if name in ("Shuffle", "InvConv1x1LU") else ("order", "sign")
    drawn = [key for key, value in one.items() if np.unique(value).size > 2 and not key.endswith(fixed)]
    assert drawn, "something is drawn"
    for key in drawn:
        assert np.any(one[key] != other[key]), key


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2, 5, 12])
def test_lu_is_initialized_as_the_factors_of_the_direct_rotation(channels, dtype):
    direct, lu = (kind(channels, 3, dtype) for kind in (mg.InvConv1x1, mg.InvConv1x1LU))
    weight = direct.params["weight"]
    np.testing.assert_allclose(weight @ weight.T, np.eye(channels), atol=1e-6)
    permuted_lower, upper = lu.factors()
    np.testing.assert_allclose(permuted_lower @ upper, weight, atol=1e-6)
    np.testing.assert_array_equal(lu.matrix(), permuted_lower @ upper)
    assert direct.matrix() is weight
    np.testing.assert_array_equal(lu.params["lower"], np.tril(lu.params["lower"], -1))
    np.testing.assert_array_equal(lu.params["upper"], np.triu(lu.params["upper"], 1))
    assert set(lu.constants["sign"]) <= {-1, 1}
    assert {value.dtype for value in (*lu.params.values(), lu.constants["sign"])} == {np.dtype(dtype)}


@pytest.mark.parametrize("seed", range(20))
def test_lu_factors_multiply_to_the_matrix_with_small_multipliers(seed):
    matrix = np.random.default_rng(seed).standard_normal((6, 6)) ** 3  # of many magnitudes
    order, lower, upper = lu_factors(matrix)
    np.testing.assert_allclose(lower[order] @ upper, matrix, atol=1e-12 * np.abs(matrix).max())
    np.testing.assert_array_equal(np.diag(lower), 1)
    np.testing.assert_array_equal(lower, np.tril(lower))
    np.testing.assert_array_equal(upper, np.triu(upper))
    assert np.abs(lower).max() <= 1  # partial pivoting
    assert sorted(order) == list(range(6))
    assert abs(np.linalg.det(random_rotation(4, seed))) == pytest.approx(1)


def test_reverse_reverses_and_shuffle_permutes():
    x = np.arange(4, dtype=np.float32)[None]
    np.testing.assert_array_equal(mg.Reverse(4).forward(x)[0], [[3, 2, 1, 0]])
    shuffle = mg.Shuffle(4, 0)
    np.testing.assert_array_equal(shuffle.forward(x)[0][0], shuffle.constants["order"])
    assert sorted(shuffle.constants["order"]) == [0, 1, 2, 3]
    assert list(mg.Reverse(4).constants) == ["order"]


def test_orders_that_are_not_drawn():
    assert mg.Swap(4).constants["order"].tolist() == [2, 3, 0, 1]
    assert mg.Swap(5).constants["order"].tolist() == [3, 4, 0, 1, 2]
    assert mg.EvenOdd(5).constants["order"].tolist() == [0, 2, 4, 1, 3]
    for order in [0, 0, 1], [1, 2], [[0, 1]]:
        with pytest.raises(ValueError, match="expected an order that holds each channel once"):
            mg.Permutation(order)


@pytest.mark.parametrize("parity", [0, 1])
def test_a_checkerboard_changes_one_color_as_a_function_of_the_other(parity):
    rng = np.random.default_rng(0)
    net = perturbed(mg.CheckerboardNet(conv_net(2, 5, 4, rng, np.float64), parity), 0)
    layer = mg.Checkerboard(mg.AffineCoupling(net, mg.tanh_scale), parity)
    x = rng.standard_normal((3, 4, 6, 2))
    i, j = np.indices((4, 6))
    identity = (i + j + parity) % 2 == 0
    y, _, _ = layer.forward(x)
    np.testing.assert_array_equal(y[:, identity], x[:, identity])
    assert (y[:, ~identity] != x[:, ~identity]).all()
    masked = x.copy()
    masked[:, ~identity] = 0  # Dinh et al. 2017, equation 9: the net reads the mask times x
    shift, s = np.split(net.net.forward(masked)[0], 2, axis=-1)
    expected = np.where(identity[..., None], x, (x + shift) * np.exp(np.tanh(s)))
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_nice_is_couplings_of_even_and_odd_indices_and_a_scaling():
    flow = mg.nice((4, 4, 1), couplings=3, hidden=5, depth=2, rng=0)
    kinds = [type(layer).__name__ for layer in flow.bijection.layers]
    assert kinds == ["Flatten", "EvenOdd", "AdditiveCoupling", "Reverse", "AdditiveCoupling", "Reverse",
                     "AdditiveCoupling", "Scaling"]
    assert type(flow.base) is mg.StandardLogistic
    kinds = [type(layer).__name__ for layer in mg.nice((4,), hidden=2).bijection.layers]
    assert kinds[:4] == ["Standardization", "Whitening", "Flatten", "EvenOdd"] and len(kinds) == 12
    log_det = flow.bijection.forward(np.ones((2, 4, 4, 1), np.float32))[1]
    np.testing.assert_array_equal(log_det, 0)  # the scaling is 1 at first, the rest preserves volume


def test_realnvp_alternates_masks_as_in_the_paper():
    flow = mg.realnvp((8, 8, 1), 2, 4, rng=0)
    couplings = [layer for layer in flow.bijection.steps.layers if not isinstance(layer, mg.ActNorm)]
    assert [type(layer).__name__ for layer in couplings] == [
        *3 * ["Checkerboard"], "Squeeze", *3 * ["AffineCoupling", "Swap"]]
    assert [layer.parity for layer in couplings[:3]] == [0, 1, 0]
    top = [layer for layer in flow.bijection.inner.layers if isinstance(layer, mg.Checkerboard)]
    assert [layer.parity for layer in top] == [0, 1, 0, 1]
    assert isinstance(top[0].inner.net.net.nets[1], Residual)
    assert [layer.inner.net.parity for layer in top] == [0, 1, 0, 1]
    inner = [layer.inner if isinstance(layer, mg.Checkerboard) else layer
             for layer in couplings + top if not isinstance(layer, (mg.Squeeze, mg.Swap))]
    assert [type(layer.net) for layer in inner] == [*3 * [mg.CheckerboardNet], *3 * [Sequence],
                                                    *4 * [mg.CheckerboardNet]]
    assert {layer.scale for layer in inner} == {mg.tanh_scale}


def test_vectors_have_one_level_by_default():
    default, one = (mg.glow((6,), levels=levels, flow_steps=2, hidden=4, rng=0) for levels in (None, 1))
    assert list(default.flat.where) == list(one.flat.where) and isinstance(default.bijection, mg.Chain)
    least = [replace(flow.config, levels=levels).min_parameters()
             for flow, levels in ((default, None), (one, 1))]
    assert least[0] == least[1] <= one.flat.value.size


@pytest.mark.parametrize("build", [partial(mg.glow, flow_steps=4), mg.realnvp])
@pytest.mark.parametrize("reversible", [True, False])
def test_a_reversible_flow_is_made_of_reversible_chains(build, reversible):
    flow = build((4, 4, 1), levels=2, hidden=4, rng=0, reversible=reversible)
    chains = [flow.bijection.steps, flow.bijection.inner]
    assert {type(chain) for chain in chains} == {mg.ReversibleChain if reversible else mg.Chain}
    if reversible and build is not mg.realnvp:
        assert [len(chain.last.layers) for chain in chains] == [7, 7]  # two flow steps, and one


def test_squeeze_moves_each_block_to_the_channels_of_its_docstring():
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 3))
    y, _, _ = mg.Squeeze().forward(x)
    for i, j, c, di, dj in np.ndindex(2, 3, 3, 2, 2):
        np.testing.assert_array_equal(y[:, i, j, 4 * c + 2 * di + dj], x[:, 2 * i + di, 2 * j + dj, c])


def test_an_mlp_is_dense_relu_dense_relu_dense():
    net = mlp(2, 6, 4, 0)
    assert [type(part) for part in net.nets] == [Dense, ReLU, Dense, ReLU, Dense]
    assert [part.params["weight"].shape for part in net.nets[::2]] == [(2, 6), (6, 6), (6, 4)]
    wide = Dense(200, 300, rng=0).params["weight"]
    assert wide.std() == pytest.approx((2 / 200) ** 0.5, rel=0.02)  # He's
    assert Conv(50, 60, rng=0).params["weight"].std() == pytest.approx(0.05, rel=0.02)
    assert Conv(2, 3).params["weight"].shape == (3, 3, 3, 2)
    assert TransposedConv(2, 4).params["weight"].shape == (2, 3, 3, 4)
    parts = conv_net(2, 40, 4, 0).nets
    assert [type(part) for part in parts] == [
        Conv, NormReLU, Dense, NormReLU, TransposedConv, ShiftScale]
    dense = parts[2]
    assert dense.params["weight"].std() == pytest.approx(0.05, rel=0.1) and "bias" not in dense.params


DEFAULTS = {
    mg.TopPrior: {"classes": 0}, mg.StandardNormal.sample: {"temperature": 1.0},
    Base.sample: {"temperature": 1.0}, TransposedConv: {"size": 3, "std": 0.05},
    NormReLU: {"factor": 1.0}, mg.Checkerboard: {"parity": 0}, mg.CheckerboardNet: {"parity": 0},
    mg.Logit: {"margin": 0.05}, PolyakAverage: {"ema_decay": 0.999},
    mg.autoencoder: {"latent": 16, "hidden": 256}, mg.vae: {"latent": 16, "hidden": 256},
    VAE.elbo: {"samples": 1}, VAE.log_prob_bound: {"samples": 100},
    fit: {"steps": 2500, "batch_size": 64, "learning_rate": 1e-3, "seed": 0},
    VariationalDequantizer: {"hidden": 32, "flow_steps": 2},
}


@pytest.mark.parametrize("function", DEFAULTS)
def test_defaults(function):
    parameters = signature(function).parameters
    assert {name: parameters[name].default for name in DEFAULTS[function]} == DEFAULTS[function]


@pytest.mark.parametrize(("build", "names"), [
    (lambda: Residual(Dense(2, 2)), {"net.weight", "net.bias"}),
    (lambda: AsNet(mg.ActNorm(2)), {"bijection.log_scale", "bijection.shift"}),
    (lambda: mg.Checkerboard(mg.ActNorm(2)), {"inner.log_scale", "inner.shift"}),
    (lambda: mg.CheckerboardNet(Dense(2, 2)), {"net.weight", "net.bias"}),
    (lambda: VariationalDequantizer((2, 2, 1), 2, 4, 1), {"bijection.0.net.0.weight"}),
])
def test_files_name_parameters_by_the_children_above_them(build, names):
    assert names <= {path for path, _, _ in parameters(build())}


def test_names_lead_to_every_parameter():
    flow = mg.glow((4, 4, 1), levels=2, flow_steps=1, hidden=4, rng=0)
    assert "bijection.steps.3.net.0.weight" in flow.flat.where
    assert "bijection.inner.3.net.1.norm.shift" in flow.flat.where
    additive = mg.glow((2,), flow_steps=1, hidden=4, rng=0, coupling=mg.AdditiveCoupling)
    assert "bijection.4.net.4.bias" in additive.flat.where
    assert str(flow.bijection.steps.layers[3]) == "AffineCoupling at bijection.steps.3"


@pytest.mark.parametrize("kind", [mg.AffineCoupling, mg.AdditiveCoupling])
def test_a_coupling_initializes_its_net_on_the_identity_channels(kind):
    net = conv_net(2, 8, 2 * kind.net_outputs, rng=0, dtype=np.float64)
    layer, x = kind(net), np.random.default_rng(0).standard_normal((6, 3, 3, 4)) * [1, 2, 30, 40] + 1
    layer.initialize(x)
    hidden, _ = net.nets[0].forward(x[..., :2])
    normalized, _, _ = net.nets[1].norm.forward(hidden)
    np.testing.assert_allclose(normalized.mean(axis=(0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(normalized.std(axis=(0, 1, 2)), 1, rtol=1e-12)


def test_initialize_returns_the_input_of_the_next_net():
    layer, x = NormReLU(3, np.float64), np.random.default_rng(0).standard_normal((5, 3))
    y = layer.initialize(x)
    np.testing.assert_array_equal(y, layer.forward(x)[0])
    np.testing.assert_allclose(y, np.maximum((x - x.mean(0)) / x.std(0), 0), atol=1e-12)


def test_actnorm_does_not_initialize_on_other_channels():
    layer = mg.ActNorm(4)
    with pytest.raises(ValueError, match=r"ActNorm expected .*\(B, \.\.\., 4\), got \(3, 1\)"):
        layer.initialize(np.ones((3, 1), np.float32))
    assert np.all(layer.params["shift"] == 0)


def test_a_long_sum_of_float32_is_initialized_to_mean_zero():
    """Added up one by one in float32, 300,000 numbers around 1000 lose three digits."""
    layer, rng = mg.ActNorm(2), np.random.default_rng(0)
    x = (1000 + rng.standard_normal((300_000, 2))).astype(np.float32)
    layer.initialize(x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(layer.params["shift"], -exact.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(layer.params["log_scale"], -np.log(exact.std(axis=0)), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_split_prior_is_the_identity_at_first(dtype):
    prior = split_prior(4, dtype)
    x = np.random.default_rng(0).standard_normal((3, 2, 2, 4)).astype(dtype)
    y, log_det, _ = prior.forward(x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(log_det, 0)
    assert {owner.params[name].dtype for _, owner, name in parameters(prior)} == {np.dtype(dtype)}
    paths = [path for path, _, _ in parameters(prior)]
    assert paths == ["net.0.weight", "net.1.shift", "net.1.log_scale"]
    assert prior.settings()["scale"] == "minglow.layers.scale.exp_scale"


def test_scales_at_the_initialization():
    log_scale, dlog_scale_ds = mg.sigmoid_scale(np.zeros((1, 1, 2)))
    sigmoid = 1 / (1 + np.exp(-2))
    scale = 1e-3 + (1 - 1e-3) * sigmoid
    np.testing.assert_allclose(np.exp(log_scale), scale, rtol=1e-14)
    np.testing.assert_allclose(dlog_scale_ds, (1 - 1e-3) * sigmoid * (1 - sigmoid) / scale, rtol=1e-14)
    for shape in (2, 3), (2, 3, 4), (2, 3, 4, 5):
        for part in (*mg.sigmoid_scale(np.zeros(shape)), *mg.exp_scale(np.zeros(shape))):
            assert part.shape == shape
    np.testing.assert_array_equal(mg.exp_scale(np.zeros((1, 1, 2)))[1], 1)


def test_samples_have_the_dtype_of_the_flow_and_temperature_1_by_default():
    for dtype in np.float32, np.float64:
        flow = mg.glow((4,), flow_steps=1, hidden=4, rng=0, dtype=dtype)
        one = flow.sample(1, rng=0)
        assert one.shape == (1, 4) and one.dtype == dtype
        expected = np.random.default_rng(0).standard_normal((1, 4), dtype)
        np.testing.assert_allclose(flow.latents(one), expected, atol=1e-5)
        np.testing.assert_array_equal(flow.sample(2, 0, 1.0), flow.sample(2, 0))
        cold = flow.sample(2, 0, 0.0)
        np.testing.assert_array_equal(cold[0], cold[1])
        assert mg.StandardNormal((2,)).sample(1, 0, dtype).dtype == dtype


def test_results_that_are_not_finite_are_named():
    flow = mg.glow((2,), flow_steps=1, hidden=4, rng=0)
    x = np.ones((3, 2), np.float32)
    _, _, actnorm, conv, coupling, _ = flow.bijection.layers
    actnorm.params["log_scale"][...] = 1000
    with np.errstate(all="ignore"):
        methods = {"log_prob": flow.log_prob, "nll": flow.nll_backward, "latents": flow.latents,
                   "reconstruction_error": flow.reconstruction_error}
        for name, method in methods.items():
            with pytest.raises(FloatingPointError, match=rf"^{name} of a finite input is NaN or inf"):
                method(x)
        actnorm.params["log_scale"][...] = -1000
        with pytest.raises(FloatingPointError, match=(
                r"^2 of 2 samples at temperature 2 are NaN or inf, from the inverse of ActNorm at "
                r"bijection\.2: on_bad='drop' leaves them out; see `minglow info` for a remedy$")):
            flow.sample(2, 0, 2.0)
        conv.params["weight"][...] = 3e38 * np.eye(2)
        with pytest.raises(FloatingPointError, match=r"^initialize of a finite input is NaN or inf"):
            flow.initialize(x * [[1], [2], [3]])
        conv.params["weight"][...] = np.eye(2)
        coupling.net.nets[0].params["weight"][...] = np.nan
        with pytest.raises(FloatingPointError, match=r"^initialize of a finite input is NaN or inf"):
            flow.initialize(x * [[1], [2], [3]])


def test_an_initialization_with_nan_is_refused_although_its_output_is_finite():
    class Diverging(mg.ActNorm):
        def initialize(self, x):
            self.params["shift"][...] = np.nan
            return x

    flow = mg.Flow(Diverging(2), mg.StandardNormal((2,)))
    with pytest.raises(FloatingPointError, match=r"^initialize of a finite input is NaN or inf"):
        flow.initialize(np.ones((3, 2), np.float32))


def test_dequantization_follows_its_seed_and_takes_images_of_one_value():
    images = np.full((2, 3), 5, np.uint8)
    np.testing.assert_array_equal(mg.dequantize(images, 17, 1), mg.dequantize(images, 17, 1))
    assert np.any(mg.dequantize(images, 17, 1) != mg.dequantize(images, 17, 2))
    for dtype in np.uint8, np.int64, np.uint16:
        assert mg.dequantize(images.astype(dtype), 17, 1).shape == (2, 3)
    assert mg.quantize(np.zeros(1), 256).dtype == np.uint8
    assert mg.quantize(np.zeros(1), 257).dtype == np.uint16
    assert mg.quantize(np.zeros(1), 2**16).dtype == np.uint16


def test_the_default_backend(monkeypatch):
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    monkeypatch.setattr(kernels, "find_spec", {"numba": object()}.get)
    assert kernels._default() == "numba"
    for value, expected in ("0", "numba"), ("", "numba"), ("1", "numpy"):
        monkeypatch.setenv("NUMBA_DISABLE_JIT", value)
        assert kernels._default() == expected
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "0")
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert kernels._default() == "numpy"


def test_the_folder_of_compiled_kernels(monkeypatch):
    for name in "XDG_CACHE_HOME", "LOCALAPPDATA":
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("USERPROFILE", "/somewhere")
    assert kernels._cache_folder() == Path("/somewhere/.cache/minglow")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert kernels._cache_folder() == Path("/local/minglow")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert kernels._cache_folder() == Path("/cache/minglow")


def test_kernels_bind_at_their_first_access(monkeypatch):
    for name in kernels.NAMES:
        monkeypatch.delattr(kernels, name)
    monkeypatch.setattr(kernels, "_backend", None)
    monkeypatch.setattr(kernels, "_default", lambda: "numpy")
    assert kernels.current_backend() == "numpy" and "gather" not in vars(kernels)
    assert kernels.gather is kernels.reference.gather
    assert kernels._backend == "numpy" and kernels.couple is kernels.reference.couple
    with pytest.raises(AttributeError, match=r"^module 'minglow\.kernels' has no attribute 'nothing'$"):
        kernels.nothing  # noqa: B018
    monkeypatch.delattr(kernels, "gather")
    with pytest.raises(AttributeError, match="has no attribute 'gather'"):
        kernels.gather  # noqa: B018


def test_each_backend_binds_its_own_functions(monkeypatch):
    prepared = []
    for name in kernels.NAMES:
        monkeypatch.setattr(kernels, name, None)
    monkeypatch.setattr(kernels, "_backend", None)
    monkeypatch.setattr(kernels, "keep_freed_memory", lambda: prepared.append("memory"))
    monkeypatch.setattr(kernels, "_compiled", lambda name: f"compiled {name}")
    monkeypatch.setattr(kernels.device, "cupy", lambda: prepared.append("CuPy"))
    expected = {"numba": "compiled gather", "loops": kernels.loops.gather,
                "numpy": kernels.reference.gather, "cupy": kernels.reference.gather}
    for backend, function in expected.items():
        mg.use(backend)
        assert kernels.gather == function
    assert prepared == ["memory", "CuPy"]  # memory at the first choice only


class FakeNumba:
    """Records each call to compile, with the cache folder at that time."""

    def __init__(self, chosen, refuses=False):
        self.config, self.refuses, self.calls = type("config", (), {"CACHE_DIR": chosen}), refuses, []

    def njit(self, function, **options):
        self.calls.append((function, options, self.config.CACHE_DIR))
        if self.refuses and options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return function


@pytest.mark.parametrize("chosen", ["", "/chosen"])
@pytest.mark.parametrize("refuses", [False, True])
def test_a_kernel_is_compiled_once_and_cached_where_it_can_be(monkeypatch, chosen, refuses):
    numba = FakeNumba(chosen, refuses)
    monkeypatch.setitem(sys.modules, "numba", numba)
    monkeypatch.setattr(kernels, "_dispatchers", {})
    monkeypatch.setattr(kernels, "_cache_folder", lambda: Path("/folder"))
    couple = kernels.loops.couple
    assert kernels._compiled("couple") is couple and kernels._compiled("couple") is couple
    folder = chosen or str(Path("/folder"))
    expected = [(couple, {"cache": True, "error_model": "numpy"}, folder)]
    if refuses:
        expected.append((couple, {"error_model": "numpy"}, folder))
    assert numba.calls == expected
    assert chosen == numba.config.CACHE_DIR  # the folder of other packages' kernels is unchanged
    assert kernels._dispatchers == {"couple": couple}


@pytest.mark.parametrize("build", [
    lambda: mg.glow((8, 8, 1), 2, 2, 8, rng=0), lambda: mg.glow((4,), 1, 2, 8, rng=0),
    lambda: mg.official_glow((8, 8, 1), 2, 2, 8, rng=0), lambda: mg.realnvp((8, 8, 1), 2, 8, rng=0),
    lambda: mg.nice((4,), hidden=8, rng=0), lambda: mg.vae((8, 8, 1), 2, 8, rng=0)])
def test_a_seed_gives_the_same_bytes(build):
    assert build().flat.value.tobytes() == build().flat.value.tobytes()
