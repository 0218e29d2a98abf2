"""Glow: flow steps of actnorm, permutation and coupling, over several levels. Floor 3."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from minglow.bijection import Bijection
from minglow.chain import Chain, ReversibleChain
from minglow.distributions import StandardNormal
from minglow.flow import Flow
from minglow.layers import (
    ActNorm,
    AffineCoupling,
    Flatten,
    InvConv1x1,
    Level,
    Squeeze,
    exp_scale,
)
from minglow.nets import Conv, Sequence, ShiftScale, conv_net, mlp

# What a reversible level stores of its last flow steps (three layers each, and a split prior or
# Flatten) costs less memory than the backward pass of one step of the first level needs anyhow,
# and spares a quarter of the recomputing at K = 8.
KEPT_STEPS = 2


def glow(shape: tuple[int, ...], levels: int | None = None, steps: int = 8, hidden: int = 64, *,
         permutation: Callable[..., Bijection] = InvConv1x1,
         coupling: Any = AffineCoupling,
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
    reversible   recompute activations in the backward pass instead of keeping them
    dtype        np.float32 or np.float64
    rng          seed or Generator of the random start

    Raises ValueError where the shape cannot be squeezed or halved as often as that.
    """
    levels = (2 if len(shape) == 3 else 1) if levels is None else levels
    _check(shape, levels, steps, hidden)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"expected dtype np.float32 or np.float64, got {dtype}")
    rng = np.random.default_rng(rng)
    chain = partial(ReversibleChain, kept=KEPT_STEPS * 3 + 1) if reversible else Chain
    outputs = getattr(coupling, "func", coupling).net_outputs  # a partial's class is its func

    def flow_step(channels: int) -> list[Bijection]:
        half = channels // 2
        net = make_net(half, hidden, outputs * half, rng, dtype)
        return [ActNorm(channels, dtype), permutation(channels, rng, dtype), coupling(net)]

    def level(shape: tuple[int, ...], remaining: int) -> Bijection:
        squeeze: list[Bijection] = []
        if len(shape) == 3:
            squeeze, shape = [Squeeze()], (shape[0] // 2, shape[1] // 2, 4 * shape[2])
        layers = squeeze + [layer for _ in range(steps) for layer in flow_step(shape[-1])]
        if remaining == 1:
            return chain(*layers, Flatten(shape))
        half = (*shape[:-1], shape[-1] // 2)
        prior = split_prior(shape[-1], dtype)
        return Level(chain(*layers, prior), level(half, remaining - 1), shape)

    make_net = conv_net if len(shape) == 3 else mlp
    return Flow(level(tuple(shape), levels), StandardNormal((prod(shape),)))


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


def _check(shape: tuple[int, ...], levels: int, steps: int, hidden: int) -> None:
    if min(levels, steps, hidden) < 1:
        raise ValueError(f"expected levels, steps and hidden of at least 1, "
                         f"got {levels}, {steps} and {hidden}")
    if len(shape) == 1:
        if levels != 1 or shape[0] % 2 or shape[0] < 2:
            raise ValueError(f"expected vectors of an even length and levels=1, "
                             f"got shape {tuple(shape)} and levels={levels}")
    elif len(shape) != 3 or min(shape) < 1 or shape[0] % 2**levels or shape[1] % 2**levels:
        raise ValueError(f"expected images (h, w, C) with h and w divisible by 2^levels = "
                         f"{2**levels}, got shape {tuple(shape)}")
