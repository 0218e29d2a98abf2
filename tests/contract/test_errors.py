"""Each wrong argument raises one error that states what was expected and what was given."""

import re

import numpy as np
import pytest

import minglow as mg
from minglow.bases import Base
from minglow.dequantization.dequantizers import Dequantizer, VariationalDequantizer
from minglow.models.base import ModelConfig
from minglow.nets import Bias, Dense, EdgeBias, NormReLU, ShiftScale, conv_net, mlp
from minglow.training.optimizers import clip_norm


def images(*shape):
    return np.zeros(shape, np.float32)


def affine(channels=4):
    return mg.AffineCoupling(conv_net(channels // 2, 4, channels, rng=0))


LAYERS = {
    "ActNorm": mg.ActNorm(4), "InvConv1x1": mg.InvConv1x1(4, 0), "InvConv1x1LU": mg.InvConv1x1LU(4, 0),
    "Shuffle": mg.Shuffle(4, 0), "Reverse": mg.Reverse(4), "AffineCoupling": affine(),
    "AdditiveCoupling": mg.AdditiveCoupling(conv_net(2, 4, 2, rng=0)), "Squeeze": mg.Squeeze(),
    "Chain": mg.Chain(mg.ActNorm(4)), "ReversibleChain": mg.ReversibleChain(mg.ActNorm(4)),
    "Flatten": mg.Flatten((2, 2, 4)), "Scaling": mg.Scaling(4), "Logit": mg.Logit(),
    "Checkerboard": mg.Checkerboard(mg.ActNorm(8)), "Standardization": mg.Standardization(4),
    "Whitening": mg.Whitening(4),
    "Spline": mg.Spline(4), "SplineCoupling": mg.SplineCoupling(conv_net(2, 4, 46, rng=0)),
}
every_layer = pytest.mark.parametrize("name", LAYERS)
both_ways = pytest.mark.parametrize("direction", ["forward", "inverse"])


@every_layer
@both_ways
def test_wrong_rank(name, direction):
    with pytest.raises(ValueError, match=r"expected .*\(B, .*got \(4,\)"):
        getattr(LAYERS[name], direction)(images(4))


@every_layer
@both_ways
def test_an_empty_batch(name, direction):
    shape = (0, 16) if (name, direction) == ("Flatten", "inverse") else (0, 2, 2, 4)
    with pytest.raises(ValueError, match="at least one sample, got an empty array"):
        getattr(LAYERS[name], direction)(images(*shape))


@every_layer
def test_integers(name):
    with pytest.raises(ValueError, match="expected float32 or float64, got uint8; minglow\\.dequantize"):
        LAYERS[name].forward(np.zeros((1, 2, 2, 4), np.uint8))


@pytest.mark.parametrize(
    "name", ["ActNorm", "InvConv1x1", "InvConv1x1LU", "Shuffle", "Reverse", "Scaling", "Standardization",
             "Whitening", "Spline"])
@pytest.mark.parametrize("channels", [1, 2, 6])
@both_ways
def test_another_number_of_channels(name, channels, direction):
    """One channel would broadcast silently; fewer would index silently."""
    message = rf"{name} expected .*\(B, \.\.\., 4\), got \(1, 2, 2, {channels}\)"
    with pytest.raises(ValueError, match=message):
        getattr(LAYERS[name], direction)(images(1, 2, 2, channels))


@pytest.mark.parametrize("name", ["AffineCoupling", "AdditiveCoupling", "SplineCoupling"])
@both_ways
def test_channels_that_cannot_be_divided_or_do_not_fit_the_net(name, direction):
    with pytest.raises(ValueError, match=f"^{name} expected at least 2 channels, got 1$"):
        getattr(LAYERS[name], direction)(images(1, 2, 2, 1))
    for channels, first in (3, 1), (6, 3):
        with pytest.raises(ValueError, match=rf"expected .*\(B, \.\.\., 2\), got \(1, 2, 2, {first}\)"):
            getattr(LAYERS[name], direction)(images(1, 2, 2, channels))


@pytest.mark.parametrize(("kind", "outputs"), [(mg.AffineCoupling, 2), (mg.AdditiveCoupling, 1)])
@both_ways
def test_a_net_of_the_wrong_width(kind, outputs, direction):
    """An output of one channel would broadcast silently."""
    layer = kind(mlp(2, 4, 1, rng=0))
    with pytest.raises(ValueError, match=rf"net to give {2 * outputs} channels, got 1"):
        getattr(layer, direction)(images(3, 4))
    with pytest.raises(ValueError, match=rf"net to give {2 * outputs} channels, got 1$"):
        getattr(layer, direction)(images(3, 2, 5, 4))


@pytest.mark.parametrize(("call", "divisors", "shapes"), [
    (mg.Squeeze().forward, r"\(2, 2, 1\)", [(1, 3, 2, 1), (1, 2, 3, 1), (1, 4), (1, 2, 2)]),
    (mg.Squeeze().inverse, r"\(1, 1, 4\)", [(1, 2, 2, 6), (1, 4)]),
    (mg.Checkerboard(mg.Swap(2)).forward, r"\(1, 2, 1\)", [(1, 2, 3, 1), (1, 4)]),
    (mg.Checkerboard(mg.Swap(2)).inverse, r"\(1, 2, 1\)", [(1, 2, 3, 1), (1, 4)]),
])
def test_images_whose_sizes_are_not_divisible(call, divisors, shapes):
    for shape in shapes:
        message = rf"expected images \(B, h, w, C\) with \(h, w, C\) divisible by {divisors}, got \(1, "
        with pytest.raises(ValueError, match=message):
            call(images(*shape))


def test_a_checkerboard_net_expects_images():
    net = mg.CheckerboardNet(conv_net(2, 4, 4, rng=0))
    for method in net.forward, net.initialize:
        with pytest.raises(ValueError, match=r"CheckerboardNet expected images \(B, h, w, C\), got \("):
            method(images(1, 2))


def test_couplings_expect_more_channels_than_identity_channels():
    layer = mg.AdditiveCoupling(mlp(4, 4, 1, rng=0), identity_channels=4)
    for method in layer.forward, layer.inverse, layer.initialize:
        with pytest.raises(ValueError, match=r"^AdditiveCoupling expected at least 5 channels, got 4$"):
            method(images(1, 4))
    layer = mg.AdditiveCoupling(conv_net(4, 4, 1, rng=0), identity_channels=4)
    with pytest.raises(ValueError, match=r"^AdditiveCoupling expected at least 5 channels, got 3$"):
        layer.forward(images(1, 2, 2, 3))


def test_a_level_states_the_latents_that_it_expects():
    with pytest.raises(ValueError, match=r"^Level expected an even number of channels to halve, got 3"):
        mg.Level(mg.Chain(), mg.Flatten((1,)), (3,))
    level = mg.Level(mg.Chain(), mg.Flatten((2, 2, 2)), (2, 2, 4))
    for wrong in images(1, 8), images(1, 3), images(1, 2, 2, 4):
        with pytest.raises(ValueError, match=r"Level expected latents \(B, D\), D above 8, got"):
            level.inverse(wrong)
    with pytest.raises(ValueError, match=r"expected .*\(B, \.\.\., 8\), got"):
        level.inverse(images(1, 15))
    with pytest.raises(ValueError, match=r"Flatten expected .* \(B, 2, 2, 2\), got \(1, 2, 4, 2\)"):
        level.forward(images(1, 2, 4, 4))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite(value):
    flow = mg.glow((4, 4, 1), levels=1, flow_steps=1, hidden=4, rng=0)
    x = images(2, 4, 4, 1)
    x[1, 2, 3, 0] = value
    methods = (
        flow.log_prob, flow.nll_backward, flow.initialize, flow.latents, flow.reconstruction_error)
    for method in methods:
        with pytest.raises(ValueError, match="Flow expected finite float32, got NaN or inf"):
            method(x)
    with pytest.raises(ValueError, match="at least one sample"):
        flow.log_prob(x[:0])


def test_a_flow_that_has_diverged_says_so():
    flow = mg.glow((4, 4, 1), levels=1, flow_steps=1, hidden=4, rng=0)
    flow.bijection.layers[1].params["log_scale"][...] = 1000
    with np.errstate(all="ignore"):
        for method in (flow.log_prob, flow.nll_backward, flow.latents):
            with pytest.raises(FloatingPointError, match="NaN or inf: Flow has diverged"):
                method(images(1, 4, 4, 1) + 1)
    flow = mg.glow((4, 4, 1), levels=1, flow_steps=1, hidden=4, classes=2, rng=0)
    log_scale = flow.bijection.layers[1].params["log_scale"]
    for method, x, value in (("log_prob_given_class", images(1, 4, 4, 1) + 1, 80),
                             ("from_latents", images(1, 16) + 1, -100)):
        log_scale[...] = value
        with np.errstate(all="ignore"), pytest.raises(
                FloatingPointError, match=f"^{method} of a finite input is NaN"):
            getattr(flow, method)(x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_weight_that_cannot_be_inverted_names_its_layer(dtype):
    flow = mg.glow((4, 4, 1), levels=1, flow_steps=1, hidden=4, dtype=dtype, rng=0)
    weight = flow.bijection.layers[2].params["weight"]
    weight[...] = 0
    name = r"InvConv1x1 at bijection\.2"
    x, z = np.ones((1, 4, 4, 1), dtype), np.ones((1, 16), dtype)
    with pytest.raises(mg.SingularWeightError, match=name):
        flow.log_prob(x)
    with pytest.raises(mg.SingularWeightError, match=name):
        flow.bijection.inverse(z)
    weight[...] = np.ones((4, 4)) + np.finfo(dtype).eps * np.eye(4)
    with pytest.raises(mg.SingularWeightError, match=f"{name}: its weight is singular"):
        flow.bijection.inverse(z)
    before = flow.flat.grad.copy()
    with pytest.raises(mg.SingularWeightError, match=f"{name}: its weight is singular"):
        flow.bijection.layers[2].backward(x[:, ::2, ::2].repeat(4, axis=3), x[:, 0, 0, 0], z)
    np.testing.assert_array_equal(flow.flat.grad, before)
    lu = mg.InvConv1x1LU(4, 0, dtype)
    lu.params["log_s"][0] = np.log(np.finfo(dtype).eps / 100)
    with pytest.raises(mg.SingularWeightError, match=r"^InvConv1x1LU: .* condition number"):
        lu.inverse(x[:, ::2, ::2].repeat(4, axis=3))


def test_lu_factors_that_cannot_be_inverted():
    layer = mg.InvConv1x1LU(4, 0)
    layer.params["log_s"][0] = -200  # exp(-200) is 0 in float32
    x = images(1, 2, 2, 4)
    for call in (layer.forward, layer.inverse, lambda x: layer.backward(x, x[:, 0, 0, 0], x)):
        with pytest.raises(mg.SingularWeightError, match="InvConv1x1LU: its weight is singular"):
            call(x)


def test_a_small_weight_is_not_a_singular_one():
    layer = mg.InvConv1x1(4, 0)
    layer.params["weight"][...] *= 1e-25
    y = images(1, 4) + np.float32(1e-25)
    np.testing.assert_allclose(layer.forward(layer.inverse(y)[0])[0], y, rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_of_nan_is_singular(value):
    layer = mg.InvConv1x1(4, 0)
    layer.params["weight"][0, 0] = value
    with pytest.raises(mg.SingularWeightError), np.errstate(all="ignore"):
        layer.forward(images(1, 4))


def test_a_dtype_that_is_not_the_layers_own():
    for name in "ActNorm", "InvConv1x1", "InvConv1x1LU":
        with pytest.raises(ValueError, match=f"{name} expected float32, .* parameters are, got float64"):
            LAYERS[name].forward(np.zeros((1, 4)))
    for dtype in np.float16, np.longdouble, ">f4":
        with pytest.raises(ValueError, match="expected float32 or float64"):
            LAYERS["Squeeze"].forward(np.zeros((1, 2, 2, 1), dtype))
    with pytest.raises(ValueError, match="expected dtype to be one of float32, float64, got"):
        mg.glow((4, 4, 1), dtype=np.float16)


@pytest.mark.parametrize("name", [*LAYERS, "Level"])
def test_a_dlog_det_of_another_shape(name):
    """A scalar would broadcast, and a compiled kernel would read past the end of a shorter array."""
    layer = LAYERS[name] if name in LAYERS else mg.Level(mg.Chain(), mg.Flatten((2, 2, 2)), (2, 2, 4))
    y, _, cache = layer.forward(images(3, 2, 2, 4))
    for wrong in np.float32(1), images(1), images(3, 1), [0.0, 0.0, 0.0]:
        with pytest.raises(ValueError, match=r"^(?!None)\w+ expected dlog_det of shape \(3,\), got"):
            layer.backward(y, wrong, cache)


@pytest.mark.parametrize("build", [
    mg.ActNorm, mg.InvConv1x1, mg.InvConv1x1LU, mg.Shuffle, mg.Reverse, mg.Scaling, mg.Swap, mg.EvenOdd,
    mg.Standardization, mg.Whitening, mg.Spline])
def test_no_channels(build):
    with pytest.raises(ValueError, match=r"^expected channels to be a whole number .* 1, got 0"):
        build(0)


@pytest.mark.parametrize(("layer", "name", "value", "message"), [
    (mg.Reverse(3), "order", [0, 1, 1], "an order that holds each channel once"),
    (mg.Reverse(3), "order", [1, 2, 3], "an order that holds each channel once"),
    (mg.InvConv1x1LU(3, 0), "order", [2, 2, 0], "an order that holds each channel once"),
    (mg.InvConv1x1LU(3, 0), "sign", [1, 0, -1], "signs 1 and -1"),
    (mg.InvConv1x1LU(3, 0), "sign", [1, -2, 1], "signs 1 and -1"),
    (mg.InvConv1x1LU(3, 0), "sign", [1, np.nan, 1], "signs 1 and -1"),
    (mg.Standardization(3), "std", [1, 0, 1], "positive standard deviations"),
    (mg.Standardization(3), "std", [1, -2, 1], "positive standard deviations"),
    (mg.Standardization(3), "std", [1, np.nan, 1], "positive standard deviations"),
    (mg.Whitening(3), "std", [1, 0, 1], "positive standard deviations"),
    (mg.Whitening(3), "std", [1, np.nan, 1], "positive standard deviations"),
    (mg.Whitening(2), "vectors", [[1, 0], [1e-3, 1]], "orthogonal vectors"),
    (mg.Whitening(2), "vectors", [[1, 0], [0, 1e300]], "orthogonal vectors"),
    (mg.Whitening(2), "vectors", [[2, 0], [0, 2]], "orthogonal vectors"),
])
def test_constants_that_no_layer_can_have(layer, name, value, message):
    layer.check_constants(layer.constants)
    with pytest.raises(ValueError, match=f"expected {message}, got"):
        layer.check_constants(layer.constants | {name: np.array(value)})


def test_numbers_that_overflow_the_dtype_of_the_flow():
    flow = mg.glow((4, 4, 1), levels=1, flow_steps=1, hidden=4, rng=0)
    with pytest.raises(ValueError, match="expected finite float32"):
        flow.log_prob(np.full((1, 4, 4, 1), 1e300))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: mg.Chain(3), "^expected each layer of a chain to be a Bijection, got a int$"),
    (lambda: mg.Flow(3, mg.StandardNormal((4,))), "^expected a flow's bijection to be a Bijection, got"),
    (lambda: mg.Flow(mg.ActNorm(4), 3), "^expected a flow's base to be a Base, got a int$"),
    (lambda: mg.AffineCoupling(mg.ActNorm(4)), "^expected a conditioner to be a Net, got a ActNorm$"),
    (lambda: mg.AffineCoupling(mlp(2, 4, 4), identity_channels=-1),
     "^expected identity_channels to be a whole number of at least 0, got -1$"),
    (lambda: Base((4,), classes=-1), "^expected classes to be a whole number of at least 0, got -1$"),
    (lambda: mg.nice((1,)), r"^expected vectors of at least 2 numbers, .*, got shape \(1,\)"),
    (lambda: mg.realnvp((1,)), r"^expected vectors of at least 2 numbers, .*, got shape \(1,\)"),
    (lambda: mg.realnvp((4,), 2), "^expected levels=1 for vectors, got 2$"),
    (lambda: mg.spline_flow((4, 4, 1)), r"^expected vectors \(D,\), got shape \(4, 4, 1\): for im"),
    (lambda: mg.dequantize([1, 2], 256), "^expected images to be an array, got"),
    (lambda: VariationalDequantizer((2, 2, 1), 256, 4).dequantize([1, 2]),
     "^expected images to be an array, got"),
])
def test_the_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_list_is_no_array():
    flow = mg.glow((2,), flow_steps=1, hidden=4, rng=0)
    with pytest.raises(ValueError, match=r"Flow expected an array of shape \(B, .*, got a list"):
        flow.log_prob([[0.0, 1.0]])


def test_a_base_of_another_shape():
    flow = mg.Flow(mg.ActNorm(4), mg.StandardNormal((3,)))
    with pytest.raises(ValueError, match=r"latents of shape \(3,\), got \(4,\)"):
        flow.log_prob(images(2, 4))


def test_a_module_that_occurs_twice():
    layer = mg.ActNorm(4)
    with pytest.raises(ValueError, match="every module once"):
        mg.Flow(mg.Chain(layer, mg.ActNorm(4), layer), mg.StandardNormal((4,)))


def test_samples_that_cannot_be_drawn():
    flow = mg.glow((4, 4, 1), levels=1, flow_steps=1, hidden=4, rng=0)
    for n, temperature in (0, 1.0), (3, -1.0), (3, np.nan), (3, np.inf):
        with pytest.raises(ValueError, match=r"(number of samples|temperature) to be a .*number"):
            flow.sample(n, 0, temperature)


def test_a_gradient_that_is_not_finite():
    message = r"^the gradient is NaN or inf: training has diverged$"
    with pytest.raises(FloatingPointError, match=message):
        clip_norm(np.array([1, np.nan], np.float32), 1.0)
    large = np.array([3e30, 4e30], np.float32)  # whose squares overflow float32
    assert clip_norm(large, 1.0) == pytest.approx(5e30)
    np.testing.assert_allclose(large, [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_constant_channel_is_initialized_finite(dtype, value):
    layer = mg.ActNorm(2, dtype)
    x = np.random.default_rng(0).standard_normal((50, 3, 3, 2)).astype(dtype)
    x[..., 1] = value
    y = layer.initialize(x)
    assert layer.params["log_scale"][1] == 0
    np.testing.assert_allclose(y[..., 1], 0, atol=1e-5 * max(1, value))
    np.testing.assert_allclose(y[..., 0].std(), 1, rtol=1e-5)


def test_a_channel_that_differs_only_by_rounding_counts_as_constant():
    layer = mg.ActNorm(2, np.float32)
    x = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
    x[:, 1] = 1e6 + x[:, 1].round() / 16  # 1/16 is the distance between float32 numbers there
    layer.initialize(x)
    assert layer.params["log_scale"][1] == 0 and layer.params["log_scale"][0] != 0
    double = mg.ActNorm(1, np.float64)
    double.initialize(1e3 + 1e-4 * np.random.default_rng(0).standard_normal((500, 1)))
    np.testing.assert_allclose(double.params["log_scale"], -np.log(1e-4), rtol=0.02)


@pytest.mark.parametrize("net", [NormReLU(4), ShiftScale(4)])
def test_other_channels_inside_a_net(net):
    """One channel would broadcast silently."""
    with pytest.raises(ValueError, match=r"expected .*\(B, \.\.\., 4\), got \(2, 1\)"):
        net.forward(images(2, 1))


@pytest.mark.parametrize(("options", "message"), [
    ({"shape": (6, 8, 1)}, r"divisible by 2\^levels = 4, got shape \(6, 8, 1\)"),
    ({"shape": (8, 6, 1)}, r"divisible by 2\^levels = 4, got shape \(8, 6, 1\)"),
    ({"shape": (12, 8, 1), "levels": 3}, r"divisible by 2\^levels = 8, got shape \(12, 8, 1\)"),
    ({"shape": (8, 8)}, r"expected images \(h, w, C\)"),
    ({"shape": (4,), "levels": 2}, "^expected levels=1 for vectors, got 2$"),
    ({"shape": (4,), "coupling": mg.ActNorm},
     "^expected coupling to be the class of a coupling, or a partial of one, got <class"),
    ({"shape": (4,), "coupling": "spline", "scale": "exp"}, "^expected no scale, .*, got 'exp'$"),
    ({"shape": (1,)}, r"^expected vectors of at least 2 numbers, .*, got shape \(1,\): .*spline_flow"),
    ({"shape": (8, 8, 1), "flow_steps": 0}, "flow_steps to be a whole number of at least 1, got 0"),
])
def test_a_glow_that_cannot_be_built(options, message):
    with pytest.raises(ValueError, match=message):
        mg.glow(**options)


@pytest.mark.parametrize(("shape", "levels"), [
    ((8, 8), 2), ((3, 8, 1), 2), ((2, 8, 1), 3), ((8, 6, 1), 2), ((8, 12, 1), 3)])
def test_a_realnvp_that_cannot_be_built(shape, levels):
    message = ("expected images (h, w, C) with h divisible by 2^(levels - 1) = "
               f"{2 ** (levels - 1)} and w by {2**levels}, got shape {shape}")
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        mg.realnvp(shape, levels)
    height, width = 2 ** (levels - 1), 2**levels
    mg.realnvp((height, width, 1), levels, hidden=2, rng=0)


def test_a_reversible_chain_has_its_settings_checked():
    with pytest.raises(ValueError, match=r"^expected stored to be a whole number of at least 0, got -1"):
        mg.ReversibleChain(stored=-1)
    assert mg.ReversibleChain().settings() == mg.Chain().settings() == {"class": "Chain", "layers": []}


def test_a_bias_of_another_width():
    """One channel would broadcast."""
    with pytest.raises(ValueError, match=r"EdgeBias expected .*\(B, \.\.\., 3\), got \(2, 4, 4, 1\)"):
        EdgeBias(3).forward(images(2, 4, 4, 1))
    with pytest.raises(ValueError, match=r"Bias expected .*\(B, \.\.\., 3\), got \(2, 1\)"):
        Bias(3).forward(images(2, 1))


def test_a_dense_layer_of_another_width():
    with pytest.raises(ValueError, match=r"Dense expected .*\(B, \.\.\., 3\), got \(2, 4\)"):
        Dense(3, 2).forward(images(2, 4))


def test_a_missing_method_of_the_contract_is_named():
    for method, arguments in (("forward", 1), ("inverse", 1), ("backward", 3)):
        with pytest.raises(NotImplementedError, match=f"Bijection has no {method}"):
            getattr(mg.Bijection(), method)(*[None] * arguments)
    base = Base((4,))
    for method, arguments in (("log_prob", 1), ("backward", 2), ("sample", 1)):
        with pytest.raises(NotImplementedError, match=f"^Base has no {method}$"):
            getattr(base, method)(*[None] * arguments)
    for method, arguments in (("cross_entropy", 2), ("cross_entropy_backward", 3)):
        with pytest.raises(ValueError, match=r"^Base expected a base with a classifier, got none$"):
            getattr(base, method)(*[None] * arguments)
    with pytest.raises(NotImplementedError, match=r"^Dequantizer has no dequantize$"):
        Dequantizer(2).dequantize(None, None)
    with pytest.raises(NotImplementedError, match=r"^ModelConfig has no build_parts$"):
        ModelConfig((4,)).build_parts(None)
    with pytest.raises(NotImplementedError, match=r"^ModelConfig has no min_parameters$"):
        ModelConfig((4,)).min_parameters()


def test_a_base_with_classes_has_the_density_of_each():
    class Shifted(Base):
        def log_prob(self, z, labels=None):
            return -z.sum(axis=1) - labels

    z = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(Shifted((2,), 3).log_prob_given_class(z), [[-3, -4, -5], [-7, -8, -9]])


