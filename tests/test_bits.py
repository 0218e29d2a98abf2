"""Dequantization, bits per dimension, the base distribution, optimisers: numbers known beforehand."""

import numpy as np
import pytest

import minglow as mg
from minglow.optim import Adam, Adamax, PolyakAverage, clip_norm, warm_up_cosine


def test_uniform_noise_under_the_identity_costs_what_the_integral_says():
    """8 bits under N(0, I): 8 + log2(2 pi)/2 + 1/(24 ln 2) = 9.385860, as x^2 averages 1/12."""
    rng = np.random.default_rng(0)
    x = mg.dequantize(rng.integers(0, 256, (2000, 20, 20, 1), np.uint8), 256, rng, np.float64)
    log_prob = mg.StandardNormal((20, 20, 1)).log_prob(x)
    expected = 8 + np.log2(2 * np.pi) / 2 + 1 / (24 * np.log(2))
    assert abs(expected - 9.385860) < 1e-6
    assert abs(mg.bits_per_dim(log_prob, 400, 256).mean() - expected) < 1e-3


def test_a_uniform_density_costs_log2_of_the_levels():
    assert mg.bits_per_dim(0.0, 64, 17) == np.log2(17)
    np.testing.assert_allclose(mg.bits_per_dim(np.array([-64 * np.log(2.0)]), 64, 256), [9.0])


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantize_undoes_dequantize(levels, dtype):
    rng = np.random.default_rng(0)
    images = np.arange(levels, dtype=np.uint8).repeat(50).reshape(-1, 1, 1, 1)
    x = mg.dequantize(images, levels, rng, dtype)
    assert x.dtype == dtype and x.min() >= -0.5 and x.max() <= 0.5
    differing = mg.quantize(x, levels).astype(int) - images
    assert np.abs(differing).max() <= 1
    assert np.mean(differing != 0) <= {np.float32: 1e-3, np.float64: 0}[dtype]
    spread = (x + 0.5) * levels - images
    assert spread.min() < 0.05 and spread.max() > 0.95


def test_quantize_sends_what_lies_outside_to_the_nearest_level():
    np.testing.assert_array_equal(mg.quantize(np.array([-9.0, 9.0]), 17), [0, 16])
    with pytest.raises(ValueError, match=r"^expected numbers to turn into an image, got NaN"):
        mg.quantize(np.array([np.nan]), 17)
    assert mg.quantize(np.array([0.49]), 300).item() == 297  # more than a byte holds
    for levels in 0, 1, 2**17:
        with pytest.raises(ValueError, match="from 2 to 65536 grey levels"):
            mg.quantize(np.zeros(1), levels)


def test_values_that_are_no_level_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"from 0 to 16 \(17 levels\), got 3 to 17"):
        mg.dequantize(np.array([[3, 17]], np.uint8), 17, rng)
    with pytest.raises(ValueError, match="got -1 to 3"):
        mg.dequantize(np.array([[3, -1]]), 17, rng)
    with pytest.raises(ValueError, match="integer images, got float64"):
        mg.dequantize(np.array([[0.5]]), 17, rng)


def test_standard_normal_against_the_product_of_one_dimensional_densities():
    z = np.random.default_rng(0).standard_normal((3, 2, 2))
    base = mg.StandardNormal((2, 2))
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(np.exp(base.log_prob(z)), density.prod(axis=(1, 2)), rtol=1e-12)
    h = 1e-6
    slope = (base.log_prob(z + h) - base.log_prob(z - h)) / (2 * h)
    np.testing.assert_allclose(base.backward(np.ones(3), z).sum(axis=(1, 2)), slope, rtol=1e-8)
    assert base.sample(5, np.random.default_rng(0)).shape == (5, 2, 2)


def flat_quadratic():
    layer = mg.ActNorm(3, np.float64)
    return mg.FlatParams(layer)


def test_adam_and_adamax_follow_their_published_updates():
    rng = np.random.default_rng(0)
    grads, rate = rng.standard_normal((5, 6)), 0.1
    for kind in (Adam, Adamax):
        flat = flat_quadratic()
        optimizer = kind(flat, beta1=0.8, beta2=0.9)
        value, mean, second = np.zeros(6), np.zeros(6), np.zeros(6)
        for t, grad in enumerate(grads, start=1):
            flat.grad[...] = grad
            optimizer.step(rate)
            mean = 0.8 * mean + 0.2 * grad
            if kind is Adam:
                second = 0.9 * second + 0.1 * grad**2
                value = value - rate * (mean / (1 - 0.8**t)) / (np.sqrt(second / (1 - 0.9**t)) + 1e-8)
            else:
                second = np.maximum(0.9 * second, np.abs(grad))
                value = value - rate / (1 - 0.8**t) * mean / (second + 1e-8)
            np.testing.assert_allclose(flat.value, value, rtol=1e-12)


def test_clip_norm_shortens_and_keeps_the_direction():
    grad = np.array([3.0, 4.0])
    assert clip_norm(grad, 10) == 5
    np.testing.assert_array_equal(grad, [3, 4])
    assert clip_norm(grad, 1) == 5
    np.testing.assert_allclose(grad, [0.6, 0.8])


def test_the_schedule_rises_then_falls_to_nothing():
    factors = [warm_up_cosine(step, 100, 10) for step in range(1, 101)]
    assert factors[0] == 0.1 and factors[9] == 1.0
    assert factors[:10] == sorted(factors[:10]) and factors[9:] == sorted(factors[9:], reverse=True)
    assert abs(factors[54] - 0.5) < 0.01 and 0 < factors[-1] < 1e-3


def test_the_average_is_a_mean_while_young_and_exponential_later():
    flat = flat_quadratic()
    average = PolyakAverage(flat, decay=0.75)
    seen = [np.zeros(6)]
    for step in range(1, 4):
        flat.value[...] = step
        average.update()
        seen.append(np.full(6, step))
        np.testing.assert_allclose(average.average, np.mean(seen, axis=0))
    flat.value[...] = 9
    average.update()
    np.testing.assert_allclose(average.average, 1.5 + 0.25 * (9 - 1.5))


def test_the_average_steps_in_and_out_even_through_an_error():
    flat = flat_quadratic()
    average = PolyakAverage(flat)
    view = flat.value
    flat.value[...] = 5
    with pytest.raises(RuntimeError), average.applied():
        assert np.all(view == 0)
        raise RuntimeError
    assert flat.value is view and np.all(view == 5)
