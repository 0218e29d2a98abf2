"""The layers of NICE, RealNVP and Glow: one idea a file.

Floor 2. Every layer keeps the contract of minglow.bijection; its docstring holds the map, the
log-determinant and every gradient, in the order in which the code computes them.
"""

from minglow.layers.actnorm import ActNorm
from minglow.layers.checkerboard import Checkerboard, OnBoard
from minglow.layers.coupling import AdditiveCoupling, AffineCoupling
from minglow.layers.invconv import InvConv1x1, InvConv1x1LU
from minglow.layers.level import Flatten, Level
from minglow.layers.logit import Logit
from minglow.layers.permute import EvenOdd, Permutation, Reverse, Shuffle, Swap
from minglow.layers.scale import exp_scale, sigmoid_scale, tanh_scale
from minglow.layers.scaling import Scaling
from minglow.layers.squeeze import Squeeze

__all__ = [
    "ActNorm", "AdditiveCoupling", "AffineCoupling", "Checkerboard", "EvenOdd", "Flatten",
    "InvConv1x1", "InvConv1x1LU", "Level", "Logit", "OnBoard", "Permutation", "Reverse", "Scaling",
    "Shuffle", "Squeeze", "Swap", "exp_scale", "sigmoid_scale", "tanh_scale",
]
