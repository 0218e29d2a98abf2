"""Conditioning on a vector: every property with each kind of inner bijection, derivatives with respect
to the context, and that no call leaves anything behind."""

import copy
import pickle
import threading

import numpy as np
import pytest
from bijections import conditional, conditional_images, standardized

import minglow as mg
from minglow.nets import Context, ContextNet, Dense, Sequence, conv_net, mlp
from minglow.testing import check_layer, perturbed
from minglow.testing.gradients import gradients
from minglow.training.optimizers import Adam


def vectors(k, dtype=np.float64, chain=mg.Chain, size=5):
    """Two flow steps, so that two nets read the context."""
    rng, context, steps = np.random.default_rng(0), Context(), []
    for _ in range(2):
        net = mlp(size // 2 + k, 6, 2 * (size - size // 2), rng, dtype)
        steps += [mg.ActNorm(size, dtype), mg.InvConv1x1(size, rng, dtype),
                  mg.AffineCoupling(ContextNet(net, context), identity_channels=size // 2)]
    return mg.Conditional(chain(*steps), context, k, (size,))


def images(k, dtype=np.float64, chain=mg.Chain):
    """Two levels of an image (2, 4, 1)."""
    rng, context = np.random.default_rng(0), Context()

    def steps(channels):
        net = ContextNet(conv_net(channels // 2 + k, 4, channels, rng, dtype), context)
        return mg.ActNorm(channels, dtype), mg.AffineCoupling(net), mg.Swap(channels)

    inner = chain(*steps(2), mg.Flatten((1, 2, 2)))
    return mg.Conditional(mg.Level(chain(mg.Squeeze(), *steps(4)), inner, (1, 2, 4)), context, k,
                          (2, 4, 1))


def boards(k, dtype=np.float64):
    """Checkerboard masks of both parities; the context joins before and after CheckerboardNet."""
    rng, context, steps = np.random.default_rng(0), Context(), []
    for parity in 0, 1:
        net = conv_net(1 + k, 4, 2, rng, dtype)
        net = (ContextNet(mg.CheckerboardNet(net, parity), context) if parity else
               mg.CheckerboardNet(ContextNet(net, context), parity))
        steps.append(mg.Checkerboard(mg.AffineCoupling(net, mg.tanh_scale), parity))
    return mg.Conditional(mg.Chain(*steps, mg.Flatten((3, 2, 1))), context, k, (3, 2, 1))


def numbers(k, dtype=np.float64):
    """One number, D = 1: the nets read the context, and no identity channel."""
    rng, context = np.random.default_rng(0), Context()
    affine = mg.AffineCoupling(ContextNet(mlp(k, 5, 2, rng, dtype), context), identity_channels=0)
    additive = mg.AdditiveCoupling(ContextNet(mlp(k, 5, 1, rng, dtype), context), identity_channels=0)
    return mg.Conditional(mg.Chain(mg.ActNorm(1, dtype), affine, additive), context, k, (1,))


KINDS = {
    "vectors": vectors,
    "vectors, reversible": lambda k, *dtype: vectors(k, *dtype, chain=mg.ReversibleChain),
    "images": images,
    "images, reversible": lambda k, *dtype: images(k, *dtype, chain=mg.ReversibleChain),
    "boards": boards,
    "numbers": numbers,
}
every_kind = pytest.mark.parametrize("kind", KINDS)
CALLS = {
    "forward": lambda layer, x: layer.forward(x),
    "inverse": lambda layer, x: layer.inverse(x),
    "forward_only": lambda layer, x: layer.forward_only(x),
    "inverse_only": lambda layer, x: layer.inverse_only(x),
    "initialize": lambda layer, x: layer.initialize(x),
    "trace": lambda layer, x: list(layer.trace(x)),
    "trace_inverse": lambda layer, x: list(layer.trace_inverse(x)),
}
every_call = pytest.mark.parametrize("call", CALLS)


def case(kind, k=2, samples=3, seed=0):
    """A layer with perturbed parameters and constants, and a batch of pairs."""
    rng = np.random.default_rng(seed)
    layer = standardized(perturbed(KINDS[kind](k), rng), np.random.default_rng(seed + 1))
    return layer, rng.standard_normal((samples, k + np.prod(layer.shape)))


def read(layer, c):
    """The standardized context, which the nets read."""
    return (c - layer.constants["mean"]) / layer.constants["std"]


def cotangents(y, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(y.shape), rng.standard_normal(len(y))


def returned(generator):
    """What a generator yields, and what it returns."""
    found = []

    def run():
        found.append((yield from generator))

    return list(run()), found[0]


def is_empty(layer):
    return layer.context.value is None and layer.context.grad is None


@every_kind
@pytest.mark.parametrize("k", [1, 2, 5])
def test_every_property(kind, k):
    layer, x = case(kind, k, seed=k)
    check_layer(layer, x, k)
    check_layer(layer, x[:1], k)


@every_kind
def test_the_derivative_with_respect_to_the_context(kind):
    """Entry by entry, by central differences; both parts of the loss, one at a time."""
    k = 3
    layer, x = case(kind, k)
    y, _, cache = layer.forward(x)
    dy, dlog_det = cotangents(y)
    for parts in (dy, 0 * dlog_det), (0 * dy, dlog_det):
        found = layer.backward(*parts, cache)[:, :k]
        assert np.all(np.abs(found) > 1e-6)
        for j in range(k):
            losses = []
            for h in 1e-5, -1e-5:
                moved = x.copy()
                moved[:, j] += h
                moved_y, log_det, _ = layer.forward(moved)
                losses.append((parts[0] * moved_y).sum(axis=1) + parts[1] * log_det)
            expected = (losses[0] - losses[1]) / 2e-5
            np.testing.assert_allclose(found[:, j], expected, rtol=1e-7, atol=1e-8)


@every_kind
@pytest.mark.parametrize("k", [1, 3])
def test_against_pytorch(kind, k):
    """The log density, and its derivatives with respect to x, c and every parameter."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'minglow[bench]'")
    from torch_mirror import mirror, tensors_of  # noqa: PLC0415
    layer, x = case(kind, k)
    y, log_det, cache = layer.forward(x)
    z = y[:, k:]
    log_prob = log_det - 0.5 * np.sum(z**2 + np.log(2 * np.pi), axis=1)
    found = gradients(layer, cache, np.concatenate([np.zeros_like(x[:, :k]), -z], 1), np.ones(len(x)))
    tensors, x = tensors_of(layer), torch.tensor(x, requires_grad=True)
    expected_y, expected_log_det = mirror(layer, tensors)(x)
    normal = torch.distributions.Normal(0, 1)
    expected = normal.log_prob(expected_y[:, k:]).sum(1) + expected_log_det
    np.testing.assert_allclose(log_prob, expected.detach(), rtol=1e-10)
    expected = torch.autograd.grad(expected.sum(), [x, *tensors.values()])
    for name, gradient in zip(["x", *tensors], expected):
        error = np.linalg.norm(found[name] - gradient.numpy())
        assert error <= 1e-10 * np.linalg.norm(gradient), name


def plain(layer, c):
    """The inner bijection for one c, without it: a first bias is s W_s more where a net reads s."""
    inner, s = copy.deepcopy(layer.inner), read(layer, c)
    for coupling in inner.layers[2::3]:
        old, *rest = coupling.net.net.nets
        width, hidden = len(old.params["weight"]) - len(s), len(old.params["bias"])
        first = Dense(width, hidden, dtype=np.float64)
        first.params["weight"][...] = old.params["weight"][:width]
        first.params["bias"][...] = old.params["bias"] + s @ old.params["weight"][width:]
        coupling.net = Sequence(first, *rest)
    return inner


def test_a_context_is_an_addition_to_the_first_bias():
    layer, x = case("vectors")
    for c in x[:, :2]:
        y, log_det = layer.forward_only(np.concatenate([np.tile(c, (3, 1)), x[:, 2:]], 1))
        expected_y, expected_log_det = plain(layer, c).forward_only(x[:, 2:])
        np.testing.assert_allclose(y[:, 2:], expected_y, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(log_det, expected_log_det, rtol=1e-12, atol=1e-12)


@every_kind
@every_call
def test_no_call_leaves_a_context_or_changes_its_input(kind, call):
    layer, x = case(kind)
    before = x.copy()
    CALLS[call](layer, x)
    assert is_empty(layer)
    np.testing.assert_array_equal(x, before)


@every_kind
def test_caches_live_side_by_side(kind):
    """Two caches of forward and one of inverse, used in another order and twice."""
    layer, x = case(kind)
    batches = [x, x[::-1] + 0.5, 0.5 * x]
    caches = [layer.forward(batches[0])[2], layer.forward(batches[1])[2],
              layer.inverse(layer.forward_only(batches[2])[0])[1]]
    parts = cotangents(x)
    expected = []
    for batch in batches:
        fresh = copy.deepcopy(layer)
        expected.append(gradients(fresh, fresh.forward(batch)[2], *parts))
    for index in 2, 0, 1, 0, 2:
        found = gradients(layer, caches[index], *parts)
        assert is_empty(layer)
        for name, value in expected[index].items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


@every_kind
def test_results_are_new_arrays(kind):
    layer, x = case(kind)
    y, log_det, cache = layer.forward(x)
    back, _ = layer.inverse(y)
    parts = cotangents(y)
    dx = layer.backward(*parts, cache)
    results = [y, log_det, back, dx, layer.inverse_only(y), layer.forward_only(x)[0],
               copy.deepcopy(layer).initialize(x)]
    arrays = [x, *parts, *results]
    for i, result in enumerate(arrays):
        assert not any(np.shares_memory(result, other) for other in arrays[:i])


@every_kind
def test_traces_visit_the_layers_inside(kind):
    layer, x = case(kind)
    visits, y = returned(layer.trace(x))
    expected, log_det = layer.forward_only(x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(sum(visit[3] for visit in visits), log_det, rtol=1e-12)
    inverse_visits, back = returned(layer.trace_inverse(y))
    np.testing.assert_array_equal(back, layer.inverse_only(y))
    layers = [visit[0] for visit in visits]
    assert len(layers) >= 3 and not any(isinstance(inside, mg.Chain) for inside in layers)
    assert sorted(map(id, layers)) == sorted(id(visit[0]) for visit in inverse_visits)
    for (inside, at, output, _), (other, later, earlier) in zip(visits[:1], inverse_visits[-1:]):
        assert inside is other
        np.testing.assert_allclose(earlier, at, atol=1e-9)
        np.testing.assert_allclose(later, output, atol=1e-9)


def test_a_trace_holds_the_context_until_it_ends_or_is_closed():
    layer, x = case("vectors")
    for visit in layer.trace(x):
        np.testing.assert_array_equal(layer.context.value, read(layer, x[:, :2]))
        np.testing.assert_array_equal(visit[0].forward(visit[1])[0], visit[2])
    assert is_empty(layer)
    for steps in layer.trace(x), layer.trace_inverse(x):
        next(steps)
        assert not is_empty(layer)
        steps.close()
        assert is_empty(layer)


def test_other_calls_between_the_steps_of_a_trace():
    layer, x = case("vectors")
    other = x[::-1] + 0.5
    expected, expected_other = layer.forward_only(x)[0], layer.forward_only(other)[0]
    found = []

    def trace(batch):
        found.append((yield from layer.trace(batch)))

    for _ in zip(trace(x), trace(other), strict=False):
        layer.inverse(expected_other)
    assert is_empty(layer)
    np.testing.assert_array_equal(found[0], expected)  # zip stops at the end of the first
    assert len(found) == 1


@every_kind
def test_the_inner_bijection_for_a_given_context(kind):
    """Forward and backward in one block, as a flow calls it, agree with those of the pair."""
    layer, x = case(kind)
    c, inner_x = x[:, :2], x[:, 2:].reshape(3, *layer.shape)
    y, log_det, cache = layer.forward(x)
    dy, dlog_det = cotangents(y)
    dy[:, :2] = 0
    expected = layer.backward(dy, dlog_det, cache)
    with layer.given(c, inner_x) as inner:
        inner_y, inner_log_det, inner_cache = inner.forward(inner_x)
        dx = inner.backward(dy[:, 2:], dlog_det, inner_cache)
        dc = layer.dcontext()
    assert is_empty(layer)
    for found, value in ((inner_y, y[:, 2:]), (inner_log_det, log_det), (dc, expected[:, :2]),
                         (dx.reshape(3, -1), expected[:, 2:])):
        np.testing.assert_allclose(found, value, rtol=1e-12, atol=1e-12)


def test_a_given_context_is_cast_to_the_dtype_of_x():
    layer = vectors(2, np.float32)
    c, x = np.ones((3, 2)), np.ones((3, 5), np.float32)
    with layer.given(c, x) as inner:
        assert layer.context.value.dtype == layer.context.grad.dtype == inner.forward(x)[0].dtype
        assert layer.context.value.dtype == np.float32
    assert c.dtype == np.float64


@pytest.mark.parametrize(("context", "message"), [
    (None, "the flow needs a context: give context=c"),
    ([[1.0, 2.0]] * 3, r"expected a context of floats \(3, 2\), got a list"),
    (np.ones(2), r"expected a context of floats \(3, 2\), got float64 \(2,\)"),
    (np.ones((3, 1)), r"expected a context of floats \(3, 2\), got float64 \(3, 1\)"),
    (np.ones((3, 2, 1)), r"expected a context of floats \(3, 2\), got float64 \(3, 2, 1\)"),
    (np.ones((1, 2)), r"expected a context of floats \(3, 2\), got float64 \(1, 2\)"),
    (np.ones((3, 2), int), r"expected a context of floats \(3, 2\), got int64 \(3, 2\)"),
    (np.full((3, 2), np.nan), "expected a context of finite float32, got NaN or inf"),
    (np.full((3, 2), 1e300), "expected a context of finite float32, got NaN or inf")])
def test_a_given_context_that_does_not_fit(context, message):
    layer = vectors(2, np.float32)
    with (pytest.raises(ValueError, match=f"^Conditional:? {message}"),
          layer.given(context, np.ones((3, 5), np.float32))):
        pass
    assert is_empty(layer)


class Broken(mg.Bijection):
    """Raises in every method."""

    def fail(self, *_):
        raise ArithmeticError("broken")

    forward = inverse = forward_only = inverse_only = fail
    backward = initialize = trace = trace_inverse = fail


@pytest.mark.parametrize("call", [*CALLS, "backward"])
def test_an_error_inside_leaves_nothing(call):
    context = Context()
    layer = mg.Conditional(mg.Chain(mg.ActNorm(2, np.float64), Broken(), mg.ActNorm(2, np.float64)),
                           context, 1, (2,))
    x = np.ones((3, 3))
    cache = x[:, :1], [None, None, mg.ActNorm(2, np.float64).forward(x[:, 1:])[2]]
    with pytest.raises(ArithmeticError, match="broken"):
        CALLS[call](layer, x) if call in CALLS else layer.backward(x, np.ones(3), cache)
    assert is_empty(layer)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_has_a_context_of_its_own(again):
    layer, x = case("vectors")
    other = again(layer)
    contexts = {id(part.context) for _, part in other.walk() if hasattr(part, "context")}
    assert contexts == {id(other.context)} and other.context is not layer.context
    np.testing.assert_array_equal(other.forward(x)[0], layer.forward(x)[0])


def test_threads_do_not_share_a_context():
    """Two threads meet inside forward, after both have entered it."""
    meeting = threading.Barrier(2, timeout=60)

    class Meet(mg.Shuffle):
        def forward(self, x):
            meeting.wait()
            return super().forward(x)

    context = Context()
    net = ContextNet(Dense(2, 1, rng=0, dtype=np.float64), context)
    layer = mg.Conditional(mg.Chain(Meet(2, 0), mg.AdditiveCoupling(net)), context, 1, (2,))
    batches, found = [np.ones((3, 3)), np.arange(9.0).reshape(3, 3)], {}
    workers = [threading.Thread(target=lambda i=i: found.update({i: layer.forward(batches[i])[0]}))
               for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i, batch in enumerate(batches):
        swapped = batch[:, 1:][:, layer.inner.layers[0].constants["order"]]
        change = np.stack([swapped[:, 0], batch[:, 0]], 1) @ net.net.params["weight"]
        expected = np.concatenate([batch[:, :1], swapped[:, :1], swapped[:, 1:] + change], 1)
        np.testing.assert_allclose(found[i], expected, rtol=1e-12)


@every_call
@pytest.mark.parametrize("shape", [(3, 6), (3, 8), (3, 5), (3, 1, 7)])
def test_another_width(call, shape):
    layer = vectors(2)
    with pytest.raises(ValueError, match=r"^Conditional expected an array of shape \(B, 7\), got \(3, "):
        CALLS[call](layer, np.zeros(shape))


def test_a_net_outside_a_conditional():
    """Forward, initialize and backward, also where the net is below a coupling."""
    message = "^ContextNet: the flow needs a context: give context=c$"
    layer, x = case("vectors")
    coupling, h = layer.inner.layers[2], x[:, 2:]
    cache = layer.forward(x)[2][1][2]
    for call in (coupling.forward, coupling.inverse, coupling.initialize, layer.inner.forward,
                 coupling.scales, lambda h: coupling.backward(h, np.ones(3), cache)):
        before = {name: value.copy() for name, value in coupling.net.net.nets[0].grads.items()}
        with pytest.raises(ValueError, match=message):
            call(h)
        for name, value in before.items():
            np.testing.assert_array_equal(coupling.net.net.nets[0].grads[name], value)


def test_a_context_of_another_width_than_the_net_reads():
    context = Context()
    coupling = mg.AffineCoupling(ContextNet(mlp(1 + 2, 4, 2, 0), context))
    layer = mg.Conditional(coupling, context, 3, (2,))
    with pytest.raises(ValueError, match=r"^Dense expected .*\(B, \.\.\., 3\), got \(3, 4\)$"):
        layer.forward(np.zeros((3, 5), np.float32))
    assert is_empty(layer)


@pytest.mark.parametrize("call", ["forward", "forward_only", "initialize", "trace"])
def test_an_inner_bijection_without_flatten(call):
    layer = mg.Conditional(mg.Squeeze(), Context(), 1, (2, 2, 1))
    with pytest.raises(ValueError, match=r"^Conditional expected inner to give vectors \(B, D\), got "
                                         r"\(3, 1, 1, 4\): let it end in Flatten$"):
        CALLS[call](layer, np.zeros((3, 5)))
    assert is_empty(layer)


@pytest.mark.parametrize("arguments", [
    (None, Context(), 1, (2,)), (mlp(2, 4, 2), Context(), 1, (2,)), (mg.Swap(2), None, 1, (2,)),
    (mg.Swap(2), np.ones(2), 1, (2,)), (mg.Swap(2), Context(), 0, (2,)),
    (mg.Swap(2), Context(), 1.5, (2,)), (mg.Swap(2), Context(), 1, ()), (mg.Swap(2), Context(), 1, 2)])
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match=r"^expected [^\n]*, got [^\n]*$"):
        mg.Conditional(*arguments)


@pytest.mark.parametrize("arguments", [(None, Context()), (mg.Swap(2), Context()), (mlp(2, 4, 2), None)])
def test_wrong_arguments_of_a_net(arguments):
    with pytest.raises(ValueError, match=r"^expected [^\n]*, got [^\n]*$"):
        ContextNet(*arguments)


def test_initialize_sets_the_constants():
    layer = vectors(3)
    x = np.random.default_rng(0).standard_normal((50, 8)) * [7, 1e4, 0, *[1] * 5] + 1e5
    y = layer.initialize(x)
    mean, std = layer.constants["mean"], layer.constants["std"]
    np.testing.assert_allclose(mean, x[:, :3].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, [*x[:, :2].std(axis=0), 1], rtol=1e-12)  # the third is constant
    assert mean.dtype == std.dtype == np.float64
    np.testing.assert_array_equal(y[:, :3], x[:, :3])
    np.testing.assert_array_equal(y, layer.forward_only(x)[0])


def test_a_context_of_float64_is_standardized_before_it_is_rounded():
    """In float32 the contexts 1e9 + [0, 1, ..., 9] would all be the same number."""
    context = 1e9 + np.arange(10.0)[:, None]
    flow = mg.glow((2,), flow_steps=1, context=1, rng=0)
    flow.initialize(np.random.default_rng(0).standard_normal((10, 2), np.float32), context)
    with flow.bijection.given(context, np.ones((10, 2), np.float32)):
        found = flow.bijection.context.value
        expected = (np.arange(10) - 4.5) / np.arange(10).std()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("context", [
    None, np.ones((3, 1)), np.full((4, 1), np.nan), np.full((4, 1), 1e300), [[1.0]] * 4])
def test_a_context_that_does_not_fit_changes_no_constant(context):
    flow = mg.glow((2,), flow_steps=1, context=1, rng=0)
    with pytest.raises(ValueError, match=r"^Conditional at bijection.* context"):
        flow.initialize(np.ones((4, 2), np.float32), context)
    assert flow.bijection.constants == {"mean": [0], "std": [1]}


@pytest.mark.parametrize("std", [[1, 0], [-1, 1], [np.nan, 1]])
def test_constants_of_a_file(std):
    layer = vectors(2)
    layer.check_constants(layer.constants)
    with pytest.raises(ValueError, match=r"^expected positive standard deviations, got others$"):
        layer.check_constants(layer.constants | {"std": np.array(std)})


def pairs_in(unit, n=400):
    """x whose mean and scale depend on c, and c in other units: c' = scale c + shift."""
    rng, (scale, shift) = np.random.default_rng(0), unit
    c = rng.standard_normal((n, 2))
    x = c + np.exp(0.3 * c[:, ::-1]) * rng.standard_normal((n, 2))
    return x, scale * c + shift


def trained(unit):
    """The losses of 30 steps, and the flow after them."""
    x, c = pairs_in(unit)
    flow, losses = mg.glow((2,), flow_steps=2, hidden=8, context=2, rng=0, dtype=np.float64), []
    flow.initialize(x, c)
    optimizer = Adam(flow.flat)
    for _ in range(30):
        flow.flat.grad[...] = 0
        losses.append(flow.nll_backward(x, context=c).nll)
        optimizer.step(0.01)
    return losses, flow


def test_the_units_of_the_context_do_not_matter():
    (expected, flow), (found, other) = trained((1, 0)), trained((1e4, 1e5))
    assert expected[-1] < expected[0] - 0.2
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    (x, c), (_, raw) = pairs_in((1, 0)), pairs_in((1e4, 1e5))
    np.testing.assert_allclose(other.sample(400, rng=1, context=raw), flow.sample(400, rng=1, context=c),
                               rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(1e4 * other.nll_backward(x, context=raw).dcontext,
                               flow.nll_backward(x, context=c).dcontext, rtol=1e-6, atol=1e-9)


def test_the_derivative_of_the_loss_with_respect_to_a_context_in_raw_units():
    """By central differences, entry by entry."""
    _, flow = trained((1e4, 1e5))
    x, c = pairs_in((1e4, 1e5), 4)
    found = flow.nll_backward(x, context=c).dcontext
    assert found.dtype == np.float64 and found.shape == c.shape and np.all(found)
    for entry in np.ndindex(c.shape):
        losses = []
        for h in 0.1, -0.1:
            moved = c.copy()
            moved[entry] += h
            losses.append(-flow.log_prob(x, context=moved).mean())
        np.testing.assert_allclose(found[entry], (losses[0] - losses[1]) / 0.2, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("build", [conditional, conditional_images])
def test_settings_describe_the_function(build):
    layer = build((5,), np.random.default_rng(0), np.float32)
    found = layer.settings()
    assert found == {"class": "Conditional", "channels": layer.channels, "shape": list(layer.shape)}
