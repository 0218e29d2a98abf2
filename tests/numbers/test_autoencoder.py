"""The auto-encoder and the VAE: gradients, and bounds of a log-density that is known exactly."""

import copy
import pickle

import numpy as np
import pytest

from minglow import data, dequantize
from minglow.inference import interpolate
from minglow.models.autoencoder import AutoEncoder, EncoderDecoder, autoencoder, fit
from minglow.models.vae import LOG_SIGMA, VAE, kl_from_standard, vae
from minglow.nets import Dense, Sequence
from minglow.testing import perturbed
from minglow.training.optimizers import Adam, warm_up_cosine

SHAPE, LATENT, B = (2, 3, 1), 2, 5
MODELS = {"auto-encoder": autoencoder, "VAE": vae}
both = pytest.mark.parametrize("name", MODELS)
X = np.random.default_rng(0).uniform(-0.5, 0.5, (B, *SHAPE))


def build(name, seed=0, dtype=np.float64, size=0.3):
    return perturbed(MODELS[name](SHAPE, LATENT, 5, dtype=dtype, rng=seed), seed, size)


def central_differences(loss, array, h=1e-5):
    """The derivative of a loss with respect to each entry of an array, by finite differences."""
    result = np.empty_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + h
        above = loss()
        array[index] = before - h
        result[index] = (above - loss()) / (2 * h)
        array[index] = before
    return result


@both
@pytest.mark.parametrize("seed", range(3))
def test_gradients_match_finite_differences(name, seed):
    model, x = build(name, seed), X.copy()
    model.flat.grad[...] = 0
    _, dx = model.loss_backward(x, 7)
    found = model.flat.grad.copy()

    def loss():
        return model.loss_backward(x, 7)[0]

    np.testing.assert_allclose(dx, central_differences(loss, x), rtol=1e-6, atol=1e-9)
    expected = central_differences(loss, model.flat.value)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    for path in model.flat.where:
        assert np.any(model.flat.view(found, path)), path


@both
def test_gradients_accumulate_and_the_input_stays_unchanged(name):
    model, x = build(name), X.copy()
    model.flat.grad[...] = 0
    first = model.loss_backward(x, 7)
    once = model.flat.grad.copy()
    second = model.loss_backward(x, 7)
    np.testing.assert_array_equal(second[1], first[1])
    np.testing.assert_allclose(model.flat.grad, 2 * once, rtol=1e-12)
    np.testing.assert_array_equal(x, X)


@both
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-11), (np.float32, 1e-4)])
def test_loss_and_gradients_match_automatic_differentiation(name, dtype, tolerance):
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'minglow[bench]'")
    from torch_mirror import mirror, tensors_of  # noqa: PLC0415  it imports torch

    model, x = build(name, 3, dtype), X.astype(dtype)
    tensors = tensors_of(model)
    encoder, decoder = (mirror(getattr(model, part), tensors, part) for part in ("encoder", "decoder"))
    x_tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    flat = x_tensor.flatten(1)
    if name == "VAE":
        mean, log_std = encoder(flat).chunk(2, dim=1)
        posterior = torch.distributions.Normal(mean, log_std.exp())
        noise = np.random.default_rng(7).standard_normal((B, LATENT), dtype)
        z = mean + log_std.exp() * torch.tensor(noise, dtype=torch.float64)
        likelihood = torch.distributions.Normal(decoder(z), tensors["log_sigma"].exp())
        kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
        loss = (kl.sum(1) - likelihood.log_prob(flat).sum(1)).mean()
    else:
        loss = torch.nn.functional.mse_loss(decoder(encoder(flat)), flat)
    expected = torch.autograd.grad(loss, [x_tensor, *tensors.values()])
    model.flat.grad[...] = 0
    found_loss, dx = model.loss_backward(x, 7)
    assert found_loss == pytest.approx(loss.item(), rel=tolerance)
    assert dx.dtype == dtype
    found = [dx, *(model.flat.view(model.flat.grad, path) for path in tensors)]
    for path, gradient, tensor in zip(["x", *tensors], found, expected):
        error = np.linalg.norm(gradient - tensor.numpy())
        assert error <= tolerance * np.linalg.norm(tensor.numpy()), path


def test_kl_is_the_integral_of_q_log_q_over_p():
    rng = np.random.default_rng(0)
    mean, log_std = rng.standard_normal((2, 4, 3))
    expected = np.zeros(4)
    for b, j in np.ndindex(mean.shape):
        std = np.exp(log_std[b, j])
        z = mean[b, j] + std * np.linspace(-12, 12, 4001)
        log_q = -0.5 * ((z - mean[b, j]) / std) ** 2 - np.log(std)
        expected[b] += np.trapezoid(np.exp(log_q) / np.sqrt(2 * np.pi) * (log_q + z**2 / 2), z)
    np.testing.assert_allclose(kl_from_standard(np.hstack([mean, log_std])), expected, rtol=1e-10)
    assert not kl_from_standard(np.zeros((2, 6))).any()


# A linear decoder and normal latents: p(x) = N(offset, W^T W + sigma^2 I), and
# p(z|x) = N(S W (x - offset) / sigma^2, S) with S = (I + W W^T / sigma^2)^-1, diagonal where W's
# rows are orthogonal.

SIGMA, D = 0.7, 4
OFFSET = np.array([0.3, -0.2, 0.5, 0.1])
W = np.array([[1.0, -0.5, 0.8, 0.2], [0.5, 1.0, 0.3, -1.2]])
W[1] -= W[0] * (W[0] @ W[1]) / (W[0] @ W[0])
S = np.linalg.inv(np.eye(LATENT) + W @ W.T / SIGMA**2)
COVARIANCE = W.T @ W + SIGMA**2 * np.eye(D)
POINT = np.array([0.9, 0.4, -0.6, 1.1])


def gaussian_log_prob(x, mean, covariance):
    u = x - mean
    square = np.einsum("bi,ij,bj->b", u, np.linalg.inv(covariance), u)
    return -0.5 * (square + np.linalg.slogdet(2 * np.pi * covariance)[1])


def linear_gaussian(wrong=0.0):
    """A VAE with p(x) = N(OFFSET, COVARIANCE); `wrong` is the error of its posterior's parameters."""
    encoder, decoder = (Dense(*sizes, dtype=np.float64) for sizes in ((D, 2 * LATENT), (LATENT, D)))
    decoder.params["weight"][...], decoder.params["bias"][...] = W, OFFSET
    to_mean = W.T @ S / SIGMA**2
    encoder.params["weight"][...] = np.hstack([to_mean, np.zeros_like(to_mean)])
    encoder.params["bias"][...] = np.concatenate([-OFFSET @ to_mean, np.log(np.diag(S)) / 2]) + wrong
    return VAE(Sequence(encoder), Sequence(decoder), (D,), LATENT, np.log(SIGMA), np.float64)


EXACT = gaussian_log_prob(POINT[None], OFFSET, COVARIANCE)[0]


def points(n):
    return np.tile(POINT, (n, 1))


def test_with_the_exact_posterior_every_sample_gives_log_p():
    x = np.random.default_rng(0).standard_normal((50, D))
    expected = gaussian_log_prob(x, OFFSET, COVARIANCE)
    for samples in 1, 3:
        found = linear_gaussian().log_prob_bound(x, 1, samples)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("wrong", [0.0, 0.4, -0.6])
def test_the_mean_elbo_is_log_p_minus_the_posteriors_kl(wrong):
    """The ELBO is quadratic in the noise, and +-sqrt(L) along each axis averages quadratics exactly."""
    model = linear_gaussian(wrong)
    noise = LATENT**0.5 * np.vstack([np.eye(LATENT), -np.eye(LATENT)])
    model.base.sample = lambda n, rng, dtype: noise
    elbo = model.elbo(points(2 * LATENT)).mean()
    loss, _ = model.loss_backward(points(2 * LATENT))
    std = np.sqrt(np.diag(S))  # `wrong` is added to its logarithm and to the mean
    kl = (0.5 * (wrong**2 / std**2 + np.exp(2 * wrong) - 1) - wrong).sum()
    assert elbo == pytest.approx(EXACT - kl, rel=1e-12)
    assert loss == pytest.approx(-elbo, rel=1e-12)


def test_bounds_rise_with_the_number_of_samples_up_to_log_p():
    model, repetitions = linear_gaussian(0.4), 4000
    elbo = model.elbo(points(repetitions), 0)
    bounds = {n: model.log_prob_bound(points(repetitions), n, n) for n in (1, 10, 100)}
    error = {n: bound.std() / repetitions**0.5 for n, bound in bounds.items()}
    mean = {n: bound.mean() for n, bound in bounds.items()}
    elbo_error = elbo.std() / repetitions**0.5
    assert abs(mean[1] - elbo.mean()) < 4 * (elbo_error + error[1])  # one sample gives the ELBO
    assert elbo.mean() + 20 * elbo_error < mean[10]
    assert mean[10] + 10 * error[10] < mean[100] < EXACT
    (many,) = model.log_prob_bound(points(1), 0, 20_000)
    assert many == pytest.approx(EXACT, abs=0.02)


def test_a_bound_is_the_logarithm_of_the_mean_ratio():
    """Compared with PyTorch's densities at the same samples."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'minglow[bench]'")
    model, normal = build("VAE", 2), torch.distributions.Normal
    rng = np.random.default_rng(5)
    h = torch.tensor(model.encoder.forward(X.reshape(B, -1))[0])
    posterior = normal(h[:, :LATENT], h[:, LATENT:].exp())
    sigma = float(np.exp(model.params["log_sigma"][0]))
    ratios, elbos = [], []
    for _ in range(3):
        noise = torch.tensor(rng.standard_normal((B, LATENT)))
        z = posterior.mean + posterior.stddev * noise
        y = torch.tensor(model.decoder.forward(z.numpy())[0])
        likelihood = normal(y, sigma).log_prob(torch.tensor(X.reshape(B, -1))).sum(1)
        ratio = (normal(0.0, 1.0).log_prob(z) - posterior.log_prob(z)).sum(1)
        ratios.append(likelihood + ratio)
        elbos.append(likelihood - torch.distributions.kl_divergence(posterior, normal(0.0, 1.0)).sum(1))
    bound = torch.stack(ratios).exp().mean(0).log()
    np.testing.assert_allclose(model.log_prob_bound(X, 5, 3), bound, rtol=1e-11)
    np.testing.assert_allclose(model.elbo(X, 5, 3), torch.stack(elbos).mean(0), rtol=1e-11)


def test_far_samples_have_a_finite_bound():
    far = 60 * points(2)
    np.testing.assert_allclose(linear_gaussian().log_prob_bound(far, 0, 5),
                               gaussian_log_prob(far, OFFSET, COVARIANCE), rtol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("noise", [True, False])
def test_samples_have_the_moments_of_p(noise, temperature):
    x = linear_gaussian().sample(100_000, 0, temperature, noise)
    covariance = COVARIANCE if noise else W.T @ W
    np.testing.assert_allclose(x.mean(axis=0), OFFSET, atol=0.02)
    np.testing.assert_allclose(np.cov(x.T), temperature**2 * covariance, atol=0.03 * temperature**2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_at_temperature_0_all_samples_decode_the_zero_latent(dtype):
    model = build("VAE", dtype=dtype)
    for noise in True, False:
        x = model.sample(4, 0, temperature=0.0, noise=noise)
        assert x.dtype == dtype and x.shape == (4, *SHAPE)
        decoded = model.from_latents(np.zeros((1, LATENT), dtype))
        np.testing.assert_allclose(x, np.repeat(decoded, 4, axis=0), rtol=1e-6)


def test_equal_seeds_give_equal_samples():
    model = build("VAE")
    np.testing.assert_array_equal(model.sample(3, 1), model.sample(3, np.random.default_rng(1)))
    assert np.any(model.sample(3, 1) != model.sample(3, 2))
    z = np.random.default_rng(1).standard_normal((3, LATENT))
    np.testing.assert_array_equal(model.sample(3, 1), model.from_latents(z))
    single, rng = build("VAE", dtype=np.float32), np.random.default_rng(1)
    means = single.from_latents(rng.standard_normal((3, LATENT), np.float32))
    noise = rng.standard_normal(means.shape, np.float32)
    np.testing.assert_allclose(single.sample(3, 1, noise=True),
                               means + np.exp(single.params["log_sigma"]) * noise, rtol=1e-6)


@both
def test_latents_are_the_encoders_first_outputs_and_reconstruct_decodes_them(name):
    model = build(name)
    z = model.latents(X)
    assert z.shape == (B, LATENT)
    np.testing.assert_array_equal(z, model.encoder.forward(X.reshape(B, -1))[0][:, :LATENT])
    back = model.reconstruct(X)
    assert back.shape == X.shape
    np.testing.assert_array_equal(back.reshape(B, -1), model.decoder.forward(z)[0])


def test_a_linear_auto_encoder_on_principal_axes_loses_the_other_axes():
    x = np.random.default_rng(0).standard_normal((20, D)) * [3, 2, 1, 0.5]
    x -= x.mean(axis=0)
    _, s, axes = np.linalg.svd(x)
    encoder, decoder = (Dense(*sizes, dtype=np.float64) for sizes in ((D, LATENT), (LATENT, D)))
    encoder.params["weight"][...], decoder.params["weight"][...] = axes[:LATENT].T, axes[:LATENT]
    model = AutoEncoder(encoder, decoder, (D,), LATENT)
    loss, _ = model.loss_backward(x)
    assert loss == pytest.approx((s[LATENT:] ** 2).sum() / x.size)
    np.testing.assert_allclose(model.flat.grad, 0, atol=1e-12)  # no linear auto-encoder is better
    np.testing.assert_allclose(model.reconstruct(x), x @ axes[:LATENT].T @ axes[:LATENT])


@both
def test_the_initial_decoder_returns_0_and_has_a_gradient(name):
    model = MODELS[name](SHAPE, LATENT, 5, rng=0)
    assert model.dtype == np.float32 and model.flat.value.dtype == np.float32
    assert not model.reconstruct(X).any() and model.latents(X).std() > 0.05
    model.loss_backward(X, 0)
    assert model.flat.view(model.flat.grad, "decoder.4.weight").any()
    np.testing.assert_array_equal(MODELS[name](SHAPE, LATENT, 5, rng=0).flat.value, model.flat.value)
    assert np.any(MODELS[name](SHAPE, LATENT, 5, rng=1).flat.value != model.flat.value)
    wide = MODELS[name](SHAPE, 100, 900, rng=0)
    assert wide.flat.view(wide.flat.value, "encoder.4.weight").std() == pytest.approx(1 / 30, rel=0.05)
    if name == "VAE":
        assert np.exp(2 * LOG_SIGMA) == pytest.approx(1 / 12)
        assert model.params["log_sigma"] == np.float32(LOG_SIGMA)


@both
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_an_independent_model(name, copied):
    model = build(name, dtype=np.float32)
    other = copied(model)
    assert type(other) is type(model) and other.dtype == model.dtype
    np.testing.assert_array_equal(other.flat.value, model.flat.value)
    loss = model.loss_backward(X, 7)[0]
    assert other.loss_backward(X, 7)[0] == loss
    before = model.flat.value.copy()
    Adam(other.flat).step(0.1)
    assert other.loss_backward(X, 7)[0] != loss
    np.testing.assert_array_equal(model.flat.value, before)
    assert model.loss_backward(X, 7)[0] == loss


@both
def test_equal_seeds_give_equal_losses_and_bounds(name):
    model = build(name)
    assert model.loss_backward(X, 7)[0] == model.loss_backward(X, 7)[0]
    same = model.loss_backward(X, 7)[0] == model.loss_backward(X, 8)[0]
    assert same == (name == "auto-encoder")
    for method in (model.elbo, model.log_prob_bound) if name == "VAE" else ():
        np.testing.assert_array_equal(method(X, 7, 3), method(X, 7, 3))
        assert np.all(method(X, 7, 3) != method(X, 8, 3))


@both
def test_arrays_are_cast_to_the_models_dtype(name):
    model = build(name, dtype=np.float32)
    x = X.astype(np.float32)
    np.testing.assert_array_equal(model.reconstruct(x.astype(np.float64)), model.reconstruct(x))
    assert model.loss_backward(x.astype(np.float64), 7)[0] == model.loss_backward(x, 7)[0]
    assert model.reconstruct(X).dtype == np.float32
    if name == "VAE":
        assert model.elbo(X, 0).dtype == model.log_prob_bound(X, 0, 2).dtype == np.float32


@both
def test_fit_lowers_the_loss_on_the_digits_and_is_reproducible(name):
    images = data.digits()

    def fitted(seed=0):
        model = MODELS[name]((8, 8, 1), 4, 32, rng=0)
        return fit(model, images, steps=60, learning_rate=3e-3, seed=seed), model

    losses, model = fitted()
    assert len(losses) == 60
    first, last = np.mean(losses[:5]), np.mean(losses[-5:])
    assert last < (first - 5 if name == "VAE" else 0.7 * first)
    again, other = fitted()
    assert again == losses
    np.testing.assert_array_equal(other.flat.value, model.flat.value)
    assert fitted(seed=1)[0] != losses


@both
def test_fit_is_adam_on_dequantized_batches(name):
    images, rng = data.digits(), np.random.default_rng(3)
    model = MODELS[name]((8, 8, 1), 4, 8, rng=0, dtype=np.float64)
    other, expected = copy.deepcopy(model), []
    adam = Adam(other.flat)
    for step in range(1, 61):
        chosen = images.train[rng.integers(1500, size=6)]
        other.flat.grad[...] = 0
        x = dequantize(chosen, 17, rng, np.float64)
        expected.append(other.loss_backward(x, rng)[0])
        adam.step(1e-2 * warm_up_cosine(step, 60, 3))
    assert fit(model, images, steps=60, batch_size=6, learning_rate=1e-2, seed=3) == expected
    np.testing.assert_array_equal(model.flat.value, other.flat.value)


@both
def test_interpolation_goes_from_one_reconstruction_to_the_other(name):
    model = build(name)
    start, end = X[:2], X[2:4]
    images = interpolate(model, start, end, 5)
    assert images.shape == (2, 5, *SHAPE)
    np.testing.assert_allclose(images[:, 0], model.reconstruct(start), rtol=1e-12)
    np.testing.assert_allclose(images[:, -1], model.reconstruct(end), rtol=1e-12)
    middle = model.from_latents((model.latents(start) + model.latents(end)) / 2)
    np.testing.assert_allclose(images[:, 2], middle, rtol=1e-12)


NAN = np.where(np.arange(6).reshape(1, *SHAPE) == 4, np.nan, np.zeros((1, *SHAPE)))
BAD = {
    "shape": (np.zeros((2, 3, 2, 1)), r"expected an array of shape \(B, 2, 3, 1\), got \(2, 3, 2, 1\)"),
    "flat": (np.zeros((2, 6)), r"expected an array of shape \(B, 2, 3, 1\), got \(2, 6\)"),
    "rank": (np.zeros(6), r"expected an array of shape \(B, \.\.\., C\), got \(6,\)"),
    "integers": (np.zeros((2, *SHAPE), np.uint8), "expected float32 or float64, got uint8; minglow"),
    "halves": (np.zeros((2, *SHAPE), np.float16), "expected float32 or float64, got float16"),
    "empty": (np.zeros((0, *SHAPE)), r"expected at least one sample, got an empty array \(0, 2, 3, 1\)"),
    "list": ([[0.0]], r"expected an array of shape \(B, \.\.\., C\), got a list"),
    "NaN": (NAN, "expected finite float32, got NaN or inf"),
    "too large": (np.full((2, *SHAPE), 1e300), "expected finite float32, got NaN or inf"),
}


@both
@pytest.mark.parametrize("bad", BAD)
def test_invalid_images_are_refused(name, bad):
    model, (x, message) = build(name, dtype=np.float32), BAD[bad]
    methods = [model.latents, model.reconstruct, model.loss_backward]
    methods += [model.elbo, model.log_prob_bound] if name == "VAE" else []
    for method in methods:
        with pytest.raises(ValueError, match=f"^{type(model).__name__} {message}") as caught:
            method(x)
        assert "\n" not in str(caught.value)


@both
def test_invalid_latents_are_refused(name):
    model = build(name, dtype=np.float32)
    for z, message in ((np.zeros((2, 3)), r"of shape \(B, 2\), got \(2, 3\)"),
                       (np.zeros((0, 2)), "at least one sample"), (np.zeros((2, 2), int), "got int64"),
                       (np.full((2, 2), np.nan), "finite float32, got NaN or inf")):
        with pytest.raises(ValueError, match=f"^{type(model).__name__} expected .*{message}"):
            model.from_latents(z)


@both
def test_a_model_that_has_diverged_raises(name):
    model = build(name, dtype=np.float32)
    model.flat.view(model.flat.value, "encoder.4.weight")[...] = 3e38
    calls = {"latents": model.latents, "loss" if name == "auto-encoder" else "negative_elbo":
             model.loss_backward}
    if name == "VAE":
        calls |= {"elbo": model.elbo, "log_prob_bound": model.log_prob_bound}
    with np.errstate(all="ignore"):
        for result, call in calls.items():
            with pytest.raises(FloatingPointError, match=f"^{result} of a finite input .* has diverged"):
                call(1e3 * X)
    model.flat.view(model.flat.value, "decoder.0.weight")[...] = 3e38
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=r"^from_latents of a fin"):
        model.from_latents(np.full((1, LATENT), 1e3, np.float32))


@both
@pytest.mark.parametrize(("options", "message"), [
    ({"shape": ()}, r"expected a shape, and sizes of at least 1, got shape \(\), 2 latents"),
    ({"shape": (2, 0, 1)}, r"got shape \(2, 0, 1\), 2 latents and 5 hidden units"),
    ({"latent": 0}, "sizes of at least 1, got .* 0 latents"), ({"hidden": 0}, "and 0 hidden units"),
    ({"dtype": np.float16}, r"expected dtype np\.float32 or np\.float64, got .*float16")])
def test_invalid_model_settings_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        MODELS[name](**{"shape": SHAPE, "latent": 2, "hidden": 5, **options})


def test_invalid_sample_counts_and_temperatures_are_refused():
    model = build("VAE")
    for n, temperature in (0, 1.0), (-1, 1.0), (3, -0.1), (3, np.nan), (3, np.inf):
        with pytest.raises(ValueError, match=r"expected (the number of samples|temperature) to be a"):
            model.sample(n, 0, temperature)
    for method in model.elbo, model.log_prob_bound:
        with pytest.raises(ValueError, match="samples to be a whole number of at least 1, got 0"):
            method(X, 0, 0)


@both
def test_fit_refuses_invalid_images(name):
    images, model = data.digits(), MODELS[name]((8, 8, 1), 2, 3, rng=0)
    with pytest.raises(ValueError, match=r"expected train to be integer images .* \(0, 8, 8, 1\)"):
        fit(model, images._replace(train=images.train[:0]), steps=1)
    with pytest.raises(ValueError, match="expected train to hold values from 0 to 15, got 0 to 16"):
        fit(model, images._replace(bins=16), steps=1)
    with pytest.raises(ValueError, match=r"of the model's shape \(8, 8, 1\), got \(4, 8, 1\)"):
        fit(model, images._replace(train=images.train[:, :4], held_out=images.held_out[:, :4]), steps=1)
    for name_of_count in "steps", "batch_size":
        with pytest.raises(ValueError, match=f"^expected {name_of_count} to be a whole .* 1, got 0"):
            fit(model, images, **{"steps": 1, "batch_size": 1, name_of_count: 0})


def test_the_base_class_has_no_loss():
    model = EncoderDecoder(Dense(2, 1), Dense(1, 2), (2,), 1)
    with pytest.raises(NotImplementedError, match="EncoderDecoder has no loss_backward"):
        model.loss_backward(np.zeros((1, 2)))
