"""The layers of NICE, RealNVP and Glow: one idea a file.

Floor 2. Every layer keeps the contract of minglow.bijection; its docstring holds the map, the
log-determinant and every gradient, in the order in which the code computes them.
"""

from minglow.layers.actnorm import ActNorm
from minglow.layers.coupling import AdditiveCoupling, AffineCoupling, exp_scale, sigmoid_scale
from minglow.layers.invconv import InvConv1x1, InvConv1x1LU
from minglow.layers.level import Flatten, Level
from minglow.layers.permute import Reverse, Shuffle
from minglow.layers.squeeze import Squeeze

__all__ = [
    "ActNorm", "AdditiveCoupling", "AffineCoupling", "Flatten", "InvConv1x1", "InvConv1x1LU",
    "Level", "Reverse", "Shuffle", "Squeeze", "exp_scale", "sigmoid_scale",
]
