"""Chains that store and chains that recompute, flat parameters, and flows."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minglow as mg
from minglow.testing import perturbed
from minglow.testing.gradients import gradients
from minglow.training.optimizers import Adam

seeds = st.integers(0, 2**32 - 1)


def glow(dtype=np.float64, flow_steps=8, size=0.05, **options):
    flow = mg.glow((8, 8, 1), levels=2, flow_steps=flow_steps, hidden=8, dtype=dtype, rng=0, **options)
    return perturbed(flow, 1, size)


def images(n, dtype=np.float64, seed=2):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n, 8, 8, 1)).astype(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-10)])
@given(seed=seeds)
@settings(max_examples=5)
def test_a_reversible_flow_has_the_stored_flows_gradients(dtype, tolerance, seed):
    stored, reversible = glow(dtype), glow(dtype, reversible=True)
    x = images(4, dtype, seed)
    nll, dx = stored.nll_backward(x)[:2]
    same_nll, same_dx = reversible.nll_backward(x)[:2]
    # The same terms; a reversible chain adds the log_dets of its two parts, so the order differs.
    np.testing.assert_allclose(same_nll, nll, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(same_dx, dx, rtol=tolerance, atol=tolerance * np.abs(dx).max())
    for path in stored.flat.where:
        expected = stored.flat.view(stored.flat.grad, path)
        found = reversible.flat.view(reversible.flat.grad, path)
        error = np.linalg.norm(found - expected)
        assert error <= tolerance * np.linalg.norm(expected), path


def test_a_reversible_chain_stores_one_array():
    chain = mg.ReversibleChain(*(mg.ActNorm(2) for _ in range(5)))
    y, _, cache = chain.forward(np.ones((1, 2), np.float32))
    assert arrays_in(cache) == [id(y)] * 2  # the output, also as the input of the 0 stored layers


def arrays_in(cache):
    if isinstance(cache, np.ndarray):
        return [id(cache)]
    return [array for part in cache for array in arrays_in(part)]


@pytest.mark.parametrize("count", range(8))
def test_a_reversible_chain_stores_as_many_caches_as_specified(count):
    stored = mg.Chain(*(mg.ActNorm(2, np.float64) for _ in range(5)))
    for layer in stored.layers:
        layer.params["shift"][...], layer.params["log_scale"][...] = 0.5, 0.1
    chain = mg.ReversibleChain(*stored.layers, stored=count)
    assert [path for path, _ in chain.walk()] == [path for path, _ in stored.walk()]
    x = np.random.default_rng(0).standard_normal((3, 2))
    y, log_det, cache = chain.forward(x)
    caches = cache[1][0][1]
    assert len(caches) == min(count, 5)
    expected = gradients(stored, stored.forward(x)[2], y, log_det)
    for _ in range(2):  # the second time none is left, and all are recomputed
        found = gradients(chain, cache, y, log_det)
        for name, gradient in expected.items():
            np.testing.assert_allclose(found[name], gradient, rtol=1e-12)
    assert cache[1] == []


@pytest.mark.parametrize("coupling", [mg.AffineCoupling, mg.AdditiveCoupling])
@pytest.mark.parametrize("permutation", [mg.InvConv1x1, mg.InvConv1x1LU, mg.Shuffle, mg.Reverse])
def test_a_deep_flow_is_inverted(permutation, coupling):
    flow = glow(permutation=permutation, coupling=coupling)
    assert flow.reconstruction_error(images(16)) <= 1e-10
    single = glow(np.float32, permutation=permutation, coupling=coupling)
    assert single.reconstruction_error(images(16, np.float32)) <= 1e-4


def test_views_share_memory_with_the_flat_vectors_after_a_step():
    flow = glow(np.float32, flow_steps=2)
    before = flow.flat.value.copy()
    flow.initialize(images(8, np.float32))
    flow.nll_backward(images(8, np.float32))
    Adam(flow.flat).step(1e-3)
    assert np.any(flow.flat.value != before)
    for path, module in flow.walk():
        for name, value in module.params.items():
            place = f"{path}.{name}"
            part, shape = flow.flat.where[place]
            assert np.shares_memory(value, flow.flat.value[part]) and value.shape == shape
            assert np.shares_memory(module.grads[name], flow.flat.grad[part])
            np.testing.assert_array_equal(value, flow.flat.view(flow.flat.value, place))
    assert sum(part.stop - part.start for part, _ in flow.flat.where.values()) == flow.flat.value.size


@pytest.mark.parametrize("again", [copy.deepcopy, lambda flow: pickle.loads(pickle.dumps(flow))])
def test_a_copy_is_a_flow_of_its_own(again):
    """A copied view would not be a view: the copy's optimizer would change no parameter."""
    flow = glow(np.float32, flow_steps=2)
    other = again(flow)
    x = images(4, np.float32)
    np.testing.assert_array_equal(other.log_prob(x), flow.log_prob(x))
    before = flow.flat.value.copy()
    other.nll_backward(x)
    Adam(other.flat).step(0.1)
    assert np.any(other.log_prob(x) != flow.log_prob(x))
    np.testing.assert_array_equal(flow.flat.value, before)


def test_arrays_of_other_memory_layouts_give_the_same_results():
    flow = glow()
    x = images(4)
    backwards = np.asfortranarray(x[::-1])[::-1]
    assert not backwards.flags.c_contiguous
    np.testing.assert_allclose(flow.log_prob(backwards), flow.log_prob(x), rtol=1e-12)
    z = flow.latents(x)
    again = flow.bijection.inverse(np.asfortranarray(z))[0]
    np.testing.assert_allclose(again, x, atol=1e-10)


def test_parameters_of_two_dtypes_are_refused():
    chain = mg.Chain(mg.ActNorm(2, np.float32), mg.ActNorm(2, np.float64))
    with pytest.raises(ValueError, match=r"one dtype, got \['float32', 'float64'\]"):
        mg.FlatParams(chain)


def test_nll_is_the_mean_of_log_prob_and_dx_is_its_gradient():
    flow, x = glow(), images(5)
    nll, dx = flow.nll_backward(x)[:2]
    np.testing.assert_allclose(nll, -flow.log_prob(x).mean(), rtol=1e-12)
    direction, h = np.random.default_rng(3).standard_normal(x.shape), 1e-6
    ahead, behind = (-flow.log_prob(x + t * direction).mean() for t in (h, -h))
    np.testing.assert_allclose(np.sum(dx * direction), (ahead - behind) / (2 * h), rtol=1e-6)


def test_temperature_multiplies_the_latents_of_every_level():
    flow = glow()
    cold, warm = (flow.latents(flow.sample(3, rng=5, temperature=t)) for t in (0.5, 1.0))
    np.testing.assert_allclose(cold, 0.5 * warm, atol=1e-9)
    assert warm.shape == (3, 64)


def test_initialize_normalizes_every_flow_step():
    flow = mg.glow((8, 8, 1), flow_steps=3, hidden=8, dtype=np.float64, rng=0)
    x = images(64)
    flow.initialize(x)
    squeezed, _, _ = flow.bijection.steps.layers[0].forward(x)
    y, _, _ = flow.bijection.steps.layers[1].forward(squeezed)
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=(0, 1, 2)), 1, rtol=1e-12)


def test_forward_does_not_initialize_again():
    layer = mg.ActNorm(2, np.float64)
    layer.initialize(np.array([[1.0, 2.0], [3.0, 5.0]]))
    other = np.array([[10.0, -7.0], [0.0, 4.0]])
    before = {name: value.copy() for name, value in layer.params.items()}
    layer.forward(other)
    for name, value in layer.params.items():
        np.testing.assert_array_equal(value, before[name])


def test_gradients_accumulate_over_batches():
    flow, x = glow(), images(6)
    flow.flat.grad[...] = 0
    flow.nll_backward(x)
    complete = flow.flat.grad.copy()
    flow.flat.grad[...] = 0
    flow.nll_backward(x[:3])
    flow.nll_backward(x[3:])
    tolerance = 1e-9 * np.abs(complete).max()
    np.testing.assert_allclose(flow.flat.grad / 2, complete, rtol=1e-9, atol=tolerance)


def traced(bijection, x):
    """The visits of trace, and what it returns."""
    visits = []

    def collect():
        output = yield from bijection.trace(x)
        visits.append(output)

    found = list(collect())
    return found, visits[0]


@pytest.mark.parametrize("flow", [
    glow(flow_steps=2), glow(flow_steps=2, reversible=True),
    perturbed(mg.realnvp((8, 8, 1), levels=2, hidden=4, dtype=np.float64, rng=0), 1),
], ids=["glow", "reversible", "realnvp"])
def test_trace_visits_each_layer_once_in_the_order_of_forward(flow):
    composed = mg.Chain, mg.Level, mg.Checkerboard
    layers = [module for _, module in flow.bijection.walk()
              if isinstance(module, mg.Bijection) and not isinstance(module, composed)]
    nested = [module.norm for _, module in flow.bijection.walk() if hasattr(module, "norm")]
    x = images(3)
    visits, z = traced(flow.bijection, x)
    found = [layer for layer, _, _, _ in visits]
    assert found == [layer for layer in layers if layer not in nested]  # nets are not visited
    expected, log_det = flow.bijection.forward_only(x)
    np.testing.assert_array_equal(z, expected)
    np.testing.assert_allclose(sum(visit[3] for visit in visits), log_det, rtol=1e-12)
    for layer, layer_input, y, _ in visits:
        np.testing.assert_array_equal(layer.forward(layer_input)[0], y)
