"""Every promise of the contract, for every bijection in tests/bijections.py."""

import numpy as np
import pytest
from bijections import BIJECTIONS
from hypothesis import given
from hypothesis import strategies as st
from properties import (
    check_backward,
    check_cache,
    check_inverse,
    check_log_det,
    check_purity,
    gradients,
    moved,
)

import minglow
from minglow.kernels import BACKENDS

every_bijection = pytest.mark.parametrize("name", BIJECTIONS)
seeds = st.integers(0, 2**32 - 1)
TOLERANCE = {np.float32: 1e-4, np.float64: 1e-10}


def case(name, data, dtype=np.float64, size=0.2, largest_batch=4):
    """A bijection whose parameters have moved by about `size`, and a batch for it."""
    make, shapes = BIJECTIONS[name]
    shape = data.draw(st.sampled_from(shapes), "shape")
    rng = np.random.default_rng(data.draw(seeds, "seed"))
    layer = moved(make(shape, rng, dtype), rng, size)
    x = rng.standard_normal((data.draw(st.integers(1, largest_batch), "batch"), *shape)).astype(dtype)
    return layer, x, rng


@every_bijection
@pytest.mark.parametrize("dtype", TOLERANCE)
@given(data=st.data())
def test_inverse_undoes_forward_and_forward_undoes_inverse(name, dtype, data):
    # Rounding grows with a flow's conditioning, and that with the move: at 0.2 a flow may stretch
    # its input so far that few digits are left to come back.
    layer, x, _ = case(name, data, dtype, size=0.05)
    check_inverse(layer, x, TOLERANCE[dtype])


@every_bijection
@given(data=st.data())
def test_log_det_is_that_of_each_samples_jacobian(name, data):
    layer, x, _ = case(name, data, largest_batch=2)
    check_log_det(layer, x)


@every_bijection
@given(data=st.data())
def test_backward_is_the_derivative_by_input_and_every_parameter(name, data):
    layer, x, rng = case(name, data)
    check_backward(layer, x, rng)


@every_bijection
@pytest.mark.parametrize("dtype", TOLERANCE)
@given(data=st.data())
def test_the_cache_comes_from_either_direction(name, dtype, data):
    layer, x, rng = case(name, data, dtype, size=0.05)
    check_cache(layer, x, rng, {np.float32: 1e-3, np.float64: 1e-9}[dtype])


@every_bijection
@given(data=st.data())
def test_nothing_that_comes_in_is_changed(name, data):
    layer, x, rng = case(name, data)
    check_purity(layer, x, rng)


@every_bijection
@given(data=st.data())
def test_samples_do_not_see_each_other(name, data):
    layer, x, rng = case(name, data)
    y, log_det, _ = layer.forward(x)
    order = rng.permutation(len(x))
    shuffled_y, shuffled_log_det, _ = layer.forward(x[order])
    np.testing.assert_allclose(shuffled_y, y[order], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(shuffled_log_det, log_det[order], rtol=1e-12, atol=1e-12)
    alone_y, alone_log_det, _ = layer.forward(x[:1])
    np.testing.assert_allclose(alone_y, y[:1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(alone_log_det, log_det[:1], rtol=1e-12, atol=1e-12)


@every_bijection
@given(data=st.data())
def test_initialize_returns_what_forward_then_gives(name, data):
    layer, x, _ = case(name, data)
    np.testing.assert_allclose(layer.initialize(x), layer.forward(x)[0], rtol=1e-12, atol=1e-12)


@every_bijection
@pytest.mark.parametrize("backend", BACKENDS)
@given(data=st.data())
def test_every_backend_agrees_with_the_reference(name, backend, data):
    layer, x, rng = case(name, data)
    dy, dlog_det = rng.standard_normal(layer.forward(x)[0].shape), rng.standard_normal(len(x))

    def everything(backend):
        with minglow.use(backend):
            before = gradients(layer)
            y, log_det, cache = layer.forward(x)
            results = [y, log_det, layer.inverse(y)[0], layer.backward(dy, dlog_det, cache)]
            return results + [after - before[name] for name, after in gradients(layer).items()]

    for found, expected in zip(everything(backend), everything("numpy")):
        scale = np.abs(expected).max(initial=0)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * (1 + scale))
