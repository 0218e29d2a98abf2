"""Conditioners: the networks inside coupling layers.

Floor 2. They need no inverse: y, cache = net.forward(x); dx = net.backward(dy, cache).
"""

from minglow.nets.conditioners import (
    conv_net,
    mlp,
    paper_conv_net,
    published_conv_net,
    published_zero_conv,
    res_net,
)
from minglow.nets.conv import Conv, EdgeBias, TransposedConv
from minglow.nets.dense import Bias, Dense
from minglow.nets.net import AsNet, NormReLU, ReLU, Residual, Sequence, ShiftScale

__all__ = [
    "AsNet", "Bias", "Conv", "Dense", "EdgeBias", "NormReLU", "ReLU", "Residual", "Sequence",
    "ShiftScale", "TransposedConv", "conv_net", "mlp", "paper_conv_net", "published_conv_net",
    "published_zero_conv", "res_net",
]
