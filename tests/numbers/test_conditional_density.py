"""Conditional flows learn densities that are known: the mean log p(x | c) of fresh samples."""

import numpy as np
import pytest

import minglow as mg
from benchmarks import conditional
from minglow.training.optimizers import Adam, PolyakAverage, clip_norm, warm_up_cosine

NATS = 0.1


def gap(flow, test, order=slice(None)):
    """Mean log p(x | c) of the density minus that of the flow, in nats; order: of the contexts."""
    context = test.context[order]
    log_prob = np.concatenate([flow.log_prob(test.x[i:i + 500], context=context[i:i + 500])
                               for i in range(0, len(test.x), 500)])
    return float((test.log_prob - log_prob).mean())


class OneContext(np.random.Generator):
    """Standard normal variables, but the same context in every row (n, 3)."""

    def standard_normal(self, size):
        values = super().standard_normal(size)
        return np.broadcast_to(values[0], size) if size[1:] == (3,) else values


@pytest.mark.parametrize("density", [conditional.plane, conditional.image])
def test_the_known_densities_are_those_of_their_samples(density):
    """Given c they are normal: a normal density that is fitted to many samples agrees.

    Its P parameters raise the mean log-likelihood of N samples by P / (2 N), on average, as half a
    chi-squared variable of P degrees of freedom.
    """
    for seed in 0, 1, 2:
        found = density(20_000, OneContext(np.random.PCG64(seed)))
        assert (found.context == found.context[0]).all()
        x = found.x.reshape(len(found.x), -1).astype(float)
        x -= x.mean(axis=0)
        n, d = x.shape
        covariance, p = x.T @ x / n, d * (d + 3) / 2
        squares = np.einsum("ni,ij,nj->n", x, np.linalg.inv(covariance), x)
        fitted = -0.5 * (squares + np.linalg.slogdet(2 * np.pi * covariance)[1])
        assert -1e-6 < np.mean(fitted - found.log_prob) < (p + 5 * np.sqrt(2 * p)) / (2 * n)
        assert np.std(fitted - found.log_prob) < 3 * np.sqrt(p / n)


def test_vectors():
    rng = np.random.default_rng(0)
    rows, test = conditional.plane(20_000, rng), conditional.plane(5000, rng)
    flow = mg.glow((2,), flow_steps=6, context=3, rng=0)
    mg.train(flow, mg.data.split(rows.x, context=rows.context), steps=1000)
    assert abs(gap(flow, test)) < NATS
    assert gap(flow, test, rng.permutation(5000)) > 1  # with the contexts of other samples


@pytest.mark.slow
def test_images():
    rng = np.random.default_rng(0)
    first, test = conditional.image(1000, rng), conditional.image(4000, rng)
    flow, steps = mg.glow((8, 8, 1), flow_steps=2, context=3, rng=0), 4000
    flow.initialize(first.x, first.context)
    optimizer, average = Adam(flow.flat), PolyakAverage(flow.flat, 0.99)
    for step in range(1, steps + 1):
        batch = conditional.image(128, rng)
        flow.flat.grad[...] = 0
        flow.nll_backward(batch.x, context=batch.context)
        clip_norm(flow.flat.grad, 100.0)
        optimizer.step(0.01 * warm_up_cosine(step, steps, 200))
        average.update()
    flow.flat.value[...] = average.average
    assert abs(gap(flow, test)) < NATS
    assert gap(flow, test, rng.permutation(4000)) > 1
