"""Rational-quadratic splines: the elementwise function, the layer and the coupling."""

import numpy as np
import pytest

import minglow as mg
from minglow.layers.spline import MINIMUM, OFFSET, _knots, spline, spline_backward, spline_inverse
from minglow.nets import mlp
from minglow.testing import perturbed

BOUND = 2.5
EXTRA = "PyTorch or normflows is not installed: pip install 'minglow[bench]'"


def parameters(bins, size=1.0, count=7, dtype=np.float64):
    """raw of `count` splines, (count, 3 bins - 1)."""
    raw = size * np.random.default_rng(bins).standard_normal((count, 3 * bins - 1))
    return raw.astype(dtype)


def knots(raw, bound=BOUND):
    """The knots' x, y and derivatives, each (..., bins + 1), from the paper's description."""
    bins = (raw.shape[-1] + 1) // 3
    edges = []
    for part in raw[..., :bins], raw[..., bins : 2 * bins]:
        sizes = MINIMUM + (1 - bins * MINIMUM) * np.exp(part) / np.exp(part).sum(-1, keepdims=True)
        ends = np.concatenate([np.zeros((*raw.shape[:-1], 1)), np.cumsum(sizes, -1)], -1)
        edges.append(2 * bound * ends - bound)
    ones = np.ones((*raw.shape[:-1], 1))
    inner = MINIMUM + np.log1p(np.exp(raw[..., 2 * bins :]) * np.expm1(1 - MINIMUM))
    return *edges, np.concatenate([ones, inner, ones], -1)


def values(raw, each=5):
    """x and raw for `each` values inside every bin, and for some outside: (N,) and (N, 3 bins - 1)."""
    x, bins = knots(raw)[0], (raw.shape[-1] + 1) // 3
    fractions = np.linspace(0.07, 0.93, each)
    inside = (x[:, :-1, None] + fractions * np.diff(x)[..., None]).reshape(len(raw), -1)
    outside = np.tile([-1e6, -3.0, 2.6, 40.0], (len(raw), 1))
    found = np.concatenate([inside, outside], 1)
    assert found.shape == (len(raw), each * bins + 4)
    return found.ravel(), np.repeat(raw, found.shape[1], 0)


def central(f, step=1e-4):
    """df/dt at t = 0 by central differences of fourth order."""
    return (8 * (f(step / 2) - f(-step / 2)) - (f(step) - f(-step))) / (6 * step)


@pytest.mark.parametrize("bins", [2, 5, 8, 100])
def test_zero_parameters_give_the_identity(bins):
    x = np.linspace(-5, 5, 1001)[:, None]
    y, log_derivative, _ = spline(x, np.zeros((1, 3 * bins - 1)), BOUND)
    np.testing.assert_allclose(y, x, rtol=0, atol=1e-15)
    np.testing.assert_allclose(log_derivative, 0, atol=1e-15)


@pytest.mark.parametrize("bins", [2, 3, 8])
def test_knots_are_mapped_to_knots_with_their_derivatives(bins):
    raw = parameters(bins)
    x, y, d = knots(raw)
    x[:, 0], x[:, -1] = -BOUND, BOUND
    found, log_derivative, _ = spline(x, np.repeat(raw[:, None], bins + 1, 1), BOUND)
    np.testing.assert_allclose(found, y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.exp(log_derivative), d, rtol=1e-10)


@pytest.mark.parametrize("size", [1.0, 10.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_it_is_monotone_and_bounded(size, dtype):
    raw = parameters(8, size, dtype=dtype)
    x = np.linspace(-3, 3, 20001, dtype=dtype)[:, None]
    y, log_derivative, _ = spline(x, raw, BOUND)
    gap = np.diff(y, axis=0)
    assert np.isfinite(log_derivative).all()
    rounding = 4 * np.finfo(dtype).eps * BOUND
    assert (gap > -rounding).all() and (size > 1 or (gap > 0).all())
    inside = np.abs(x[:, 0]) <= BOUND
    for result in y, spline_inverse(x, raw, BOUND)[0]:
        assert np.abs(result[inside]).max() <= BOUND
    np.testing.assert_array_equal(y[~inside], np.broadcast_to(x[~inside], y[~inside].shape))
    assert not log_derivative[~inside].any()


@pytest.mark.parametrize("bins", [2, 3, 8, 30])
def test_inverse(bins):
    x, raw = values(parameters(bins))
    y, _, cache = spline(x, raw, BOUND)
    back, inverse_cache = spline_inverse(y, raw, BOUND)
    np.testing.assert_allclose(back, x, rtol=1e-12, atol=1e-12)
    for part, expected in zip(inverse_cache[1][1:], cache[1][1:]):  # the same bins
        np.testing.assert_array_equal(part, expected)
    np.testing.assert_allclose(inverse_cache[0], cache[0], atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_inverse_of_steep_and_flat_splines(dtype):
    """Within the rounding of y and of x, which forward magnifies by dy/dx.

    Just below a knot, b^2 - 4ac of the quadratic equation may be rounded to a number below 0.
    """
    raw = parameters(8, 10.0, count=1000, dtype=dtype)
    ends = _knots(raw, BOUND).y.T
    y = np.concatenate([np.linspace(ends[0], ends[-1], 101, dtype=dtype), ends,
                        np.nextafter(ends, dtype(-9))])
    back, log_derivative, _ = spline(spline_inverse(y, raw, BOUND)[0], raw, BOUND)
    assert log_derivative.max() > 6
    assert (np.abs(back - y) <= 4 * np.finfo(dtype).eps * BOUND * (1 + np.exp(log_derivative))).all()


def test_float32_round_trip():
    raw = parameters(8, 0.5, dtype=np.float32)
    x = (2 * np.random.default_rng(0).standard_normal((2000, 7))).astype(np.float32)
    y, log_derivative, _ = spline(x, raw, BOUND)
    back = spline_inverse(y, raw, BOUND)[0]
    assert y.dtype == log_derivative.dtype == back.dtype == np.float32
    np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bins", [2, 8])
def test_log_derivative_against_central_differences(bins):
    x, raw = values(parameters(bins))
    x = x[np.abs(x) < 100]
    raw = np.repeat(parameters(bins), len(x) // 7, 0)
    derivative = central(lambda t: spline(x + t, raw, BOUND)[0])
    np.testing.assert_allclose(np.exp(spline(x, raw, BOUND)[1]), derivative, rtol=1e-6)


@pytest.mark.parametrize("bins", [2, 3, 8])
@pytest.mark.parametrize("output", [0, 1], ids=["y", "log derivative"])
def test_backward_against_finite_differences(bins, output):
    """The derivatives of each value's y and log dy/dx with respect to its x and every raw parameter."""
    x, raw = values(parameters(bins))
    cotangents = np.zeros((2, *x.shape))
    cotangents[output] = 1
    dx, draw = spline_backward(*cotangents, spline(x, raw, BOUND)[2])
    near = np.abs(x) < 100  # farther out, the differences are rounding only
    expected = central(lambda t: spline(x + t, raw, BOUND)[output])
    np.testing.assert_allclose(dx[near], expected[near], rtol=1e-6, atol=1e-7)
    for index, unit in enumerate(np.eye(raw.shape[1])):
        expected = central(lambda t: spline(x, raw + t * unit, BOUND)[output])  # noqa: B023  called here
        np.testing.assert_allclose(draw[:, index], expected, rtol=1e-6, atol=1e-7)
    outside = np.abs(x) > BOUND
    assert outside.sum() == 28 and not draw[outside].any()
    np.testing.assert_array_equal(dx[outside], 1 - output)
    assert np.abs(draw[~outside]).max(axis=0).min() > 1e-2  # every parameter counts


def test_gradients_of_a_shared_spline_are_summed():
    rng, raw = np.random.default_rng(0), parameters(4)
    x, dy, dlog = rng.standard_normal((3, 2, 5, 7))
    dx, draw = spline_backward(dy, dlog, spline(x, raw, BOUND)[2])
    copies = np.broadcast_to(raw, (2, 5, *raw.shape))
    dx_each, draw_each = spline_backward(dy, dlog, spline(x, copies, BOUND)[2])
    np.testing.assert_allclose(dx, dx_each, rtol=1e-12)
    np.testing.assert_allclose(draw, draw_each.sum(axis=(0, 1)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("bins", [2, 8])
def test_against_automatic_differentiation(bins):
    torch = pytest.importorskip("torch", reason=EXTRA)
    from torch_mirror import rational_quadratic  # noqa: PLC0415  needs PyTorch
    x, raw = values(parameters(bins))
    dy, dlog = np.random.default_rng(0).standard_normal((2, *x.shape))
    tensors = [torch.tensor(value, requires_grad=True) for value in (x, raw)]
    outputs = rational_quadratic(*tensors, BOUND)
    y, log_derivative, cache = spline(x, raw, BOUND)
    for found, expected in zip((y, log_derivative), outputs):
        np.testing.assert_allclose(found, expected.detach(), rtol=1e-10, atol=1e-10)
    gradients = torch.autograd.grad(outputs, tensors, [torch.tensor(dy), torch.tensor(dlog)])
    for found, expected in zip(spline_backward(dy, dlog, cache), gradients):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bins", [2, 8])
def test_against_normflows(bins):
    """Its derivatives are the minimum plus softplus, without the offset that makes 0 the identity."""
    torch = pytest.importorskip("torch", reason=EXTRA)
    splines = pytest.importorskip("normflows", reason=EXTRA).utils.splines
    x, raw = values(parameters(bins))
    parts = [torch.tensor(part) for part in (
        raw[:, :bins], raw[:, bins : 2 * bins], raw[:, 2 * bins :] + OFFSET)]
    y, log_derivative, _ = spline(x, raw, BOUND)
    for inverse, (argument, result, sign) in enumerate([(x, y, 1), (y, x, -1)]):
        theirs, log_det = splines.unconstrained_rational_quadratic_spline(
            torch.tensor(argument), *parts, inverse=bool(inverse), tail_bound=BOUND)
        np.testing.assert_allclose(result, theirs, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(sign * log_derivative, log_det, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(spline_inverse(y, raw, BOUND)[0], theirs, rtol=1e-10, atol=1e-10)


def test_the_density_integrates_to_1():
    """By Gauss-Legendre quadrature between the points where a spline has a knot."""
    layers = [mg.ActNorm(1, np.float64), mg.Spline(1, 8, 3.0, np.float64),
              mg.ActNorm(1, np.float64), mg.Spline(1, 5, 2.0, np.float64)]
    flow = mg.Flow(perturbed(mg.Chain(*layers), 1, 0.5), mg.StandardNormal((1,)))
    ends, points = np.array([[-12.0], [12.0]]), np.empty((0, 1))
    for layer in reversed(list(flow.bijection.children.values())):
        if isinstance(layer, mg.Spline):
            points = np.concatenate([points, knots(layer.params["raw"], layer.bound)[1].T])
        points, ends = layer.inverse(points)[0] if len(points) else points, layer.inverse(ends)[0]
    edges = np.sort(np.concatenate([points, ends]).ravel())
    assert len(edges) == 9 + 6 + 2
    nodes, weights = np.polynomial.legendre.leggauss(60)
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    x = middle[:, None] + half[:, None] * nodes
    density = np.exp(flow.log_prob(x.reshape(-1, 1))).reshape(x.shape)
    assert abs(np.sum(half[:, None] * weights * density) - 1) < 1e-8


@pytest.mark.parametrize("bins", [2, 8])
def test_value_derivative_and_gradients_are_continuous_at_the_knots(bins):
    """Only the part that dlog contributes jumps there, since the second derivative does."""
    raw = np.repeat(parameters(bins)[:, None], bins + 1, 1)
    x = knots(parameters(bins))[0]
    results = []
    for side in x - 1e-9, x + 1e-9:
        y, log_derivative, cache = spline(side, raw, BOUND)
        dx, draw = spline_backward(np.ones_like(y), np.zeros_like(y), cache)
        results.append([y, log_derivative, dx, draw])
        assert np.ptp(cache[1].k, axis=1).min() == bins - 1
    for left, right in zip(*results):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-6)


def test_values_at_the_bound_and_far_outside():
    raw = parameters(8)
    x = np.array([-np.inf, -1e300, -BOUND, BOUND, 1e300, np.inf])[:, None]
    for y in spline(x, raw, BOUND)[0], spline_inverse(x, raw, BOUND)[0]:
        np.testing.assert_allclose(y, np.broadcast_to(x, y.shape), rtol=1e-15)
    np.testing.assert_allclose(spline(x, raw, BOUND)[1], 0, atol=1e-14)


def test_nan_stays_nan():
    x = np.array([[np.nan, 0.5]])
    layer = perturbed(mg.Spline(2, dtype=np.float64))
    y, log_det, cache = layer.forward(x)
    for result in y, layer.inverse(x)[0], layer.backward(np.ones_like(x), np.ones(1), cache):
        np.testing.assert_array_equal(np.isnan(result), [[True, False]])
    assert np.isnan(log_det).all()
    layer.params["raw"][...] = np.nan
    assert np.isnan(layer.forward(np.zeros((1, 2)))[0]).all()


def test_the_layout_of_the_conditioner_output():
    """A net that ignores its input gives each channel of x2 the spline of its part of the output."""
    net = mlp(1, 4, 3 * 14, rng=0, dtype=np.float64)
    coupling = mg.SplineCoupling(net, bins=5, bound=2.0, identity_channels=1)
    layer = perturbed(mg.Spline(3, bins=5, bound=2.0, dtype=np.float64))
    net.nets[-1].params["bias"][...] = layer.params["raw"].ravel()
    x = np.random.default_rng(0).standard_normal((6, 4))
    y, log_det, _ = coupling.forward(x)
    np.testing.assert_array_equal(y[:, :1], x[:, :1])
    expected, expected_log_det, _ = layer.forward(x[:, 1:])
    np.testing.assert_allclose(y[:, 1:], expected, rtol=1e-12)
    np.testing.assert_allclose(log_det, expected_log_det, rtol=1e-12)


def test_a_new_layer_is_the_identity():
    x = np.random.default_rng(0).standard_normal((3, 2, 3, 4)).astype(np.float32)
    net = mg.nets.conv_net(2, 4, 2 * mg.SplineCoupling.net_outputs, rng=0)
    for layer in mg.Spline(4), mg.SplineCoupling(net):
        np.testing.assert_allclose(layer.initialize(x), x, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(layer.forward(x)[1], 0, atol=1e-5)


@pytest.mark.parametrize("bins", [1, 101, 8.0])
def test_numbers_of_bins_that_are_refused(bins):
    for build in lambda: mg.Spline(2, bins), lambda: mg.SplineCoupling(mlp(1, 4, 2, rng=0), bins):
        with pytest.raises(ValueError, match=r"^expected bins to be a whole number of 2 to 100, got "):
            build()


@pytest.mark.parametrize("bound", [0.0, -1.0, np.inf, np.nan])
def test_bounds_that_are_refused(bound):
    for build in (lambda: mg.Spline(2, bound=bound),
                  lambda: mg.SplineCoupling(mlp(1, 4, 23, rng=0), bound=bound)):
        with pytest.raises(ValueError, match=r"^expected bound to be a number above 0, got "):
            build()
