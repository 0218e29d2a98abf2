"""Glow: flow steps of actnorm, permutation and coupling, over several levels. Floor 3."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from minglow import arguments
from minglow.arrays import check_dtype
from minglow.bijection import Bijection, Net
from minglow.chain import Chain, ReversibleChain
from minglow.distributions import StandardNormal
from minglow.flow import Flow
from minglow.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Flatten,
    InvConv1x1,
    Level,
    Logit,
    Squeeze,
    exp_scale,
    sigmoid_scale,
)
from minglow.nets import (
    Conv,
    Sequence,
    ShiftScale,
    conv_net,
    mlp,
    published_conv_net,
    published_zero_conv,
)
from minglow.top_prior import TopPrior

# What a reversible level stores of its last flow steps (three layers each, and a split prior or
# Flatten) costs less memory than the backward pass of one step of the first level needs anyhow,
# and spares a quarter of the recomputing at K = 8.
KEPT_STEPS = 2


def glow(shape: tuple[int, ...], levels: int | None = None, steps: int = 8, hidden: int = 64, *,
         permutation: Callable[..., Bijection] = InvConv1x1,
         coupling: Any = AffineCoupling, net: Callable[..., Net] | None = None,
         norm: Callable[..., Bijection] = ActNorm,
         prior: Callable[..., Bijection] | None = None, learned_prior: bool = True,
         learned_top: bool = False, classes: int = 0, logit: float = 0.0,
         reversible: bool = False, dtype: type = np.float32,
         rng: int | np.random.Generator | None = None) -> Flow:
    """Glow (Kingma & Dhariwal 2018, figure 2) for images (h, w, C) or vectors (C,).

    Each of the `levels` (L) squeezes, runs `steps` (K) flow steps, and lets half of its channels
    leave under a learned prior; the last lets all of them leave. Vectors have nothing to squeeze,
    and so one level, and perceptrons for conditioners.

    shape        of one sample, without the batch
    levels       L, by default 2 for images and 1 for vectors
    steps        K, flow steps in each level
    hidden       width of the conditioners (512 in the paper)
    permutation  InvConv1x1, InvConv1x1LU, Shuffle or Reverse
    coupling     AffineCoupling, AdditiveCoupling, or partial(AffineCoupling, scale=exp_scale)
    net          conditioner, net(channels_in, hidden, channels_out, rng, dtype): by default conv_net
                 for images and mlp for vectors
    norm         actnorm, norm(channels, dtype)
    prior        of the half that leaves a level, prior(channels, dtype): by default split_prior
    learned_prior, learned_top   whether the latents that leave early, and those of the last level, have
                 a learned mean and scale, or are N(0, I)
    classes      of a class-conditional top prior (TopPrior); 0 for none
    logit        margin of a Logit before all else; 0 for none
    reversible   recompute activations in the backward pass instead of keeping them
    dtype        np.float32 or np.float64
    rng          seed or Generator of the random start

    Raises ValueError where the shape cannot be squeezed or halved as often as that.
    """
    shape = arguments.shape(shape)
    levels = (2 if len(shape) == 3 else 1) if levels is None else levels
    check_dtype(dtype)
    _check(shape, levels, steps, hidden)
    arguments.count("classes", classes, 0)
    if not hasattr(getattr(coupling, "func", coupling), "net_outputs"):
        raise ValueError(f"expected coupling to be AffineCoupling, AdditiveCoupling, or a partial of "
                         f"one, got {coupling!r}")
    rng = np.random.default_rng(rng)
    chain = partial(ReversibleChain, kept=KEPT_STEPS * 3 + 1) if reversible else Chain
    outputs = getattr(coupling, "func", coupling).net_outputs  # a partial's class is its func
    make_net = arguments.maker("net", net or (conv_net if len(shape) == 3 else mlp))
    make_prior = arguments.maker("prior", prior or split_prior)
    arguments.maker("permutation", permutation)
    arguments.maker("norm", norm)

    def flow_step(channels: int) -> list[Bijection]:
        half = channels // 2
        conditioner = make_net(half, hidden, outputs * half, rng, dtype)
        return [norm(channels, dtype), permutation(channels, rng, dtype), coupling(conditioner)]

    def level(shape: tuple[int, ...], remaining: int, layers: list[Bijection],
              ) -> tuple[Bijection, tuple[int, ...]]:
        """This level, which begins with `layers`, with those above it, and the shape of the last."""
        if len(shape) == 3:
            layers, shape = [*layers, Squeeze()], (shape[0] // 2, shape[1] // 2, 4 * shape[2])
        layers += [layer for _ in range(steps) for layer in flow_step(shape[-1])]
        if remaining == 1:
            return chain(*layers, Flatten(shape)), shape
        if learned_prior:
            layers.append(make_prior(shape[-1], dtype))
        inner, top = level((*shape[:-1], shape[-1] // 2), remaining - 1, [])
        return Level(chain(*layers), inner, shape), top

    bijection, top = level(shape, levels, [Logit(logit)] if logit else [])
    if learned_top or classes:
        return Flow(bijection, TopPrior(prod(shape), top, classes, dtype))
    return Flow(bijection, StandardNormal((prod(shape),)))


def published_glow(shape: tuple[int, ...], levels: int = 3, steps: int = 32, hidden: int = 512, *,
                   permutation: Callable[..., Bijection] = InvConv1x1, additive: bool = False,
                   learned_top: bool = True, classes: int = 0,
                   reversible: bool = False, dtype: type = np.float32,
                   rng: int | np.random.Generator | None = None) -> Flow:
    """Glow as its published code computes it (openai/glow), where that differs from glow's defaults.

    Actnorm's log scales count three times; convolutions see where the border is; a coupling's scale
    is sigmoid(raw + 2) without a floor; its shift and raw stand in alternating channels, as the
    split prior's -mean and -log_std do. docs/paper-and-code.md lists every difference, and the one that
    is left: a learned top is the same at the border here. Arguments as glow's, but for `additive`
    couplings.
    """
    bounded_by_nothing = partial(AffineCoupling, scale=partial(sigmoid_scale, floor=0.0))
    return glow(
        shape, levels, steps, hidden, permutation=permutation,
        coupling=AdditiveCoupling if additive else bounded_by_nothing,
        net=partial(published_conv_net, alternating=not additive),
        norm=partial(ActNorm, factor=3.0), prior=published_split_prior, learned_top=learned_top,
        classes=classes, reversible=reversible, dtype=dtype, rng=rng,
    )


def split_prior(channels: int, dtype: type = np.float32) -> AffineCoupling:
    """The learned prior of the half that leaves a level, given the half that stays.

    b ~ N(mu(a), sigma(a)^2), so (b - mu) / sigma is standard normal: an affine coupling with
    shift = -mu and scale = 1/sigma = exp(raw). Its net is one zero-start convolution, as in the
    published code.
    """
    half = channels // 2
    return AffineCoupling(
        Sequence(Conv(half, channels, std=0.0, dtype=dtype), ShiftScale(channels, dtype)), exp_scale
    )


def published_split_prior(channels: int, dtype: type = np.float32) -> AffineCoupling:
    """`split_prior` with the published code's padding and alternating outputs."""
    return AffineCoupling(published_zero_conv(channels // 2, channels, dtype), exp_scale)


def _check(shape: tuple[int, ...], levels: int, steps: int, hidden: int) -> None:
    """Raise ValueError unless a flow of so many levels and steps fits samples of this shape."""
    for what, value in (("levels", levels), ("steps", steps), ("hidden", hidden)):
        arguments.count(what, value)
    if len(shape) == 1:
        if levels != 1 or shape[0] % 2 or shape[0] < 2:
            raise ValueError(f"expected vectors of an even length and levels=1, "
                             f"got shape {shape} and levels={levels}")
    elif len(shape) != 3 or shape[0] % 2**levels or shape[1] % 2**levels:
        raise ValueError(f"expected images (h, w, C) with h and w divisible by 2^levels = "
                         f"{2**levels}, got shape {shape}")
