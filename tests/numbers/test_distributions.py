"""Base distributions: closed forms, gradients against finite differences, samples, classes."""

import numpy as np
import pytest

import minglow as mg
from minglow.testing import perturbed

D, TOP = 16, (2, 1, 3)


def top_prior(classes, seed=0):
    return perturbed(mg.TopPrior(D, TOP, classes, np.float64), seed, 0.5)


BASES = {
    "normal": lambda: mg.StandardNormal((D,)), "logistic": lambda: mg.StandardLogistic((D,)),
    "learned": lambda: top_prior(0), "class-conditional": lambda: top_prior(4),
}
every_base = pytest.mark.parametrize("name", BASES)


def gaussian(z, mean, std):
    return -0.5 * ((z - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)


def by_hand(base, z, label):
    """log p(z | label), one latent at a time."""
    total = sum(gaussian(value, 0, 1) for value in z[:D - 6])
    for i, value in enumerate(z[D - 6:]):
        channel = i % 3  # channels last
        total += gaussian(value, base.params["mean"][label, channel],
                          np.exp(base.params["log_std"][label, channel]))
    return total


def test_the_top_prior_is_a_product_of_one_dimensional_densities():
    z = np.random.default_rng(0).standard_normal((5, D))
    for classes in 0, 4:
        base = top_prior(classes)
        count = max(1, classes)
        expected = np.array([[by_hand(base, row, k) for k in range(count)] for row in z])
        np.testing.assert_allclose(base.log_prob_given_class(z), expected, rtol=1e-12)
        mixture = np.log(np.exp(expected).mean(axis=1))
        np.testing.assert_allclose(base.log_prob(z), mixture, rtol=1e-12)
        if classes:
            labels = np.array([3, 0, 1, 2, 3])
            np.testing.assert_allclose(base.log_prob(z, labels), expected[range(5), labels], rtol=1e-12)


def test_far_latents_have_a_finite_log_probability():
    base = top_prior(4)
    z = np.full((2, D), 300.0)
    expected = base.log_prob_given_class(z).max(axis=1) - np.log(4)
    np.testing.assert_allclose(base.log_prob(z), expected, rtol=1e-10)
    base.params["mean"][0] = 1000  # rounding depends on the class that a mixture is computed from
    z = np.random.default_rng(0).standard_normal((5, D))
    single = perturbed(base, size=0, dtype=np.float32)
    np.testing.assert_allclose(single.log_prob(z.astype(np.float32)), base.log_prob(z), rtol=1e-5)
    far = 1e3 * np.ones((2, D), np.float32)
    assert np.isfinite(mg.StandardLogistic((D,)).log_prob(far)).all()


def test_gradients_of_the_top_prior_have_its_dtype():
    base = perturbed(mg.TopPrior(D, TOP, 4))
    z = np.random.default_rng(0).standard_normal((3, D), np.float32)
    labels, weights = np.array([0, 3, 1]), np.ones(3, np.float32)
    assert base.backward(weights, z, labels).dtype == np.float32
    assert base.cross_entropy_backward(weights, z, labels).dtype == np.float32


@pytest.mark.parametrize("kind", [mg.StandardNormal, mg.StandardLogistic])
def test_the_gradient_of_an_image_has_its_shape(kind):
    image, vector = kind((2, 4, 2)), kind((16,))
    z = np.random.default_rng(0).standard_normal((3, 2, 4, 2))
    dz = image.backward(np.arange(3.0), z)
    np.testing.assert_array_equal(dz, vector.backward(np.arange(3.0), z.reshape(3, 16)).reshape(z.shape))


def test_the_logistic_is_the_derivative_of_its_distribution_function():
    axis = np.linspace(-9, 9, 400)[:, None]
    h = 1e-4
    cdf = [1 / (1 + np.exp(-(axis + side))) for side in (-h, h)]
    np.testing.assert_allclose(np.exp(mg.StandardLogistic((1,)).log_prob(axis)),
                               ((cdf[1] - cdf[0]) / (2 * h))[:, 0], rtol=1e-6)


@every_base
@pytest.mark.parametrize("labeled", [False, True])
def test_gradients_match_finite_differences(name, labeled):
    base, rng = BASES[name](), np.random.default_rng(1)
    z, dlog_prob = rng.standard_normal((3, D)), rng.standard_normal(3)
    labels = np.array([1, 3, 1]) if labeled and base.classes else None
    entropy = labels is not None  # then with the classifier's cross entropy

    def loss():
        total = dlog_prob @ base.log_prob(z, labels)
        return total + dlog_prob @ base.cross_entropy(z, labels) if entropy else total

    dz = base.backward(dlog_prob, z, labels)
    if entropy:
        dz += base.cross_entropy_backward(dlog_prob, z, labels)
    found = {"z": (z, dz), **{key: (value, base.grads[key]) for key, value in base.params.items()}}
    h = 1e-6
    for key, (value, gradient) in found.items():
        if not entropy and key in ("weight", "bias"):
            assert not gradient.any()  # the density does not depend on the classifier
            continue
        assert gradient.any()
        for index in np.ndindex(value.shape):
            before = value[index]
            value[index] = before + h
            above = loss()
            value[index] = before - h
            expected = (above - loss()) / (2 * h)
            value[index] = before
            assert gradient[index] == pytest.approx(expected, rel=1e-6, abs=1e-7), (key, index)


@every_base
def test_gradients_accumulate_and_inputs_stay_unchanged(name):
    base, z = BASES[name](), np.random.default_rng(0).standard_normal((3, D))
    original = z.copy()
    first = base.backward(np.ones(3), z)
    once = {key: value.copy() for key, value in base.grads.items()}
    np.testing.assert_array_equal(base.backward(np.ones(3), z), first)
    for key, value in once.items():
        np.testing.assert_allclose(base.grads[key], 2 * value)
    np.testing.assert_array_equal(z, original)


@every_base
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_have_the_means_and_deviations_of_the_density(name, dtype):
    base = perturbed(BASES[name](), size=0, dtype=dtype)
    labels = np.full(40_000, 2) if base.classes else None
    z = base.sample(40_000, 0, dtype, 0.5, labels)
    assert z.dtype == dtype and z.shape == (40_000, D)
    mean, std = np.zeros(D), np.ones(D) * (np.pi / 3**0.5 if name == "logistic" else 1)
    if isinstance(base, mg.TopPrior):
        row = 2 if base.classes else 0
        mean[-6:] = np.tile(base.params["mean"][row], 2)
        std[-6:] = np.exp(np.tile(base.params["log_std"][row], 2))
    np.testing.assert_allclose(z.mean(axis=0), mean, atol=0.03 * std.max())
    np.testing.assert_allclose(z.std(axis=0), 0.5 * std, rtol=0.03)


def test_samples_without_labels_come_from_all_classes():
    base = top_prior(3)
    base.params["mean"][...] = np.arange(3)[:, None] * 100
    top = base.sample(3000, 0, np.float64)[:, -1]
    counts = np.histogram(top, [-50, 50, 150, 250])[0]
    assert counts.sum() == 3000 and counts.min() > 900


def test_the_initial_classifier_is_uniform():
    base = mg.TopPrior(D, TOP, 4, np.float64)
    z = np.random.default_rng(0).standard_normal((2, D))
    np.testing.assert_allclose(base.cross_entropy(z, np.array([0, 3])), np.log(4))


def conditional(seed=0):
    flow = mg.glow((4, 4, 1), levels=2, flow_steps=1, hidden=4, rng=0, dtype=np.float64, classes=3)
    return perturbed(flow, seed, 0.1)


X = np.random.default_rng(0).uniform(-0.5, 0.5, (4, 4, 4, 1))


def test_a_class_conditional_flow_uses_each_classs_density():
    flow, labels = conditional(), np.array([0, 2, 1, 2])
    log_probs = flow.log_prob_given_class(X)
    assert log_probs.shape == (4, 3)
    np.testing.assert_allclose(flow.log_prob(X, labels), log_probs[range(4), labels])
    np.testing.assert_allclose(flow.log_prob(X), np.log(np.exp(log_probs).mean(axis=1)))
    assert np.ptp(log_probs, axis=1).min() > 1e-3
    one = flow.sample(3, 0, labels=1)
    np.testing.assert_array_equal(one, flow.sample(3, 0, labels=np.array([1, 1, 1])))
    assert np.abs(one - flow.sample(3, 0, labels=2)).max() > 1e-3


@pytest.mark.parametrize("labels", [None, np.array([0, 2, 1, 2])])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_gradients_of_a_class_conditional_flow_match_finite_differences(labels, weight):
    if labels is None and weight:
        with pytest.raises(ValueError, match="expected labels to classify by, got none"):
            conditional().nll_backward(X, labels, weight)
        return
    flow, rng = conditional(), np.random.default_rng(2)

    def loss(value):
        flow.flat.value[...] = value
        z = flow.latents(X)
        entropy = weight * flow.base.cross_entropy(z, labels).mean() if weight else 0
        return -flow.log_prob(X, labels).mean() + entropy

    flow.flat.grad[...] = 0
    found = flow.nll_backward(X, labels, weight)
    assert found.nll == pytest.approx(-flow.log_prob(X, labels).mean())
    entropy = flow.base.cross_entropy(flow.latents(X), labels).mean() if weight else 0
    assert found.cross_entropy == pytest.approx(entropy)
    start, h = flow.flat.value.copy(), 1e-6
    directions = np.stack([flow.flat.grad, rng.standard_normal(len(start))])
    for direction in directions / np.linalg.norm(directions, axis=1, keepdims=True):
        expected = (loss(start + h * direction) - loss(start - h * direction)) / (2 * h)
        assert flow.flat.grad @ direction == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_invalid_labels_are_refused():
    flow = conditional()
    with pytest.raises(ValueError, match="expected labels from 0 to 2, got 0 to 3"):
        flow.log_prob(X, np.array([0, 1, 2, 3]))
    with pytest.raises(ValueError, match=r"integer labels of shape \(4,\), got int64 \(2,\)"):
        flow.nll_backward(X, np.array([0, 1]))
    with pytest.raises(ValueError, match=r"integer labels of shape \(4,\), got float64"):
        flow.log_prob(X, np.zeros(4))
    plain = mg.glow((4, 4, 1), levels=1, flow_steps=1, hidden=4, rng=0)
    with pytest.raises(ValueError, match="expected no labels: it has no classes"):
        plain.sample(2, 0, labels=1)
    with pytest.raises(ValueError, match="expected a base with classes, got StandardNormal"):
        plain.log_prob_given_class(X.astype(np.float32))
    with pytest.raises(ValueError, match="expected a top level within 4 latents"):
        mg.TopPrior(4, (2, 1, 4), 2)
