"""An auto-encoder of plain MLPs, what it shares with a VAE, and how both are trained.

A flow computes log p(x) itself, for as many latents as dimensions; a VAE (vae.py) a lower bound, which
more samples of z tighten. An auto-encoder's latents have no distribution: no density, and no samples.
All three have latents, from_latents, flat and dtype; minglow.inference.interpolate needs no more.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from minglow import validation
from minglow.arrays.shapes import check_dtype
from minglow.arrays.threads import threads_for_products
from minglow.arrays.trainable import Trainable
from minglow.bijection import Net, Rng
from minglow.dequantization import dequantize
from minglow.nets import Dense, Sequence, mlp

if TYPE_CHECKING:
    from minglow.data import Images


class EncoderDecoder(Trainable):
    """Two nets with a bottleneck between them: (B, D) -> encoder -> (B, L) -> decoder -> (B, D).

    shape   of one sample, (h, w, C) or (D,); the nets see it flattened
    latent  L, how many latents a sample has

    Every method raises ValueError for input that is empty, of another shape, not of floats, or not
    finite in the model's dtype; FloatingPointError where finite input leads to a result that is not.
    """

    def __init__(self, encoder: Net, decoder: Net, shape: tuple[int, ...], latent: int,
                 **params: np.ndarray) -> None:
        super().__init__()
        self.encoder, self.decoder, self.shape, self.latent = encoder, decoder, tuple(shape), latent
        self.children.update(encoder=encoder, decoder=decoder)
        for name, value in params.items():
            self.add_param(name, value)
        self.flatten()

    def latents(self, x: np.ndarray) -> np.ndarray:
        """z of each sample, (B, L): the encoder's first L outputs."""
        return self._finite(self._encode(self._vectors(x))[:, :self.latent], "latents")

    def from_latents(self, z: np.ndarray) -> np.ndarray:
        """The decoder's x, (B, *shape), for latents (B, L)."""
        x = self._decode(self._checked(z, (self.latent,)))
        return self._finite(x, "from_latents").reshape(len(z), *self.shape)

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        """x through the bottleneck: from_latents(latents(x)). A flow's would be x itself."""
        return self.from_latents(self.latents(x))

    def loss_backward(self, x: np.ndarray, rng: Rng = None) -> tuple[float, np.ndarray]:
        """The loss of a batch, and its derivative with respect to x; adds to every `grads`."""
        raise NotImplementedError(f"{type(self).__name__} has no loss_backward")

    def _threads(self, x: np.ndarray) -> AbstractContextManager[None]:
        """Trainable's policy, for dense layers: they use each weight once for each sample."""
        return threads_for_products(len(x) * self.largest)

    def _vectors(self, x: np.ndarray) -> np.ndarray:
        return self._checked(x, self.shape).reshape(len(x), -1)

    def _encode(self, vectors: np.ndarray) -> np.ndarray:
        with self._threads(vectors):
            return self.encoder.forward(vectors)[0]

    def _decode(self, z: np.ndarray) -> np.ndarray:
        with self._threads(z):
            return self.decoder.forward(z)[0]


class AutoEncoder(EncoderDecoder):
    r"""Least squares through a bottleneck (Hinton & Salakhutdinov 2006).

        z = encoder(x), y = decoder(z)       x, y: (B, D); z: (B, L)
        loss = 1/(B D) sum_bi (y_bi - x_bi)^2

    backward  dL/dy = 2 (y - x) / (B D)
              dL/dz, then dL/dx, by the decoder's and the encoder's backward
              dL/dx -= dL/dy                 since x is also the target
    """

    def loss_backward(self, x: np.ndarray, rng: Rng = None) -> tuple[float, np.ndarray]:
        """The mean squared error, and its derivative with respect to x; adds to every `grads`."""
        vectors = self._vectors(x)
        with self._threads(vectors):
            z, encoder_cache = self.encoder.forward(vectors)
            y, decoder_cache = self.decoder.forward(z)
            loss = self._finite(float(np.mean((y - vectors) ** 2)), "loss")
            dy = 2 * (y - vectors) / y.size
            dx = self.encoder.backward(self.decoder.backward(dy, decoder_cache), encoder_cache) - dy
        return loss, dx.reshape(x.shape)


def autoencoder(shape: tuple[int, ...], latent: int = 16, hidden: int = 256, *,
                dtype: type = np.float32, rng: Rng = None) -> AutoEncoder:
    """An auto-encoder for images (h, w, C), which it flattens, or vectors (D,).

    latent is the number of latents, hidden the width of the two hidden layers on either side; rng is a
    seed or a Generator for the initialization. Raises ValueError for sizes below 1 and other dtypes.
    """
    return AutoEncoder(*encoder_decoder_mlps(shape, latent, latent, hidden, dtype, rng), shape, latent)


def encoder_decoder_mlps(shape: tuple[int, ...], latent: int, encoded: int, hidden: int, dtype: type,
                         rng: Rng) -> tuple[Sequence, Sequence]:
    """An encoder D -> `encoded` and a decoder L -> D, each with two hidden layers.

    The decoder starts as the constant 0, the middle of the data's range. The encoder must not: from
    latents of 0 through weights of 0 no gradient reaches anything but the last bias.
    """
    if not shape or min(*shape, latent, hidden) < 1:
        raise ValueError(f"expected a shape, and sizes of at least 1, got shape {tuple(shape)}, "
                         f"{latent} latents and {hidden} hidden units")
    check_dtype(dtype)
    rng, dims = np.random.default_rng(rng), prod(shape)
    hidden_layers = mlp(dims, hidden, hidden, rng, dtype).nets[:-1]
    last = Dense(hidden, encoded, std=hidden**-0.5, rng=rng, dtype=dtype)
    return Sequence(*hidden_layers, last), mlp(latent, hidden, dims, rng, dtype)


def fit(model: EncoderDecoder, images: Images, *, steps: int = 2500, batch_size: int = 64,
        learning_rate: float = 1e-3, seed: int = 0) -> list[float]:
    """Minimize the model's loss over dequantized `images.train` with Adam; return each step's loss.

    Each batch is drawn with replacement. The learning rate rises over the first twentieth of the steps
    to `learning_rate`, then falls along a cosine.

    The same arguments, model and machine give the same result. Raises ValueError for images of another
    shape than the model's and for none, FloatingPointError if training diverges.
    """
    from minglow.data.dataset import check_dataset  # noqa: PLC0415  only for training
    from minglow.training.optimizers import Adam, warm_up_cosine  # noqa: PLC0415

    check_dataset(images, model.shape)
    validation.check_count("steps", steps)
    validation.check_count("batch_size", batch_size)
    rng, optimizer, losses = np.random.default_rng(seed), Adam(model.flat), []
    for step in range(1, steps + 1):
        chosen = images.train[rng.integers(len(images.train), size=batch_size)]
        x = dequantize(chosen, images.bins, rng, model.dtype)
        model.flat.grad[...] = 0
        losses.append(model.loss_backward(x, rng)[0])
        optimizer.step(learning_rate * warm_up_cosine(step, steps, steps // 20))
    return losses
