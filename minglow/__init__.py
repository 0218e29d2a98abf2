"""minglow: Glow in plain NumPy, with every backward pass derived by hand."""

from minglow.bijection import Bijection, Module, Net, SingularWeightError
from minglow.bits import bits_per_dim, dequantize, quantize
from minglow.blas import threads
from minglow.chain import Chain, ReversibleChain
from minglow.distributions import StandardNormal
from minglow.flow import Flow
from minglow.kernels import use
from minglow.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Flatten,
    InvConv1x1,
    InvConv1x1LU,
    Level,
    Reverse,
    Shuffle,
    Squeeze,
    exp_scale,
    sigmoid_scale,
)
from minglow.models.glow import glow
from minglow.params import FlatParams
from minglow.version import __version__

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "Bijection",
    "Chain",
    "FlatParams",
    "Flatten",
    "Flow",
    "InvConv1x1",
    "InvConv1x1LU",
    "Level",
    "Module",
    "Net",
    "Reverse",
    "ReversibleChain",
    "Shuffle",
    "SingularWeightError",
    "Squeeze",
    "StandardNormal",
    "__version__",
    "bits_per_dim",
    "dequantize",
    "exp_scale",
    "glow",
    "quantize",
    "sigmoid_scale",
    "threads",
    "use",
]
