"""Conditioners: the networks inside coupling layers.

Floor 2. They need no inverse: y, cache = net.forward(x); dx = net.backward(dy, cache).
"""

from minglow.nets.conv import Conv, TransposedConv, conv_net
from minglow.nets.dense import Dense, mlp
from minglow.nets.net import NormReLU, ReLU, Sequence, ShiftScale

__all__ = [
    "Conv", "Dense", "NormReLU", "ReLU", "Sequence", "ShiftScale", "TransposedConv", "conv_net", "mlp",
]
