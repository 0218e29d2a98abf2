"""Dequantization, bits per dimension, the normal base, optimizers: results known in closed form."""

import numpy as np
import pytest

import minglow as mg
from minglow.data.dataset import Images
from minglow.dequantization import UniformDequantizer
from minglow.training.optimizers import Adam, Adamax, PolyakAverage, clip_norm, warm_up_cosine
from minglow.training.state import TrainingState


def test_bits_of_uniform_noise_under_the_identity_match_the_integral():
    """8 bits under N(0, I): 8 + log2(2 pi)/2 + 1/(24 ln 2) = 9.385860, as x^2 averages 1/12."""
    rng = np.random.default_rng(0)
    x = mg.dequantize(rng.integers(0, 256, (2000, 20, 20, 1), np.uint8), 256, rng, np.float64)
    log_prob = mg.StandardNormal((20, 20, 1)).log_prob(x)
    expected = 8 + np.log2(2 * np.pi) / 2 + 1 / (24 * np.log(2))
    assert abs(expected - 9.385860) < 1e-6
    assert abs(mg.bits_per_dim(log_prob, 400, 256).mean() - expected) < 1e-3


def test_a_uniform_density_costs_log2_of_the_bins():
    assert mg.bits_per_dim(0.0, 64, 17) == np.log2(17)
    np.testing.assert_allclose(mg.bits_per_dim(np.array([-64 * np.log(2.0)]), 64, 256), [9.0])


def test_a_log_prob_that_has_no_bits_is_refused():
    for value in np.nan, np.array([0.0, np.nan]), True, "0":
        with pytest.raises(ValueError, match=r"^expected log_prob in nats, got "):
            mg.bits_per_dim(value, 64, 17)
    assert mg.bits_per_dim(np.uint8(0), 64, 17) == mg.bits_per_dim(0, 64, 17) == np.log2(17)
    with pytest.raises(ValueError, match=r"^expected dims to be a whole number of at least 1, got 0"):
        mg.bits_per_dim(0.0, 0, 17)


@pytest.mark.parametrize("bins", [2, 17, 256])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantize_undoes_dequantize(bins, dtype):
    rng = np.random.default_rng(0)
    images = np.arange(bins, dtype=np.uint8).repeat(50).reshape(-1, 1, 1, 1)
    x = mg.dequantize(images, bins, rng, dtype)
    assert x.dtype == dtype and x.min() >= -0.5 and x.max() <= 0.5
    differing = mg.quantize(x, bins).astype(int) - images
    assert np.abs(differing).max() <= 1
    assert np.mean(differing != 0) <= {np.float32: 1e-3, np.float64: 0}[dtype]
    spread = (x + 0.5) * bins - images
    assert spread.min() < 0.05 and spread.max() > 0.95


def test_quantize_sends_outside_values_to_the_nearest_bin():
    np.testing.assert_array_equal(mg.quantize(np.array([-9.0, 9.0]), 17), [0, 16])
    with pytest.raises(ValueError, match=r"^expected numbers to turn into an image, got NaN"):
        mg.quantize(np.array([np.nan]), 17)
    assert mg.quantize(np.array([0.49]), 300).item() == 297  # a byte holds at most 255
    with pytest.raises(ValueError, match=r"^expected real numbers to turn into an image, got int64"):
        mg.quantize(np.zeros(1, np.int64), 17)
    with pytest.raises(ValueError, match=r"^expected x to be an array, got 0.5"):
        mg.quantize(0.5, 17)
    for bins in 0, 1, 2**17:
        with pytest.raises(ValueError, match="bins to be a whole number of 2 to 65536"):
            mg.quantize(np.zeros(1), bins)


def test_values_outside_the_bins_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"from 0 to 16 \(17 bins\), got 3 to 17"):
        mg.dequantize(np.array([[3, 17]], np.uint8), 17, rng)
    with pytest.raises(ValueError, match="got -1 to 3"):
        mg.dequantize(np.array([[3, -1]]), 17, rng)
    with pytest.raises(ValueError, match="integer images, got float64"):
        mg.dequantize(np.array([[0.5]]), 17, rng)


def test_standard_normal_is_a_product_of_one_dimensional_densities():
    z = np.random.default_rng(0).standard_normal((3, 2, 2))
    base = mg.StandardNormal((2, 2))
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(np.exp(base.log_prob(z)), density.prod(axis=(1, 2)), rtol=1e-12)
    h = 1e-6
    derivative = (base.log_prob(z + h) - base.log_prob(z - h)) / (2 * h)
    np.testing.assert_allclose(base.backward(np.ones(3), z).sum(axis=(1, 2)), derivative, rtol=1e-8)
    assert base.sample(5, np.random.default_rng(0)).shape == (5, 2, 2)


def parameters():
    return mg.FlatParams(mg.ActNorm(3, np.float64))


def test_adam_and_adamax_follow_their_published_updates():
    rng = np.random.default_rng(0)
    grads, learning_rate = rng.standard_normal((5, 6)), 0.1
    for optimizer_class in (Adam, Adamax):
        flat = parameters()
        optimizer = optimizer_class(flat, beta1=0.8, beta2=0.9)
        value, mean, second = np.zeros(6), np.zeros(6), np.zeros(6)
        for t, grad in enumerate(grads, start=1):
            flat.grad[...] = grad
            optimizer.step(learning_rate)
            mean = 0.8 * mean + 0.2 * grad
            if optimizer_class is Adam:
                second = 0.9 * second + 0.1 * grad**2
                step = mean / (1 - 0.8**t) / (np.sqrt(second / (1 - 0.9**t)) + 1e-8)
            else:
                second = np.maximum(0.9 * second, np.abs(grad))
                step = mean / (1 - 0.8**t) / (second + 1e-8)
            value = value - learning_rate * step
            np.testing.assert_allclose(flat.value, value, rtol=1e-12)


def test_clip_norm_shortens_a_long_gradient_and_keeps_its_direction():
    grad = np.array([3.0, 4.0])
    assert clip_norm(grad, 10) == 5
    np.testing.assert_array_equal(grad, [3, 4])
    assert clip_norm(grad, 1) == 5
    np.testing.assert_allclose(grad, [0.6, 0.8])


def test_the_learning_rate_rises_then_falls_to_zero():
    factors = [warm_up_cosine(step, 100, 10) for step in range(1, 101)]
    assert factors[0] == 0.1 and factors[9] == 1.0
    assert factors[:10] == sorted(factors[:10]) and factors[9:] == sorted(factors[9:], reverse=True)
    assert abs(factors[54] - 0.5) < 0.01 and 0 < factors[-1] < 1e-3


def test_the_average_is_a_mean_at_first_and_exponential_later():
    flat = parameters()
    average = PolyakAverage(flat, ema_decay=0.75)
    seen = [np.zeros(6)]
    for step in range(1, 4):
        flat.value[...] = step
        average.update()
        seen.append(np.full(6, step))
        np.testing.assert_allclose(average.average, np.mean(seen, axis=0))
    flat.value[...] = 9
    average.update()
    np.testing.assert_allclose(average.average, 1.5 + 0.25 * (9 - 1.5))


def test_the_averaged_parameters_are_taken_back_even_after_an_error():
    flow = mg.nice((2,), 2, 4, rng=0)
    images = Images(np.zeros((1, 2), np.uint8), np.zeros((1, 2), np.uint8), 2)
    state = TrainingState(flow, UniformDequantizer(2), Adam, 0.999, 0, images)
    initial, view = flow.flat.value.copy(), flow.flat.value
    view[...] = 5
    with pytest.raises(RuntimeError), state.averaged():
        np.testing.assert_array_equal(view, initial)
        raise RuntimeError
    assert flow.flat.value is view and np.all(view == 5)
