"""An auto-encoder of plain perceptrons, what it shares with a VAE, and how both are trained. Floor 3.

Beside a flow, on the same dequantized data, they show what each can say about log p(x):

    AutoEncoder  nothing: its latents have no distribution, so there is no density, and no samples
    VAE          a lower bound (vae.py), the tighter the more it draws
    Flow         log p(x) itself, for as many latents as dimensions

All three have latents, from_latents, flat and dtype; minglow.inference.interpolate asks for no more.
"""

from __future__ import annotations

from math import prod
from typing import TypeVar

import numpy as np

from minglow.arrays import check_array, check_dtype
from minglow.bijection import Module, Net
from minglow.bits import dequantize
from minglow.blas import for_products_of
from minglow.data import Images
from minglow.distributions import Rng
from minglow.nets import Dense, Sequence, mlp
from minglow.optim import Adam, warm_up_cosine
from minglow.params import FlatParams

T = TypeVar("T", float, np.ndarray)


class EncoderDecoder(Module):
    """Two nets with a narrow place between them: (B, D) -> encoder -> (B, L) -> decoder -> (B, D).

    shape   of one sample, (h, w, C) or (D,); the nets meet it flattened
    latent  L, how many latents a sample has
    flat    all parameters as one vector (FlatParams)
    dtype   the parameters' dtype; arrays that come in are cast to it

    Every method raises ValueError for input that is empty, of another shape, not of floats, or not
    finite in the model's dtype; FloatingPointError where finite input leads to a result that is not.
    """

    def __init__(self, encoder: Net, decoder: Net, shape: tuple[int, ...], latent: int,
                 params: dict[str, np.ndarray] | None = None) -> None:
        super().__init__()
        self.encoder, self.decoder, self.shape, self.latent = encoder, decoder, tuple(shape), latent
        self.children.update(encoder=encoder, decoder=decoder)
        for name, value in (params or {}).items():
            self.add_param(name, value)
        self.flat = FlatParams(self)
        self.dtype = self.flat.value.dtype.type
        for path, module in self.walk():
            module.path = path

    def __reduce__(self) -> tuple:
        """Copies are built anew, as Flow's are: a copied view is no view of the copied vector."""
        return type(self), (self.encoder, self.decoder, self.shape, self.latent)

    def latents(self, x: np.ndarray) -> np.ndarray:
        """z of each sample, (B, L): what the encoder gives first."""
        return self._finite(self.encoder.forward(self._vectors(x))[0][:, :self.latent], "latents")

    def from_latents(self, z: np.ndarray) -> np.ndarray:
        """The decoder's x, (B, *shape), for latents (B, L)."""
        x, _ = self.decoder.forward(self._checked(z, (self.latent,)))
        return self._finite(x, "from_latents").reshape(len(z), *self.shape)

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        """x through the narrow place: from_latents(latents(x)). A flow's would be x itself."""
        return self.from_latents(self.latents(x))

    def loss_and_grad(self, x: np.ndarray, rng: Rng = None) -> tuple[float, np.ndarray]:
        """The loss of a batch and its derivative by x; adds to every module's grads."""
        raise NotImplementedError(f"{type(self).__name__} has no loss_and_grad")

    def _vectors(self, x: np.ndarray) -> np.ndarray:
        return self._checked(x, self.shape).reshape(len(x), -1)

    def _checked(self, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        check_array(self, x)
        if x.shape[1:] != shape:
            expected = ", ".join(map(str, ("B", *shape)))
            raise ValueError(f"{self} expected an array of shape ({expected}), got {x.shape}")
        with np.errstate(over="ignore"):  # a float64 that is too large for float32 becomes inf
            x = x.astype(self.dtype, copy=False)
        if not np.isfinite(x).all():
            raise ValueError(f"{self} expected finite {np.dtype(self.dtype)}, got NaN or inf")
        return x

    def _finite(self, result: T, name: str) -> T:
        if not np.isfinite(result).all():
            raise FloatingPointError(f"{name} of a finite input is NaN or inf: {self} has diverged")
        return result


class AutoEncoder(EncoderDecoder):
    r"""Least squares through a narrow place (Hinton & Salakhutdinov 2006).

        z = encoder(x), y = decoder(z)       x, y: (B, D); z: (B, L)
        loss = 1/(B D) sum_bi (y_bi - x_bi)^2

    backward  dL/dy = 2 (y - x) / (B D)
              dL/dz, then dL/dx, by the decoder's and the encoder's backward
              dL/dx -= dL/dy                 since x is the target, too
    """

    def loss_and_grad(self, x: np.ndarray, rng: Rng = None) -> tuple[float, np.ndarray]:
        """The mean squared error of a batch, and its derivative by x; nothing is drawn from rng.

        Adds the derivatives by the parameters to every module's grads.
        """
        vectors = self._vectors(x)
        z, encoder_cache = self.encoder.forward(vectors)
        y, decoder_cache = self.decoder.forward(z)
        loss = self._finite(float(np.mean((y - vectors) ** 2)), "loss")
        dy = 2 * (y - vectors) / y.size
        dx = self.encoder.backward(self.decoder.backward(dy, decoder_cache), encoder_cache) - dy
        return loss, dx.reshape(x.shape)


def autoencoder(shape: tuple[int, ...], latent: int = 16, hidden: int = 256, *,
                dtype: type = np.float32, rng: Rng = None) -> AutoEncoder:
    """An auto-encoder for images (h, w, C), which it flattens, or vectors (D,).

    latent  how many numbers a sample has to pass through
    hidden  width of the two hidden layers on either side
    dtype   np.float32 or np.float64
    rng     seed or Generator of the random start

    Raises ValueError for sizes below 1 and for other dtypes.
    """
    return AutoEncoder(*two_perceptrons(shape, latent, latent, hidden, dtype, rng), shape, latent)


def two_perceptrons(shape: tuple[int, ...], latent: int, encoded: int, hidden: int, dtype: type,
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


def fit(model: EncoderDecoder, images: Images, *, steps: int = 2500, batch: int = 64,
        rate: float = 1e-3, seed: int = 0) -> list[float]:
    """Minimise the model's loss over dequantized `images.train` with Adam; return each step's loss.

    steps  optimiser steps          batch  images in each, drawn with replacement
    rate   largest learning rate: up over the first twentieth of the steps, then down along a cosine

    The same arguments, model and machine give the same result. Raises ValueError for images of
    another shape than the model's and for none, FloatingPointError if training diverges.
    """
    if len(images.train) == 0:
        raise ValueError("expected images to train on, got none")
    rng, optimizer, losses = np.random.default_rng(seed), Adam(model.flat), []
    for step in range(1, steps + 1):
        chosen = images.train[rng.integers(len(images.train), size=batch)]
        x = dequantize(chosen, images.levels, rng, model.dtype)
        model.flat.grad[...] = 0
        with for_products_of(batch * model.flat.value.size):
            loss, _ = model.loss_and_grad(x, rng)
        optimizer.step(rate * warm_up_cosine(step, steps, steps // 20))
        losses.append(loss)
    return losses
