"""The properties can fail: each planted fault is caught by the check that should catch it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import (
    check_backward,
    check_cache,
    check_inverse,
    check_log_det,
    check_purity,
    moved,
)

import minglow as mg
from minglow.arrays import halves, join
from minglow.nets import Conv, conv_net


class Wrapped(mg.Bijection):
    """A sound layer whose results the subclasses spoil."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.params, self.grads = inner, inner.params, inner.grads
        self.children = inner.children

    def forward(self, x):
        return self.inner.forward(x)

    def inverse(self, y):
        return self.inner.inverse(y)

    def backward(self, dy, dlog_det, cache):
        return self.inner.backward(dy, dlog_det, cache)


class LogDetWithoutPixels(Wrapped):
    def forward(self, x):
        y, log_det, cache = self.inner.forward(x)
        return y, log_det / (x[0].size / x.shape[-1]), cache


class LogDetOfTheInverse(Wrapped):
    def forward(self, x):
        y, log_det, cache = self.inner.forward(x)
        return y, -log_det, cache


class LogDetSummedOverTheBatch(Wrapped):
    def forward(self, x):
        y, log_det, cache = self.inner.forward(x)
        return y, log_det.sum(), cache


class SwappedHalves(Wrapped):
    def inverse(self, y):
        x, cache = self.inner.inverse(y)
        return join(*halves(x)[::-1]), cache


class InverseWithEpsilon(Wrapped):
    def inverse(self, y):
        x, cache = self.inner.inverse(y)
        return x + 1e-6, cache


class GradientOfInputOff(Wrapped):
    def backward(self, dy, dlog_det, cache):
        return 1.01 * super().backward(dy, dlog_det, cache)


class GradientOfParametersOff(Wrapped):
    factor = 1.01

    def backward(self, dy, dlog_det, cache):
        before = [grad.copy() for _, part in self.walk() for grad in part.grads.values()]
        dx = super().backward(dy, dlog_det, cache)
        for grad, start in zip([g for _, part in self.walk() for g in part.grads.values()], before):
            grad[...] = start + self.factor * (grad - start)
        return dx


class GradientOfParametersMissing(GradientOfParametersOff):
    factor = 0


class GradientOverwrites(Wrapped):
    def backward(self, dy, dlog_det, cache):
        for _, part in self.walk():
            for grad in part.grads.values():
                grad[...] = 0
        return super().backward(dy, dlog_det, cache)


class LogDetNotDifferentiated(Wrapped):
    def backward(self, dy, dlog_det, cache):
        return super().backward(dy, 0 * dlog_det, cache)


class StaleCache(Wrapped):
    def inverse(self, y):
        x, _ = self.inner.inverse(y)
        return x, self.inner.forward(0 * x)[2]


class InitializesAgain(Wrapped):
    def forward(self, x):
        self.params["shift"][...] = -x.mean(axis=tuple(range(x.ndim - 1)))
        return self.inner.forward(x)


class WritesToItsInput(Wrapped):
    def backward(self, dy, dlog_det, cache):
        dy *= 1
        return super().backward(dy, dlog_det, cache)


def actnorm():
    return mg.ActNorm(4, np.float64)


def conv():
    return mg.InvConv1x1(4, 0, np.float64)


def affine():
    return mg.AffineCoupling(conv_net(2, 5, 4, rng=0, dtype=np.float64))


CHECKS = {
    "inverse": lambda layer, x, rng: check_inverse(layer, x, 1e-10),
    "log_det": lambda layer, x, rng: check_log_det(layer, x),
    "backward": check_backward,
    "cache": lambda layer, x, rng: check_cache(layer, x, rng, 1e-9),
    "purity": check_purity,
}
FAULTS = [
    (LogDetWithoutPixels, actnorm, "log_det"), (LogDetWithoutPixels, conv, "log_det"),
    (LogDetOfTheInverse, affine, "log_det"), (LogDetSummedOverTheBatch, affine, "log_det"),
    (SwappedHalves, affine, "inverse"), (InverseWithEpsilon, conv, "inverse"),
    (GradientOfInputOff, affine, "backward"), (GradientOfInputOff, conv, "backward"),
    (GradientOfParametersOff, affine, "backward"), (GradientOfParametersOff, conv, "backward"),
    (GradientOfParametersMissing, affine, "backward"), (GradientOverwrites, affine, "backward"),
    (LogDetNotDifferentiated, conv, "backward"), (LogDetNotDifferentiated, actnorm, "backward"),
    (LogDetNotDifferentiated, affine, "backward"), (StaleCache, affine, "cache"),
    (InitializesAgain, actnorm, "purity"), (WritesToItsInput, conv, "purity"),
]


def run(fault, make, check, seed):
    rng = np.random.default_rng(seed)
    layer = moved(make(), rng)
    x = rng.standard_normal((3, 2, 2, 4))
    CHECKS[check](layer if fault is None else fault(layer), x, rng)


@pytest.mark.parametrize(("fault", "make", "check"), FAULTS)
@given(seed=st.integers(0, 1000))
@settings(max_examples=5)
def test_a_planted_fault_is_caught(fault, make, check, seed):
    run(None, make, check, seed)  # the sound layer passes the same case
    with pytest.raises((AssertionError, ValueError)):
        run(fault, make, check, seed)


@pytest.mark.parametrize("wrong", ["weight", "x"])
@given(seed=st.integers(0, 1000))
@settings(max_examples=5)
def test_a_convolution_whose_taps_are_not_reversed_is_caught(wrong, seed):
    """Many-to-few convolutions scatter; without the reversal they'd be a flipped convolution."""
    rng = np.random.default_rng(seed)
    conv = moved(Conv(4, 2, dtype=np.float64), rng)
    x = rng.standard_normal((2, 3, 3, 4))
    check_backward(conv, x, rng, bijection=False)

    class Spoilt(Conv):
        def backward(self, dy, cache):
            before = self.grads["weight"].copy()
            dx = super().backward(dy, cache)
            if wrong == "x":
                return dx[:, ::-1]
            step = self.grads["weight"] - before
            self.grads["weight"][...] = before + step[::-1]
            return dx

    spoilt = moved(Spoilt(4, 2, dtype=np.float64), rng)
    with pytest.raises(AssertionError):
        check_backward(spoilt, x, rng, bijection=False)
