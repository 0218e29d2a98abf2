"""minglow: Glow in plain NumPy, with every backward pass derived by hand."""

from minglow.bijection import Bijection, Module, Net, SingularWeightError
from minglow.bits import bits_per_dim, dequantize, quantize
from minglow.blas import threads
from minglow.chain import Chain, ReversibleChain
from minglow.device import to_device, to_host
from minglow.distributions import StandardLogistic, StandardNormal
from minglow.flow import Flow
from minglow.kernels import use
from minglow.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Checkerboard,
    EvenOdd,
    Flatten,
    InvConv1x1,
    InvConv1x1LU,
    Level,
    Logit,
    OnBoard,
    Permutation,
    Reverse,
    Scaling,
    Shuffle,
    Squeeze,
    Swap,
    exp_scale,
    sigmoid_scale,
    tanh_scale,
)
from minglow.models.autoencoder import autoencoder
from minglow.models.glow import glow, published_glow
from minglow.models.nice import nice
from minglow.models.realnvp import realnvp
from minglow.models.vae import vae
from minglow.params import FlatParams
from minglow.top_prior import TopPrior
from minglow.version import __version__

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "Bijection",
    "Chain",
    "Checkerboard",
    "EvenOdd",
    "FlatParams",
    "Flatten",
    "Flow",
    "InvConv1x1",
    "InvConv1x1LU",
    "Level",
    "Logit",
    "Module",
    "Net",
    "OnBoard",
    "Permutation",
    "Reverse",
    "ReversibleChain",
    "Scaling",
    "Shuffle",
    "SingularWeightError",
    "Squeeze",
    "StandardLogistic",
    "StandardNormal",
    "Swap",
    "TopPrior",
    "__version__",
    "autoencoder",
    "bits_per_dim",
    "dequantize",
    "exp_scale",
    "glow",
    "nice",
    "published_glow",
    "quantize",
    "realnvp",
    "sigmoid_scale",
    "tanh_scale",
    "threads",
    "to_device",
    "to_host",
    "use",
    "vae",
]
