"""Hypothesis strategies: shapes, batches, matrices and flows to test with. Floor 2; needs hypothesis."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minglow.bijection import Bijection
from minglow.chain import Chain, ReversibleChain
from minglow.layers import ActNorm, AffineCoupling, InvConv1x1
from minglow.nets import conv_net, mlp
from minglow.testing.examples import moved

seeds = st.integers(0, 2**32 - 1)


def shapes(*, most: int = 16, even_sides: bool = False, even_channels: bool = True,
           images: bool | None = None) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of one sample, (C,) or (h, w, C), of at most `most` numbers.

    images: True for images alone, False for vectors alone, None for both.
    """
    sides = [2, 4] if even_sides else [1, 2, 3, 4, 5]
    channels = [c for c in range(1, most + 1) if not (even_channels and c % 2)]
    vectors = [] if images else [(c,) for c in channels]
    pictures = [(h, w, c) for h in sides for w in sides for c in channels if images is not False]
    return st.sampled_from([shape for shape in vectors + pictures if prod(shape) <= most])


def images(shape: tuple[int, ...], *, most: int = 4,
           dtype: type = np.float64) -> st.SearchStrategy[np.ndarray]:
    """Batches (B, *shape) of 1 to `most` samples, numbers in [-3, 3]; they shrink towards zeros."""
    width = np.dtype(dtype).itemsize * 8
    numbers = st.floats(-3, 3, width=width, allow_subnormal=False)  # type: ignore[arg-type]
    return st.integers(1, most).flatmap(
        lambda batch: hnp.arrays(dtype, (batch, *shape), elements=numbers, fill=st.nothing()))


@st.composite
def well_conditioned(draw: st.DrawFn, size: int, condition: float = 10.0) -> np.ndarray:
    """Square matrices with singular values between 1/sqrt(condition) and sqrt(condition)."""
    rng = np.random.default_rng(draw(seeds))
    left, right = (np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(2))
    spread = condition ** rng.uniform(-0.5, 0.5, size)
    return left * spread @ right


@st.composite
def flows(draw: st.DrawFn, shape: tuple[int, ...], *, most_steps: int = 3,
          dtype: type = np.float64) -> Bijection:
    """Glow's flow steps in a row for one shape, their parameters moved off the start."""
    rng = np.random.default_rng(draw(seeds))
    net, channels = (conv_net if len(shape) == 3 else mlp), shape[-1]
    steps = [
        layer
        for _ in range(draw(st.integers(1, most_steps)))
        for layer in (ActNorm(channels, dtype), InvConv1x1(channels, rng, dtype),
                      AffineCoupling(net(channels // 2, 4, channels, rng, dtype)))
    ]
    return moved(draw(st.sampled_from([Chain, ReversibleChain]))(*steps), rng, 0.1)
