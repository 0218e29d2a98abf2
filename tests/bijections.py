"""The one list of bijections that every property test runs over.

To add a layer, add a line: a name, a constructor of (shape, rng, dtype), and the shapes of one
sample that it takes. Shapes hold at most 16 numbers, so that a Jacobian can be had by brute force.
"""

from functools import partial

import minglow as mg
from minglow.models.glow import split_prior
from minglow.nets import conv_net, mlp

VECTORS = [(2,), (4,), (6,)]
IMAGES = [(1, 1, 2), (2, 2, 2), (1, 3, 4), (3, 2, 2), (2, 2, 4), (4, 1, 2)]
SQUEEZABLE = [(2, 2, 1), (2, 4, 2), (4, 2, 1), (4, 4, 1), (2, 2, 3)]


def net(shape, outputs, rng, dtype):
    make = conv_net if len(shape) == 3 else mlp
    return make(shape[-1] // 2, 5, outputs * shape[-1] // 2, rng, dtype)


def channels(layer):
    return lambda shape, rng, dtype: layer(shape[-1], rng=rng, dtype=dtype)


def actnorm(shape, rng, dtype):
    return mg.ActNorm(shape[-1], dtype)


def additive(shape, rng, dtype):
    return mg.AdditiveCoupling(net(shape, 1, rng, dtype))


def affine(shape, rng, dtype, scale=mg.sigmoid_scale):
    return mg.AffineCoupling(net(shape, 2, rng, dtype), scale)


def prior(shape, rng, dtype):
    return split_prior(shape[-1], dtype)


def step(shape, rng, dtype, chain=mg.Chain):
    parts = actnorm, channels(mg.InvConv1x1), affine
    return chain(*(part(shape, rng, dtype) for part in parts))


def level(shape, rng, dtype):
    half = (*shape[:-1], shape[-1] // 2)
    return mg.Level(step(shape, rng, dtype), mg.Flatten(half), shape)


def glow(shape, rng, dtype, **options):
    levels = 2 if shape == (4, 4, 1) else 1
    return mg.glow(shape, levels, steps=2, hidden=5, rng=rng, dtype=dtype, **options).bijection


BIJECTIONS = {
    "ActNorm": (actnorm, VECTORS + IMAGES),
    "InvConv1x1": (channels(mg.InvConv1x1), VECTORS + IMAGES),
    "InvConv1x1LU": (channels(mg.InvConv1x1LU), VECTORS + IMAGES),
    "Shuffle": (channels(mg.Shuffle), VECTORS + IMAGES),
    "Reverse": (channels(mg.Reverse), VECTORS + IMAGES),
    "AdditiveCoupling": (additive, VECTORS + IMAGES),
    "AffineCoupling": (affine, VECTORS + IMAGES),
    "AffineCoupling, exp": (partial(affine, scale=mg.exp_scale), VECTORS + IMAGES),
    "split prior": (prior, IMAGES),
    "Squeeze": (lambda shape, rng, dtype: mg.Squeeze(), SQUEEZABLE),
    "Flatten": (lambda shape, rng, dtype: mg.Flatten(shape), VECTORS + IMAGES),
    "Chain": (step, VECTORS + IMAGES),
    "ReversibleChain": (partial(step, chain=mg.ReversibleChain), VECTORS + IMAGES),
    "Level": (level, VECTORS + IMAGES),
    "glow": (glow, [(4,), *SQUEEZABLE]),
    "glow, LU, additive": (
        partial(glow, permutation=mg.InvConv1x1LU, coupling=mg.AdditiveCoupling), [(4,), *SQUEEZABLE]),
    "glow, shuffle, reversible": (
        partial(glow, permutation=mg.Shuffle, reversible=True), [(4,), *SQUEEZABLE]),
}
