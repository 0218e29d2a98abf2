"""RealNVP: affine couplings under checkerboard and channel masks, over several levels."""

from dataclasses import KW_ONLY, dataclass
from math import prod
from typing import Any

import numpy as np

from minglow.bases import Base, StandardNormal
from minglow.bijection import Bijection, Rng
from minglow.chain import Chain, ReversibleChain
from minglow.flow import Flow
from minglow.layers import (
    ActNorm,
    AffineCoupling,
    Checkerboard,
    CheckerboardNet,
    Flatten,
    Level,
    Logit,
    Squeeze,
    Swap,
    exp_scale,
    sigmoid_scale,
    tanh_scale,
)
from minglow.models.config import ModelConfig
from minglow.nets import conv_net, res_net
from minglow.storage.config import accepts, option

CHECKERBOARD, CHANNELS, LAST = 3, 3, 4  # couplings of a level, and of the last (section 4.1)


@dataclass(frozen=True)
class RealNVPConfig(ModelConfig, model="realnvp"):
    """Settings of `realnvp`."""

    levels: int = option(2, "number of levels", flag="-L", minimum=1, maximum=16)
    hidden: int = option(32, "width of the conditioners", minimum=1)
    _: KW_ONLY
    net: str = option("residual", "conditioner", choices={"residual": res_net, "plain": conv_net})
    scale: str = option("tanh", "a coupling's scale: tanh, RealNVP's, lies between 1/e and e", choices={
        "tanh": tanh_scale, "sigmoid": sigmoid_scale, "exp": exp_scale})
    logit: float = option(0.0, "margin of a logit before all else; RealNVP's paper has 0.05, 0.0005 "
                               "suits scanned handwriting, 0 is no logit", below=0.5)
    reversible: bool = option(False, "recompute activations in the backward pass: less memory")

    def __post_init__(self) -> None:
        super().__post_init__()
        shape, levels = self.shape, self.levels
        if len(shape) != 3 or shape[0] % 2 ** (levels - 1) or shape[1] % 2**levels:
            raise ValueError(f"expected images (h, w, C) with h divisible by 2^(levels - 1) = "
                             f"{2 ** (levels - 1)} and w by {2**levels}, got shape {shape}")

    def build_parts(self, rng: np.random.Generator) -> tuple[Bijection, Base]:
        """Levels inside one another, and a standard normal base."""
        first: list[Bijection] = [Logit(self.logit)] if self.logit else []
        return self._level(self.shape, self.levels, first, rng), StandardNormal((prod(self.shape),))

    def _level(self, shape: tuple[int, ...], remaining: int, layers: list[Bijection],
               rng: np.random.Generator) -> Bijection:
        """This level, which begins with `layers`, with those above it."""
        chain = ReversibleChain if self.reversible else Chain
        height, width, channels = shape
        if remaining == 1:
            return chain(*layers, *self._on_checkerboard(channels, LAST, rng), Flatten(shape))
        squeezed = height // 2, width // 2, 4 * channels
        layers += [*self._on_checkerboard(channels, CHECKERBOARD, rng), Squeeze(),
                   *self._on_channels(4 * channels, rng)]
        inner = self._level((*squeezed[:2], 2 * channels), remaining - 1, [], rng)
        return Level(chain(*layers), inner, squeezed)

    def _on_checkerboard(self, channels: int, couplings: int, rng: np.random.Generator,
                         ) -> list[Bijection]:
        net, scale, dtype = self.chosen("net"), self.chosen("scale"), self.chosen("dtype")
        layers: list[Bijection] = []
        for i in range(couplings):
            conditioner = CheckerboardNet(net(channels, self.hidden, 2 * channels, rng, dtype), i % 2)
            coupling = AffineCoupling(conditioner, scale)
            layers += [ActNorm(channels, dtype), Checkerboard(coupling, parity=i % 2)]
        return layers

    def _on_channels(self, channels: int, rng: np.random.Generator) -> list[Bijection]:
        net, scale, dtype = self.chosen("net"), self.chosen("scale"), self.chosen("dtype")
        layers: list[Bijection] = []
        for _ in range(CHANNELS):
            conditioner = net(channels // 2, self.hidden, channels, rng, dtype)
            layers += [ActNorm(channels, dtype), AffineCoupling(conditioner, scale), Swap(channels)]
        return layers

    def min_parameters(self) -> int:
        """Four couplings a level or more; a residual conditioner has four 3x3 convolutions."""
        channels = self.shape[2] * 2 ** (self.levels - 1)
        inside = 36 if self.net == "residual" else 1
        return 4 * self.hidden * (self.levels * inside * self.hidden + 9 * channels)


@accepts(RealNVPConfig)
def realnvp(*args: Any, rng: Rng = None, **options: Any) -> Flow:
    """RealNVP (Dinh et al. 2017, sections 3.6 and 4.1) for images (h, w, C).

    Each level but the last runs three couplings under checkerboard masks that alternate, squeezes,
    runs three under channel masks, and factors out half of its channels; the last runs four under
    checkerboard masks. ActNorm precedes each coupling, where the paper has batch normalization.

    Raises ValueError where the shape cannot be halved as often as that.
    rng is a seed or a Generator for the initialization; the other arguments:
    """
    return RealNVPConfig(*args, **options).build(rng)
