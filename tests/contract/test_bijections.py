"""Every property of the contract, for every bijection and conditioner in bijections.py."""

from zlib import crc32

import numpy as np
import pytest
from bijections import BIJECTIONS, NETS
from hypothesis import given, settings
from hypothesis import strategies as st

from minglow.testing import check_backward, check_layer, perturbed, strategies

FLOWS = "glow", "nice", "realnvp", "spline_flow"
CASES = [(name, shape) for name, (_, shapes) in BIJECTIONS.items() for shape in shapes]


def check(name, shape, seed, x=None):
    """Check the layer, with perturbed parameters, on x or on a batch of normal noise."""
    rng = np.random.default_rng(seed)
    layer = perturbed(BIJECTIONS[name][0](shape, rng, np.float32), rng)
    check_layer(layer, rng.standard_normal((1 + seed % 4, *shape)) if x is None else x, seed)


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_every_property_at_every_shape(name, shape):
    check(name, shape, crc32(f"{name} {shape}".encode()))


@pytest.mark.parametrize("name", BIJECTIONS)
def test_every_property_at_drawn_shapes_and_batches(name):
    """Normal noise, or zeros, repeated numbers and batches that shrink.

    A flow has a quarter of the examples: it has ten times the parameters, each checked by itself.
    """
    examples = settings.default.max_examples // (4 if name.startswith(FLOWS) else 1)

    @settings(max_examples=examples)
    @given(data=st.data())
    def draw(data):
        shape = data.draw(st.sampled_from(BIJECTIONS[name][1]), "shape")
        x = data.draw(st.none() | strategies.images(shape), "x")
        check(name, shape, data.draw(strategies.seeds, "seed"), x)

    draw()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_every_property_at_every_shape_with_more_seeds(name, shape):
    for seed in range(8):
        check(name, shape, seed)


@pytest.mark.parametrize("name", [
    "glow, vectors", "nice, vectors", "realnvp, vectors", "spline_flow"])
def test_every_property_of_a_table_with_63_columns(name):
    check(name, (63,), 0)


@pytest.mark.parametrize("name", BIJECTIONS)
def test_what_diagnosis_reads_agrees_with_forward(name):
    """trace's y and the sum of its log_dets, and the scales of layers that have them."""
    make, shapes = BIJECTIONS[name]
    rng = np.random.default_rng(0)
    layer = perturbed(make(shapes[1], rng, np.float64), rng)
    x = rng.standard_normal((3, *shapes[1]))
    y, log_det, _ = layer.forward(x)
    visits = []

    def collect():
        visits.append((yield from layer.trace(x)))

    found = sum(visit[3] for visit in collect())
    np.testing.assert_allclose(visits[0], y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found, log_det, rtol=1e-12, atol=1e-12)
    if hasattr(layer, "scales"):
        scales = layer.scales(x)
        np.testing.assert_allclose(np.log(scales).reshape(3, -1).sum(axis=1), log_det, rtol=1e-12)


@pytest.mark.parametrize("name", BIJECTIONS)
def test_trace_inverse_is_trace_in_reverse(name):
    """It returns inverse(y)'s x, and each layer visited maps the visit's x to its y."""
    make, shapes = BIJECTIONS[name]
    rng = np.random.default_rng(0)
    layer = perturbed(make(shapes[1], rng, np.float64), rng)
    y = rng.standard_normal((3, *shapes[1])).reshape(layer.forward(np.zeros((3, *shapes[1])))[0].shape)
    results = []

    def collect():
        results.append((yield from layer.trace_inverse(y)))

    visited = []
    for part, part_y, part_x in collect():
        found = part.forward(part_x)[0]
        assert found.shape == part_y.shape
        np.testing.assert_allclose(found, part_y, rtol=1e-9, atol=1e-9)
        visited.append(part)
    np.testing.assert_allclose(results[0], layer.inverse(y)[0], rtol=1e-12, atol=1e-12)
    assert visited == [part for part, *_ in layer.trace(results[0])][::-1] != []


@pytest.mark.parametrize("name", NETS)
def test_initialize_of_a_conditioner_returns_its_output(name):
    make, shape = NETS[name]
    net = perturbed(make(rng=0))
    x = np.random.default_rng(0).standard_normal((3, *shape))
    y = net.initialize(x)
    np.testing.assert_allclose(y, net.forward(x)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NETS)
@given(seed=strategies.seeds)
def test_conditioners_backward_is_the_derivative(name, seed):
    make, shape = NETS[name]
    rng = np.random.default_rng(seed)
    net = perturbed(make(rng=rng), rng)
    check_backward(net, rng.standard_normal((3, *shape)), rng)


def test_every_bijection_has_at_least_12_shapes():
    assert all(len(shapes) >= 12 for _, shapes in BIJECTIONS.values())
