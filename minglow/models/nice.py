"""NICE: additive couplings of whole vectors, and a scaling. Floor 3."""

from __future__ import annotations

from math import prod

import numpy as np

from minglow import arguments
from minglow.arrays import check_dtype
from minglow.bijection import Bijection
from minglow.chain import Chain
from minglow.distributions import StandardLogistic, StandardNormal
from minglow.flow import Flow
from minglow.layers import AdditiveCoupling, EvenOdd, Flatten, Reverse, Scaling
from minglow.nets import mlp


def nice(shape: tuple[int, ...], couplings: int = 4, hidden: int = 1000, depth: int = 5, *,
         base: type[StandardNormal] | type[StandardLogistic] = StandardLogistic,
         dtype: type = np.float32, rng: int | np.random.Generator | None = None) -> Flow:
    """NICE (Dinh et al. 2015) for images (h, w, C), which it flattens, or vectors (D,).

    Even places against odd ones, reversed between couplings so that what changed passes next, then
    one diagonal scaling. The defaults are the paper's for MNIST (section 5.1).

    couplings    additive couplings
    hidden, depth  width and number of the hidden layers of each coupling's perceptron
    base         StandardLogistic or StandardNormal
    dtype        np.float32 or np.float64
    rng          seed or Generator of the random start

    Raises ValueError for an odd number of values, which cannot be halved.
    """
    shape = arguments.shape(shape)
    for what, value in (("couplings", couplings), ("hidden", hidden), ("depth", depth)):
        arguments.count(what, value)
    dims = prod(shape)
    if dims % 2:
        raise ValueError(f"expected an even number of values, got shape {shape}")
    check_dtype(dtype)
    rng = np.random.default_rng(rng)
    layers: list[Bijection] = [Flatten(shape), EvenOdd(dims)]
    for _ in range(couplings):
        net = mlp(dims // 2, hidden, dims // 2, rng, dtype, depth)
        layers += [AdditiveCoupling(net), Reverse(dims)]
    return Flow(Chain(*layers[:-1], Scaling(dims, dtype)), base((dims,)))
