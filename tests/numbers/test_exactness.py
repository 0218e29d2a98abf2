"""Exact densities: integrals, closed forms, samples against log_prob, rounding errors."""

import numpy as np
import pytest

import minglow as mg
from minglow.testing import perturbed


def test_an_affine_flow_is_its_closed_form_gaussian():
    rng = np.random.default_rng(0)
    chain = mg.Chain(mg.ActNorm(2, np.float64), mg.InvConv1x1(2, rng, np.float64))
    flow = perturbed(mg.Flow(chain, mg.StandardNormal((2,))), rng, 0.5)
    actnorm, conv = flow.bijection.layers
    to_latent = conv.params["weight"] * np.exp(actnorm.params["log_scale"])
    covariance = np.linalg.inv(to_latent.T @ to_latent)
    x, mean = rng.standard_normal((6, 2)), -actnorm.params["shift"]
    quadratic = np.einsum("bi,ij,bj->b", x - mean, np.linalg.inv(covariance), x - mean)
    expected = -0.5 * quadratic - 0.5 * np.log(np.linalg.det(2 * np.pi * covariance))
    np.testing.assert_allclose(flow.log_prob(x), expected, rtol=1e-10)
    samples = flow.sample(200_000, rng=1, temperature=0.5)
    np.testing.assert_allclose(samples.mean(axis=0), mean, atol=0.02 * np.sqrt(covariance.max()))
    np.testing.assert_allclose(np.cov(samples.T), 0.25 * covariance, atol=0.01 * covariance.max())


def plane_flow(coupling, permutation, size=0.1):
    """A perturbed flow of vectors in the plane."""
    flow = mg.glow((2,), flow_steps=3, hidden=8, dtype=np.float64, rng=0, coupling=coupling,
                   permutation=permutation)
    return perturbed(flow, 1, size)


@pytest.mark.parametrize("coupling", [mg.AffineCoupling, mg.AdditiveCoupling])
@pytest.mark.parametrize("permutation", [mg.InvConv1x1, mg.InvConv1x1LU, mg.Reverse])
def test_a_two_dimensional_flow_integrates_to_one(coupling, permutation):
    flow = plane_flow(coupling, permutation)
    axis = np.linspace(-12, 12, 481)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    density = np.exp(np.concatenate([flow.log_prob(part) for part in np.array_split(grid, 4)]))
    assert abs(density.sum() * (axis[1] - axis[0]) ** 2 - 1) <= 1e-5


def test_samples_follow_the_density():
    """A chi-square test: counts of samples in cells, and the cells' integrals."""
    flow = plane_flow(mg.AffineCoupling, mg.InvConv1x1, size=0.3)
    n, fine = 200_000, 8
    samples = flow.sample(n, rng=2)
    low, high = np.quantile(samples, [0.02, 0.98], axis=0)
    cells = 12
    edges = [np.linspace(low[i], high[i], cells + 1) for i in range(2)]
    counts, _, _ = np.histogram2d(*samples.T, bins=edges)
    width = (high - low) / (cells * fine)
    axes = [low[i] + width[i] * (np.arange(cells * fine) + 0.5) for i in range(2)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    density = np.exp(flow.log_prob(points.reshape(-1, 2))).reshape(cells, fine, cells, fine)
    expected = n * density.sum(axis=(1, 3)) * width.prod()
    common = expected >= 20
    statistic = np.sum((counts - expected)[common] ** 2 / expected[common])
    freedom = common.sum()
    assert freedom > 60
    # Pearson's statistic has mean `freedom` and variance 2 * freedom. It exceeds 5 standard deviations
    # once in millions of runs.
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)
    wrong = np.sum((counts - 1.03 * expected)[common] ** 2 / (1.03 * expected[common]))
    assert abs(wrong - freedom) > 5 * np.sqrt(2 * freedom)  # an error of 3% is detected


def test_log_prob_does_not_depend_on_the_other_samples_or_their_order():
    flow = perturbed(mg.glow((8, 8, 1), flow_steps=2, hidden=8, dtype=np.float64, rng=0), 1, 0.05)
    x = np.random.default_rng(2).uniform(-0.5, 0.5, (7, 8, 8, 1))
    expected = flow.log_prob(x)
    for i in range(len(x)):
        np.testing.assert_allclose(flow.log_prob(x[i:i + 1])[0], expected[i], rtol=1e-12)
    order = np.random.default_rng(3).permutation(len(x))
    np.testing.assert_allclose(flow.log_prob(x[order]), expected[order], rtol=1e-12)


def conditioned_flow(flow_steps, delta, gain, dtype, x):
    """Three levels with W = Q (I + delta N) and last convolutions of a given gain, normalized on x."""
    rng = np.random.default_rng(0)
    flow = mg.glow((8, 8, 1), levels=3, flow_steps=flow_steps, hidden=16, dtype=np.float64, rng=rng)
    for _, module in flow.walk():
        weight = module.params.get("weight")
        if isinstance(module, mg.InvConv1x1):
            noise = rng.standard_normal(weight.shape) / len(weight) ** 0.5
            weight[...] = weight @ (np.eye(len(weight)) + delta * noise)
        elif weight is not None and not weight.any():  # a zero-initialized convolution
            weight[...] = gain * rng.standard_normal(weight.shape) / np.prod(weight.shape[:-1]) ** 0.5
    flow.initialize(x)
    single = mg.glow((8, 8, 1), levels=3, flow_steps=flow_steps, hidden=16, dtype=dtype, rng=0)
    single.flat.value[...] = flow.flat.value
    return single


@pytest.mark.parametrize("flow_steps", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize(("delta", "gain"), [(0.0, 0.1), (0.02, 0.2), (0.05, 0.5)])
def test_rounding_errors_are_proportional_to_epsilon(flow_steps, delta, gain):
    """Errors grow with the condition number in both dtypes; their ratio is that of the epsilons."""
    x = np.random.default_rng(1).uniform(-0.5, 0.5, (32, 8, 8, 1))
    errors = {}
    for dtype in np.float32, np.float64:
        flow = conditioned_flow(flow_steps, delta, gain, dtype, x)
        errors[dtype] = flow.reconstruction_error(x.astype(dtype))
    ratio = errors[np.float32] / errors[np.float64]
    epsilons = np.finfo(np.float32).eps / np.finfo(np.float64).eps  # 5.4e8
    assert epsilons / 30 <= ratio <= 30 * epsilons
    if (delta, gain) != (0.05, 0.5):
        assert errors[np.float32] <= 1e-4 and errors[np.float64] <= 1e-12
