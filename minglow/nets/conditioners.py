"""The nets inside couplings: compositions, no arithmetic of their own. Floor 2.

Each is called as net(channels_in, hidden, channels_out, rng, dtype), and starts as the constant 0, so
that a coupling starts as one map for all inputs (Kingma & Dhariwal 2018, section 3.3).
"""

from __future__ import annotations

import numpy as np

from minglow.bijection import Net
from minglow.layers.permute import EvenOdd
from minglow.nets.conv import Conv, EdgeBias, TransposedConv
from minglow.nets.dense import Bias, Dense
from minglow.nets.net import AsNet, NormReLU, ReLU, Residual, Sequence, ShiftScale

Rng = int | np.random.Generator | None


def mlp(channels_in: int, hidden: int, channels_out: int, rng: Rng = None, dtype: type = np.float32,
        depth: int = 2) -> Sequence:
    """A perceptron with `depth` hidden layers, for vectors."""
    rng = np.random.default_rng(rng)
    nets: list[Net] = []
    for channels in [channels_in] + (depth - 1) * [hidden]:
        nets += [Dense(channels, hidden, rng=rng, dtype=dtype), ReLU()]
    return Sequence(*nets, Dense(hidden, channels_out, std=0.0, dtype=dtype))


def conv_net(channels_in: int, hidden: int, channels_out: int, rng: Rng = None,
             dtype: type = np.float32) -> Sequence:
    """Glow's (Kingma & Dhariwal 2018, section 5; actnorm as in the published code).

    3x3 convolution, actnorm, ReLU, 1x1 convolution, actnorm, ReLU, zero-start 3x3 convolution (as
    a TransposedConv: whether the taps stand in one order or in the other, they are learned).
    """
    rng = np.random.default_rng(rng)
    return Sequence(
        Conv(channels_in, hidden, rng=rng, dtype=dtype), NormReLU(hidden, dtype),
        Dense(hidden, hidden, bias=False, std=0.05, rng=rng, dtype=dtype), NormReLU(hidden, dtype),
        TransposedConv(hidden, channels_out, std=0.0, dtype=dtype), ShiftScale(channels_out, dtype),
    )


def paper_conv_net(channels_in: int, hidden: int, channels_out: int, rng: Rng = None,
                   dtype: type = np.float32) -> Sequence:
    """Glow's as the paper has it: biases where the published code has actnorm."""
    rng = np.random.default_rng(rng)
    return Sequence(
        Conv(channels_in, hidden, rng=rng, dtype=dtype), Bias(hidden, dtype), ReLU(),
        Dense(hidden, hidden, std=0.05, rng=rng, dtype=dtype), ReLU(),
        TransposedConv(hidden, channels_out, std=0.0, dtype=dtype), ShiftScale(channels_out, dtype),
    )


def published_conv_net(channels_in: int, hidden: int, channels_out: int, rng: Rng = None,
                       dtype: type = np.float32, alternating: bool = True) -> Sequence:
    """Glow's as the published code has it (openai/glow, model.py, `f` and `revnet2d_step`).

    As conv_net, with its factor 3 in every log scale, its padding that shows where the border is,
    and, for affine couplings, outputs that alternate: what belongs to channel c stands at 2c and 2c + 1.
    """
    rng = np.random.default_rng(rng)
    return Sequence(
        Conv(channels_in, hidden, rng=rng, dtype=dtype), EdgeBias(hidden, rng=rng, dtype=dtype),
        NormReLU(hidden, dtype, factor=3),
        Dense(hidden, hidden, bias=False, std=0.05, rng=rng, dtype=dtype),
        NormReLU(hidden, dtype, factor=3),
        *published_zero_conv(hidden, channels_out, dtype, alternating).nets,
    )


def published_zero_conv(channels_in: int, channels_out: int, dtype: type = np.float32,
                        alternating: bool = True) -> Sequence:
    """The published code's zero-start convolution, with its padding and, if so, alternating outputs."""
    nets: list[Net] = [
        TransposedConv(channels_in, channels_out, std=0.0, dtype=dtype),
        EdgeBias(channels_out, std=0.0, dtype=dtype), ShiftScale(channels_out, dtype),
    ]
    return Sequence(*nets, *[AsNet(EvenOdd(channels_out))] * alternating)


def res_net(channels_in: int, hidden: int, channels_out: int, rng: Rng = None,
            dtype: type = np.float32, blocks: int = 2) -> Sequence:
    """RealNVP's residual net (Dinh et al. 2017, section 4.1), actnorm in batch normalisation's place.

    3x3 convolution, `blocks` blocks of twice (actnorm, ReLU, 3x3 convolution) around which the input
    is added, actnorm, ReLU, zero-start 3x3 convolution.
    """
    rng = np.random.default_rng(rng)

    def half_block() -> list[Net]:
        std = (2 / (9 * hidden)) ** 0.5  # He et al. 2015, equation 10
        return [NormReLU(hidden, dtype), Conv(hidden, hidden, std=std, rng=rng, dtype=dtype)]

    return Sequence(
        Conv(channels_in, hidden, rng=rng, dtype=dtype),
        *(Residual(Sequence(*half_block(), *half_block())) for _ in range(blocks)),
        NormReLU(hidden, dtype),
        TransposedConv(hidden, channels_out, std=0.0, dtype=dtype), ShiftScale(channels_out, dtype),
    )
