"""The same Glow in normflows, an independent library, and in minglow, with a table of its parameters.

normflows' `forward` goes from latents to data; minglow's goes from data to latents. So minglow's
forward is normflows' inverse. normflows lists the top level first, and the last flow step of a level
first. Images are (B, C, h, w) in normflows and (B, h, w, C) in minglow.
"""

from functools import partial
from typing import NamedTuple

import normflows
import numpy as np

import minglow as mg
from minglow.nets import AsNet, Bias, Conv, Dense, ReLU, Sequence

HIDDEN = 6

# The arguments of GlowBlock, minglow's coupling, and the signs of the net's even and odd outputs.
# normflows' inverse subtracts the shift and, for "exp", multiplies by exp(-s). minglow's forward adds
# the shift and multiplies by exp(s).
COUPLINGS = {
    "sigmoid": ({"scale_map": "sigmoid"},
                partial(mg.AffineCoupling, scale=partial(mg.sigmoid_scale, floor=0)), (-1, 1)),
    "exp": ({"scale_map": "exp"}, partial(mg.AffineCoupling, scale=mg.exp_scale), (-1, -1)),
    "additive": ({"scale": False}, "additive", (-1, -1)),
}


class Case(NamedTuple):
    levels: int
    flow_steps: int
    shape: tuple[int, int, int]  # (h, w, C)
    classes: int  # of the top level's prior; if 0, the prior is N(0, I)
    coupling: str
    use_lu: bool

    def __str__(self):
        parts = [f"L{self.levels}", f"K{self.flow_steps}", self.coupling, "lu" if self.use_lu else "1x1"]
        return "-".join(parts + ["classes"] * (self.classes > 0))


def normflows_glow(case):
    """normflows' Glow in float64, with N(0, I) for the factored-out latents."""
    height, width, channels = case.shape
    bases, flows, merges = [], [], []
    for level in range(case.levels, 0, -1):
        top, inner = level == case.levels, channels * 2 ** (level + 1)
        options = {"use_lu": case.use_lu, **COUPLINGS[case.coupling][0]}
        blocks = [normflows.flows.GlowBlock(inner, HIDDEN, **options) for _ in range(case.flow_steps)]
        flows.append([*blocks, normflows.flows.Squeeze()])
        if not top:
            merges.append(normflows.flows.Merge())
        latents = (inner if top else inner // 2, height // 2**level, width // 2**level)
        bases.append(normflows.distributions.GlowBase(latents, case.classes) if top and case.classes else
                     normflows.distributions.DiagGaussian(latents, trainable=False))
    if case.classes:  # the mean and the scale that all classes share stay 0: minglow has none
        for name in "loc", "loc_logs", "log_scale", "log_scale_logs":
            getattr(bases[0], name).requires_grad_(False)
    return normflows.MultiscaleFlow(bases, flows, merges, class_cond=case.classes > 0).double()


def minglow_glow(case):
    return mg.glow(case.shape, case.levels, case.flow_steps, HIDDEN, net=conditioner,
                   coupling=COUPLINGS[case.coupling][1], permutation="lu" if case.use_lu else "1x1",
                   learned_prior=False, classes=case.classes, dtype="float64", rng=0)


def conditioner(channels_in, hidden, channels_out, rng, dtype):
    """normflows' ConvNet2d. Outputs 2c and 2c + 1 of an affine coupling belong to channel c."""
    affine = channels_out == 2 * channels_in
    return Sequence(Conv(channels_in, hidden, dtype=dtype), Bias(hidden, dtype), ReLU(),
                    Dense(hidden, hidden, dtype=dtype), ReLU(),
                    Conv(hidden, channels_out, dtype=dtype), Bias(channels_out, dtype),
                    *[AsNet(mg.EvenOdd(channels_out))] * affine)


def same(array):
    return array


def channels_last(array):
    """(B, C, h, w) -> (B, h, w, C), and a convolution's (out, in, h, w) -> (out, h, w, in)."""
    return array.transpose(0, 2, 3, 1)


def flow_step_table(block, layers, signs):
    """One row for each parameter: normflows' tensor, minglow's module, the name there, and a map.

    The map takes normflows' array to minglow's. It only permutes entries and changes signs, so the
    same map takes normflows' gradient to minglow's.
    """
    coupling, mixing, actnorm = block.flows
    first, _, middle, _, last = coupling.flows[1].param_map.net
    our_actnorm, our_mixing, our_coupling = layers
    our_first, first_bias, _, our_middle, _, our_last, last_bias = our_coupling.net.nets[:7]

    def signed(array):
        """Each output, along the first axis, times its sign."""
        return array * np.resize(signs, (len(array), *[1] * (array.ndim - 1)))

    return [
        (actnorm.t, our_actnorm, "shift", lambda t: -t.ravel()),
        (actnorm.s, our_actnorm, "log_scale", lambda s: -s.ravel()),
        *([(mixing.L, our_mixing, "lower", same),
           (mixing.U, our_mixing, "upper", same),
           (mixing.log_S, our_mixing, "log_s", same)] if mixing.use_lu else
          [(mixing.W, our_mixing, "weight", same)]),
        (first.weight, our_first, "weight", channels_last),
        (first.bias, first_bias, "bias", same),
        (middle.weight, our_middle, "weight", lambda weight: weight[:, :, 0, 0].T),
        (middle.bias, our_middle, "bias", same),
        (last.weight, our_last, "weight", lambda weight: channels_last(signed(weight))),
        (last.bias, last_bias, "bias", signed),
    ]


def copy_parameters(theirs, ours, case):
    """Copy normflows' parameters to minglow's flow; return the table of all parameters."""
    table, level = [], ours.bijection
    for *blocks, _ in reversed(theirs.flows):
        _, *layers = getattr(level, "steps", level).layers  # after Squeeze
        for k, block in enumerate(reversed(blocks)):
            step = layers[3 * k:3 * k + 3]
            table += flow_step_table(block, step, COUPLINGS[case.coupling][2])
            if case.use_lu:  # W = P L U in normflows, L[order] U in minglow
                step[1].constants["order"][...] = block.flows[1].P.argmax(1).numpy()
                step[1].constants["sign"][...] = block.flows[1].sign_S.numpy()
        level = getattr(level, "inner", None)
    if case.classes:
        table += [(theirs.q0[0].loc_cc, ours.base, "mean", same),
                  (theirs.q0[0].log_scale_cc, ours.base, "log_std", same)]
    for tensor, module, name, to_minglow in table:
        module.params[name][...] = to_minglow(tensor.detach().numpy())
    return table
