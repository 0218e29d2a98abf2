"""Values, log-determinants, gradients and optimizer steps against PyTorch."""

import numpy as np
import pytest
from bijections import BIJECTIONS, NETS

import minglow as mg
from minglow.layers import Flatten
from minglow.nets import conv_net, mlp
from minglow.testing import perturbed
from minglow.testing.gradients import gradients
from minglow.training.optimizers import Adam

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'minglow[bench]'")
from torch_mirror import mirror, negative_log_likelihood, tensors_of  # noqa: E402

TOLERANCE = [(np.float64, 1e-10), (np.float32, 1e-4)]


def close(found, expected, tolerance, what):
    """Within a relative tolerance of the expected array's length."""
    expected = expected.detach().numpy()
    assert found.shape == expected.shape, what
    error, scale = np.linalg.norm(found - expected), np.linalg.norm(expected)
    assert error <= tolerance * scale, f"{what}: error {error:.1e} of {scale:.1e}"


@pytest.mark.parametrize("name", BIJECTIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCE)
@pytest.mark.parametrize("seed", range(5))
def test_bijections(name, dtype, tolerance, seed):
    make, shapes = BIJECTIONS[name]
    rng = np.random.default_rng(seed)
    shape = shapes[seed % len(shapes)]
    layer = perturbed(make(shape, rng, np.float64), rng)
    x = rng.standard_normal((3, *shape)).astype(dtype)
    tensors = tensors_of(layer)  # in float64, also for float32 layers
    x_tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected_y, expected_log_det = mirror(layer, tensors)(x_tensor)
    layer = perturbed(layer, size=0, dtype=dtype)
    y, log_det, cache = layer.forward(x)
    close(y, expected_y, tolerance, "y")
    close(log_det, expected_log_det, tolerance, "log_det")
    dy, dlog_det = rng.standard_normal(y.shape).astype(dtype), rng.standard_normal(3).astype(dtype)
    loss = (torch.tensor(dy) * expected_y).sum() + (torch.tensor(dlog_det) * expected_log_det).sum()
    expected = torch.autograd.grad(loss, [x_tensor, *tensors.values()])
    found = gradients(layer, cache, dy, dlog_det)
    for key, gradient in zip(["x", *tensors], expected):
        close(found[key], gradient, tolerance, f"derivative with respect to {key}")


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCE)
def test_nets(name, dtype, tolerance):
    make, shape = NETS[name]
    rng = np.random.default_rng(0)
    net = perturbed(make(rng=rng), rng)
    x = rng.standard_normal((3, *shape)).astype(dtype)
    tensors = tensors_of(net)
    x_tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected_y = mirror(net, tensors)(x_tensor)
    net = perturbed(net, size=0, dtype=dtype)
    y, cache = net.forward(x)
    close(y, expected_y, tolerance, "y")
    dy = rng.standard_normal(y.shape).astype(dtype)
    expected = torch.autograd.grad((torch.tensor(dy) * expected_y).sum(), [x_tensor, *tensors.values()])
    found = gradients(net, cache, dy)
    for key, gradient in zip(["x", *tensors], expected):
        close(found[key], gradient, tolerance, f"derivative with respect to {key}")


def nice(dtype):
    """A flow like NICE: additive couplings of vectors, reversals, and a scaling."""
    rng, layers = np.random.default_rng(0), []
    for _ in range(4):
        layers += [mg.AdditiveCoupling(mlp(4, 8, 4, rng, dtype)), mg.Reverse(8)]
    return mg.Flow(mg.Chain(*layers, mg.ActNorm(8, dtype)), mg.StandardNormal((8,))), (8,)


def realnvp(dtype):
    """A flow like RealNVP: affine couplings and shuffles in two levels without a learned prior."""
    rng = np.random.default_rng(0)

    def steps(channels):
        net = conv_net(channels // 2, 6, channels, rng, dtype)
        return mg.Squeeze(), mg.AffineCoupling(net), mg.Shuffle(channels, rng)

    inner = mg.Chain(*steps(8), Flatten((1, 2, 8)))
    level = mg.Level(mg.Chain(*steps(4)), inner, (2, 4, 4))
    return mg.Flow(level, mg.StandardNormal((32,))), (4, 8, 1)


def glow(dtype, reversible=False):
    shape = (8, 4, 3)
    flow = mg.glow(shape, levels=2, flow_steps=3, hidden=6, rng=0, dtype=dtype, reversible=reversible)
    return flow, shape


@pytest.mark.parametrize("build", [nice, realnvp, glow, lambda dtype: glow(dtype, reversible=True)])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCE)
def test_five_adam_steps_of_a_flow(build, dtype, tolerance):
    flow, shape = build(dtype)
    rng = np.random.default_rng(1)
    flow.flat.value[...] += (0.05 * rng.standard_normal(flow.flat.value.size)).astype(dtype)
    batches = rng.uniform(-0.5, 0.5, (5, 4, *shape))
    tensors = tensors_of(flow.bijection)
    loss_of = negative_log_likelihood(mirror(flow.bijection, tensors))
    theirs, ours = torch.optim.Adam(tensors.values(), lr=1e-3), Adam(flow.flat)
    for batch in batches:
        theirs.zero_grad()
        expected = loss_of(torch.tensor(batch))
        expected.backward()
        flow.flat.grad[...] = 0
        nll = flow.nll_backward(batch).nll
        assert nll == pytest.approx(expected.item(), rel=tolerance)
        for path, tensor in tensors.items():
            found = flow.flat.view(flow.flat.grad, f"bijection.{path}")
            close(found, tensor.grad, tolerance, path)
        theirs.step()
        ours.step(1e-3)
    for path, tensor in tensors.items():
        close(flow.flat.view(flow.flat.value, f"bijection.{path}"), tensor, tolerance, path)
