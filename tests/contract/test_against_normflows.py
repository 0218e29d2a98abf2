"""Densities, latents, samples and every gradient of Glow, compared with normflows.

normflows' `forward` goes from latents to data; minglow's goes from data to latents. So minglow's
forward is compared with normflows' inverse. normflows_copy.py has the table of parameters.
"""

from itertools import product

import numpy as np
import pytest

from minglow.inference import latent_views

EXTRA = "PyTorch or normflows is not installed: pip install 'minglow[bench]'"
torch = pytest.importorskip("torch", reason=EXTRA)
pytest.importorskip("normflows", reason=EXTRA)
from normflows_copy import (  # noqa: E402
    COUPLINGS,
    Case,
    channels_last,
    copy_parameters,
    minglow_glow,
    normflows_glow,
)

# normflows calls torch.lu where it initializes a 1x1 convolution.
pytestmark = pytest.mark.filterwarnings("ignore:torch.lu is deprecated:UserWarning")
TOLERANCE = 1e-12  # relative to an array's norm
SIZES = [  # levels, flow steps, shape, classes
    (2, 3, (8, 8, 1), 0), (2, 3, (4, 12, 3), 3), (3, 1, (16, 8, 1), 3), (3, 1, (8, 8, 3), 0)]
CASES = [Case(*size, coupling, use_lu)
         for size, coupling, use_lu in product(SIZES, COUPLINGS, (False, True))]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small convolutions are faster on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def flows(case):
    """normflows' flow with perturbed parameters, minglow's with the same, and the table of them."""
    torch.manual_seed(0)
    theirs, ours = normflows_glow(case), minglow_glow(case)
    for tensor in trainable(theirs):  # a zero-initialized net would hide mistakes
        rms = tensor.detach().square().mean().sqrt().item()
        tensor.data += 0.2 * (rms or 1.0) * torch.randn_like(tensor)
    for name, buffer in theirs.named_buffers():
        if name.endswith("data_dep_init_done"):
            buffer.fill_(1)  # otherwise the first batch would replace the parameters of ActNorm
    return theirs, ours, copy_parameters(theirs, ours, case)


def trainable(module):
    return [tensor for tensor in module.parameters() if tensor.requires_grad]


def batch_of(case, size):
    """Images and labels, as arrays and as tensors."""
    rng = np.random.default_rng(size)
    x = rng.uniform(-0.5, 0.5, (size, *case.shape))
    labels = rng.integers(case.classes, size=size) if case.classes else None
    return x, labels, channels_first(x), None if labels is None else torch.tensor(labels)


def channels_first(array):
    return torch.tensor(array.transpose(0, 3, 1, 2), requires_grad=True)


def close(found, expected, what):
    """Within a relative tolerance of the expected array's norm, which must not be 0."""
    expected = expected.detach().numpy() if torch.is_tensor(expected) else expected
    assert np.shape(found) == expected.shape, what
    error, norm = np.linalg.norm(found - expected), np.linalg.norm(expected)
    assert norm > 0, f"{what}: expected a norm above 0"
    assert error <= TOLERANCE * norm, f"{what}: error {error:.1e} of {norm:.1e}"


@pytest.mark.parametrize("size", [1, 5])
def test_log_prob_and_the_latents_of_every_level(case, flows, size):
    theirs, ours, _ = flows
    x, labels, x_tensor, labels_tensor = batch_of(case, size)
    close(ours.log_prob(x, labels), theirs.log_prob(x_tensor, labels_tensor), "log_prob")
    expected, _ = theirs.inverse_and_log_det(x_tensor)
    latents = latent_views(ours, ours.latents(x))
    assert len(latents) == case.levels
    for (level, z), tensor in zip(latents.items(), reversed(expected), strict=True):
        close(z, channels_last(tensor.detach().numpy()), level)


@pytest.mark.parametrize("size", [1, 5])
def test_samples_from_the_same_latents(case, flows, size):
    theirs, ours, _ = flows
    z = np.random.default_rng(size).standard_normal((size, *ours.base.shape))
    latents = [channels_first(part) for part in latent_views(ours, z).values()]
    expected, _ = theirs.forward_and_log_det(latents[::-1])
    close(ours.from_latents(z), channels_last(expected.detach().numpy()), "samples")


@pytest.mark.parametrize("size", [1, 5])
def test_every_gradient_of_the_negative_log_likelihood(case, flows, size):
    theirs, ours, table = flows
    x, labels, x_tensor, labels_tensor = batch_of(case, size)
    theirs.zero_grad()
    ours.flat.grad[...] = 0
    expected = theirs.forward_kld(x_tensor, labels_tensor)
    expected.backward()
    loss = ours.nll_backward(x, labels)
    close(loss.nll, expected, "nll")
    close(loss.dx, channels_last(x_tensor.grad.numpy()), "dx")
    compared = []
    for tensor, module, name, to_minglow in table:
        path = f"{module.path}.{name}"
        close(module.grads[name], to_minglow(tensor.grad.numpy()), f"derivative with respect to {path}")
        compared.append((id(tensor), path))

    # Every parameter of both flows is compared once.
    per_step = 2 + (3 if case.use_lu else 1) + 6  # actnorm, 1x1 convolution, conditioner
    assert len(compared) == case.levels * case.flow_steps * per_step + (2 if case.classes else 0)
    tensors, paths = zip(*compared)
    assert sorted(tensors) == sorted(map(id, trainable(theirs)))
    classifier = ["base.weight", "base.bias"] if case.classes else []  # normflows has none
    assert sorted([*paths, *classifier]) == sorted(ours.flat.where)
    for path in classifier:  # the likelihood does not depend on it
        assert not ours.flat.view(ours.flat.grad, path).any()
