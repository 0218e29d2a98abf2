"""The property-test kit: right layers pass, and wrong ones fail with the right cause."""

import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minglow as mg
from minglow.cli.main import main
from minglow.nets import conv_net, mlp
from minglow.testing import (
    NotSmooth,
    PropertyFailed,
    check_backends,
    check_backward,
    check_cache,
    check_initialize,
    check_inverse,
    check_layer,
    check_log_det,
    check_precision,
    check_purity,
    check_returns,
    check_samples,
    check_updates,
    directional_derivative,
    layer_checks,
    numerical_jacobian,
    parametrize_with_checks,
    perturbed,
    strategies,
    taylor_slope,
)


class Scale(mg.Bijection):
    """y = x * exp(log_s): a right layer. Each wrong layer below adds one mistake."""

    def __init__(self, channels=4):
        super().__init__()
        self.add_param("log_s", np.zeros(channels))

    def check(self, x):
        if x.shape[-1] != len(self.params["log_s"]):
            raise ValueError("another number of channels")

    def forward(self, x):
        self.check(x)
        y = x * np.exp(self.params["log_s"])
        pixels = x[0].size // x.shape[-1]
        return y, np.full(len(x), pixels * self.params["log_s"].sum(), x.dtype), y

    def inverse(self, y):
        return y * np.exp(-self.params["log_s"]), y

    def backward(self, dy, dlog_det, cache):
        y = cache
        pixels = y[0].size // y.shape[-1]
        axes = tuple(range(y.ndim - 1))
        self.grads["log_s"] += (dy * y).sum(axis=axes) + dlog_det.sum() * pixels
        return dy * np.exp(self.params["log_s"])


class ForgetsThePixels(Scale):
    def forward(self, x):
        y, _, cache = super().forward(x)
        return y, np.full(len(x), self.params["log_s"].sum(), x.dtype), cache


class WrongSign(Scale):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, -log_det, cache


class ForgetsLogDetInBackward(Scale):
    def backward(self, dy, dlog_det, cache):
        return super().backward(dy, 0 * dlog_det, cache)


class Overwrites(Scale):
    def backward(self, dy, dlog_det, cache):
        self.grads["log_s"][...] = 0
        return super().backward(dy, dlog_det, cache)


class EpsilonInTheInverse(Scale):
    def inverse(self, y):
        return y / (np.exp(self.params["log_s"]) + 1e-6), y


class CachesItsInput(Scale):
    def inverse(self, y):
        x, _ = super().inverse(y)
        return x, x


class NormalizesByTheBatch(Scale):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y - y.mean(axis=0), log_det, cache


class InitializesInForward(Scale):
    def forward(self, x):
        self.check(x)
        self.params["log_s"][...] = -np.log(x.std(axis=tuple(range(x.ndim - 1))) + 1)
        return super().forward(x)


class DividesByTheDeviation(Scale):
    def initialize(self, x):
        with np.errstate(all="ignore"):
            self.params["log_s"][...] = -np.log(x.std(axis=tuple(range(x.ndim - 1))))
            return self.forward(x)[0]


class WritesToItsCotangent(Scale):
    def backward(self, dy, dlog_det, cache):
        dy *= np.exp(self.params["log_s"])
        return super().backward(dy, dlog_det, cache) * np.exp(-self.params["log_s"])


class SumsOverTheBatch(Scale):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, np.full(len(x), log_det.sum()), cache


class ScalarLogDet(Scale):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, log_det[0], cache


class DropsAChannel(Scale):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y[..., 1:], log_det, cache


class AveragesTheGradient(Scale):
    def backward(self, dy, dlog_det, cache):
        return super().backward(dy / len(dy), dlog_det / len(dy), cache)


class Jumps(Scale):
    def __init__(self, channels=4):
        super().__init__(channels)
        self.params, self.grads = {}, {}

    def forward(self, x):
        return x + np.random.default_rng().random(), np.zeros(len(x), x.dtype), None

    def inverse(self, y):
        return y, None

    def backward(self, dy, dlog_det, cache):
        return dy


class Rebinds(Scale):
    def backward(self, dy, dlog_det, cache):
        before = self.grads["log_s"].copy()
        dx = super().backward(dy, dlog_det, cache)
        self.grads["log_s"] = before + (self.grads["log_s"] - before)
        return dx


class RemembersItsOutput(Scale):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        self.last = y
        return y, log_det, cache

    def inverse(self, y):
        self.last = y
        return super().inverse(y)

    def backward(self, dy, dlog_det, cache):
        return super().backward(dy, dlog_det, self.last)


class ReturnsNaN(Scale):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return np.where(x > 0, y, np.nan), log_det, cache


class ReturnsNaNBackwards(Scale):
    def backward(self, dy, dlog_det, cache):
        return np.nan * super().backward(dy, dlog_det, cache)


class Logit(mg.Bijection):
    """y = log(x / (1 - x)) on (0, 1): a right layer, strongly curved near 0 and 1."""

    def forward(self, x):
        if x.min() <= 0 or x.max() >= 1:
            raise ValueError("expected numbers between 0 and 1")
        log_det = -np.log(x * (1 - x)).reshape(len(x), -1).sum(axis=1)
        return np.log(x / (1 - x)), log_det, x

    def inverse(self, y):
        x = 1 / (1 + np.exp(-y))
        return x, x

    def backward(self, dy, dlog_det, cache):
        x = cache
        return (dy - dlog_det.reshape(-1, *[1] * (x.ndim - 1)) * (1 - 2 * x)) / (x * (1 - x))


@pytest.mark.parametrize("seed", range(10))
def test_a_layer_on_an_interval_passes_inside_it(seed):
    x = np.random.default_rng(seed).uniform(0.02, 0.98, (3, 2, 3, 4))
    check_layer(Logit(), x, seed)
    with pytest.raises(ValueError, match=r"sample of none .* 'expected numbers between 0 and 1'"):
        check_layer(Logit())


class ForgetsItsParent(Scale):
    def __init__(self):
        self.channels = 4


@pytest.mark.parametrize(("wrong", "message"), [
    (Scale, "expected a Bijection, got the class Scale"), (None, "got NoneType"),
    ([], "got list"), (ForgetsItsParent(), r"no params: its __init__ has to begin with super\(\)")])
def test_arguments_that_are_no_layer_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        check_layer(wrong)
    with pytest.raises(ValueError, match="finite numbers, got NaN"):
        check_layer(Scale(), np.full((2, 4), np.nan))


class Transposed(mg.InvConv1x1):
    def backward(self, dy, dlog_det, cache):
        super().backward(dy, dlog_det, cache)
        return dy @ self.params["weight"].T


class InverseForItsTranspose(mg.InvConv1x1):
    def backward(self, dy, dlog_det, cache):
        dx = super().backward(dy, dlog_det, cache)
        inverse, pixels = np.linalg.inv(self.params["weight"]), cache[0].size // cache.shape[-1]
        self.grads["weight"] += dlog_det.sum() * pixels * (inverse - inverse.T)
        return dx


class SwapsHalves(mg.AffineCoupling):
    def inverse(self, y):
        x, cache = super().inverse(y)
        return np.roll(x, x.shape[-1] // 2, axis=-1), cache


def coupling(kind=mg.AffineCoupling):
    return kind(conv_net(2, 4, 4, rng=0))


class ReturnsNothing(Scale):
    def forward(self, x):
        super().forward(x)


class ForgetsTheCache(Scale):
    def inverse(self, y):
        return super().inverse(y)[0]


class ReturnsNoGradient(Scale):
    def backward(self, dy, dlog_det, cache):
        super().backward(dy, dlog_det, cache)


WRONG = [
    (ReturnsNothing(), check_returns, r"found NoneType, expected \(y, log_det, cache\). Does forward"),
    (ForgetsTheCache(), check_returns, r"inverse's return .* an array \(3, 4\), expected \(x, cache\)"),
    (ReturnsNoGradient(), check_returns, r"found NoneType, expected dx of shape \(3, 4\). Does back"),
    (ForgetsThePixels(), check_log_det, r"too small by a factor h\*w = 6: each of the h\*w pixels"),
    (WrongSign(), check_log_det, "log_det has the wrong sign; it is that of the inverse map"),
    (SumsOverTheBatch(), check_log_det, "the sum over the batch: log_det has one number per sample"),
    (ScalarLogDet(), check_log_det, "it is neither a scalar nor a sum"),
    (DropsAChannel(), check_log_det,
     r"y of shape \(3, 3\), expected 3 samples of 4 values. A bijection has as many outputs as inputs"),
    (ForgetsLogDetInBackward(), check_backward,
     r"with respect to log_s .* expected [\d.]+. The part from dlog_det is 0.$"),
    (AveragesTheGradient(), check_backward,
     "derivative with respect to x .* too small by a factor B = 3: a layer neither sums nor averages"),
    (Overwrites(), check_backward, r"accumulation of grads fails at log_s.*must add to grads \(\+=\)"),
    (Transposed(4, 0), check_backward, r"to x .*The part from dy is J dy, .* must be J\^T dy.$"),
    (InverseForItsTranspose(4, 0), check_backward, "to weight .* The part from dlog_det is wrong"),
    (Jumps(), check_backward,
     "smooth forward fails at x, .*3 of 3 samples with a kink or a jump .* if forward is continuous"),
    (Rebinds(), check_purity, "gradient log_s rebound.*: an optimizer holds views of them"),
    (RemembersItsOutput(), check_cache, "Another call of forward in between changed it"),
    (ReturnsNaN(), check_log_det, "finite forward fails at y, .*domain is bounded, pass a batch inside"),
    (ReturnsNaN(), check_backward, "a finite forward fails at y"),
    (ReturnsNaNBackwards(), check_backward, "a finite gradient fails at x"),
    (ReturnsNaNBackwards(), check_cache, "a finite gradient fails at x"),
    (ReturnsNaNBackwards(), check_backends, "a finite gradient fails at x"),
    (EpsilonInTheInverse(), check_inverse,
     "differs from forward's by a constant 1.0e-06, such as an epsilon. log_det agrees with"),
    (coupling(SwapsHalves), check_inverse, "inverse undoes forward up to a swap of the halves"),
    (CachesItsInput(), check_cache, "log_s.*inverse must cache the intermediates of forward"),
    (NormalizesByTheBatch(), check_samples, "y, each sample in a batch of one.* the rest of the batch"),
    (SumsOverTheBatch(), check_samples, "log_det, each .* the sum over the batch: log_det has one"),
    (InitializesInForward(), check_purity, "forward wrote to parameter log_s in place: only initialize"),
    (WritesToItsCotangent(), check_purity, "backward wrote to its argument dy in place: .*to a copy"),
    (DividesByTheDeviation(), check_initialize,
     "finite initialization .* Channel 0 is constant over this batch"),
]


class Wave(mg.Bijection):
    """y = x + sin(60 x) / 120: a right layer whose third derivative is 1800."""

    def forward(self, x):
        log_det = np.log(1 + np.cos(60 * x) / 2).reshape(len(x), -1).sum(axis=1)
        return x + np.sin(60 * x) / 120, log_det, x

    def inverse(self, y):
        x = y
        for _ in range(60):  # a contraction by 1/2
            x = y - np.sin(60 * x) / 120
        return x, x

    def backward(self, dy, dlog_det, cache):
        x = cache
        derivative = 1 + np.cos(60 * x) / 2
        dlog = dlog_det.reshape(-1, *[1] * (x.ndim - 1)) / derivative
        return (dy * derivative - dlog * 30 * np.sin(60 * x)).astype(x.dtype)


class WaveWithoutLogDet(Wave):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, 0 * log_det, cache


class Leaky(mg.Bijection):
    """y = x for x >= 0 and x / 2 for x < 0: a right layer with a kink at 0."""

    def forward(self, x):
        halved = x < 0
        log_det = -np.log(2).astype(x.dtype) * halved.reshape(len(x), -1).sum(axis=1).astype(x.dtype)
        return np.where(halved, x / 2, x), log_det, halved

    def inverse(self, y):
        return np.where(y < 0, 2 * y, y), y < 0

    def backward(self, dy, dlog_det, cache):
        return np.where(cache, dy / 2, dy)


class LeakyWithWrongSign(Leaky):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, -log_det, cache


class Steps(Scale):
    """One parameter of two has no derivative: y jumps as it grows."""

    def __init__(self, channels=4):
        super().__init__(channels)
        self.add_param("offset", np.zeros(channels))

    def offset(self):
        return np.round(1e8 * self.params["offset"]) / 10

    def forward(self, x):
        y, log_det, _ = super().forward(x)
        return y + self.offset(), log_det, y

    def inverse(self, y):
        return super().inverse(y - self.offset())


class StaleInverse(mg.InvConv1x1):
    """The matrix is inverted once, and used for ever."""

    def inverse_weight(self, weight):
        if not hasattr(self, "_inverse") or self._inverse.dtype != weight.dtype:
            self._inverse = np.linalg.inv(weight)
        return self._inverse


class LeaksInBackward(Scale):
    def backward(self, dy, dlog_det, cache):
        return super().backward(dy, dlog_det, cache) * np.ones(1)


class ForgetsFloat32(Scale):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, log_det * (x.dtype == np.float64), cache


class OverwritesItsDictionary(Scale):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, log_det, {"y": cache.copy()}

    def inverse(self, y):
        x, cache = super().inverse(y)
        return x, {"y": cache.copy()}

    def backward(self, dy, dlog_det, cache):
        dx = super().backward(dy, dlog_det, cache["y"])
        cache["y"] *= 0
        return dx


@dataclass
class Kept:
    y: np.ndarray


class OverwritesItsDataclass(OverwritesItsDictionary):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, log_det, Kept(**cache)

    def inverse(self, y):
        x, cache = super().inverse(y)
        return x, Kept(**cache)

    def backward(self, dy, dlog_det, cache):
        return super().backward(dy, dlog_det, vars(cache))


class AlmostRight(Scale):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, log_det * (1 + 1e-6), cache


class TooLarge(Scale):
    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, 1.3 * log_det, cache


def test_one_number_has_no_factor():
    layer = perturbed(TooLarge())
    with pytest.raises(PropertyFailed, match=r"factor 1\.3 in every entry"):
        check_log_det(layer, NORMAL)
    with pytest.raises(PropertyFailed, match="look at log_det") as failure:
        check_log_det(layer, NORMAL[:1])
    assert "factor" not in str(failure.value)


class Multiplies(mg.ActNorm):
    def inverse(self, y):
        return y * np.exp(self.params["log_scale"]) - self.params["shift"], y


class SlightlyOff(Scale):
    def backward(self, dy, dlog_det, cache):
        return super().backward(dy, dlog_det, cache) * (1 + 1e-5)


class ClipsItsCotangent(Scale):
    def backward(self, dy, dlog_det, cache):
        return super().backward(np.clip(dy, -5, 5), dlog_det, cache)


class IgnoresTheSign(Wave):
    def backward(self, dy, dlog_det, cache):
        return super().backward(dy, np.abs(dlog_det), cache)


class ZeroesGradients(Scale):
    def forward(self, x):
        self.grads["log_s"][...] = 0
        return super().forward(x)


class ZeroesGradientsInInverse(Scale):
    def inverse(self, y):
        self.grads["log_s"][...] = 0
        return super().inverse(y)


class ReusesItsOutput(Scale):
    buffers: ClassVar = {}

    def forward(self, x):
        y, log_det, cache = super().forward(x)
        buffer = self.buffers.setdefault((x.shape, x.dtype), y.copy())
        buffer[...] = y
        return buffer, log_det, cache


class RemembersByShape(Scale):
    def __init__(self, channels=4):
        super().__init__(channels)
        self._memo = {}

    def forward(self, x):
        return self._memo.setdefault((x.shape, x.dtype), super().forward(x))


class RemembersByShapeForAll(RemembersByShape):
    memo: ClassVar = {}

    def forward(self, x):
        self._memo = self.memo
        return super().forward(x)


class DrawsNoise(Scale):
    def forward(self, x):
        return super().forward(x + 1e-3 * np.random.default_rng().standard_normal(x.shape))


class InitializesAnAttribute(Scale):
    factor = 1.0

    def initialize(self, x):
        self.factor = float(x.std())
        return super().initialize(x)

    def forward(self, x):
        y, log_det, cache = super().forward(x * self.factor)
        return y, log_det + x[0].size * np.log(self.factor), cache


class Broadcasts(Scale):
    """A right layer that does not check the number of channels."""

    def check(self, x):
        pass


NORMAL = np.random.default_rng(0).standard_normal((3, 4))
WRONG += [
    (SlightlyOff(), check_backward,
     r"to x .* The part from dy is wrong by 1e-05 of its largest entry\.$"),
    (ClipsItsCotangent(), check_backward, r"linearity of backward fails at x, .* 1024 times as large"),
    (IgnoresTheSign(), check_backward,
     r"The part from dlog_det is wrong\. In this batch only samples 0, 2 are wrong"),
    (ZeroesGradients(), check_purity,
     "forward wrote to gradient log_s in place: only backward adds to gradients"),
    (ZeroesGradientsInInverse(), check_purity, "inverse wrote to gradient log_s in place"),
    (ReusesItsOutput(), check_purity,
     "forward wrote to a result of an earlier call of forward: results must be new arrays"),
    (RemembersByShape(), check_purity, "forward keeps state: a copy that was never called gives the"),
    (RemembersByShapeForAll(), check_samples, "the rest of the batch, or on earlier calls"),
    (DrawsNoise(), check_purity, "Two equal calls differ: forward keeps state .* or draws random"),
    (InitializesAnAttribute(), check_initialize,
     "attribute factor of Init.* expected None. Another attribute is not loaded from a file"),
    (Broadcasts(9), check_returns,
     r"equal dimensions .* x of shape \(3, 2, 4, 1\), .* If forward is not meant for x of this shape"),
    (Broadcasts(1), check_returns, r"backward after forward fails at x of shape \(3, 4\), .*: found "
     "raised ValueError in backward, test_testing.py.* it must raise ValueError: see minglow"),
    (AveragesTheGradient(), check_samples, "dx, each sample .* too small by a factor B = 3"),
    (AlmostRight(), check_log_det, r"difference [^)]*\)\. inverse undoes forward: look at log_det"),
    (WaveWithoutLogDet(), check_log_det, r"log_det is 0\.$"),
    (LeakyWithWrongSign(), check_log_det, "log_det has the wrong sign"),
    (Steps(), check_backward,
     "a smooth forward fails at offset, .*3 of 3 samples with a kink or a jump .*Nothing was compared"),
    (StaleInverse(4, 0), check_updates,
     "fails at weight, .* a change of forward's y and forward's log_det only, .* of inverse's x, too"),
    (LeaksInBackward(), check_precision, "dtype fails at dx of backward .* found float64, expected"),
    (ForgetsFloat32(), check_precision, r"float64's fails at log_det, .*log_det is 0\."),
    (OverwritesItsDictionary(), check_purity, "backward wrote to its argument cache in place"),
    (OverwritesItsDataclass(), check_purity, "backward wrote to its argument cache in place"),
    (Multiplies(4), check_inverse, "inverse has the derivative of forward, .* multiplies where it must"),
]


@pytest.mark.parametrize(("layer", "check", "message"), WRONG,
                         ids=[f"{type(layer).__name__}" for layer, _, _ in WRONG])
def test_a_wrong_layer_fails_with_its_cause(layer, check, message):
    with pytest.raises(PropertyFailed, match=message) as caught:
        check(layer)
    assert "\n" not in str(caught.value)
    with pytest.raises((PropertyFailed, ValueError)):  # an earlier check may raise the layer's own error
        check_layer(layer)


def test_right_layers_pass_and_stay_unchanged():
    for layer in Scale(), Scale(2), Wave(), Leaky(), mg.ActNorm(4), coupling():
        before = {name: value.copy() for name, value in layer.params.items()}
        check_layer(layer)
        for name, value in layer.params.items():
            np.testing.assert_array_equal(value, before[name])
            assert np.all(layer.grads[name] == 0)


@pytest.mark.parametrize(("layer", "shape"), [
    (mg.InvConv1x1(3, 0), (1, 16, 16, 3)), (mg.InvConv1x1(2, 0), (2, 20, 10, 2)),
    (mg.Scaling(300), (2, 300)), (coupling(), (1, 12, 12, 4))])
def test_right_layers_pass_in_large_shapes(layer, shape):
    rng = np.random.default_rng(0)
    check_layer(layer, rng.standard_normal(shape))
    check_layer(perturbed(layer), rng.standard_normal(shape))


@pytest.mark.parametrize("x", [[[1, 0]], [[0, 0]], [[0, 1], [1, 1]], [[1e-10, 3e-28]]])
def test_a_right_layer_passes_where_y_does_not_depend_on_a_parameter(x):
    check_layer(perturbed(mg.InvConv1x1LU(2, 0)), np.array(x, float))


def test_an_ill_conditioned_layer_passes():
    layer = mg.InvConv1x1(4, 0, np.float64)
    left, _, right = np.linalg.svd(layer.params["weight"])
    layer.params["weight"][...] = left * [1e5, 1, 1, 1e-1] @ right
    check_layer(layer, NORMAL)
    with pytest.raises(PropertyFailed, match=r"inverse\(forward\(x\)\) = x"):
        class Inexact(mg.InvConv1x1):
            def inverse(self, y):
                x, cache = super().inverse(y)
                return x * (1 + 1e-6), cache

        wrong = Inexact(4, 0, np.float64)
        wrong.params["weight"][...] = layer.params["weight"]
        check_layer(wrong, NORMAL)


@pytest.mark.parametrize("check", [check_log_det, check_backward])
@pytest.mark.parametrize("layer", [Leaky(), LeakyWithWrongSign()])
def test_a_batch_on_a_kink_compares_nothing(check, layer):
    with pytest.raises(PropertyFailed, match=r"3 of 3 samples with a kink .* Nothing was compared"):
        check(layer, np.zeros((3, 4)))


def test_samples_on_a_kink_are_left_out():
    x = np.array(NORMAL)
    x[1] = 0
    check_layer(Leaky(), x)
    with pytest.raises(PropertyFailed, match=r"found \[[^ ]+ [^ ]+\], .*log_det has the wrong sign"):
        check_log_det(LeakyWithWrongSign(), x)


@pytest.mark.parametrize("channels", [2, 3, 5, 6, 7, 8])
def test_a_layer_that_does_not_check_its_channels_passes(channels):
    check_layer(Broadcasts(channels))


@pytest.mark.parametrize("layer", [ReusesItsOutput(), RemembersByShape()])
def test_the_batch_is_not_blamed_for_what_a_layer_remembers(layer):
    check_samples(layer)


class HidesItsNet(Scale):
    def __init__(self):
        super().__init__()
        self.nets = {"first": [mlp(4, 3, 4, 0, np.float64)]}


@pytest.mark.parametrize("use", [check_layer, lambda layer: mg.Flow(layer, mg.StandardNormal((4,)))])
def test_a_net_that_is_not_registered_is_refused(use):
    message = (r"HidesItsNet has a Sequence in its attribute nets\['first'\]\[0\], .* add "
               r"self.children\['netsfirst0'\] = self.nets\['first'\]\[0\] to __init__")
    with pytest.raises(ValueError, match=message):
        use(HidesItsNet())
    layer = HidesItsNet()
    layer.children["net"] = layer.nets["first"][0]
    mg.Flow(layer, mg.StandardNormal((4,)))


def holding(value):
    layer = Scale()
    layer.held = value
    return layer


def closure_over(value):
    return lambda: value


@pytest.mark.parametrize("use", [check_layer, lambda layer: mg.Flow(layer, mg.StandardNormal((4,)))])
@pytest.mark.parametrize(("value", "message"), [
    (np.zeros(4), r"an array in its attribute held, .*add_param\('held', .*constants\['held'\]"),
    (np.arange(4), "an array in its attribute held,"),
    ([np.zeros(4)], r"an array in its attribute held\[0\], .*add_param\('held0'"),
    ({"a": np.zeros(4)}, r"attribute held\['a'\]"),
    (closure_over(np.zeros(4)), r"an array in its attribute held\.__closure__"),
    (partial(closure_over, np.zeros(4)), r"an array in its attribute held\.args\[0\]"),
    (mlp(4, 3, 4, 0).forward, r"a Sequence in its attribute held\.__self__, .*children\['held'\] = "),
    (closure_over(mlp(4, 3, 4, 0)), r"a Sequence in its attribute held\.__closure__"),
])
def test_what_is_not_registered_is_refused(use, value, message):
    with pytest.raises(ValueError, match=message):
        use(holding(value))


def test_numbers_and_what_is_only_remembered_are_accepted():
    layer = holding((np.float32(3), "text", np.float32, closure_over(3)))
    layer._memo = np.zeros(4)
    layer.held_again = layer.held
    check_layer(layer)


def test_a_list_among_the_children_is_refused():
    layer = Scale()
    layer.children["nets"] = [mlp(4, 3, 4, 0)]
    with pytest.raises(ValueError, match=r"expected children\['nets'\] to be a module, got a list"):
        check_layer(layer)


def with_parameter(value, dtype=np.float64, gradient=True):
    layer = Scale()
    layer.params["other"] = np.array(value, dtype)
    if gradient:
        layer.grads["other"] = np.array(value, dtype)
    return layer


@pytest.mark.parametrize("use", [check_layer, lambda layer: mg.Flow(layer, mg.StandardNormal((4,)))])
@pytest.mark.parametrize(("layer", "message"), [
    (with_parameter([1, 2], np.int64), "parameter other to be .* of float32 or float64, got int64"),
    (with_parameter([1, 2], np.float16), "float32 or float64, got float16"),
    (with_parameter([1, 2], complex), "float32 or float64, got complex128"),
    (with_parameter([1, 2], gradient=False), "has no gradient: use self.add_param")])
def test_parameters_that_cannot_be_trained_are_refused(use, layer, message):
    with pytest.raises(ValueError, match=message):
        use(layer)


@pytest.mark.parametrize(("value", "found"), [
    (0.1, "a float"), ([0.1], "a list"), (np.zeros(2, int), "int64"), (np.zeros(2, complex), "complex")])
def test_add_param_accepts_arrays_of_floats_only(value, found):
    with pytest.raises(ValueError, match=f"expected parameter a .* float32 or float64, got {found}"):
        Scale().add_param("a", value)


def test_a_flow_and_a_net_are_refused_with_advice():
    flow = mg.glow((4,), flow_steps=1, hidden=4)
    with pytest.raises(ValueError, match=r"got Flow\. Check its attribute bijection"):
        check_layer(flow)
    with pytest.raises(ValueError, match=r"got Sequence\. check_backward checks a Net"):
        check_layer(mlp(4, 3, 4, 0))
    check_backward(perturbed(mlp(4, 3, 4, 0)))


class WithoutBackward(mg.Bijection):
    def forward(self, x):
        return x, np.zeros(len(x), x.dtype), None

    def inverse(self, y):
        return y, None


def test_a_method_that_is_missing_is_named():
    with pytest.raises(PropertyFailed, match=r"WithoutBackward: found no backward, expected forw"):
        check_layer(WithoutBackward())
    for check in check_inverse, check_log_det, check_samples, check_updates:
        check(WithoutBackward())


def test_a_layer_that_accepts_no_example_asks_for_a_batch():
    message = r"Flatten accepted a sample of none .* it raised 'Flatten .* check_layer\(layer, x\)"
    with pytest.raises(ValueError, match=message):
        check_layer(mg.Flatten((3, 5, 2)))
    check_layer(mg.Flatten((3, 5, 2)), x=np.random.default_rng(0).standard_normal((2, 3, 5, 2)))


def test_backends_that_differ_fail(monkeypatch):
    layer = mg.ActNorm(4)
    check_backends(layer)
    wrong = mg.kernels.loops.shift_scale
    monkeypatch.setattr(mg.kernels.loops, "shift_scale", lambda *a: wrong(*a) * (1 + 1e-9))
    with pytest.raises(PropertyFailed, match="agreement of backends fails at y, loops"):
        check_backends(layer)


def test_the_command_prints_passed_and_failed_properties(capsys):
    assert main(["check", "test_testing:Scale"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("Scale, on batches of shape (3, 4), (3, 2, 3, 4)")
    assert [line.split()[:2] for line in shown[1:-1]] == [["passed", name] for name, _ in layer_checks()]
    assert shown[-1] == "all 11 properties passed"
    assert main(["check", "test_testing:ForgetsThePixels"]) == 1
    shown = capsys.readouterr().out
    assert "FAILED  log_det     log_det = log|det dy/dx| fails at x of shape (3, 2, 3, 4)" in shown
    assert "passed  inverse" in shown and shown.endswith("2 of 11 properties failed\n")
    assert main(["check", "test_testing:coupling"]) == 0  # a function
    assert main(["check", "test_testing:OutOfRange"]) == 1
    assert "FAILED  samples     raised IndexError in forward, test_testing" in capsys.readouterr().out
    assert main(["check", "test_testing:ReturnsNothing"]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 4 and shown[1].startswith("FAILED  returns")
    assert shown[-1] == "1 of 11 properties failed"


@pytest.mark.parametrize(("target", "message"), [
    ("test_testing", "expected the name of a module"), (":Scale", "expected the name of a module"),
    ("no_such:Scale", "no_such:Scale cannot be built: raised ModuleNotFoundError"),
    ("test_testing:Nothing", "cannot be built: raised AttributeError"),
    ("test_testing:exits", "cannot be built: raised SystemExit in exits, test_testing.py:"),
    ("./test_testing.py:Scale", "as in import, and of a layer in it, such as my_module:MyLayer"),
    ("./test_testing:Scale", "as in import, and of a layer in it, such as my_module:MyLayer"),
    ("test_testing:Misspelt", "test_testing:Misspelt: raised NameError in forward, test_testing.py:"),
    ("minglow:AffineCoupling", "AffineCoupling requires net: name a function without arguments"),
    ("test_testing:cubic", "cubic requires x"),
    ("test_testing:a_number", "expected a minglow.Bijection, got int"),
    ("test_testing:odd_flatten", "Flatten accepted a sample of none of the shapes")])
def test_targets_that_cannot_be_checked_get_a_single_line(target, message, capsys):
    assert main(["check", target]) == 1
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1


class OutOfRange(Scale):
    def forward(self, x):
        x[1]  # fails for a batch of one
        return super().forward(x)


def a_number():
    return 3


def exits():
    sys.exit(0)


class Misspelt(Scale):
    def forward(self, x):
        return no_such_name  # noqa: F821


def odd_flatten():
    return mg.Flatten((3, 5, 2))


@parametrize_with_checks([Scale(4), mg.InvConv1x1(2, 0), mg.Squeeze()])
def test_the_decorator_runs_every_check(layer, check):
    check(layer)


@parametrize_with_checks(
    [ForgetsThePixels()],
    expected_failed_checks=lambda layer: dict.fromkeys(("log_det", "backward"), "forgets the pixels"))
def test_expected_failures_are_marked(layer, check):
    check(layer)


@pytest.mark.parametrize(("layers", "expected", "message"), [
    ([Scale()], lambda layer: {"inverze": "x"}, "among returns, purity, .* got 'inverze'"),
    ([Scale()], {"inverse": "x"}, "function of a layer, got dict"),
    (Scale(), None, "a list of layers, got Scale"), ([Scale], None, "got the class Scale")])
def test_wrong_arguments_of_the_decorator_are_refused(layers, expected, message):
    with pytest.raises(ValueError, match=message):
        parametrize_with_checks(layers, expected_failed_checks=expected)


def test_layer_checks_are_named_after_their_properties():
    names = [name for name, _ in layer_checks()]
    assert names == ["returns", "purity", "samples", "updates", "inverse", "log_det", "backward",
                     "cache", "initialize", "precision", "backends"]


def test_the_kit_imports_neither_hypothesis_nor_pytest():
    code = "import sys, minglow.testing; print({'hypothesis', 'pytest'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "set()"


def cubic(x):
    return float(np.sum(x**3))


def test_derivatives_of_a_cubic_are_known():
    rng = np.random.default_rng(0)
    x, v = rng.standard_normal(5), rng.standard_normal(5)
    exact = np.sum(3 * x**2 * v)
    assert directional_derivative(cubic, x, v) == pytest.approx(exact, rel=1e-10)
    assert taylor_slope(cubic, x, v, exact) == pytest.approx(2, abs=0.1)
    small = (4e-4, 2e-4, 1e-4, 5e-5)
    assert taylor_slope(cubic, x, v, 1.01 * exact, small) == pytest.approx(1, abs=0.2)
    assert taylor_slope(cubic, x, v, 0.0) == pytest.approx(1, abs=0.1)
    assert taylor_slope(lambda x: float(np.sum(x)), x, v, v.sum()) == np.inf


def test_the_jacobian_of_a_product_is_its_matrix():
    matrix = np.random.default_rng(0).standard_normal((3, 4))
    jacobian = numerical_jacobian(lambda x: x @ matrix.T, np.arange(4.0))
    np.testing.assert_allclose(jacobian, matrix, atol=1e-9)


def test_a_kink_has_no_derivative():
    for x in np.array([0.0]), np.array([1e-7]):
        with pytest.raises(NotSmooth, match="differ by"):
            directional_derivative(lambda x: np.abs(x).sum(), x, np.array([1.0]))


def test_a_shorter_step_is_tried_near_a_kink():
    x, v = np.array([1e-5]), np.array([1.0])
    assert directional_derivative(lambda x: np.abs(x).sum(), x, v) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("shape", [(4, 4, 1), (4,)])
def test_the_taylor_remainder_of_a_flow_falls_as_the_square(shape):
    flow = perturbed(mg.glow(shape, levels=1, flow_steps=2, hidden=4, rng=0, dtype=np.float64), 0)
    x = np.random.default_rng(1).uniform(-0.5, 0.5, (3, *shape))
    flow.flat.grad[...] = 0
    flow.nll_backward(x)
    start, gradient = flow.flat.value.copy(), flow.flat.grad.copy()

    def nll(value):
        flow.flat.value[...] = value
        return -float(flow.log_prob(x).mean())

    v = np.random.default_rng(2).standard_normal(start.size)
    v /= np.linalg.norm(v)
    steps = (4e-4, 2e-4, 1e-4, 5e-5)
    derivative = gradient @ v
    assert taylor_slope(nll, start, v, derivative, steps) == pytest.approx(2, abs=0.1)
    assert taylor_slope(nll, start, v, 1.01 * derivative, steps) < 1.5
    assert taylor_slope(nll, start, v, 0, steps) < 1.5


def test_strategies_draw_what_their_docstrings_state():
    @settings(max_examples=30)
    @given(data=st.data())
    def draw(data):
        shape = data.draw(strategies.shapes(max_size=12, images=True, even_sides=True))
        assert len(shape) == 3 and np.prod(shape) <= 12 and not any(side % 2 for side in shape)
        assert len(data.draw(strategies.shapes(images=False))) == 1
        batch = data.draw(strategies.images(shape, dtype=np.float32))
        assert batch.shape[1:] == shape and batch.dtype == np.float32 and np.abs(batch).max() <= 3
        matrix = data.draw(strategies.well_conditioned(4, condition=100))
        assert np.linalg.cond(matrix) <= 100 * (1 + 1e-9)
        check_layer(data.draw(strategies.flows((2, 1, 2))), x=np.ones((2, 2, 1, 2)) + data.draw(
            strategies.images((2, 1, 2), max_batch=1)))

    draw()


def test_a_parameter_before_super_is_refused():
    class Early(Scale):
        def __init__(self):
            self.add_param("log_s", np.zeros(4))

    with pytest.raises(ValueError, match=r"Early has no params: its __init__ has to begin with super"):
        Early()
