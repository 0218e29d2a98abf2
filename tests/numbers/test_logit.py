"""The logit, whose domain is the data's range, and flows that begin with one."""

from functools import partial

import numpy as np
import pytest
from bijections import ALL

import minglow as mg
from minglow import data
from minglow.inference import latent_views
from minglow.testing import check_layer, layer_checks, perturbed
from minglow.training.loop import train


@pytest.mark.parametrize("shape", ALL)
@pytest.mark.parametrize("margin", [0.2, 0.05, 0.0005])
def test_every_property_inside_its_domain(shape, margin):
    layer = mg.Logit(margin)
    for seed in range(5):
        x = np.random.default_rng(seed).uniform(-0.4, 0.4, (1 + seed % 3, *shape))
        for _, check in layer_checks(x, seed):
            check(layer)


@pytest.mark.parametrize("margin", [0.2, 0.05, 0.0005])
def test_it_is_the_logit_of_a_probability(margin):
    x = np.linspace(-0.5, 0.5, 101)[:, None]
    p = margin + (1 - 2 * margin) * (x + 0.5)
    y, log_det, _ = mg.Logit(margin).forward(x)
    np.testing.assert_allclose(y, np.log(p) - np.log(1 - p), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(log_det, np.log((1 - 2 * margin) / (p * (1 - p)))[:, 0], rtol=1e-9)


def test_against_automatic_differentiation():
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'minglow[bench]'")
    rng, margin = np.random.default_rng(0), 0.01
    values, dy = rng.uniform(-0.5, 0.5, (3, 2, 2, 1)), rng.standard_normal((3, 2, 2, 1))
    dlog_det = rng.standard_normal(3)
    x = torch.tensor(values, requires_grad=True)
    p = margin + (1 - 2 * margin) * (x + 0.5)
    log_det = torch.log((1 - 2 * margin) / (p * (1 - p))).flatten(1).sum(1)
    loss = (torch.tensor(dy) * torch.logit(p)).sum() + (torch.tensor(dlog_det) * log_det).sum()
    loss.backward()
    layer = mg.Logit(margin)
    _, _, cache = layer.forward(values)
    np.testing.assert_allclose(layer.backward(dy, dlog_det, cache), x.grad, rtol=1e-10)


def test_all_bins_return_in_float32():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    layer = mg.Logit(0.0005)
    for seed in range(20):
        x = mg.dequantize(images, 256, seed, np.float32)
        np.testing.assert_array_equal(mg.quantize(layer.inverse(layer.forward(x)[0])[0], 256), images)


def test_the_ends_of_the_domain_are_outside():
    layer = mg.Logit(0.25)
    assert layer.c == 1
    for end in 1.0, -1.0:
        with pytest.raises(ValueError, match=r"expected values in \[-1/2, 1/2\], got"):
            layer.forward(np.array([[end, 0.0]]))


def test_latents_far_out_become_the_ends_of_the_range():
    y = np.array([[-1e30, -200.0, 200.0, 1e30]], np.float32)
    x, _ = mg.Logit(0.05).inverse(y)
    np.testing.assert_allclose(x, [[-0.5 / 0.9, -0.5 / 0.9, 0.5 / 0.9, 0.5 / 0.9]], rtol=1e-6)


@pytest.mark.parametrize("margin", [0.0, -0.1, 0.5, float("nan")])
def test_margins_that_leave_no_range(margin):
    with pytest.raises(ValueError, match=r"margin to be a number above 0 and below 0\.5, got"):
        mg.Logit(margin)


@pytest.mark.parametrize("value", [0.56, -0.56, float("nan"), float("inf")])
def test_values_outside_the_data_range(value):
    with pytest.raises(ValueError, match=r"^Logit expected values in \[-1/2, 1/2\], got "):
        mg.Logit(0.05).forward(np.array([[0.1, value]]))


@pytest.mark.parametrize("build", [partial(mg.glow, flow_steps=1), mg.realnvp], ids=["glow", "realnvp"])
@pytest.mark.parametrize("reversible", [False, True])
def test_flows_that_begin_with_one(build, reversible):
    """They are the flow without a logit, applied to the logits, with the same levels."""
    options = {"levels": 2, "hidden": 4, "rng": 0, "dtype": np.float64, "reversible": reversible}
    with_logit, without = (build((4, 4, 1), logit=margin, **options) for margin in (0.05, 0.0))
    for flow in with_logit, without:
        flow.flat.value += 0.1 * np.random.default_rng(1).standard_normal(flow.flat.value.size)
    x = np.random.default_rng(2).uniform(-0.45, 0.45, (3, 4, 4, 1))
    y, log_det, _ = mg.Logit(0.05).forward(x)
    np.testing.assert_allclose(with_logit.log_prob(x), without.log_prob(y) + log_det, rtol=1e-10)
    z = with_logit.latents(x)
    np.testing.assert_allclose(with_logit.from_latents(z), x, atol=1e-10)
    assert [part.shape for part in latent_views(with_logit, z).values()] == [
        part.shape for part in latent_views(without, z).values()]
    check_layer(perturbed(with_logit.bijection, 0, 0.05), x[:2])


def test_a_flow_that_begins_with_one_learns():
    images, curve = data.digits(), []
    flow = mg.glow((8, 8, 1), 1, 2, 8, logit=0.01, rng=0)
    train(flow, images, steps=60, evaluate_every=30, on_step=lambda p: curve.append(p.held_out_loss))
    assert curve[59] < curve[29] < 4.5
