"""Hypothesis strategies for shapes, batches, matrices and flows."""

from math import prod

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minglow.bijection import Bijection
from minglow.chain import Chain, ReversibleChain
from minglow.layers import ActNorm, AffineCoupling, InvConv1x1
from minglow.nets import conv_net, mlp
from minglow.testing.examples import perturbed

seeds = st.integers(0, 2**32 - 1)


def shapes(*, max_size: int = 16, even_sides: bool = False, even_channels: bool = True,
           images: bool | None = None) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of one sample, (C,) or (h, w, C), with at most `max_size` values; `images`: only these."""
    sides = [2, 4] if even_sides else [1, 2, 3, 4, 5]
    channels = [c for c in range(1, max_size + 1) if not (even_channels and c % 2)]
    vectors = [] if images else [(c,) for c in channels]
    pictures = [(h, w, c) for h in sides for w in sides for c in channels if images is not False]
    return st.sampled_from([shape for shape in vectors + pictures if prod(shape) <= max_size])


def images(shape: tuple[int, ...], *, max_batch: int = 4,
           dtype: type = np.float64) -> st.SearchStrategy[np.ndarray]:
    """Batches (B, *shape) of 1 to `max_batch` samples with values in [-3, 3], which shrink towards 0."""
    width = np.dtype(dtype).itemsize * 8
    numbers = st.floats(-3, 3, width=width, allow_subnormal=False)  # type: ignore[arg-type]
    return st.integers(1, max_batch).flatmap(
        lambda batch: hnp.arrays(dtype, (batch, *shape), elements=numbers, fill=st.nothing()))


@st.composite
def well_conditioned(draw: st.DrawFn, size: int, condition: float = 10.0) -> np.ndarray:
    """Square matrices with singular values between 1/sqrt(condition) and sqrt(condition)."""
    rng = np.random.default_rng(draw(seeds))
    left, right = (np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(2))
    spread = condition ** rng.uniform(-0.5, 0.5, size)
    return left * spread @ right


@st.composite
def flows(draw: st.DrawFn, shape: tuple[int, ...], *, max_steps: int = 3,
          dtype: type = np.float64) -> Bijection:
    """1 to `max_steps` flow steps of Glow for samples of one shape, with perturbed parameters."""
    rng = np.random.default_rng(draw(seeds))
    net, channels = (conv_net if len(shape) == 3 else mlp), shape[-1]
    steps = [layer for _ in range(draw(st.integers(1, max_steps)))
             for layer in (ActNorm(channels, dtype), InvConv1x1(channels, rng, dtype),
                           AffineCoupling(net(channels // 2, 4, channels, rng, dtype)))]
    return perturbed(draw(st.sampled_from([Chain, ReversibleChain]))(*steps), rng, 0.1)
