"""Dequantizers, and training with dequantizers, classes, flips and Adamax."""

import copy
import pickle
from functools import partial
from math import erf, log

import numpy as np
import pytest

import minglow as mg
from minglow import data
from minglow.dequantization.dequantizers import (
    ALL,
    NoDequantizer,
    UniformDequantizer,
    VariationalDequantizer,
    log_bound,
)
from minglow.testing import numerical_jacobian, perturbed
from minglow.training import evaluate, train
from minglow.training.optimizers import Adam, Adamax


def variational(shape=(2, 2, 1), bins=5, size=0.3, dtype=np.float64, **options):
    options = {"hidden": 4, "rng": 0, **options}
    return perturbed(VariationalDequantizer(shape, bins, dtype=dtype, **options), 1, size)


DEQUANTIZERS = {"uniform": lambda shape, bins, dtype: UniformDequantizer(bins),
                "none": lambda shape, bins, dtype: NoDequantizer(bins),
                "variational": lambda shape, bins, dtype: variational(shape, bins, 0.1, dtype)}
every_dequantizer = pytest.mark.parametrize("name", DEQUANTIZERS)


class GivenNoise(np.random.Generator):
    """A generator that returns given normal noise."""

    def __init__(self, noise):
        super().__init__(np.random.PCG64(0))
        self.noise = noise

    def standard_normal(self, shape, dtype):
        assert shape == self.noise.shape
        return self.noise.astype(dtype)


@every_dequantizer
@pytest.mark.parametrize("bins", [2, 17, 256, 300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantize_returns_the_images(name, bins, dtype):
    integers = np.uint8 if bins <= 256 else np.uint16
    images = np.arange(bins, dtype=integers).repeat(48).reshape(-1, 4, 4, 3)
    x, log_q, _ = DEQUANTIZERS[name]((4, 4, 3), bins, dtype).dequantize(images, 0, dtype)
    assert x.shape == images.shape and log_q.shape == (len(images),)
    assert x.dtype == log_q.dtype == dtype and np.abs(x).max() <= 0.5
    differing = mg.quantize(x, bins).astype(int) - images
    assert np.abs(differing).max() <= 1
    assert np.mean(differing != 0) <= {np.float32: 1e-3, np.float64: 0}[dtype]
    u = (x + 0.5) * bins - images
    if name == "none":
        np.testing.assert_allclose(u, 0.5, atol=1e-4)
    else:
        assert u.min() < 0.05 and u.max() > 0.95


@every_dequantizer
def test_noise_follows_the_seed_and_the_images_stay_unchanged(name):
    images = np.random.default_rng(0).integers(0, 5, (3, 2, 4, 1), np.uint8)
    dequantizer, original = DEQUANTIZERS[name]((2, 4, 1), 5, np.float64), images.copy()
    x, log_q, _ = dequantizer.dequantize(images, 3, np.float64)
    again, same_log_q, _ = dequantizer.dequantize(images, np.random.default_rng(3), np.float64)
    np.testing.assert_array_equal(again, x)
    np.testing.assert_array_equal(same_log_q, log_q)
    assert np.all(dequantizer.dequantize(images, 4, np.float64)[0] != x) == (name != "none")
    np.testing.assert_array_equal(images, original)


@every_dequantizer
def test_a_shard_has_the_numbers_of_the_complete_batch(name):
    images = np.random.default_rng(0).integers(0, 5, (4, 2, 4, 1), np.uint8)
    dequantizer = DEQUANTIZERS[name]((2, 4, 1), 5, np.float64)
    complete, shard = (dequantizer.dequantize(images, 3, np.float64, part)[:2]
                       for part in (slice(None), slice(1, 3)))
    for found, expected in zip(shard, complete):
        np.testing.assert_allclose(found, expected[1:3], rtol=1e-12, atol=1e-12)
    flow = perturbed(mg.glow((2, 4, 1), levels=1, flow_steps=1, hidden=4, rng=0, dtype=np.float64))
    np.testing.assert_allclose(log_bound(flow, images, dequantizer, 3, shard=slice(1, 3)),
                               log_bound(flow, images, dequantizer, 3)[1:3], rtol=1e-12)


def test_a_variational_dequantizer_has_two_couplings_for_each_flow_step():
    dequantizer = VariationalDequantizer((2, 4, 1), 5, 6, 3, rng=0)
    again, other = (VariationalDequantizer((2, 4, 1), 5, 6, 3, rng=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.flat.value, dequantizer.flat.value)
    assert np.any(other.flat.value != dequantizer.flat.value)
    couplings = dequantizer.bijection.layers[::2]
    assert len(couplings) == 6 and len(dequantizer.bijection.layers) == 12
    assert {str(coupling.settings()["scale"][-1]) for coupling in couplings} == {"{'bound': 2.0}"}


def test_a_dequantizer_that_has_diverged_says_so():
    dequantizer = VariationalDequantizer((2, 2, 1), 5, 4, 1, rng=0)
    dequantizer.flat.value[...] = np.nan
    with pytest.raises(FloatingPointError, match="VariationalDequantizer has diverged: its noise"):
        dequantizer.dequantize(np.zeros((1, 2, 2, 1), np.uint8), 0)


def test_the_uniform_dequantizer_is_dequantize_and_has_no_parameters():
    images = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    dequantizer = UniformDequantizer(5)
    x, log_q, cache = dequantizer.dequantize(images, 0)
    np.testing.assert_array_equal(x, mg.dequantize(images, 5, 0))
    assert log_q == 0 and dequantizer.flat.value.size == 0
    dequantizer.backward(x, log_q, cache)


IMAGES = np.random.default_rng(0).integers(0, 5, (3, 2, 2, 1), np.uint8)


def noise_of(dequantizer, image, noise):
    """u of one image (h, w, C) for noise e (N, h/2, w/2, 4C), and log q: (N, D), (N,)."""
    images = np.repeat(image[None], len(noise), axis=0)
    x, log_q, _ = dequantizer.dequantize(images, GivenNoise(noise), np.float64)
    return ((x + 0.5) * dequantizer.bins - images).reshape(len(noise), -1), log_q


@pytest.mark.parametrize("flow_steps", [1, 2])
@pytest.mark.parametrize("image", IMAGES)
def test_log_q_follows_from_a_change_of_variables(image, flow_steps):
    dequantizer = variational(flow_steps=flow_steps)
    e = np.random.default_rng(2).standard_normal((1, 1, 1, 4))
    u, (log_q,) = noise_of(dequantizer, image, e)
    jacobian = numerical_jacobian(lambda e: noise_of(dequantizer, image, e)[0], e[0])
    log_normal = -0.5 * (e**2).sum() - 2 * log(2 * np.pi)
    assert log_q == pytest.approx(log_normal - np.linalg.slogdet(jacobian)[1], rel=1e-7)
    assert 0 < u.min() < u.max() < 1


@pytest.mark.parametrize("image", IMAGES)
def test_q_integrates_to_one(image):
    """E_q [1 / q(u)] is the volume of q's support, which is 1."""
    images = np.repeat(image[None], 40_000, axis=0)
    _, log_q, _ = variational(size=0.15).dequantize(images, 0, np.float64)
    inverse = np.exp(-log_q)
    assert inverse.mean() == pytest.approx(1, abs=4 * inverse.std() / 200)
    assert inverse.std() / 200 < 0.01


def test_the_initial_variational_noise_is_nearly_uniform_for_every_image():
    dequantizer = variational(size=0)
    e = np.random.default_rng(0).standard_normal((20_000, 1, 1, 4))
    u, log_q = noise_of(dequantizer, IMAGES[0], e)
    flat = e.reshape(-1, 4)  # a 2 x 2 image squeezed and flattened keeps the order of its pixels
    np.testing.assert_allclose(u, 1 / (1 + np.exp(-1.7 * flat)), rtol=1e-10)
    by_hand = -flat**2 / 2 - log(2 * np.pi) / 2 - np.log(1.7 * u * (1 - u))
    np.testing.assert_allclose(log_q, by_hand.sum(axis=1), rtol=1e-8, atol=1e-8)
    # KL(q || U[0, 1)) of a value, in nats, by quadrature: 0.010089
    assert abs(log_q.mean() / 4 - 0.010089) < 4 * (log_q.std() / 4) / 20_000**0.5
    np.testing.assert_allclose(noise_of(dequantizer, IMAGES[1], e)[0], u, atol=1e-12)


def test_initially_each_pixel_depends_only_on_its_own_noise():
    """Each u depends only on the noise at its position in its 2 x 2 block and channel."""
    image = np.zeros((2, 4, 2), np.uint8)
    dequantizer = variational((2, 4, 2), size=0)
    e = np.zeros((1, 1, 2, 8))
    e[0, 0, 1, 4 * 1 + 2 * 1 + 0] = 3  # the second block, second channel, lower left
    u, _ = noise_of(dequantizer, image, e)
    expected = np.full((2, 4, 2), 0.5)
    expected[1, 2, 1] = 1 / (1 + np.exp(-1.7 * 3))
    np.testing.assert_allclose(u[0], expected.ravel(), atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 2, 1), (2, 4, 3)])
def test_the_image_channels_stay_unchanged_and_condition_the_noise(shape):
    dequantizer, rng = variational(shape), np.random.default_rng(0)
    channels = 4 * shape[2]
    x = rng.standard_normal((3, shape[0] // 2, shape[1] // 2, 2 * channels))
    y = dequantizer.bijection.forward(x)[0]
    np.testing.assert_array_equal(y[..., :channels], x[..., :channels])
    assert np.all(y[..., channels:] != x[..., channels:])
    other = x.copy()
    other[..., 0] += 1
    difference = dequantizer.bijection.forward(other)[0] - y
    assert np.all(np.any(difference[..., channels:], axis=(0, 1, 2)))


@pytest.mark.parametrize("shape", [(2, 2, 1), (2, 4, 3)])
@pytest.mark.parametrize("path", ["x", "log q", "both"])
def test_gradients_match_finite_differences(shape, path):
    rng = np.random.default_rng(1)
    dequantizer = variational(shape, size=0.2, hidden=6)
    images = rng.integers(0, 5, (3, *shape), np.uint8)
    noise = GivenNoise(rng.standard_normal((3, shape[0] // 2, shape[1] // 2, 4 * shape[2])))
    dx = rng.standard_normal(images.shape) * (path != "log q")
    dlog_q = rng.standard_normal(3) * (path != "x")
    dequantizer.backward(dx, dlog_q, dequantizer.dequantize(images, noise, np.float64)[2])
    found, start, h = dequantizer.flat.grad.copy(), dequantizer.flat.value.copy(), 1e-5

    def loss(value):
        dequantizer.flat.value[...] = value
        x, log_q, _ = dequantizer.dequantize(images, noise, np.float64)
        return np.sum(dx * x) + dlog_q @ log_q

    chosen = rng.choice(len(start), 200, replace=False)
    for direction in [*np.eye(len(start))[chosen], found / np.linalg.norm(found)]:
        expected = (loss(start + h * direction) - loss(start - h * direction)) / (2 * h)
        assert found @ direction == pytest.approx(expected, rel=1e-6, abs=1e-8)
    for name in dequantizer.flat.where:
        assert np.any(dequantizer.flat.view(found, name)), name


def test_gradients_accumulate():
    dequantizer = variational()
    x, log_q, cache = dequantizer.dequantize(IMAGES, 0, np.float64)
    dequantizer.backward(x, log_q, cache)
    once = dequantizer.flat.grad.copy()
    dequantizer.backward(x, log_q, cache)
    np.testing.assert_allclose(dequantizer.flat.grad, 2 * once, rtol=1e-12)


def tiny_flow(size=0.2):
    flow = mg.glow((2, 2, 1), levels=1, flow_steps=1, hidden=4, rng=0, dtype=np.float64)
    return perturbed(flow, 0, size)


@every_dequantizer
@pytest.mark.parametrize("samples", [1, 4])
def test_a_bound_is_the_logarithm_of_the_mean_ratio(name, samples):
    dequantizer, flow = DEQUANTIZERS[name]((2, 2, 1), 5, np.float64), tiny_flow()
    rng, ratios = np.random.default_rng(6), []
    for _ in range(samples):
        x, log_q, _ = dequantizer.dequantize(IMAGES, rng, np.float64)
        ratios.append(np.exp(flow.log_prob(x) - log_q))
    found = log_bound(flow, IMAGES, dequantizer, 6, samples)
    np.testing.assert_allclose(found, np.log(np.mean(ratios, axis=0)), rtol=1e-10)


@pytest.mark.parametrize("name", ["uniform", "variational"])
def test_bounds_rise_with_the_number_of_samples_up_to_the_bins_probability(name):
    """For normal z = 8 (x - 0.1), a bin's probability is a difference of error functions."""
    layer = mg.ActNorm(1, np.float64)
    layer.params["shift"][...], layer.params["log_scale"][...] = -0.1, log(8)
    flow = mg.Flow(mg.Chain(layer, mg.Flatten((2, 2, 1))), mg.StandardNormal((4,)))
    edges = 8 * ((IMAGES[0].ravel()[:, None] + [0, 1]) / 5 - 0.5 - 0.1)
    probabilities = [(erf(high / 2**0.5) - erf(low / 2**0.5)) / 2 for low, high in edges]
    exact = np.log(probabilities).sum() + 4 * log(5)
    images = np.repeat(IMAGES[:1], 2000, axis=0)
    dequantizer = DEQUANTIZERS[name]((2, 2, 1), 5, np.float64)
    means, errors = [], []
    for samples in 1, 4, 16:
        bounds = log_bound(flow, images, dequantizer, 0, samples)
        means.append(bounds.mean())
        errors.append(bounds.std() / 2000**0.5)
        ratio = np.exp(bounds - exact)  # its expectation is 1 for any number of samples
        assert ratio.mean() == pytest.approx(1, abs=4 * ratio.std() / 2000**0.5)
    assert means[0] + errors[0] < means[1] and means[1] + errors[1] < means[2]
    assert means[2] < exact + errors[2] and means[2] == pytest.approx(exact, abs=0.2)


def test_a_bound_with_labels():
    flow = perturbed(mg.glow((2, 2, 1), levels=1, flow_steps=1, hidden=4, rng=0, classes=3), 0, 0.3)
    labels = np.array([2, 0, 2])
    x = mg.dequantize(IMAGES, 5, 0)
    found = log_bound(flow, IMAGES, UniformDequantizer(5), 0, labels=labels)
    np.testing.assert_allclose(found, flow.log_prob(x, labels), rtol=1e-6)
    assert np.any(found != log_bound(flow, IMAGES, UniformDequantizer(5), 0))


@every_dequantizer
def test_values_outside_the_bins_are_refused(name):
    dequantizer = DEQUANTIZERS[name]((2, 2, 1), 5, np.float64)
    with pytest.raises(ValueError, match=r"from 0 to 4 \(5 bins\), got 5 to 5"):
        dequantizer.dequantize(np.full((1, 2, 2, 1), 5, np.uint8), 0, np.float64)
    with pytest.raises(ValueError, match="expected integer images, got float64"):
        dequantizer.dequantize(np.zeros((1, 2, 2, 1)), 0, np.float64)
    with pytest.raises(ValueError, match="expected bins to be a whole number of 2 to 65536, got 1"):
        DEQUANTIZERS[name]((2, 2, 1), 1, np.float64).dequantize(IMAGES, 0, np.float64)
    with pytest.raises(ValueError, match="samples to be a whole number of at least 1, got 0"):
        log_bound(tiny_flow(), IMAGES, dequantizer, 0, 0)


@pytest.mark.parametrize("shape", [(3, 2, 1), (2, 3, 1), (4,), (2, 2)])
def test_a_variational_dequantizer_refuses_odd_heights_and_widths(shape):
    with pytest.raises(ValueError, match=r"expected images .* of even height and width, got") as caught:
        VariationalDequantizer(shape, 5)
    assert str(shape) in str(caught.value)


def test_a_variational_dequantizer_refuses_other_channels_and_dtypes():
    dequantizer = variational((2, 2, 1))
    with pytest.raises(ValueError, match=r"expected images \(B, h, w, 1\), got \(1, 2, 2, 3\)"):
        dequantizer.dequantize(np.zeros((1, 2, 2, 3), np.uint8), 0, np.float64)
    with pytest.raises(ValueError, match=r"expected images .* divisible by \(2, 2, 1\), got"):
        dequantizer.dequantize(np.zeros((1, 3, 2, 1), np.uint8), 0, np.float64)
    with pytest.raises(ValueError, match="expected float64, as its parameters are, got float32"):
        dequantizer.dequantize(IMAGES, 0, np.float32)


# Training.

DIGITS = data.digits()
# A flow that is trained so briefly may draw samples far from the data: the warning is only printed.
quick = partial(train, batch_size=64, learning_rate=1e-2, warmup_steps=10, shift=0.0, ema_decay=0.95,
                on_warning=print)


def patterns():
    """400 copies of four black and white pictures: 2 bits of information in 16 pixels."""
    rng = np.random.default_rng(0)
    toy = rng.integers(0, 2, (4, 4, 4, 1), np.uint8)[rng.integers(4, size=400)]
    return data.Images(toy[:300], toy[300:], 2)


def train_small(images, steps, **options):
    """Train a small flow; return its held-out bits at each evaluation, and the flow."""
    seen, options = [], {"evaluate_every": steps // 3, **options}
    flow = mg.glow(images.train.shape[1:], levels=1, flow_steps=2, hidden=8, rng=0)
    quick(flow, images, steps=steps, on_step=seen.append, **options)
    return [p.held_out_loss for p in seen if p.held_out_loss is not None], flow


def test_a_variational_dequantizer_learns_and_outperforms_uniform_noise():
    images = patterns()
    dequantizer = VariationalDequantizer((4, 4, 1), 2, hidden=8, rng=0)
    start = dequantizer.flat.value.copy()
    bits, flow = train_small(images, 300, dequantizer=dequantizer)
    uniform, _ = train_small(images, 300)
    assert bits == sorted(bits, reverse=True) and bits[-1] < uniform[-1] - 0.15
    assert np.any(dequantizer.flat.value != start)
    assert evaluate(flow, images.held_out, 2, dequantizer=dequantizer) == bits[-1]
    assert bits[-1] > 2 / 16  # an upper bound of the pictures' entropy
    tighter = log_bound(flow, images.held_out, dequantizer, 0, 16)
    assert 2 / 16 - 0.05 < mg.bits_per_dim(tighter.mean(), 16, 2) < bits[-1]


class FixedNoise(VariationalDequantizer):
    """A dequantizer that draws the same noise in every call."""

    def dequantize(self, images, rng=None, dtype=np.float32, shard=ALL):
        return super().dequantize(images, 5, dtype, shard)


def test_training_computes_the_gradient_of_the_bound_for_the_dequantizer():
    flow = tiny_flow()
    dequantizer = FixedNoise((2, 2, 1), 5, hidden=3, flow_steps=1, rng=0, dtype=np.float64)
    dequantizer = perturbed(dequantizer, 0, 0.3)
    images = data.Images(np.repeat(IMAGES[:1], 9, axis=0), IMAGES, 5)
    seen = []
    quick(flow, images, steps=1, batch_size=4, learning_rate=1e-12, dequantizer=dequantizer,
          on_step=seen.append)
    found, value, h = dequantizer.flat.grad.copy(), dequantizer.flat.value, 1e-5

    def loss():
        x, log_q, _ = dequantizer.dequantize(images.train[:4], None, np.float64)
        return -np.mean(flow.log_prob(x) - log_q)

    assert seen[0].loss == pytest.approx(loss() / (4 * log(2)) + np.log2(5), rel=1e-9)
    for i in range(0, len(value), 3):
        before = value[i]
        value[i] = before + h
        above = loss()
        value[i] = before - h
        expected = (above - loss()) / (2 * h)
        value[i] = before
        assert found[i] == pytest.approx(expected, rel=1e-6, abs=1e-7), i


def test_a_copy_of_a_dequantizer_is_independent():
    dequantizer = variational()
    for other in copy.deepcopy(dequantizer), pickle.loads(pickle.dumps(dequantizer)):
        np.testing.assert_array_equal(other.flat.value, dequantizer.flat.value)
        before = dequantizer.dequantize(IMAGES, 0, np.float64)[0]
        other.backward(before, np.ones(3), other.dequantize(IMAGES, 0, np.float64)[2])
        Adam(other.flat).step(0.1)
        assert np.any(other.dequantize(IMAGES, 0, np.float64)[0] != before)
        np.testing.assert_array_equal(dequantizer.dequantize(IMAGES, 0, np.float64)[0], before)
        assert not dequantizer.flat.grad.any()


def test_without_noise_bits_become_negative():
    images = patterns()
    bits, _ = train_small(images, 150, dequantizer=NoDequantizer(2))
    uniform, _ = train_small(images, 150)
    assert bits[-1] < -1 and uniform[-1] > 2 / 16  # no code has a negative length
    assert bits == sorted(bits, reverse=True)


def test_without_noise_the_digits_have_fewer_bits():
    sharp = partial(mg.AffineCoupling, scale=mg.exp_scale)
    bits = {}
    for dequantizer_class in UniformDequantizer, NoDequantizer:
        dequantizer = dequantizer_class(17)
        flow = mg.glow((8, 8, 1), levels=2, flow_steps=4, hidden=16, coupling=sharp, rng=0)
        quick(flow, DIGITS, steps=150, learning_rate=2e-2, dequantizer=dequantizer)
        bits[dequantizer_class] = evaluate(flow, DIGITS.held_out, 17, dequantizer=dequantizer)
    assert bits[NoDequantizer] < bits[UniformDequantizer] - 0.3


class Recorder(UniformDequantizer):
    """A uniform dequantizer that records its images."""

    def __init__(self, bins):
        super().__init__(bins)
        self.batches = []

    def dequantize(self, images, rng=None, dtype=np.float32, shard=ALL):
        self.batches.append(images)
        return super().dequantize(images, rng, dtype, shard)


def small(classes=0, hidden=16):
    return mg.glow((8, 8, 1), levels=2, flow_steps=2, hidden=hidden, classes=classes, rng=0)


def test_flips_mirror_half_of_the_training_images_and_no_held_out_image():
    batches = {}
    for flip in False, True:
        recorder = Recorder(17)
        quick(small(hidden=4), DIGITS, steps=6, batch_size=50, flip=flip, dequantizer=recorder)
        batches[flip] = np.concatenate(recorder.batches[1:7])
        *evaluated, monitored = recorder.batches[7:]
        np.testing.assert_array_equal(np.concatenate(evaluated), DIGITS.held_out)
        np.testing.assert_array_equal(monitored, DIGITS.held_out[:16])
    known = {image.tobytes() for image in DIGITS.train}
    assert all(image.tobytes() in known for image in batches[False])
    mirrored = np.array([image.tobytes() not in known for image in batches[True]])
    assert all(image[:, ::-1].tobytes() in known for image in batches[True][mirrored])
    assert 0.4 < mirrored.mean() < 0.6


def test_an_epoch_has_every_image_once():
    recorder = Recorder(17)
    images = DIGITS._replace(train=DIGITS.train[:30], held_out=DIGITS.held_out[:1])
    quick(small(hidden=4), images, steps=5, batch_size=10, dequantizer=recorder)
    first, second = (np.concatenate(recorder.batches[i:i + 3]) for i in (0, 3))  # 0 is initialization
    for epoch in first, second:
        assert len(np.unique(epoch, axis=0)) == 30
    assert np.any(first != second)


@pytest.fixture(scope="module")
def classifiers():
    """Class-conditional flows of the digits: without a classifier, with one, and with wrong labels."""
    flows, wrong = {}, DIGITS._replace(train_labels=np.roll(DIGITS.train_labels, 7))
    for name, images, weight in (("density", DIGITS, 0.0), ("both", DIGITS, 1.0), ("wrong", wrong, 0.0)):
        flows[name] = small(classes=10)
        quick(flows[name], images, steps=200, classification_weight=weight)
    return flows


X = mg.dequantize(DIGITS.held_out, 17, 0)


def accuracies(flow):
    """Accuracies on the held-out digits by Bayes' rule and by the classifier."""
    by_bayes, by_classifier = flow.log_prob_given_class(X), flow.base.logits(flow.latents(X))
    return [np.mean(score.argmax(axis=1) == DIGITS.held_out_labels)
            for score in (by_bayes, by_classifier)]


def test_a_class_conditional_flow_learns_the_classes(classifiers):
    flow = classifiers["density"]
    by_bayes, by_classifier = accuracies(flow)
    assert by_bayes > 0.4 and by_classifier < 0.15
    assert not flow.base.params["weight"].any() and not flow.base.params["bias"].any()
    assert np.ptp(flow.base.params["mean"], axis=0).max() > 0.5
    assert accuracies(classifiers["wrong"])[0] < 0.3
    given = flow.log_prob(X, DIGITS.held_out_labels).mean()
    assert given > flow.log_prob(X).mean() + 0.5  # in nats; a label has log 10


def test_a_classifier_with_a_weight_learns(classifiers):
    by_bayes, by_classifier = accuracies(classifiers["both"])
    assert by_bayes > 0.4 and by_classifier > 0.4
    entropy = classifiers["both"].base.cross_entropy(classifiers["both"].latents(X),
                                                     DIGITS.held_out_labels).mean()
    assert entropy < np.log(10) - 0.3


def test_bits_with_labels_follow_from_the_classs_density(classifiers):
    flow, rng = classifiers["density"], np.random.default_rng(0)
    found = evaluate(flow, DIGITS.held_out, 17, batch_size=200, labels=DIGITS.held_out_labels)
    parts = [slice(0, 200), slice(200, 297)]
    log_prob = np.concatenate([
        flow.log_prob(mg.dequantize(DIGITS.held_out[part], 17, rng), DIGITS.held_out_labels[part])
        for part in parts])
    expected = -log_prob.mean(dtype=np.float64) / (64 * np.log(2)) + np.log2(17)
    assert found == pytest.approx(expected, rel=1e-9)
    assert found < evaluate(flow, DIGITS.held_out, 17) - 0.01


def test_reported_bits_use_the_labels():
    """The flow stays the same, and its classes' means are far apart."""
    seen, flow = [], small(classes=10)
    flow.base.params["mean"][...] = 10 * np.arange(10)[:, None]
    for weight in 0.0, 3.0:  # not part of the likelihood
        quick(flow, DIGITS, steps=1, learning_rate=1e-12, classification_weight=weight,
              on_step=seen.append)
    other = DIGITS._replace(train_labels=DIGITS.train_labels * 0, held_out_labels=np.zeros(297, int))
    quick(flow, other, steps=1, learning_rate=1e-12, on_step=seen.append)
    assert seen[0].loss == pytest.approx(seen[1].loss, rel=1e-6)
    assert seen[0].grad_norm != seen[1].grad_norm
    assert seen[0].loss > seen[2].loss + 1 and seen[0].held_out_loss > seen[2].held_out_loss + 1


def test_adamax_trains_flow_and_dequantizer():
    images, dequantizer = patterns(), VariationalDequantizer((4, 4, 1), 2, hidden=8, rng=0)
    learners = []

    class RecordedAdamax(Adamax):
        def __init__(self, flat):
            super().__init__(flat)
            learners.append(self)

    bits, flow = train_small(images, 90, dequantizer=dequantizer, optimizer=RecordedAdamax)
    assert [(learner.flat, learner.steps) for learner in learners] == [
        (flow.flat, 90), (dequantizer.flat, 90)]
    assert bits[-1] < bits[0] - 0.05
    other, _ = train_small(images, 90, optimizer=Adam)
    adamax, _ = train_small(images, 90, optimizer=Adamax)
    assert adamax != other and adamax[-1] < adamax[0]


@pytest.mark.parametrize("options", [
    {"flip": True}, {"optimizer": Adamax}, {"shift": 1.0}, {"classification_weight": 0.5}])
def test_training_is_reproducible(options):
    results = []
    for seed in 0, 0, 1:
        flow = small(10 * ("classification_weight" in options), 4)
        quick(flow, DIGITS, **{"steps": 3, "seed": seed, **options})
        results.append(flow.flat.value)
    np.testing.assert_array_equal(results[0], results[1])
    assert np.any(results[0] != results[2])


UNLABELED = DIGITS._replace(train_labels=None, held_out_labels=None)
BAD = {
    "no labels": (10, UNLABELED, {}, "expected labels for a flow of 10 classes, got none"),
    "none held out": (10, DIGITS._replace(held_out_labels=None), {}, "expected labels for .* got none"),
    "few classes": (5, DIGITS, {}, "expected labels from 0 to 4, got 0 to 9"),
    "floats": (10, DIGITS._replace(train_labels=np.zeros(1500)), {}, "integer labels .* got float64"),
    "no classes": (0, DIGITS, {"classification_weight": 1.0}, "labels to classify by, got none"),
    "below 0": (10, DIGITS, {"classification_weight": -0.1}, r"weight .* of at least 0, got -0\.1"),
    "NaN": (10, DIGITS, {"classification_weight": np.nan}, "weight .* of at least 0, got nan"),
    "no images": (0, DIGITS._replace(train=DIGITS.train[:0]), {},
                  r"train to be integer images .* \(0, 8, 8, 1\)"),
    "shift": (0, DIGITS, {"shift": -1.0}, "shift to be a number of at least 0, got -1"),
    "batch": (0, DIGITS, {"batch_size": 0}, "batch_size to be a whole number of at least 1"),
    "shape": (0, DIGITS._replace(train=DIGITS.train[:, :4]), {}, "expected images of one shape"),
    "bins": (0, DIGITS._replace(bins=16), {}, "values from 0 to 15, got 0 to 16"),
    "dequantizer": (0, DIGITS, {"dequantizer": UniformDequantizer(256)},
                    "expected a dequantizer of 17 bins, got one of 256"),
}


@pytest.mark.parametrize("name", BAD)
def test_train_refuses_invalid_arguments(name):
    classes, images, options, message = BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        quick(small(classes, 4), images, **{"steps": 1, **options})
    assert "\n" not in str(caught.value)


def test_evaluate_refuses_invalid_arguments():
    flow = small(hidden=4)
    with pytest.raises(ValueError, match="expected samples to evaluate, got none"):
        evaluate(flow, DIGITS.train[:0], 17)
    with pytest.raises(ValueError, match="samples to be a whole number of at least 1, got 0"):
        evaluate(flow, DIGITS.held_out, 17, samples=0)
    with pytest.raises(ValueError, match="expected a dequantizer of 17 bins, got one of 256"):
        evaluate(flow, DIGITS.held_out, 17, dequantizer=NoDequantizer(256))
