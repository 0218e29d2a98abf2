"""Every property of the contract, for every bijection and conditioner in bijections.py."""

import os

import numpy as np
import pytest
from bijections import BIJECTIONS, NETS
from hypothesis import given
from hypothesis import strategies as st

from minglow.testing import check_backward, layer_checks, perturbed, strategies

SEEDS = range(int(os.environ.get("MINGLOW_SEEDS", "20")))  # fewer for mutation tests
GENTLE = {"inverse", "cache"}  # these bound rounding errors, which grow with the condition number


def layers(make, shape, seed):
    """The layer with slightly perturbed parameters, for GENTLE, and with perturbed ones otherwise."""
    rng = np.random.default_rng(seed)
    layer = make(shape, rng, np.float32)
    return {True: perturbed(layer, rng, 0.05), False: perturbed(layer, rng, 0.2)}


CASES = [(name, shape) for name, (_, shapes) in BIJECTIONS.items() for shape in shapes]


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_every_property_at_every_shape(name, shape):
    for seed in SEEDS:
        layer = layers(BIJECTIONS[name][0], shape, seed)
        x = np.random.default_rng(seed).standard_normal((1 + seed % 4, *shape))
        for prop, check in layer_checks(x, seed):
            check(layer[prop in GENTLE])


@pytest.mark.parametrize("name", BIJECTIONS)
@given(data=st.data())
def test_properties_at_inputs_that_hypothesis_chooses(name, data):
    """Zeros, repeated numbers and batches that shrink, where the test above draws normal noise."""
    make, shapes = BIJECTIONS[name]
    shape = data.draw(st.sampled_from(shapes), "shape")
    x = data.draw(strategies.images(shape), "x")
    layer = layers(make, shape, data.draw(strategies.seeds, "seed"))
    for prop, check in layer_checks(x):
        check(layer[prop in GENTLE])


@pytest.mark.parametrize("name", NETS)
@given(seed=strategies.seeds)
def test_conditioners_backward_is_the_derivative(name, seed):
    make, shape = NETS[name]
    rng = np.random.default_rng(seed)
    net = perturbed(make(rng=rng), rng)
    check_backward(net, rng.standard_normal((3, *shape)), rng)


def test_every_bijection_has_at_least_12_shapes():
    assert all(len(shapes) >= 12 for _, shapes in BIJECTIONS.values())
