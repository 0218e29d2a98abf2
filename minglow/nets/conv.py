"""Convolutions as matrix products, and Glow's conditioner made of them. Floor 2."""

from __future__ import annotations

from typing import Any

import numpy as np

from minglow import kernels
from minglow.arrays import check_input, rows
from minglow.bijection import Net
from minglow.nets.dense import Dense
from minglow.nets.net import NormReLU, Sequence, ShiftScale


class Conv(Net):
    r"""Convolution of images, size x size taps, zeros outside the image, no bias.

        y[b, i, j] = sum_{di, dj} x[b, i + di - r, j + dj - r] W[di, dj]
                                             W: (size, size, C_in, C_out); r = size // 2

    One matrix product, around which pixels' neighbourhoods are moved on the side that has fewer
    channels, so that the wide side is never expanded size * size times:

        C_in <= C_out    patches = gather(x),  y = patches W
        C_in >  C_out    taps = x W',  y = scatter(taps)       W' = W, taps reversed, C_in first

    backward  gather and scatter are each other's transposes, and a product's gradients are
              products:
        C_in <= C_out    dL/dW = patches^T dL/dy             dL/dx = scatter(dL/dy W^T)
        C_in >  C_out    dtaps = gather(dL/dy),  dL/dW' = x^T dtaps,  dL/dx = dtaps W'^T
    start     weights N(0, std^2); std = 0 for the zero-start convolution that ends a conditioner.

    Raises ValueError for an even size, which has no centre.
    """

    def __init__(self, channels_in: int, channels_out: int, size: int = 3, std: float = 0.05,
                 rng: int | np.random.Generator | None = None, dtype: type = np.float32) -> None:
        super().__init__()
        if size % 2 == 0:
            raise ValueError(f"{self} expected an odd size, got {size}")
        shape = (size, size, channels_in, channels_out)
        self.add_param("weight", (std * np.random.default_rng(rng).standard_normal(shape)).astype(dtype))

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        weight = self.params["weight"]
        size, _, channels_in, channels_out = weight.shape
        check_input(self, x, channels_in)
        if x.ndim != 4:
            raise ValueError(f"{self} expected images (B, h, w, {channels_in}), got {x.shape}")
        if channels_in <= channels_out:
            patches = kernels.gather(x, size)
            return (patches @ weight.reshape(-1, channels_out)).reshape(*x.shape[:3], -1), patches
        taps = rows(x) @ taps_last(weight)
        return kernels.scatter(taps, size, x.shape[1], x.shape[2]), x

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        weight, dweight = self.params["weight"], self.grads["weight"]
        size, _, channels_in, channels_out = weight.shape
        if channels_in <= channels_out:
            patches = cache
            dweight += (patches.T @ rows(dy)).reshape(weight.shape)
            dpatches = rows(dy) @ weight.reshape(-1, channels_out).T
            return kernels.scatter(dpatches, size, dy.shape[1], dy.shape[2])
        x = cache
        dtaps = kernels.gather(dy, size)
        dweight += taps_first(rows(x).T @ dtaps, weight.shape)
        return (dtaps @ taps_last(weight).T).reshape(x.shape)


def taps_last(weight: np.ndarray) -> np.ndarray:
    """W' of W: (size, size, C_in, C_out) -> (C_in, size*size*C_out), the taps reversed."""
    return weight[::-1, ::-1].transpose(2, 0, 1, 3).reshape(weight.shape[2], -1)


def taps_first(weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `taps_last`: (C_in, size*size*C_out) -> shape (size, size, C_in, C_out)."""
    size, _, channels_in, channels_out = shape
    taps = weight.reshape(channels_in, size, size, channels_out)
    return taps.transpose(1, 2, 0, 3)[::-1, ::-1]


def conv_net(channels_in: int, hidden: int, channels_out: int,
             rng: int | np.random.Generator | None = None, dtype: type = np.float32) -> Sequence:
    """Glow's conditioner (Kingma & Dhariwal 2018, section 5; actnorm as in the published code).

    3x3 convolution, actnorm, ReLU, 1x1 convolution, actnorm, ReLU, zero-start 3x3 convolution.
    It starts as the constant 0 (section 3.3), so that a coupling starts as one map for all inputs.
    """
    rng = np.random.default_rng(rng)
    return Sequence(
        Conv(channels_in, hidden, rng=rng, dtype=dtype), NormReLU(hidden, dtype),
        Dense(hidden, hidden, bias=False, std=0.05, rng=rng, dtype=dtype), NormReLU(hidden, dtype),
        Conv(hidden, channels_out, std=0.0, dtype=dtype), ShiftScale(channels_out, dtype),
    )
