"""The layers of NICE, RealNVP and Glow: one idea a file.

A layer's docstring holds map, inverse, log-determinant and every gradient, in the order of the code.
"""

from minglow.layers.actnorm import ActNorm
from minglow.layers.checkerboard import Checkerboard, CheckerboardNet
from minglow.layers.conditional import Conditional
from minglow.layers.coupling import AdditiveCoupling, AffineCoupling
from minglow.layers.invconv import InvConv1x1
from minglow.layers.invconv_lu import InvConv1x1LU
from minglow.layers.level import Level
from minglow.layers.logit import Logit
from minglow.layers.permute import EvenOdd, Permutation, Reverse, Shuffle, Swap
from minglow.layers.scale import exp_scale, sigmoid_scale, tanh_scale
from minglow.layers.scaling import Scaling
from minglow.layers.spline import Spline
from minglow.layers.spline_coupling import SplineCoupling
from minglow.layers.squeeze import Flatten, Squeeze
from minglow.layers.standardization import Standardization
from minglow.layers.whitening import Whitening

__all__ = [
    "ActNorm", "AdditiveCoupling", "AffineCoupling", "Checkerboard", "CheckerboardNet", "Conditional",
    "EvenOdd", "Flatten", "InvConv1x1", "InvConv1x1LU", "Level", "Logit", "Permutation", "Reverse",
    "Scaling", "Shuffle", "Spline", "SplineCoupling", "Squeeze", "Standardization", "Swap", "Whitening",
    "exp_scale", "sigmoid_scale", "tanh_scale",
]
