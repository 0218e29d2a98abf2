"""The nets inside couplings, as compositions of the parts in this package.

Each is called as net(channels_in, hidden, channels_out, rng, dtype). Its output is 0 at first, so that
a coupling begins as the same map for all inputs (Kingma & Dhariwal 2018, section 3.3).

    >>> net = minglow.nets.conv_net(1, 8, 2, rng=0)
    >>> y, cache = net.forward(np.ones((5, 4, 4, 1), np.float32))
    >>> y.shape, y.any()
    ((5, 4, 4, 2), np.False_)
"""

import numpy as np

from minglow.bijection import Net, Rng
from minglow.layers.permute import EvenOdd
from minglow.nets.conv import Conv, EdgeBias, TransposedConv
from minglow.nets.dense import Bias, Dense
from minglow.nets.net import AsNet, NormReLU, ReLU, Residual, Sequence, ShiftScale


def mlp(channels_in: int, hidden: int, channels_out: int, rng: Rng = None, dtype: type = np.float32,
        depth: int = 2) -> Sequence:
    """An MLP for vectors, with `depth` hidden layers of width `hidden`."""
    rng = np.random.default_rng(rng)
    nets: list[Net] = []
    for channels in [channels_in] + (depth - 1) * [hidden]:
        nets += [Dense(channels, hidden, rng=rng, dtype=dtype), ReLU()]
    return Sequence(*nets, Dense(hidden, channels_out, std=0.0, dtype=dtype))


def conv_net(channels_in: int, hidden: int, channels_out: int, rng: Rng = None,
             dtype: type = np.float32) -> Sequence:
    """Glow's net (Kingma & Dhariwal 2018, section 5), with actnorm as in the official code.

    The last convolution is a TransposedConv: its taps have the reverse order, which makes no difference,
    since they are learned.
    """
    rng = np.random.default_rng(rng)
    return Sequence(
        Conv(channels_in, hidden, rng=rng, dtype=dtype), NormReLU(hidden, dtype),
        Dense(hidden, hidden, bias=False, std=0.05, rng=rng, dtype=dtype), NormReLU(hidden, dtype),
        TransposedConv(hidden, channels_out, std=0.0, dtype=dtype), ShiftScale(channels_out, dtype),
    )


def paper_conv_net(channels_in: int, hidden: int, channels_out: int, rng: Rng = None,
                   dtype: type = np.float32) -> Sequence:
    """Glow's net as the paper describes it: biases where the official code has actnorm."""
    rng = np.random.default_rng(rng)
    return Sequence(
        Conv(channels_in, hidden, rng=rng, dtype=dtype), Bias(hidden, dtype), ReLU(),
        Dense(hidden, hidden, std=0.05, rng=rng, dtype=dtype), ReLU(),
        TransposedConv(hidden, channels_out, std=0.0, dtype=dtype), ShiftScale(channels_out, dtype),
    )


def official_conv_net(channels_in: int, hidden: int, channels_out: int, rng: Rng = None,
                      dtype: type = np.float32, alternating: bool = True) -> Sequence:
    """Glow's net in the official code (openai/glow, model.py, `f` and `revnet2d_step`).

    It differs from conv_net by the factor 3 in every log scale and by a padding that marks the border.
    With `alternating`, outputs 2c and 2c + 1 belong to channel c, as in that code's affine couplings.
    """
    rng = np.random.default_rng(rng)
    return Sequence(
        Conv(channels_in, hidden, rng=rng, dtype=dtype), EdgeBias(hidden, rng=rng, dtype=dtype),
        NormReLU(hidden, dtype, factor=3),
        Dense(hidden, hidden, bias=False, std=0.05, rng=rng, dtype=dtype),
        NormReLU(hidden, dtype, factor=3),
        *official_zero_conv(hidden, channels_out, dtype, alternating).nets,
    )


def official_zero_conv(channels_in: int, channels_out: int, dtype: type = np.float32,
                       alternating: bool = True) -> Sequence:
    """The official code's zero-initialized convolution, with its padding."""
    nets: list[Net] = [
        TransposedConv(channels_in, channels_out, std=0.0, dtype=dtype),
        EdgeBias(channels_out, std=0.0, dtype=dtype), ShiftScale(channels_out, dtype),
    ]
    return Sequence(*nets, *[AsNet(EvenOdd(channels_out))] * alternating)


def res_net(channels_in: int, hidden: int, channels_out: int, rng: Rng = None,
            dtype: type = np.float32, blocks: int = 2) -> Sequence:
    """RealNVP's residual net (Dinh et al. 2017, section 4.1), with actnorm for batch normalization.

    blocks  the number of residual blocks
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
