"""Glow as its official code computes it (openai/glow)."""

from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import numpy as np

from minglow.bases import Base
from minglow.bijection import Bijection, Rng
from minglow.flow import Flow
from minglow.layers import ActNorm, AffineCoupling, exp_scale, sigmoid_scale
from minglow.models.base import ModelConfig
from minglow.models.glow import PERMUTATIONS, GlowConfig
from minglow.nets import official_conv_net, official_zero_conv
from minglow.storage.settings import accepts, option


def official_split_prior(channels: int, dtype: type = np.float32) -> AffineCoupling:
    """`split_prior` with the official code's padding and alternating outputs."""
    return AffineCoupling(official_zero_conv(channels // 2, channels, dtype), exp_scale)


@dataclass(frozen=True)
class OfficialGlowConfig(ModelConfig, model="official"):
    """Settings of `official_glow`; the official code's are levels=3, flow_steps=32, hidden=512."""

    default_learning_rate = 0.003

    levels: int = option(2, "L, the number of levels", flag="-L", minimum=1, maximum=16)
    flow_steps: int = option(12, "K, the number of flow steps in each level", flag="-K", minimum=1)
    hidden: int = option(32, "width of the conditioners", minimum=1)
    _: KW_ONLY
    permutation: str = option("1x1", "what mixes the channels of a flow step", choices=PERMUTATIONS)
    coupling: str = option("affine", "affine or additive couplings", choices=("affine", "additive"))
    learned_top: bool = option(True, "learned mean and scale, not N(0, I), of the last level's latents")
    classes: int = option(0, "number of classes of a class-conditional prior of the last level")
    reversible: bool = option(False, "recompute activations in the backward pass: less memory")

    def as_glow(self) -> GlowConfig:
        """The same model as settings of `glow`."""
        affine = self.coupling == "affine"
        no_floor = partial(AffineCoupling, scale=partial(sigmoid_scale, floor=0.0))
        return GlowConfig(**{
            **vars(self), "coupling": no_floor if affine else "additive", "prior": official_split_prior,
            "net": partial(official_conv_net, alternating=affine), "norm": partial(ActNorm, factor=3.0)})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.as_glow()

    def build_parts(self, rng: np.random.Generator) -> tuple[Bijection, Base]:
        """Glow's parts, of the official code's kinds."""
        return self.as_glow().build_parts(rng)

    def min_parameters(self) -> int:
        """As glow's."""
        return self.as_glow().min_parameters()


@accepts(OfficialGlowConfig)
def official_glow(*args: Any, rng: Rng = None, **options: Any) -> Flow:
    """Glow as the official code computes it (openai/glow), where that differs from `glow`'s defaults.

    Actnorm's log scales count three times; convolutions see where the border is; a coupling's scale is
    sigmoid(s + 2) without a floor; its shift and s alternate in the channels, as the split prior's -mean
    and -log_std do. One difference is left: a learned top is the same at the border here.
    docs/paper-and-code.md lists them all.

    rng is a seed or a Generator for the initialization; the other arguments:
    """
    return OfficialGlowConfig(*args, **options).build(rng)
