"""Every property of the contract, for every bijection and conditioner in bijections.py."""

from zlib import crc32

import numpy as np
import pytest
from bijections import BIJECTIONS, NETS
from hypothesis import given, settings
from hypothesis import strategies as st

from minglow.testing import check_backward, check_layer, perturbed, strategies

FLOWS = "glow", "nice", "realnvp"
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


@pytest.mark.parametrize("name", NETS)
@given(seed=strategies.seeds)
def test_conditioners_backward_is_the_derivative(name, seed):
    make, shape = NETS[name]
    rng = np.random.default_rng(seed)
    net = perturbed(make(rng=rng), rng)
    check_backward(net, rng.standard_normal((3, *shape)), rng)


def test_every_bijection_has_at_least_12_shapes():
    assert all(len(shapes) >= 12 for _, shapes in BIJECTIONS.values())
