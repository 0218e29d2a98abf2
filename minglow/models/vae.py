"""A variational auto-encoder, with a likelihood that is comparable with a flow's."""

from collections.abc import Iterator
from math import log, pi

import numpy as np

from minglow import validation
from minglow.arrays.shapes import halves, join
from minglow.bases import StandardNormal
from minglow.bijection import Net, Rng
from minglow.models.autoencoder import EncoderDecoder, encoder_decoder_mlps

LOG_SIGMA = -log(12) / 2  # the standard deviation of U[-1/2, 1/2]: as if the decoder knew nothing


class VAE(EncoderDecoder):
    r"""Variational auto-encoder with Gaussian posterior and likelihood (Kingma & Welling 2014).

        p(z) = N(0, I)                       z: (B, L)
        p(x|z) = N(y, sigma^2 I)             y = decoder(z), x: (B, D); log_sigma: (1,)
        q(z|x) = N(mean, diag(exp(log_std))^2)
                                             mean, log_std = halves(encoder(x))

    One draw's ELBO, in nats, a lower bound of log p(x) in expectation (equation 3, appendix B):

        z = mean + exp(log_std) * noise      noise ~ N(0, I): reparameterized (section 2.4)
        u = (x - y) / sigma
        log p(x_b|z_b) = -1/2 sum_i u_bi^2 - D log_sigma - D/2 log(2 pi)
        kl_b = sum_j [1/2 (mean_bj^2 + exp(2 log_std_bj) - 1) - log_std_bj]
        elbo_b = log p(x_b|z_b) - kl_b       L = -1/B sum_b elbo_b

    backward  dL/dlog_sigma = D - 1/B sum_bi u_bi^2
              dL/dy = -1/B u / sigma
              dL/dz by the decoder's backward
              dL/dmean = dL/dz + 1/B mean
              dL/dlog_std = dL/dz * exp(log_std) * noise + 1/B (exp(2 log_std) - 1)
              dL/dx by the encoder's backward, - dL/dy, since x is also the target

    All dimensions share one sigma: where its gradient is zero, sigma^2 is the mean squared error, so
    that the likelihood is an auto-encoder's loss in other units. The noise of dequantized data keeps
    sigma from 0. bits_per_dim(elbo, D, bins) is an upper bound of the model's bits per dimension.
    `latents` are the posterior's means; `from_latents` gives the likelihood's.
    """

    def __init__(self, encoder: Net, decoder: Net, shape: tuple[int, ...], latent: int,
                 log_sigma: float = LOG_SIGMA, dtype: type = np.float32) -> None:
        super().__init__(encoder, decoder, shape, latent, log_sigma=np.full(1, log_sigma, dtype))
        self.base = StandardNormal((latent,))

    def negative_elbo_backward(self, x: np.ndarray, rng: Rng = None) -> tuple[float, np.ndarray]:
        """The mean negative ELBO of a batch in nats, from one z for each sample, and its derivative
        with respect to x; adds to every module's `grads`."""
        vectors = self._vectors(x)
        with self._threads(vectors):
            noise = self.base.sample(len(x), rng, self.dtype)
            h, encoder_cache = self.encoder.forward(vectors)
            mean, std = halves(h)[0], np.exp(halves(h)[1])
            y, decoder_cache = self.decoder.forward(mean + std * noise)
            loss = float(np.mean(kl_from_standard(h) - self._log_likelihood(vectors, y)))
            self._finite(loss, "negative_elbo")
            inverse_sigma = np.exp(-self.params["log_sigma"])
            u = (vectors - y) * inverse_sigma
            self.grads["log_sigma"] += (1 - u**2).sum() / len(u)
            dy = -u * inverse_sigma / len(u)
            dz = self.decoder.backward(dy, decoder_cache)
            dmean = dz + mean / len(u)
            dlog_std = dz * std * noise + (std**2 - 1) / len(u)
            dx = self.encoder.backward(join(dmean, dlog_std), encoder_cache) - dy
        return loss, dx.reshape(x.shape)

    loss_backward = negative_elbo_backward  # what `fit` minimizes

    def elbo(self, x: np.ndarray, rng: Rng = None, samples: int = 1) -> np.ndarray:
        """The mean ELBO over `samples` z, (B,), in nats."""
        elbos = [log_likelihood - kl for log_likelihood, kl, _ in self._samples(x, rng, samples)]
        return self._finite(np.mean(elbos, axis=0, dtype=np.float64).astype(self.dtype), "elbo")

    def log_prob_bound(self, x: np.ndarray, rng: Rng = None, samples: int = 100) -> np.ndarray:
        """The importance-weighted bound (Burda et al. 2016, equation 8), (B,), in nats.

            log 1/n sum_i p(x|z_i) p(z_i) / q(z_i|x)           z_i ~ q(z|x), n = `samples`

        Its expectation is the ELBO for n = 1, never falls as n grows, and tends to log p(x) (theorem 1).
        """
        ratios = [log_likelihood + ratio for log_likelihood, _, ratio in self._samples(x, rng, samples)]
        bound = np.logaddexp.reduce(np.array(ratios, np.float64)) - log(samples)
        return self._finite(bound.astype(self.dtype), "log_prob_bound")

    def sample(self, n: int, rng: Rng = None, temperature: float = 1.0,
               noise: bool = False) -> np.ndarray:
        """n decoder means, (n, *shape), for z ~ N(0, I); with `noise` n samples of p(x).

        `temperature` multiplies all noise. The means look better than the samples, but the bits per
        dimension describe the samples.
        """
        n = validation.check_count("the number of samples", n)
        temperature = validation.check_number("temperature", temperature)
        rng = np.random.default_rng(rng)
        x = self.from_latents(self.base.sample(n, rng, self.dtype, temperature))
        if noise:
            sigma = self.dtype(temperature) * np.exp(self.params["log_sigma"])
            x += sigma * rng.standard_normal(x.shape, self.dtype)
        return x

    def _samples(self, x: np.ndarray, rng: Rng, samples: int) -> Iterator[tuple[np.ndarray, ...]]:
        """log p(x|z), kl and log p(z)/q(z|x), each (B,), of each of `samples` z."""
        validation.check_count("samples", samples)
        vectors, rng = self._vectors(x), np.random.default_rng(rng)
        h = self._encode(vectors)
        mean, log_std = halves(h)
        for _ in range(samples):
            noise = self.base.sample(len(x), rng, self.dtype)
            z = mean + np.exp(log_std) * noise
            log_q = self.base.log_prob(noise) - log_std.sum(axis=1)
            log_likelihood = self._log_likelihood(vectors, self._decode(z))
            yield log_likelihood, kl_from_standard(h), self.base.log_prob(z) - log_q

    def _log_likelihood(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        log_sigma = self.params["log_sigma"]
        u = (x - y) * np.exp(-log_sigma)
        return -0.5 * np.einsum("bi,bi->b", u, u) - u.shape[1] * (log_sigma + 0.5 * log(2 * pi))


def kl_from_standard(h: np.ndarray) -> np.ndarray:
    """KL(N(mean, diag(exp(log_std))^2) || N(0, I)), (B,), in nats; h = [mean, log_std]: (B, 2L)."""
    mean, log_std = halves(h)
    return (0.5 * (mean**2 + np.exp(2 * log_std) - 1) - log_std).sum(axis=1)


def vae(shape: tuple[int, ...], latent: int = 16, hidden: int = 256, *,
        dtype: type = np.float32, rng: Rng = None) -> VAE:
    """A VAE for images (h, w, C), which it flattens, or vectors (D,); arguments as `autoencoder`'s."""
    encoder, decoder = encoder_decoder_mlps(shape, latent, 2 * latent, hidden, dtype, rng)
    return VAE(encoder, decoder, shape, latent, dtype=dtype)
