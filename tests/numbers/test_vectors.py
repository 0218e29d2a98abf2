"""Flows of vectors of any dimension: densities, splits of odd numbers, and where training begins."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest

import minglow as mg
from minglow import plots
from minglow.data import pinwheel
from minglow.testing import check_layer, perturbed
from minglow.training.evaluation import gaussian_nats

F64 = {"dtype": np.float64, "rng": 0}
MODELS = {
    "glow": partial(mg.glow, flow_steps=3, hidden=8, **F64),
    "glow, sigmoid": partial(mg.glow, flow_steps=3, hidden=8, scale="sigmoid", **F64),
    "glow, spline": partial(mg.glow, flow_steps=2, hidden=8, coupling="spline", **F64),
    "realnvp": partial(mg.realnvp, couplings=3, hidden=8, **F64),
    "nice": partial(mg.nice, couplings=3, hidden=8, depth=2, base="normal", **F64),
    "spline": partial(mg.spline_flow, flow_steps=2, hidden=8, **F64),
}
COUPLINGS = mg.AffineCoupling, mg.AdditiveCoupling, mg.SplineCoupling


def correlated(n, dims, seed=0):
    mixing = np.eye(dims) + 0.5 * np.random.default_rng(7).standard_normal((dims, dims)) / dims**0.5
    return np.random.default_rng(seed).standard_normal((n, dims)) @ mixing + 3


def trained_looking(model, dims, data=None, noise=0.1):
    """A flow whose constants are set from data, and whose parameters are perturbed."""
    flow = MODELS[model]((dims,))
    flow.initialize(correlated(200, dims) if data is None else data)
    value = flow.flat.value
    value += noise * np.random.default_rng(1).standard_normal(value.shape)
    return flow


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dims", [2, 3, 5, 8, 63])
def test_every_number_changes_and_comes_back(model, dims):
    flow = trained_looking(model, dims)
    x = correlated(20, dims, seed=1)
    z, log_det, _ = flow.bijection.forward(x)
    assert z.shape == (20, dims) and (log_det.std() > 1e-9) == (model != "nice")
    np.testing.assert_allclose(flow.bijection.inverse(z)[0], x, atol=1e-8 * np.abs(x).max())
    read = [np.zeros(dims, bool) for _ in range(2)]  # which numbers reach a net, and which one changes
    for layer, at, y, _ in flow.bijection.trace(x):
        if isinstance(layer, COUPLINGS):
            first = dims // 2 if layer.identity_channels is None else layer.identity_channels
            assert 0 < first < dims
            np.testing.assert_array_equal(y[:, :first], at[:, :first])
            assert (y[:, first:] != at[:, first:]).any(axis=0).all()
            read[0][:first], read[1][first:] = True, True
    assert (read[0] | read[1]).all() and read[1].any()


@pytest.mark.parametrize("model", ["realnvp", "nice", "spline"])
@pytest.mark.parametrize("dims", [2, 3, 5, 8])
def test_masks_alternate(model, dims):
    """A number that one coupling reads is changed by the next, also where the halves are uneven.

    A spline flow's linear maps are permutations at first, after which the next coupling may change a
    number again.
    """
    flow = MODELS[model]((dims,))
    where, changed = np.arange(dims), []  # which number of the data is at each place
    for layer in flow.bijection.layers:
        if isinstance(layer, mg.Permutation):
            where = where[layer.constants["order"]]
        if isinstance(layer, mg.InvConv1x1):
            where = where[layer.params["weight"].argmax(axis=1)]
        if isinstance(layer, COUPLINGS):
            changed.append({*where[layer.identity_channels:].tolist()})
    assert len(changed) >= 2 and all(changed)
    for one, other in pairwise(changed):
        assert one | other == set(range(dims)) and (not one & other or model == "spline")


@pytest.mark.parametrize("model", MODELS)
def test_a_density_in_the_plane_integrates_to_one(model):
    flow = trained_looking(model, 2, pinwheel(500, 0).astype(np.float64), noise=0.05)
    _, _, total = plots.density_on_grid(flow.log_prob, limit=9, cells=500, dtype=np.float64)
    assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("context", [0, 2])
def test_a_density_on_the_line_integrates_to_one(context):
    flow = mg.spline_flow((1,), flow_steps=2, bound=3.0, context=context, hidden=8, **F64)
    c = np.array([0.3, -1.2]) if context else None
    flow.initialize(np.random.default_rng(0).normal(2, 3, (200, 1)),
                    None if c is None else np.tile(c, (200, 1)))
    flow.flat.value += 0.2 * np.random.default_rng(1).standard_normal(flow.flat.value.shape)
    # log p has kinks at the knots of each spline: a fine grid, and the midpoint rule, which converges
    # with the square of the cells' width.
    totals = []
    for cells in (200_000, 400_000):
        edges = np.linspace(-60, 60, cells + 1)
        x = ((edges[1:] + edges[:-1]) / 2)[:, None]
        tiled = None if c is None else np.tile(c, (cells, 1))
        totals.append(np.exp(flow.log_prob(x, context=tiled)).sum() * 120 / cells)
    assert totals[1] + (totals[1] - totals[0]) / 3 == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dims", [2, 3, 8])
def test_an_untrained_flow_is_a_gaussian_fitted_to_the_data(model, dims):
    if model == "glow, sigmoid":  # its scale is 0.88 at first, which the next actnorm undoes
        flow, x = mg.glow((dims,), flow_steps=1, scale="tanh", **F64), correlated(300, dims)
    else:
        flow, x = MODELS[model]((dims,)), correlated(300, dims)
    flow.initialize(x)
    if model == "spline":  # it keeps the columns apart: at first a Gaussian without correlations
        expected = sum(gaussian_nats(x[:, [j]], x[:, [j]]) for j in range(dims))
    else:
        expected = gaussian_nats(x, x)
    assert mg.evaluate(flow, x) == pytest.approx(expected, abs=1e-9)


def test_whitening_of_columns_that_depend_on_each_other():
    x = correlated(100, 3)
    x = np.c_[x, x.sum(axis=1)]
    layer = mg.Whitening(4)
    y = layer.initialize(x)
    assert np.isfinite(y).all() and np.abs(layer.inverse(y)[0] - x).max() < 1e-9
    assert layer.constants["std"].min() == pytest.approx(1e-4 * layer.constants["std"].max())
    same = mg.Whitening(2)
    np.testing.assert_array_equal(same.initialize(np.ones((5, 2))), np.ones((5, 2)))


def test_standardization_keeps_small_units_and_leaves_constant_columns():
    x = np.c_[1e-9 * np.random.default_rng(0).standard_normal(50), np.full(50, 7.0)].astype(np.float32)
    layer = mg.Standardization(2)
    y = layer.initialize(x)
    assert y[:, 0].std() == pytest.approx(1, rel=1e-5) and not y[:, 1].any()
    assert layer.constants["std"][1] == 1


@pytest.mark.parametrize("model", ["glow", "realnvp", "nice", "spline"])
def test_the_kit_at_63_numbers(model):
    """One batch: the numerical Jacobian takes 126 passes."""
    flow = mg.spline_flow((63,), flow_steps=1, hidden=8, **F64) if model == "spline" else (
        MODELS[model]((63,)))
    layer = perturbed(flow.bijection, 0)
    check_layer(layer, np.random.default_rng(0).standard_normal((2, 63)))


@pytest.mark.parametrize(("build", "message"), [
    (lambda: mg.glow((1,)), "at least 2 numbers.* minglow.spline_flow takes single numbers"),
    (lambda: mg.realnvp((1,)), "at least 2 numbers"), (lambda: mg.nice((1,)), "at least 2 numbers"),
    (lambda: mg.glow((3,), levels=2), "levels=1 for vectors, got 2"),
    (lambda: mg.realnvp((3,), levels=2), "levels=1 for vectors, got 2"),
    (lambda: mg.glow((3,), coupling="additive", scale="tanh"), "no scale, which only affine"),
    (lambda: mg.spline_flow((4, 4, 1)), r"glow\(shape, coupling='spline'\)"),
    (lambda: mg.spline_flow((2,), spline_bins=1), "spline_bins"),
])
def test_what_vectors_refuse(build, message):
    with pytest.raises(ValueError, match=message):
        build()
