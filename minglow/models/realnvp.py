"""RealNVP: affine couplings under checkerboard and channel masks, over several levels. Floor 3."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from minglow import arguments
from minglow.arrays import check_dtype
from minglow.bijection import Bijection, Net
from minglow.chain import Chain, ReversibleChain
from minglow.distributions import StandardNormal
from minglow.flow import Flow
from minglow.layers import (
    ActNorm,
    AffineCoupling,
    Checkerboard,
    Flatten,
    Level,
    Logit,
    OnBoard,
    Squeeze,
    Swap,
    tanh_scale,
)
from minglow.layers.coupling import Scale
from minglow.nets import res_net

CHECKERBOARD, CHANNELS, LAST = 3, 3, 4  # couplings of a level, and of the last (section 4.1)


def realnvp(shape: tuple[int, ...], levels: int = 2, hidden: int = 32, *,
            net: Callable[..., Net] = res_net,
            scale: Scale = tanh_scale, logit: float = 0.0,
            reversible: bool = False, dtype: type = np.float32,
            rng: int | np.random.Generator | None = None) -> Flow:
    """RealNVP (Dinh et al. 2017, sections 3.6 and 4.1) for images (h, w, C).

    Each of the `levels` but the last runs three couplings under checkerboard masks that alternate,
    squeezes, runs three under channel masks, and lets half of its channels leave; the last runs
    four under checkerboard masks. ActNorm stands before each coupling, where the paper has batch
    normalisation.

    levels       by default 2: the last one meets images half as high and wide
    hidden       width of the conditioners
    net          res_net, or conv_net for a plain one: net(channels_in, hidden, channels_out, rng, dtype)
    scale        of the couplings: tanh_scale, the paper's but for its learned bound, or another
    logit        margin of a Logit before all else, 0.05 in the paper; 0 for none
    reversible   recompute activations in the backward pass instead of keeping them
    dtype        np.float32 or np.float64
    rng          seed or Generator of the random start

    Raises ValueError where the shape cannot be halved as often as that.
    """
    shape = arguments.shape(shape)
    for what, value in (("levels", levels), ("hidden", hidden)):
        arguments.count(what, value)
    arguments.maker("net", net)
    if len(shape) != 3 or shape[0] % 2 ** (levels - 1) or shape[1] % 2**levels:
        raise ValueError(f"expected images (h, w, C) with h divisible by 2^(levels - 1) = "
                         f"{2 ** (levels - 1)} and w by {2**levels}, got shape {shape}")
    check_dtype(dtype)
    rng = np.random.default_rng(rng)
    chain = ReversibleChain if reversible else Chain

    def on_checkerboard(channels: int, couplings: int) -> list[Bijection]:
        layers: list[Bijection] = []
        for i in range(couplings):
            conditioner = OnBoard(net(channels, hidden, 2 * channels, rng, dtype), parity=i % 2)
            coupling = AffineCoupling(conditioner, scale)
            layers += [ActNorm(channels, dtype), Checkerboard(coupling, parity=i % 2)]
        return layers

    def on_channels(channels: int) -> list[Bijection]:
        layers: list[Bijection] = []
        for _ in range(CHANNELS):
            conditioner = net(channels // 2, hidden, channels, rng, dtype)
            layers += [ActNorm(channels, dtype), AffineCoupling(conditioner, scale), Swap(channels)]
        return layers

    def level(shape: tuple[int, ...], remaining: int, layers: list[Bijection]) -> Bijection:
        """This level, which begins with `layers`, with those above it."""
        height, width, channels = shape
        if remaining == 1:
            return chain(*layers, *on_checkerboard(channels, LAST), Flatten(shape))
        squeezed = height // 2, width // 2, 4 * channels
        layers += [*on_checkerboard(channels, CHECKERBOARD), Squeeze(), *on_channels(4 * channels)]
        inner = level((*squeezed[:2], 2 * channels), remaining - 1, [])
        return Level(chain(*layers), inner, squeezed)

    first: list[Bijection] = [Logit(logit)] if logit else []
    return Flow(level(shape, levels, first), StandardNormal((prod(shape),)))
