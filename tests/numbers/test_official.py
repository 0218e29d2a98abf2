"""official_glow against official_mirror.py: values, gradients, samples, initialization, training."""

from math import log

import numpy as np
import pytest

import minglow as mg
from minglow.data.dataset import Images, reduce_bits
from minglow.inference import apply_attribute, attribute_direction
from minglow.testing import perturbed
from minglow.training.optimizers import OfficialAdamax

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'minglow[bench]'")
from official_mirror import OfficialModel, variables  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

SHAPE, DEPTH, TOLERANCE = (8, 16, 1), 2, 1e-10
DIMS = 8 * 16


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Matrix products this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Pair:
    """official_glow with perturbed parameters, and the mirror with the same parameters as leaves."""

    def __init__(self, levels=2, permutation=mg.InvConv1x1, additive=False, learned_top=True, classes=0,
                 size=0.05, initialized=True):
        flow = mg.official_glow(SHAPE, levels, DEPTH, 6, permutation=permutation,
                                coupling="additive" if additive else "affine",
                                learned_top=learned_top, classes=classes, dtype=np.float64, rng=0)
        if initialized:
            flow.initialize(images())  # so that each ReLU is active for about half of its inputs
        self.flow = perturbed(flow, 1, size)
        self.structure = levels, DEPTH
        self.additive = additive
        self.labels = np.array([0, 2, 1, 2]) if classes else None
        self.their_labels = torch.tensor(self.labels if classes else [0, 0, 0, 0])
        view, value = self.flow.flat.view, self.flow.flat.value
        self.leaves = {name: torch.tensor(view(value, name), requires_grad=True)
                       for name in self.flow.flat.where}
        self.constants = {f"{path}.{name}": torch.tensor(value) for path, module in self.flow.walk()
                          for name, value in module.constants.items()}

    @property
    def model(self):
        """The mirror with the current values of the leaves."""
        lu = any(name.endswith(".sign") for name in self.constants)
        v = variables((self.leaves | self.constants).get, *self.structure, lu)
        return OfficialModel(v, *self.structure, self.additive)


def close(found, expected, what):
    """Within a relative tolerance of the expected array's length."""
    expected = expected.detach().numpy()
    assert found.shape == expected.shape, what
    error, scale = np.linalg.norm(found - expected), np.linalg.norm(expected)
    assert error <= TOLERANCE * scale, f"{what}: error {error:.1e} of {scale:.1e}"


def images(seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (4, *SHAPE))


def flat(latents):
    return torch.cat([part.reshape(len(part), -1) for part in latents], 1)


def every_variant(test):
    """Parametrize a test with every combination of official_glow's settings."""
    for name, values in {
        "levels": (2, 3), "permutation": (mg.InvConv1x1, mg.InvConv1x1LU), "additive": (False, True),
        "learned_top": (False, True), "classes": (0, 3),
    }.items():
        test = pytest.mark.parametrize(name, values)(test)
    return test


@every_variant
def test_latents_log_densities_and_every_gradient(levels, permutation, additive, learned_top, classes):
    pair = Pair(levels, permutation, additive, learned_top, classes)
    flow, model, x = pair.flow, pair.model, images()
    their_x = torch.tensor(x, requires_grad=True)
    close(flow.latents(x), flat(model.encode(their_x)[0]), "latents")
    log_prob = model.log_prob(their_x, pair.their_labels)
    close(flow.log_prob(x, pair.labels), log_prob, "log_prob")
    nll, dx = flow.nll_backward(x, pair.labels)[:2]
    assert nll == pytest.approx(-log_prob.mean().item(), rel=TOLERANCE)
    expected = torch.autograd.grad(-log_prob.mean(), [their_x, *pair.leaves.values()], allow_unused=True)
    close(dx, expected[0], "derivative with respect to x")
    for name, gradient in zip(pair.leaves, expected[1:]):
        found = flow.flat.view(flow.flat.grad, name)
        if name in ("base.weight", "base.bias"):  # the density does not depend on the classifier
            assert gradient is None and not found.any()
        else:
            assert gradient.any(), name
            close(found, gradient, f"derivative with respect to {name}")


@every_variant
def test_samples_from_given_noise(levels, permutation, additive, learned_top, classes):
    pair = Pair(levels, permutation, additive, learned_top, classes)
    shapes = [part.shape for part in pair.model.encode(torch.tensor(images()))[0]]
    noise = torch.tensor(np.random.default_rng(5).standard_normal((4, DIMS)))
    parts = [part.reshape(shape) for part, shape in
             zip(noise.split([shape[1:].numel() for shape in shapes], 1), shapes)]
    model = pair.model
    for temperature in 1.0, 0.7, 0.0:
        found = pair.flow.sample(4, 5, temperature, pair.labels)
        close(found, model.decode(parts, pair.their_labels, temperature), f"samples, {temperature}")


def test_the_loss_with_a_classifier_is_the_official_loss_in_nats():
    """The official loss is bits per dimension + weight * bits of the label; minglow's is in nats."""
    pair, x, weight = Pair(classes=3), images(), 0.01
    model, their_x = pair.model, torch.tensor(x)
    top = model.encode(their_x)[0][-1]
    bits = -model.log_prob(their_x, pair.their_labels).mean() / (DIMS * log(2))
    label_bits = cross_entropy(model.logits(top), pair.their_labels) / log(2)
    (DIMS * log(2) * (bits + weight * label_bits)).backward()
    pair.flow.nll_backward(x, pair.labels, classification_weight=weight * DIMS)
    for name, leaf in pair.leaves.items():
        close(pair.flow.flat.view(pair.flow.flat.grad, name), leaf.grad, name)


def test_an_official_learned_top_differs_at_the_border_and_minglows_does_not():
    """The official kernel sees the border channel and has a learned scale; minglow has neither."""
    model, shape, labels = Pair().model, (1, 4, 4, 8), torch.zeros(1, dtype=torch.long)
    for part in model.prior(shape, labels):
        assert (part == part[:, :1, :1]).all()
    model.v["p/W"] = model.v["p/W"] + 0.1
    mean, _ = model.prior(shape, labels)
    assert (mean[:, 1, 1] == mean[:, 2, 2]).all()
    assert (mean[:, 0, 0] > mean[:, 0, 1]).all() and (mean[:, 0, 1] > mean[:, 1, 1]).all()


@pytest.mark.parametrize("learned_top", [False, True])
def test_an_attribute_shifts_latents_by_one_point_six_directions(learned_top):
    """1.6 (mean z+ - mean z-); the images are the same if the top level's latents are standardized."""
    pair, model = Pair(learned_top=learned_top), Pair(learned_top=learned_top).model
    x, labels = torch.tensor(images(3)), torch.zeros(4, dtype=torch.long)

    def standardized(x):
        *latents, top = model.encode(x)[0]
        mean, logs = model.prior(top.shape, labels)
        return [*latents, (top - mean) / torch.exp(logs)]

    having, lacking = (standardized(torch.tensor(images(seed))) for seed in (4, 5))
    step = [1.6 * (yes.mean(0) - no.mean(0)) for yes, no in zip(having, lacking)]
    direction = attribute_direction(pair.flow, images(4), images(5))
    for alpha in -1.0, 0.5:
        expected = model.decode([z + alpha * part for z, part in zip(standardized(x), step)], labels, 1)
        close(apply_attribute(pair.flow, images(3), direction, alpha), expected, f"alpha {alpha}")


def test_the_random_initialization():
    """Hidden weights N(0, 0.05^2), zero convolutions 0, actnorms the identity, W the Q of a QR."""
    for permutation in mg.InvConv1x1, mg.InvConv1x1LU:
        model = Pair(permutation=permutation, size=0, initialized=False).model
        hidden = [value.detach().numpy().ravel() for name, value in model.v.items()
                  if name.endswith(("l_1/W", "l_2/W"))]
        assert np.std(np.concatenate(hidden)) == pytest.approx(0.05, rel=0.05)
        for name, value in model.v.items():
            if "l_1/W" not in name and "l_2/W" not in name and "invconv" not in name:
                assert not value.any(), name
        for i in range(2):
            for k in range(DEPTH):
                weight = model.invconv(f"{i}/{k}/invconv")[0].detach().numpy()
                np.testing.assert_allclose(weight @ weight.T, np.eye(len(weight)), atol=1e-14)
        scale, shift = model.scale_and_shift("0/0/f1", torch.ones(1, 4, 8, 2, dtype=torch.float64))
        assert scale.detach().numpy() == pytest.approx(0.881, abs=5e-4) and not shift.any()


def test_the_data_dependent_initialization():
    """b = -mean, logs = log(1 / (sqrt(mean (x + b)^2) + 1e-6)) / 3; minglow does not add 1e-6."""
    pair, x = Pair(levels=3, size=0), images()
    model = pair.model
    model.encode(torch.tensor(x))
    assert len(model.inputs) == 3 * DEPTH * 3  # one in each flow step, and two in its net
    for name, tensor in model.inputs.items():
        inputs = tensor.detach().numpy()
        b, logs = (model.v[f"{name}/{part}"].detach().numpy() for part in ("b", "logs"))
        np.testing.assert_allclose(b, -inputs.mean((0, 1, 2)), rtol=TOLERANCE, atol=1e-14, err_msg=name)
        root = np.sqrt(np.mean((inputs + b) ** 2, (0, 1, 2)))
        np.testing.assert_allclose(logs, np.log(1 / root) / 3, rtol=TOLERANCE, atol=1e-13, err_msg=name)
        np.testing.assert_allclose(3 * logs, np.log(1 / (root + 1e-6)), atol=1.01e-6 / root.min())


def test_five_steps_of_adamax_with_a_warm_up():
    """Adamax with Adam's bias correction, beta2 from the steps in an epoch, a linear warm-up."""
    pair, beta1, in_epoch, batch = Pair(permutation=mg.InvConv1x1LU), 0.9, 98, 4
    beta2 = 1 - 1 / in_epoch
    ours = OfficialAdamax(pair.flow.flat, beta1, beta2)
    leaves = pair.leaves.values()
    mean, largest = ([torch.zeros_like(leaf) for leaf in leaves] for _ in range(2))
    for t in range(1, 6):
        x, learning_rate = images(t), 1e-3 * min(1, t * batch / (10 * in_epoch * batch))
        loss = -pair.model.log_prob(torch.tensor(x), pair.their_labels).mean()
        gradients = torch.autograd.grad(loss, list(leaves))
        with torch.no_grad():
            corrected = learning_rate * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
            for leaf, m, u, g in zip(leaves, mean, largest, gradients):
                m.copy_(beta1 * m + (1 - beta1) * g)
                u.copy_(torch.maximum(beta2 * u, g.abs()))
                leaf.sub_(corrected * m / (u + 1e-8))
        pair.flow.flat.grad[...] = 0
        pair.flow.nll_backward(x)
        ours.step(learning_rate)
        for name, leaf in pair.leaves.items():
            close(pair.flow.flat.view(pair.flow.flat.value, name), leaf, f"{name} after step {t}")


@pytest.mark.parametrize("bits", [5, 8])
def test_bits_per_dimension_of_eight_bit_images(bits):
    """floor(x / 2^(8 - n)) / 2^n - 1/2 + U(0, 2^-n); -log p / (D ln 2) + n."""
    pair, rng = Pair(), np.random.default_rng(3)
    pictures, noise = rng.integers(0, 256, (4, *SHAPE)).astype(np.uint8), rng.random((4, *SHAPE))
    bins = 2.0**bits
    x = np.floor(pictures / 2.0 ** (8 - bits)) / bins - 0.5 + noise / bins
    log_prob = pair.model.log_prob(torch.tensor(x), pair.their_labels).detach().numpy()
    expected = -(log_prob - DIMS * np.log(bins)) / (np.log(2) * DIMS)

    class GivenNoise(np.random.Generator):
        def random(self, shape, dtype):
            return noise

    reduced = reduce_bits(Images(pictures, pictures, 256), bits)
    ours = mg.dequantize(reduced.train, reduced.bins, GivenNoise(np.random.PCG64(0)), np.float64)
    np.testing.assert_allclose(ours, x, atol=1e-15)
    found = mg.bits_per_dim(pair.flow.log_prob(ours), DIMS, reduced.bins)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)
    again = np.clip(np.floor((x + 0.5) * bins) * (256 / bins), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(mg.quantize(x, reduced.bins) * (256 // reduced.bins), again)
