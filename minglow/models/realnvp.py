"""RealNVP: affine couplings under checkerboard and channel masks, over several levels."""

from dataclasses import KW_ONLY, dataclass
from math import prod
from typing import Any

import numpy as np

from minglow import layers
from minglow.bases import Base, StandardNormal
from minglow.bijection import Bijection, Rng
from minglow.chain import Chain, ReversibleChain
from minglow.flow import Flow
from minglow.models.base import SCALES, ModelConfig, check_vector, standardize
from minglow.nets import conv_net, mlp, res_net
from minglow.storage.settings import accepts, option

CHECKERBOARD, CHANNELS, LAST = 3, 3, 4  # couplings of a level, and of the last (section 4.1)


@dataclass(frozen=True)
class RealNVPConfig(ModelConfig, model="realnvp"):
    """Settings of `realnvp`."""

    levels: int | None = option(None, "number of levels: 2 for images and 1 for vectors if not given",
                                flag="-L", minimum=1, maximum=16)
    hidden: int = option(32, "width of the conditioners", minimum=1)
    _: KW_ONLY
    couplings: int = option(8, "number of couplings of vectors", minimum=1)
    net: str | None = option(None, "conditioner: residual for images and mlp for vectors if not given",
                             choices={"residual": res_net, "plain": conv_net, "mlp": mlp})
    scale: str = option("tanh", "a coupling's scale: tanh, RealNVP's, lies between 1/e and e",
                        choices=SCALES)
    logit: float = option(0.0, "margin of a logit before all else; RealNVP's paper has 0.05, 0.0005 "
                               "suits scanned handwriting, 0 is no logit", below=0.5)
    reversible: bool = option(False, "recompute activations in the backward pass: less memory")

    def __post_init__(self) -> None:
        super().__post_init__()
        shape, vector = self.shape, len(self.shape) == 1
        levels = self.levels or (1 if vector else 2)
        object.__setattr__(self, "levels", levels)
        object.__setattr__(self, "net", self.net or ("mlp" if vector else "residual"))
        if vector:
            check_vector(shape)
            if levels != 1:
                raise ValueError(f"expected levels=1 for vectors, got {levels}")
        elif len(shape) != 3 or shape[0] % 2 ** (levels - 1) or shape[1] % 2**levels:
            raise ValueError("expected images (h, w, C) with h divisible by 2^(levels - 1) = "
                             f"{2 ** (levels - 1)} and w by {2**levels}, got shape {shape}")

    def build_parts(self, rng: np.random.Generator) -> tuple[Bijection, Base]:
        """Levels inside one another, or the couplings of vectors, and a standard normal base."""
        first: list[Bijection] = [layers.Logit(self.logit)] if self.logit else []
        if len(self.shape) == 1:
            return self._vector_couplings(*self.shape, first, rng), StandardNormal(self.shape)
        return self._level(self.shape, self.levels or 1, first, rng), StandardNormal((prod(self.shape),))

    def _level(self, shape: tuple[int, ...], remaining: int, steps: list[Bijection],
               rng: np.random.Generator) -> Bijection:
        """This level, which begins with `steps`, with those above it."""
        chain = ReversibleChain if self.reversible else Chain
        height, width, channels = shape
        couplings = LAST if remaining == 1 else CHECKERBOARD
        steps += self._couplings(channels, couplings, rng, checkerboard=True)
        if remaining == 1:
            return chain(*steps, layers.Flatten(shape))
        steps += [layers.Squeeze(), *self._couplings(4 * channels, CHANNELS, rng, checkerboard=False)]
        half = height // 2, width // 2
        inner = self._level((*half, 2 * channels), remaining - 1, [], rng)
        return layers.Level(chain(*steps), inner, (*half, 4 * channels))

    def _couplings(self, channels: int, count: int, rng: np.random.Generator,
                   checkerboard: bool) -> list[Bijection]:
        """Couplings whose masks alternate, each after an actnorm."""
        steps: list[Bijection] = []
        identity_channels = channels if checkerboard else channels // 2
        for i in range(count):
            net = self.chosen("net")(identity_channels, self.hidden, 2 * identity_channels, rng,
                                     self.chosen("dtype"))
            net = layers.CheckerboardNet(net, i % 2) if checkerboard else net
            coupling = layers.AffineCoupling(net, self.chosen("scale"))
            steps.append(layers.ActNorm(channels, self.chosen("dtype")))
            steps += ([layers.Checkerboard(coupling, i % 2)] if checkerboard
                      else [coupling, layers.Swap(channels)])
        return steps

    def _vector_couplings(self, dims: int, steps: list[Bijection], rng: np.random.Generator,
                          ) -> Bijection:
        """After `steps`, couplings of halves that alternate, each after an actnorm."""
        steps += standardize(dims)
        for i in range(self.couplings):
            first = (dims + i % 2) // 2  # of an odd number, the two halves differ by one
            net = self.chosen("net")(first, self.hidden, 2 * (dims - first), rng, self.chosen("dtype"))
            steps += [layers.ActNorm(dims, self.chosen("dtype")),
                      layers.AffineCoupling(net, self.chosen("scale"), first), layers.Reverse(dims)]
        return (ReversibleChain if self.reversible else Chain)(*steps)

    def min_parameters(self) -> int:
        """Four couplings a level or more; a residual conditioner has four 3x3 convolutions."""
        if len(self.shape) == 1:
            return self.couplings * self.hidden * (self.hidden + self.shape[0])
        channels = self.shape[2] * 2 ** ((self.levels or 1) - 1)
        inside = 36 if self.net == "residual" else 1
        return 4 * self.hidden * ((self.levels or 1) * inside * self.hidden + 9 * channels)


@accepts(RealNVPConfig)
def realnvp(*args: Any, rng: Rng = None, **options: Any) -> Flow:
    """RealNVP (Dinh et al. 2017, sections 3.6 and 4.1) for images (h, w, C) or vectors (D,).

    Each level but the last runs three couplings under checkerboard masks that alternate, squeezes,
    runs three under channel masks, and factors out half of its channels; the last runs four under
    checkerboard masks. ActNorm precedes each coupling, where the paper has batch normalization.
    Vectors are standardized; their couplings change one half and then the other.
    Raises ValueError where an image cannot be halved so often, and for vectors of one number.

    rng is a seed or a Generator for the initialization; the other arguments:
    """
    return RealNVPConfig(*args, **options).build(rng)
