"""The bijections and the conditioners on which every property test runs.

To add a layer, add a line: a name, a constructor of (shape, rng, dtype), and the shapes of one
sample that it accepts. A shape holds at most 16 numbers, so that the tests can compute Jacobians.
"""

from functools import partial

import numpy as np

import minglow as mg
from minglow.layers.invconv import random_rotation
from minglow.models.glow import split_prior
from minglow.models.official import official_split_prior
from minglow.nets import (
    AsNet,
    Bias,
    Context,
    ContextNet,
    Conv,
    Dense,
    EdgeBias,
    NormReLU,
    ReLU,
    Residual,
    Sequence,
    ShiftScale,
    TransposedConv,
    conv_net,
    mlp,
    official_conv_net,
    paper_conv_net,
    res_net,
)

VECTORS = [(2,), (4,), (6,), (8,)]
DIMS = [(dims,) for dims in (2, 3, 5, 8, 1, 4, 6, 7, 9, 10, 11, 12, 13)]
DIVISIBLE = [shape for shape in DIMS if shape != (1,)]  # what a coupling can divide
IMAGES = [
    (1, 1, 2), (1, 1, 4), (1, 2, 2), (2, 1, 4), (2, 2, 2), (1, 3, 4), (3, 2, 2), (2, 2, 4), (4, 1, 2),
]
ALL = VECTORS + IMAGES
HALVED = [*IMAGES, (2, 3, 2), (3, 1, 4), (5, 1, 2)]
SQUEEZABLE = [
    (2, 2, 1), (2, 2, 2), (2, 2, 3), (2, 2, 4), (2, 4, 1), (4, 2, 1), (2, 4, 2), (4, 2, 2), (2, 6, 1),
    (6, 2, 1), (2, 8, 1), (8, 2, 1), (4, 4, 1),
]
BOARDS = [
    (1, 2, 1), (1, 2, 2), (2, 2, 1), (2, 2, 3), (3, 2, 1), (3, 2, 2), (1, 4, 1), (2, 4, 1), (2, 4, 2),
    (1, 4, 3), (4, 2, 1), (1, 6, 1), (2, 6, 1),
]

SMALL_BOARDS = [  # for models of many couplings, whose Jacobians take long
    (1, 2, 1), (1, 2, 2), (1, 2, 3), (2, 2, 1), (2, 2, 2), (3, 2, 1), (4, 2, 1), (1, 4, 1), (1, 4, 2),
    (2, 4, 1), (1, 6, 1), (4, 4, 1),
]


def net(shape, outputs, rng, dtype):
    build = conv_net if len(shape) == 3 else mlp
    return build(shape[-1] // 2, 5, outputs * shape[-1] // 2, rng, dtype)


def channels(layer):
    return lambda shape, rng, dtype: layer(shape[-1], rng=rng, dtype=dtype)


def actnorm(shape, rng, dtype, factor=1.0):
    return mg.ActNorm(shape[-1], dtype, factor)


def scaling(shape, rng, dtype):
    return mg.Scaling(shape[-1], dtype)


def standardization(shape, rng, dtype, kind=mg.Standardization):
    return standardized(kind(shape[-1]), rng)


def standardized(bijection, rng):
    """The bijection, every mean, std and vectors in it with values as data may set them."""
    for _, module in bijection.walk():
        if isinstance(module, (mg.Standardization, mg.Whitening, mg.Conditional)):
            std = module.constants["std"]
            std[...] = rng.uniform(0.5, 2, std.shape)
        if isinstance(module, (mg.Standardization, mg.Conditional)):
            module.constants["mean"][...] = rng.normal(size=std.shape)
        if isinstance(module, mg.Whitening):
            module.constants["vectors"][...] = random_rotation(len(std), rng)
    return bijection


def additive(shape, rng, dtype):
    return mg.AdditiveCoupling(net(shape, 1, rng, dtype))


def affine(shape, rng, dtype, scale=mg.sigmoid_scale):
    return mg.AffineCoupling(net(shape, 2, rng, dtype), scale)


def spline(shape, rng, dtype, **options):
    # No drawn value is a root: at a knot the derivative of log_det jumps.
    return mg.Spline(shape[-1], dtype=dtype, **{"bound": np.sqrt(17), **options})


def uneven_spline_coupling(shape, rng, dtype):
    net = uneven(shape, rng, dtype, mg.SplineCoupling).net
    return mg.SplineCoupling(net, bound=np.sqrt(17), identity_channels=shape[-1] - 1)


def spline_coupling(shape, rng, dtype, bins=3):
    # The derivative of log_det jumps at the bound. Strategies draw short numbers, but no roots.
    return mg.SplineCoupling(net(shape, 3 * bins - 1, rng, dtype), bins, bound=np.sqrt(2))


def uneven(shape, rng, dtype, kind=mg.AffineCoupling):
    """All channels but one are identity channels."""
    build = conv_net if len(shape) == 3 else mlp
    net = build(shape[-1] - 1, 5, kind.net_outputs, rng, dtype)
    return kind(net, identity_channels=shape[-1] - 1)


def checkerboard(shape, rng, dtype, parity=0, additive=False):
    kind = mg.AdditiveCoupling if additive else partial(mg.AffineCoupling, scale=mg.tanh_scale)
    net = conv_net(shape[-1], 5, (1 if additive else 2) * shape[-1], rng, dtype)
    return mg.Checkerboard(kind(mg.CheckerboardNet(net, parity)), parity)


def prior(shape, rng, dtype, build=split_prior):
    return build(shape[-1], dtype)


def step(shape, rng, dtype, chain=mg.Chain):
    parts = actnorm, channels(mg.InvConv1x1), affine
    return chain(*(part(shape, rng, dtype) for part in parts))


def level(shape, rng, dtype):
    half = (*shape[:-1], shape[-1] // 2)
    inner = mg.Chain(actnorm(half, rng, dtype), mg.Flatten(half))
    return mg.Level(step(shape, rng, dtype), inner, shape)


def conditional(shape, rng, dtype, chain=mg.Chain):
    """Two flow steps for vectors, under a context that is a third of a sample: [c, x]."""
    k, context, steps = max(1, shape[0] // 3), Context(), []
    size = shape[0] - k
    for _ in range(2):
        net = ContextNet(mlp(size // 2 + k, 5, 2 * (size - size // 2), rng, dtype), context)
        steps += [mg.ActNorm(size, dtype), mg.InvConv1x1(size, rng, dtype),
                  mg.AffineCoupling(net, identity_channels=size // 2)]
    return standardized(mg.Conditional(chain(*steps), context, k, (size,)), rng)


def conditional_images(shape, rng, dtype):
    """A level with a learned prior, under a context: [c, x] with x of a shape in SQUEEZABLE."""
    k, context = (shape[0] - 1) % 4 + 1, Context()
    image = {4: (2, 2, 1), 8: (2, 4, 1), 12: (2, 2, 3)}[shape[0] - k]
    half = (image[0] // 2, image[1] // 2, 2 * image[2])
    coupling, prior = (
        mg.AffineCoupling(ContextNet(conv_net(half[2] + k, 5, 2 * half[2], rng, dtype), context), scale)
        for scale in (mg.sigmoid_scale, mg.exp_scale))
    inner = mg.Chain(mg.ActNorm(half[2], dtype), mg.Flatten(half))
    level = mg.Level(mg.Chain(mg.Squeeze(), coupling, mg.Swap(2 * half[2]), prior), inner,
                     (*half[:2], 2 * half[2]))
    return standardized(mg.Conditional(level, context, k, image), rng)


def glow(shape, rng, dtype, build=mg.glow, **options):
    levels = 2 if shape == (4, 4, 1) else 1
    flow = build(shape, levels, flow_steps=1, hidden=4, rng=rng, dtype=dtype, **options)
    return standardized(flow.bijection, rng)


def nice(shape, rng, dtype):
    flow = mg.nice(shape, couplings=2, hidden=4, depth=2, rng=rng, dtype=dtype)
    return standardized(flow.bijection, rng)


def realnvp(shape, rng, dtype, **options):
    levels = 2 if shape in ((4, 4, 1), (2, 4, 1)) else 1
    flow = mg.realnvp(shape, levels, hidden=3, rng=rng, dtype=dtype, **options)
    return standardized(flow.bijection, rng)


def spline_flow(shape, rng, dtype):
    flow = mg.spline_flow(shape, flow_steps=2, hidden=3, spline_bins=3, bound=float(np.sqrt(5)),
                          rng=rng, dtype=dtype)
    return standardized(flow.bijection, rng)


BIJECTIONS = {
    "ActNorm": (actnorm, ALL),
    "InvConv1x1": (channels(mg.InvConv1x1), ALL),
    "InvConv1x1LU": (channels(mg.InvConv1x1LU), ALL),
    "Shuffle": (channels(mg.Shuffle), ALL),
    "Reverse": (channels(mg.Reverse), ALL),
    "Swap": (channels(mg.Swap), ALL),
    "EvenOdd": (channels(mg.EvenOdd), ALL),
    "ActNorm, factor 3": (partial(actnorm, factor=3.0), ALL),
    "Scaling": (scaling, ALL),
    "Standardization": (standardization, ALL),
    "Whitening": (partial(standardization, kind=mg.Whitening), ALL),
    "AdditiveCoupling": (additive, ALL),
    "AffineCoupling": (affine, ALL),
    "AffineCoupling, exp": (partial(affine, scale=mg.exp_scale), ALL),
    "AffineCoupling, tanh": (partial(affine, scale=partial(mg.tanh_scale, bound=0.5)), ALL),
    "AffineCoupling, uneven": (uneven, ALL),
    "AdditiveCoupling, uneven": (partial(uneven, kind=mg.AdditiveCoupling), ALL),
    "Spline": (spline, ALL),
    "Spline, few bins": (partial(spline, bins=2, bound=np.sqrt(2)), ALL),  # many values lie outside
    "SplineCoupling": (spline_coupling, ALL),
    "SplineCoupling, uneven": (uneven_spline_coupling, ALL),
    "Checkerboard": (checkerboard, BOARDS),
    "Checkerboard, additive, other parity": (partial(checkerboard, parity=1, additive=True), BOARDS),
    "official split prior": (partial(prior, build=official_split_prior), HALVED),
    "split prior": (prior, HALVED),
    "Squeeze": (lambda shape, rng, dtype: mg.Squeeze(), SQUEEZABLE),
    "Flatten": (lambda shape, rng, dtype: mg.Flatten(shape), ALL),
    "Chain": (step, ALL),
    "ReversibleChain": (partial(step, chain=mg.ReversibleChain), ALL),
    "Level": (level, ALL),
    "Conditional": (conditional, [(size,) for size in range(2, 14)]),
    "Conditional, images": (conditional_images, [(size,) for size in range(5, 17)]),
    "glow": (glow, [(4,), *SQUEEZABLE]),
    "glow, LU, additive": (
        partial(glow, permutation=mg.InvConv1x1LU, coupling=mg.AdditiveCoupling), [(4,), *SQUEEZABLE]),
    "glow, exp": (
        partial(glow, coupling=partial(mg.AffineCoupling, scale=mg.exp_scale)), [(4,), *SQUEEZABLE]),
    "glow, shuffle, reversible": (
        partial(glow, permutation=mg.Shuffle, reversible=True), [(4,), *SQUEEZABLE]),
    "glow, paper's net, no learned prior": (
        partial(glow, net=paper_conv_net, learned_prior=False), SQUEEZABLE),
    "glow, official": (partial(glow, build=mg.official_glow), SQUEEZABLE),
    "glow, official, additive": (partial(glow, build=mg.official_glow, coupling="additive"), SQUEEZABLE),
    "glow, vectors": (glow, DIVISIBLE),
    "glow, splines": (partial(glow, coupling=partial(mg.SplineCoupling, bound=np.sqrt(5))), SQUEEZABLE),
    "nice": (nice, ALL),
    "nice, vectors": (nice, DIVISIBLE),
    "realnvp": (partial(realnvp, net=partial(res_net, blocks=1)), SMALL_BOARDS),
    "realnvp, plain, reversible": (partial(realnvp, net=conv_net, reversible=True), SMALL_BOARDS),
    "realnvp, vectors": (partial(realnvp, couplings=2), DIVISIBLE),
    "spline_flow": (spline_flow, DIMS),
}

F64 = {"dtype": np.float64}
NETS = {
    "Conv 3x3, few to many": (partial(Conv, 2, 5, **F64), (3, 4, 2)),
    "Conv 3x3, many to few": (partial(Conv, 5, 2, **F64), (3, 2, 5)),
    "Conv 3x3, one pixel": (partial(Conv, 5, 2, **F64), (1, 1, 5)),
    "TransposedConv 3x3, many to few": (partial(TransposedConv, 5, 2, **F64), (3, 2, 5)),
    "TransposedConv 3x3, few to many": (partial(TransposedConv, 2, 5, **F64), (2, 4, 2)),
    "TransposedConv 3x3, one pixel": (partial(TransposedConv, 5, 2, **F64), (1, 1, 5)),
    "TransposedConv 5x5": (partial(TransposedConv, 3, 2, 5, **F64), (2, 3, 3)),
    "Conv 5x5": (partial(Conv, 2, 3, 5, **F64), (2, 3, 2)),
    "Conv 1x1": (partial(Conv, 3, 2, 1, **F64), (2, 2, 3)),
    "EdgeBias": (partial(EdgeBias, 3, **F64), (3, 2, 3)),
    "EdgeBias 5x5": (partial(EdgeBias, 2, 5, **F64), (2, 4, 2)),
    "Bias": (lambda rng: Bias(3, np.float64), (2, 2, 3)),
    "Residual": (lambda rng: Residual(Dense(3, 3, rng=rng, **F64)), (2, 2, 3)),
    "AsNet": (lambda rng: AsNet(mg.InvConv1x1(3, rng, np.float64)), (2, 2, 3)),
    "CheckerboardNet": (lambda rng: mg.CheckerboardNet(Conv(2, 3, rng=rng, **F64)), (3, 2, 2)),
    "CheckerboardNet, other parity": (
        lambda rng: mg.CheckerboardNet(Conv(2, 3, rng=rng, **F64), 1), (2, 1, 2)),
    "Dense on images": (partial(Dense, 3, 4, bias=False, **F64), (2, 3, 3)),
    "Dense on vectors": (partial(Dense, 4, 3, **F64), (4,)),
    "ReLU": (lambda rng: ReLU(), (2, 2, 3)),
    "NormReLU": (lambda rng: NormReLU(3, np.float64), (2, 2, 3)),
    "ShiftScale": (lambda rng: ShiftScale(3, np.float64), (2, 2, 3)),
    "Sequence": (lambda rng: Sequence(Dense(2, 3, rng=rng, **F64), ReLU()), (2,)),
    "conv_net": (partial(conv_net, 2, 6, 4, **F64), (3, 2, 2)),
    "paper_conv_net": (partial(paper_conv_net, 2, 6, 4, **F64), (3, 2, 2)),
    "official_conv_net": (partial(official_conv_net, 2, 6, 4, **F64), (3, 2, 2)),
    "res_net": (partial(res_net, 2, 4, 4, **F64), (3, 2, 2)),
    "mlp": (partial(mlp, 3, 6, 4, **F64), (3,)),
    "mlp, deep": (partial(mlp, 3, 5, 4, depth=4, **F64), (3,)),
}
