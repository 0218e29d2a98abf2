"""Extension points: a user's own base, dequantizer and wrapper bijection."""

from functools import partial

import numpy as np
import pytest

import minglow as mg
from minglow import data
from minglow.bases.base import Base
from minglow.dequantization import Dequantizer, log_bound
from minglow.nets import mlp
from minglow.testing import check_layer, perturbed
from minglow.training import evaluate, train
from minglow.training.diagnosis import first_nonfinite, invertibility
from minglow.training.optimizers import warm_up_cosine

X = np.random.default_rng(0).standard_normal((5, 4))
LABELS = np.array([1, 0, 1, 1, 0])


class NormalPerClass(Base):
    """N(mean_k, I) with a learned mean for each class k."""

    def __init__(self, dims, classes):
        super().__init__((dims,), classes)
        self.add_param("mean", np.arange(float(classes * dims)).reshape(classes, dims) / 7)

    def log_prob(self, z, labels=None):
        if labels is None:
            return np.logaddexp.reduce(self.log_prob_given_class(z), axis=1) - np.log(self.classes)
        r = z - self.params["mean"][labels]
        return -0.5 * np.sum(r * r, axis=1) - z.shape[1] / 2 * np.log(2 * np.pi)

    def backward(self, dlog_prob, z, labels=None):
        if labels is None:
            log_probs = self.log_prob_given_class(z)
            weights = np.exp(log_probs - np.logaddexp.reduce(log_probs, axis=1)[:, None])
        else:
            weights = np.eye(self.classes)[labels]
        dr = -(dlog_prob[:, None] * weights)[:, :, None] * (z[:, None] - self.params["mean"])
        self.grads["mean"] -= dr.sum(axis=0)
        return dr.sum(axis=1)

    def sample(self, n, rng=None, dtype=np.float32, temperature=1.0, labels=None):
        rng = np.random.default_rng(rng)
        labels = rng.integers(self.classes, size=n) if labels is None else labels
        return self.params["mean"][labels].astype(dtype) + temperature * rng.standard_normal(
            (n, *self.shape), dtype)


def conditional_flow():
    chain = mg.Chain(mg.ActNorm(4, np.float64), mg.InvConv1x1(4, 0, np.float64))
    return perturbed(mg.Flow(chain, NormalPerClass(4, 2)), 0, 0.1)


def test_a_flow_has_the_densities_of_its_base():
    flow = conditional_flow()
    z, log_det = flow.bijection.forward_only(X)
    mean = flow.base.params["mean"]
    log_normal = -0.5 * np.square(z[:, None] - mean).sum(axis=2) - 2 * np.log(2 * np.pi)
    expected = log_normal + log_det[:, None]
    np.testing.assert_allclose(flow.log_prob_given_class(X), expected, rtol=1e-12)
    np.testing.assert_allclose(flow.log_prob(X, LABELS), expected[range(5), LABELS], rtol=1e-12)
    np.testing.assert_allclose(flow.log_prob(X), np.log(np.exp(expected).mean(axis=1)), rtol=1e-12)


def test_a_flow_samples_from_its_base_with_labels():
    flow = conditional_flow()
    z = flow.latents(flow.sample(5, 0, temperature=0.0, labels=LABELS))
    np.testing.assert_allclose(z, flow.base.params["mean"][LABELS], atol=1e-12)
    z = flow.latents(flow.sample(20_000, 0, labels=1))
    np.testing.assert_allclose(z.mean(axis=0), flow.base.params["mean"][1], atol=0.04)


@pytest.mark.parametrize("labels", [None, LABELS])
def test_gradients_with_a_base_match_finite_differences(labels):
    flow, x, h = conditional_flow(), X.copy(), 1e-6
    flow.flat.grad[...] = 0
    nll, dx, cross_entropy, _ = flow.nll_backward(x, labels)
    assert nll == pytest.approx(-flow.log_prob(x, labels).mean()) and cross_entropy == 0
    for array, gradient in (x, dx), (flow.flat.value, flow.flat.grad.copy()):
        assert gradient.any()
        for index in np.ndindex(array.shape):
            before = array[index]
            array[index] = before + h
            above = -flow.log_prob(x, labels).mean()
            array[index] = before - h
            expected = (above + flow.log_prob(x, labels).mean()) / (2 * h)
            array[index] = before
            assert gradient[index] == pytest.approx(expected, rel=1e-6, abs=1e-8)
    assert flow.flat.view(flow.flat.grad, "base.mean").any()


def test_a_base_without_a_classifier_refuses_its_weight():
    with pytest.raises(ValueError, match=r"NormalPerClass .* a base with a classifier, got none"):
        conditional_flow().nll_backward(X, LABELS, classification_weight=1.0)


class PowerDequantizer(Dequantizer):
    """u = v^p with v ~ U(0, 1]: log q(u) = -sum_i [log p + (p - 1) log v_i], with a learned p."""

    def __init__(self, bins, p=1.5):
        super().__init__(bins)
        self.add_param("log_p", np.array([np.log(p)]))
        self.flatten()

    def dequantize(self, images, rng=None, dtype=np.float32, shard=slice(None)):
        v = (1 - np.random.default_rng(rng).random(images.shape, dtype))[shard]
        log_p = self.params["log_p"][0].astype(dtype)
        p, log_v = np.exp(log_p), np.log(v)
        log_q = -(log_p + (p - 1) * log_v).sum(axis=(1, 2, 3))
        return (images[shard] + v**p) / dtype(self.bins) - dtype(0.5), log_q, (v, p)

    def backward(self, dx, dlog_q, cache):
        v, p = cache
        dv_dlog_p = p * v**p * np.log(v)
        dlog_q_dlog_p = -(1 + p * np.log(v)).sum(axis=(1, 2, 3))
        self.grads["log_p"] += np.sum(dx / self.bins * dv_dlog_p) + np.sum(dlog_q * dlog_q_dlog_p)


BINS = 5
IMAGES = np.random.default_rng(0).integers(0, BINS, (12, 2, 2, 1), np.uint8)
DATA = data.Images(IMAGES[:8], IMAGES[8:], BINS)


def image_flow():
    return perturbed(mg.glow((2, 2, 1), levels=1, flow_steps=1, hidden=4, rng=0, dtype=np.float64), 0)


@pytest.mark.parametrize("samples", [1, 3])
def test_evaluate_uses_a_dequantizers_density(samples):
    flow, dequantizer, rng = image_flow(), PowerDequantizer(BINS), np.random.default_rng(0)
    bounds = []
    for _ in range(samples):
        x, log_q, _ = dequantizer.dequantize(DATA.held_out, rng, np.float64)
        bounds.append(flow.log_prob(x) - log_q)
    expected = mg.bits_per_dim(np.mean(bounds), 4, BINS)
    found = evaluate(flow, DATA.held_out, BINS, samples=samples, dequantizer=dequantizer)
    assert found == pytest.approx(expected, rel=1e-10)
    assert found != evaluate(flow, DATA.held_out, BINS, samples=samples)
    with pytest.raises(ValueError, match="expected a dequantizer of 5 bins, got one of 6"):
        evaluate(flow, DATA.held_out, BINS, dequantizer=PowerDequantizer(6))


def test_a_dequantizers_gradient_matches_finite_differences():
    flow, dequantizer, h = image_flow(), PowerDequantizer(BINS), 1e-6
    x, log_q, cache = dequantizer.dequantize(DATA.train, 7, np.float64)
    dequantizer.backward(flow.nll_backward(x).dx, np.full_like(log_q, 1 / len(x)), cache)
    value = dequantizer.flat.value.copy()

    def loss(log_p):
        dequantizer.flat.value[...] = log_p
        return -log_bound(flow, DATA.train, dequantizer, 7).mean()

    expected = (loss(value + h) - loss(value - h)) / (2 * h)
    assert dequantizer.flat.grad[0] == pytest.approx(expected, rel=1e-6)


def test_a_training_step_trains_a_dequantizer():
    flow, dequantizer, progress = image_flow(), PowerDequantizer(BINS), []
    before = dequantizer.flat.value.copy()
    train(flow, DATA, steps=1, batch_size=8, learning_rate=1e-3, warmup_steps=0, ema_decay=0.0,
          dequantizer=dequantizer, on_step=progress.append)
    assert dequantizer.flat.grad.any() and np.isfinite(progress[0].loss)
    learning_rate = 1e-3 * warm_up_cosine(1, 1, 0)
    step = -learning_rate * np.sign(dequantizer.flat.grad)  # Adam's first
    assert dequantizer.flat.value - before == pytest.approx(step, rel=1e-4)
    assert progress[0].held_out_loss == evaluate(flow, DATA.held_out, BINS, dequantizer=dequantizer)


class Wrapper(mg.Bijection):
    """A bijection that delegates to another one and shows it to diagnosis."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.children["inner"] = inner

    def forward(self, x):
        return self.inner.forward(x)

    def inverse(self, y):
        return self.inner.inverse(y)

    def backward(self, dy, dlog_det, cache):
        return self.inner.backward(dy, dlog_det, cache)

    def trace(self, x):
        return (yield from self.inner.trace(x))

    def trace_inverse(self, y):
        return (yield from self.inner.trace_inverse(y))


class Opaque(Wrapper):
    """A wrapper that does not show its inner bijection."""

    def trace(self, x):
        return (yield from mg.Bijection.trace(self, x))

    def trace_inverse(self, y):
        return (yield from mg.Bijection.trace_inverse(self, y))


def wrapped_flow(wrapper):
    """A badly conditioned 1x1 convolution and a coupling with small scales, inside a wrapper."""
    conv = mg.InvConv1x1(4, 0, np.float64)
    u, _, vt = np.linalg.svd(conv.params["weight"])
    conv.params["weight"][...] = u * [10, 1, 1, 1e-4] @ vt
    net = perturbed(mlp(2, 6, 4, 0, np.float64), 0, 1.0)
    coupling = mg.AffineCoupling(net, partial(mg.tanh_scale, bound=3.0))
    chain = mg.Chain(mg.ActNorm(4, np.float64), conv, wrapper(coupling))
    return mg.Flow(mg.Chain(wrapper(chain), mg.Reverse(4)), mg.StandardNormal((4,))), conv, coupling


def test_diagnosis_finds_layers_inside_a_wrapper():
    flow, conv, coupling = wrapped_flow(Wrapper)
    found = invertibility(flow, X)
    assert found.condition == pytest.approx(np.linalg.cond(conv.params["weight"]))
    assert found.condition == pytest.approx(1e5)
    assert found.worst_weight == str(conv) == "InvConv1x1 at bijection.0.inner.1"
    y = conv.forward(X)[0]  # ActNorm is the identity
    assert found.scale == pytest.approx(coupling.scales(y).min())
    assert found.worst_coupling == str(coupling) == "AffineCoupling at bijection.0.inner.2.inner"
    error = np.abs(flow.from_latents(flow.latents(X)) - X) / np.ptp(X, axis=0)  # in column ranges
    assert found.round_trip == error.max() > 0


def test_diagnosis_finds_nothing_inside_a_wrapper_without_trace():
    flow, _, _ = wrapped_flow(Opaque)
    found = invertibility(flow, X)
    assert found.condition == 1 and found.worst_weight == "no weight"
    assert found.scale == np.inf and found.worst_coupling == "no coupling"


def test_the_first_nonfinite_output_inside_a_wrapper_is_named():
    flow, _, coupling = wrapped_flow(Wrapper)
    coupling.scale = lambda raw: (np.full_like(raw, np.inf), np.ones_like(raw))
    with np.errstate(all="ignore"):
        found = first_nonfinite(flow, X)
    assert found == f"{coupling} is the first layer whose output is NaN or inf"
    coupling.scale = lambda raw: (np.full_like(raw, -np.inf), np.ones_like(raw))
    with np.errstate(all="ignore"):
        assert flow.first_nonfinite_inverse(X) == str(coupling)


def test_a_wrapper_passes_every_check():
    check_layer(Wrapper(mg.ActNorm(4)))
