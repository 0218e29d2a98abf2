"""Every promise of the contract, for every bijection and conditioner in tests/bijections.py."""

import os

import numpy as np
import pytest
from bijections import BIJECTIONS, NETS
from hypothesis import given
from hypothesis import strategies as st

from minglow.testing import check_backward, layer_checks, moved, strategies

SEEDS = range(int(os.environ.get("MINGLOW_SEEDS", "20")))  # fewer where the tests run for each mutant
GENTLE = {"inverse", "cache"}  # where rounding is what is bounded: it grows with the conditioning


def layers(make, shape, seed):
    """The layer a little off its start, for round trips, and further off, for all else."""
    rng = np.random.default_rng(seed)
    layer = make(shape, rng, np.float32)
    return {True: moved(layer, rng, 0.05), False: moved(layer, rng, 0.2)}


CASES = [(name, shape) for name, (_, shapes) in BIJECTIONS.items() for shape in shapes]


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_every_promise_at_every_shape(name, shape):
    for seed in SEEDS:
        layer = layers(BIJECTIONS[name][0], shape, seed)
        x = np.random.default_rng(seed).standard_normal((1 + seed % 4, *shape))
        for promise, check in layer_checks(x, seed):
            check(layer[promise in GENTLE])


@pytest.mark.parametrize("name", BIJECTIONS)
@given(data=st.data())
def test_promises_at_inputs_that_hypothesis_chooses(name, data):
    """Zeros, repeated numbers and batches that shrink, where the test above draws normal noise."""
    make, shapes = BIJECTIONS[name]
    shape = data.draw(st.sampled_from(shapes), "shape")
    x = data.draw(strategies.images(shape), "x")
    layer = layers(make, shape, data.draw(strategies.seeds, "seed"))
    for promise, check in layer_checks(x):
        check(layer[promise in GENTLE])


@pytest.mark.parametrize("name", NETS)
@given(seed=strategies.seeds)
def test_conditioners_backward_is_the_derivative(name, seed):
    make, shape = NETS[name]
    rng = np.random.default_rng(seed)
    net = moved(make(rng=rng), rng)
    check_backward(net, rng.standard_normal((3, *shape)), rng)


def test_the_list_is_as_wide_as_it_says():
    assert all(len(shapes) >= 12 for _, shapes in BIJECTIONS.values())
