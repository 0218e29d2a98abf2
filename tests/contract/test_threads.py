"""All methods of a model run their matrix products on the same number of threads.

A product rounds differently on one thread and on two. Equal calls give equal bits only if every method
uses the same number.
"""

import numpy as np
import pytest

import minglow as mg
from minglow.arrays import threads
from minglow.models.autoencoder import AutoEncoder
from minglow.models.vae import VAE
from minglow.nets import Dense, Sequence, mlp

SHAPE, LATENT, B = (4, 4, 1), 4, 8
X = np.random.default_rng(0).uniform(-0.5, 0.5, (B, *SHAPE)).astype(np.float32)
LABELS = np.arange(B) % 2


class Counts(set):
    """The numbers of threads during products."""

    def record(self):
        self.add(threads.libraries()[0].num_threads)


class RecordingLayer(mg.InvConv1x1):
    """A 1x1 convolution that records the number of threads in each method."""

    def __init__(self, channels, counts):
        super().__init__(channels, 0)
        self._counts = counts

    def forward(self, x):
        self._counts.record()
        return super().forward(x)

    def inverse(self, y):
        self._counts.record()
        return super().inverse(y)

    def backward(self, dy, dlog_det, cache):
        self._counts.record()
        return super().backward(dy, dlog_det, cache)


class RecordingNet(Sequence):
    """A net that records the number of threads in each method."""

    def __init__(self, counts, *nets):
        super().__init__(*nets)
        self._counts = counts

    def forward(self, x):
        self._counts.record()
        return super().forward(x)

    def backward(self, dy, cache):
        self._counts.record()
        return super().backward(dy, cache)


class RecordingBase(mg.TopPrior):
    """A class-conditional base that records the number of threads in each method."""

    def __init__(self, counts):
        super().__init__(16, (2, 2, 4), 2)
        self._counts = counts

    def log_prob(self, z, labels=None):
        self._counts.record()
        return super().log_prob(z, labels)

    def log_prob_given_class(self, z):
        self._counts.record()
        return super().log_prob_given_class(z)

    def backward(self, dlog_prob, z, labels=None):
        self._counts.record()
        return super().backward(dlog_prob, z, labels)

    def cross_entropy(self, z, labels):
        self._counts.record()
        return super().cross_entropy(z, labels)

    def cross_entropy_backward(self, dentropy, z, labels):
        self._counts.record()
        return super().cross_entropy_backward(dentropy, z, labels)


def recording_flow(counts):
    chain = mg.Chain(mg.Squeeze(), RecordingLayer(4, counts), mg.Flatten((2, 2, 4)))
    return mg.Flow(chain, RecordingBase(counts))


def recording_autoencoder(counts):
    return AutoEncoder(*recording_nets(counts, LATENT), SHAPE, LATENT)


def recording_vae(counts):
    return VAE(*recording_nets(counts, 2 * LATENT), SHAPE, LATENT)


def recording_nets(counts, encoded):
    return (RecordingNet(counts, mlp(16, 8, encoded, 0)),
            RecordingNet(counts, mlp(LATENT, 8, 16, 0), Dense(16, 16, rng=0)))


def conditioned_forward(flow):
    with flow.conditioned(X, None) as bijection:
        bijection.forward(X)


FLOW_METHODS = {
    "log_prob": lambda flow: flow.log_prob(X),
    "log_prob with labels": lambda flow: flow.log_prob(X, LABELS),
    "log_prob_given_class": lambda flow: flow.log_prob_given_class(X),
    "sample": lambda flow: flow.sample(B, 0),
    "nll_backward": lambda flow: flow.nll_backward(X, LABELS, 0.5),
    "initialize": lambda flow: flow.initialize(X),
    "latents": lambda flow: flow.latents(X),
    "from_latents": lambda flow: flow.from_latents(X.reshape(B, -1)),
    "reconstruction_error": lambda flow: flow.reconstruction_error(X),
    "first_nonfinite_inverse": lambda flow: flow.first_nonfinite_inverse(X.reshape(B, -1)),
    "conditioned": conditioned_forward,
}
AUTOENCODER_METHODS = {
    "latents": lambda model: model.latents(X),
    "from_latents": lambda model: model.from_latents(X.reshape(B, -1)[:, :LATENT]),
    "reconstruct": lambda model: model.reconstruct(X),
    "loss_backward": lambda model: model.loss_backward(X, 0),
}
VAE_METHODS = {
    **AUTOENCODER_METHODS,
    "negative_elbo_backward": lambda model: model.negative_elbo_backward(X, 0),
    "elbo": lambda model: model.elbo(X, 0, 2),
    "log_prob_bound": lambda model: model.log_prob_bound(X, 0, 2),
    "sample": lambda model: model.sample(B, 0),
}
MODELS = {"flow": (recording_flow, FLOW_METHODS),
          "auto-encoder": (recording_autoencoder, AUTOENCODER_METHODS),
          "VAE": (recording_vae, VAE_METHODS)}
CASES = [(name, method) for name, (_, methods) in MODELS.items() for method in methods]


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """The policy decides between one thread and two."""
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with mg.threads(2):
        monkeypatch.setattr(threads.threads, "chosen", None)
        yield


@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_small_model_uses_one_thread_in_every_method(name, method):
    build, methods = MODELS[name]
    counts = Counts()
    methods[method](build(counts))
    assert counts == {1}


@pytest.mark.parametrize("name", MODELS)
def test_all_methods_use_the_same_number_of_threads(name, monkeypatch):
    """For every limit between small and large models, and on either side of it."""
    build, methods = MODELS[name]
    used = set()
    for limit in 2 ** np.arange(24):
        monkeypatch.setattr(threads, "SMALL", limit)
        counts = {}
        for method, call in methods.items():
            counts[method] = Counts()
            call(build(counts[method]))
        first = next(iter(counts.values()))
        assert len(first) == 1 and all(other == first for other in counts.values()), (limit, counts)
        used |= first
    assert used == {1, 2}


def test_every_public_method_is_in_the_lists():
    no_products = {"add_param", "check_constants", "flatten", "settings", "walk"}
    for build, methods in MODELS.values():
        model = build(Counts())
        public = {name for name in dir(type(model))
                  if not name.startswith("_") and callable(getattr(model, name))}
        assert public - no_products == {name.split()[0] for name in methods}


@pytest.mark.parametrize("size", [8, 32])
def test_a_sample_equals_its_latents_images_bit_for_bit(size):
    flow = mg.glow((size, size, 1), levels=2, flow_steps=1, hidden=64, rng=0)
    noise = np.random.default_rng(8).standard_normal((64, size * size), np.float32)
    expected = flow.from_latents(np.float32(0.7) * noise)
    np.testing.assert_array_equal(flow.sample(64, rng=8, temperature=0.7), expected)
    np.testing.assert_array_equal(flow.sample(64, rng=8, temperature=0.7), expected)
