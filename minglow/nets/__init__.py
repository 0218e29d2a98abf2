"""Conditioners: the nets inside coupling layers.

They need no inverse: y, cache = net.forward(x); dx = net.backward(dy, cache).
"""

from minglow.nets.conditioners import (
    conv_net,
    mlp,
    official_conv_net,
    official_zero_conv,
    paper_conv_net,
    res_net,
)
from minglow.nets.context import Context, ContextNet
from minglow.nets.conv import Conv, EdgeBias, TransposedConv
from minglow.nets.dense import Bias, Dense
from minglow.nets.net import AsNet, NormReLU, ReLU, Residual, Sequence, ShiftScale

__all__ = [
    "AsNet", "Bias", "Context", "ContextNet", "Conv", "Dense", "EdgeBias", "NormReLU", "ReLU",
    "Residual", "Sequence", "ShiftScale", "TransposedConv", "conv_net", "mlp", "official_conv_net",
    "official_zero_conv", "paper_conv_net", "res_net",
]
