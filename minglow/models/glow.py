"""Glow: flow steps of actnorm, permutation and coupling, over several levels."""

from dataclasses import KW_ONLY, dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np

from minglow import layers
from minglow.bases import Base, StandardNormal, TopPrior
from minglow.bijection import Bijection, Rng
from minglow.chain import Chain, ReversibleChain
from minglow.flow import Flow
from minglow.layers.conditional import Conditional, Context
from minglow.models.base import SCALES, ModelConfig, check_vector, standardize
from minglow.nets import ContextNet, Conv, Sequence, ShiftScale, conv_net, mlp, paper_conv_net, res_net
from minglow.storage.settings import accepts, option

# The last flow steps that a reversible level stores cost less memory than the backward pass of one step
# of the first level, and save a quarter of the recomputation at K = 8.
STORED_STEPS = 2
PERMUTATIONS = {"1x1": layers.InvConv1x1, "lu": layers.InvConv1x1LU, "shuffle": layers.Shuffle,
                "reverse": layers.Reverse}
COUPLINGS = {"affine": layers.AffineCoupling, "additive": layers.AdditiveCoupling,
             "spline": layers.SplineCoupling}


def split_prior(channels: int, dtype: type = np.float32) -> layers.AffineCoupling:
    """The learned prior of the half that a level factors out, given the half that stays.

    b ~ N(mu(a), sigma(a)^2), so (b - mu) / sigma is standard normal: an affine coupling with shift = -mu
    and scale = 1/sigma = exp(s). Its net is one zero-initialized convolution, as in the official code.
    """
    conv = Conv(channels // 2, channels, std=0.0, dtype=dtype)
    return layers.AffineCoupling(Sequence(conv, ShiftScale(channels, dtype)), layers.exp_scale)


@dataclass(frozen=True)
class GlowConfig(ModelConfig, model="glow"):
    """Settings of `glow`; the paper's for CIFAR-10 are levels=3, flow_steps=32, hidden=512.

    A choice can be a function or a class: permutation(channels, rng, dtype), coupling(net),
    net(channels_in, hidden, channels_out, rng, dtype), norm(channels, dtype) and prior(channels, dtype).
    """

    levels: int | None = option(None, "L, the number of levels: 2 for images and 1 for vectors if not "
                                      "given", flag="-L", minimum=1, maximum=16)
    flow_steps: int = option(12, "K, the number of flow steps in each level", flag="-K", minimum=1)
    hidden: int = option(32, "width of the conditioners", minimum=1)
    _: KW_ONLY
    permutation: str = option("1x1", "what mixes the channels of a flow step", choices=PERMUTATIONS)
    coupling: str = option("affine", "what a coupling does to the channels that it changes",
                           choices=COUPLINGS)
    scale: str | None = option(None, "scale of affine couplings: sigmoid, as in the official code, for "
                                     "images and tanh, between 1/e and e, for vectors if not given",
                               choices=SCALES)
    net: str | None = option(None, "conditioner: conv for images and mlp for vectors if not given",
                             choices={"conv": conv_net, "mlp": mlp, "paper": paper_conv_net,
                                      "residual": res_net})
    norm: str = option("actnorm", "normalization at the start of a flow step", cli=False,
                       choices={"actnorm": layers.ActNorm})
    prior: str = option("split", "prior of the half that is factored out", cli=False,
                        choices={"split": split_prior})
    learned_prior: bool = option(True, "learned prior, not N(0, I), of factored-out latents")
    learned_top: bool = option(False, "learned mean and scale, not N(0, I), of the last level's latents")
    classes: int = option(0, "number of classes of a class-conditional prior of the last level")
    logit: float = option(0.0, "margin of a logit before all else; RealNVP's paper has 0.05, 0.0005 "
                               "suits scanned handwriting, 0 is no logit", below=0.5)
    context: int = option(0, "length of the vector that the density is conditioned on", cli=False)
    reversible: bool = option(False, "recompute activations in the backward pass: less memory")

    def __post_init__(self) -> None:
        super().__post_init__()
        shape, levels = self.shape, self.levels or (2 if len(self.shape) == 3 else 1)
        object.__setattr__(self, "levels", levels)
        if self.coupling == "affine":
            object.__setattr__(self, "scale", self.scale or ("sigmoid" if len(shape) == 3 else "tanh"))
        elif self.scale is not None:
            raise ValueError(f"expected no scale, which only affine couplings have, got {self.scale!r}")
        if not hasattr(getattr(self.chosen("coupling"), "func", self.chosen("coupling")), "net_outputs"):
            raise ValueError("expected coupling to be the class of a coupling, or a partial of one, got "
                             f"{self.coupling!r}")
        if len(shape) == 1:
            check_vector(shape)
            if levels != 1:
                raise ValueError(f"expected levels=1 for vectors, got {levels}")
        elif len(shape) != 3 or shape[0] % 2**levels or shape[1] % 2**levels:
            raise ValueError(f"expected images (h, w, C) with h and w divisible by 2^levels = "
                             f"{2**levels}, got shape {shape}")

    def build_parts(self, rng: np.random.Generator) -> tuple[Bijection, Base]:
        """Levels inside one another, and a base that is standard normal or has a learned top."""
        first: list[Bijection] = [layers.Logit(self.logit)] if self.logit else []
        if len(self.shape) == 1:
            first += standardize(*self.shape)
        context, dims = Context() if self.context else None, prod(self.shape)
        bijection, top = self._level(self.shape, self.levels or 1, first, rng, context)
        if context:
            bijection = Conditional(bijection, context, self.context, self.shape)
        if self.learned_top or self.classes:
            return bijection, TopPrior(dims, top, self.classes, self.chosen("dtype"))
        return bijection, StandardNormal((dims,))

    def _level(self, shape: tuple[int, ...], remaining: int, steps: list[Bijection],
               rng: np.random.Generator, context: Context | None) -> tuple[Bijection, tuple[int, ...]]:
        """This level, which begins with `steps`, with those above it, and the shape of the last."""
        # A flow step has three layers, and a split prior or Flatten follows the last.
        chain = partial(ReversibleChain, stored=STORED_STEPS * 3 + 1) if self.reversible else Chain
        if len(shape) == 3:
            steps, shape = [*steps, layers.Squeeze()], (shape[0] // 2, shape[1] // 2, 4 * shape[2])
        for _ in range(self.flow_steps):
            steps += self._flow_step(shape, rng, context)
        if remaining == 1:
            return chain(*steps, layers.Flatten(shape)), shape
        if self.learned_prior:
            steps.append(self.chosen("prior")(shape[-1], self.chosen("dtype")))
        inner, top = self._level((*shape[:-1], shape[-1] // 2), remaining - 1, [], rng, context)
        return layers.Level(chain(*steps), inner, shape), top

    def _flow_step(self, shape: tuple[int, ...], rng: np.random.Generator, context: Context | None,
                   ) -> list[Bijection]:
        """Actnorm, permutation, coupling (Kingma & Dhariwal 2018, table 1)."""
        channels, dtype, coupling = shape[-1], self.chosen("dtype"), self.chosen("coupling")
        if self.coupling == "affine":
            coupling = partial(coupling, scale=self.chosen("scale"))
        outputs = getattr(coupling, "func", coupling).net_outputs  # a partial's class is its func
        make_net = self.chosen("net") or (conv_net if len(shape) == 3 else mlp)
        net = make_net(channels // 2 + self.context, self.hidden, outputs * (channels - channels // 2),
                       rng, dtype)
        return [self.chosen("norm")(channels, dtype), self.chosen("permutation")(channels, rng, dtype),
                coupling(ContextNet(net, context) if context else net)]

    def min_parameters(self) -> int:
        """The largest matrices of each coupling, those of its context, each 1x1 convolution, and the
        priors."""
        levels = self.levels or 1
        channels = self.shape[-1] * 2 ** (levels - 1)  # a level's conditioners see at least as many
        mixed = self.permutation in ("1x1", "lu")
        priors = self.classes * channels + (levels > 1) * self.learned_prior * channels**2
        taps = 1 if len(self.shape) == 1 or self.net == "mlp" else 9  # of a 3x3 convolution
        outputs = layers.SplineCoupling.net_outputs // 2 if self.coupling == "spline" else 0
        couplings = self.flow_steps * self.hidden * (
            levels * (self.hidden + self.context) + (taps + outputs) * channels)
        return couplings + mixed * self.flow_steps * channels**2 + priors


@accepts(GlowConfig)
def glow(*args: Any, rng: Rng = None, **options: Any) -> Flow:
    """Glow (Kingma & Dhariwal 2018, figure 2) for images (h, w, C) or vectors (D,).

    Each of the L levels squeezes, runs K flow steps, and factors out half of its channels under a
    learned prior; the last factors out all of them. Vectors cannot be squeezed: they are standardized,
    and have one level, MLPs as conditioners, and couplings that change the larger half of an odd number.
    Raises ValueError where an image cannot be squeezed so often, and for vectors of one number.

    rng is a seed or a Generator for the initialization; the other arguments:
    """
    return GlowConfig(*args, **options).build(rng)
