"""Convolutions as matrix products."""

from typing import Any

import numpy as np

from minglow import kernels
from minglow.arrays.shapes import check_images, normal_weights, rows
from minglow.bijection import Net, Rng


class Conv(Net):
    r"""Convolution of images with size x size taps, zeros outside the image, no bias.

        y[b, i, j] = sum_{di, dj} W[:, di, dj] x[b, i + di - r, j + dj - r]
                                             W: (C_out, size, size, C_in); r = size // 2

    Every pixel's neighborhood is copied to a row. Then one matrix product gives all outputs:

        patches = gather(x)                  (B*h*w, size*size*C_in)
        y = patches W^T

    backward    dL/dW = (dL/dy)^T patches      a product's gradients are products
                dL/dx = scatter(dL/dy W)       scatter is gather's transpose
    initialize  nothing is set from data; W ~ N(0, std^2) at first.

    Efficient for few channels in and many out: patches is size * size times as large as x.
    Raises ValueError for an even size, which has no center.

    >>> conv = minglow.nets.Conv(1, 1, size=3)
    >>> conv.params["weight"][...] = 1  # y is the sum of each pixel's neighborhood
    >>> conv.forward(np.ones((1, 2, 3, 1), np.float32))[0].reshape(2, 3)
    array([[4., 6., 4.],
           [4., 6., 4.]], dtype=float32)
    """

    def __init__(self, channels_in: int, channels_out: int, size: int = 3, std: float = 0.05,
                 rng: Rng = None, dtype: type = np.float32) -> None:
        super().__init__()
        add_taps(self, (channels_out, size, size, channels_in), std, rng, dtype)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        weight = self.params["weight"]
        check_images(self, x, weight.shape[-1])
        patches = kernels.gather(x, weight.shape[1])
        return (patches @ weight.reshape(len(weight), -1).T).reshape(*x.shape[:3], -1), patches

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        patches = cache
        weight, dweight = self.params["weight"], self.grads["weight"]
        dweight += (rows(dy).T @ patches).reshape(weight.shape)
        dpatches = rows(dy) @ weight.reshape(len(weight), -1)
        return kernels.scatter(dpatches, weight.shape[1], dy.shape[1], dy.shape[2])


class TransposedConv(Net):
    r"""Transposed convolution of images with stride 1: the map from dL/dy to dL/dx of a Conv.

        y[b, i + di - r, j + dj - r] += x[b, i, j] W[:, di, dj]      for every pixel and tap
                                             W: (C_in, size, size, C_out); r = size // 2

    Every pixel is added to its neighbors. This is the convolution with the taps in reverse order,
    computed after the matrix product instead of before it:

        taps = x W                           (B*h*w, size*size*C_out)
        y = scatter(taps)

    backward    dtaps = gather(dL/dy)          gather is scatter's transpose
                dL/dW = x^T dtaps
                dL/dx = dtaps W^T
    initialize  nothing is set from data; W ~ N(0, std^2) at first. std = 0 ends a conditioner.

    Efficient for many channels in and few out: taps is size * size times as large as y.
    Raises ValueError for an even size, which has no center.

    >>> net = minglow.nets.TransposedConv(1, 1, size=3, std=0.0)
    >>> net.forward(np.ones((1, 2, 3, 1), np.float32))[0].any()
    np.False_
    """

    def __init__(self, channels_in: int, channels_out: int, size: int = 3, std: float = 0.05,
                 rng: Rng = None, dtype: type = np.float32) -> None:
        super().__init__()
        add_taps(self, (channels_in, size, size, channels_out), std, rng, dtype)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        weight = self.params["weight"]
        check_images(self, x, len(weight))
        taps = rows(x) @ weight.reshape(len(weight), -1)
        return kernels.scatter(taps, weight.shape[1], x.shape[1], x.shape[2]), x

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        x = cache
        weight, dweight = self.params["weight"], self.grads["weight"]
        dtaps = kernels.gather(dy, weight.shape[1])
        dweight += (rows(x).T @ dtaps).reshape(weight.shape)
        return (dtaps @ weight.reshape(len(weight), -1).T).reshape(x.shape)


class EdgeBias(Net):
    r"""A bias for each tap of a size x size convolution that reaches beyond the image.

        y[b, i, j] = x[b, i, j] + sum_{di, dj} outside(i + di - r, j + dj - r) bias[di, dj]
                                             bias: (size, size, C); r = size // 2

    After a convolution it is the official code's padding: one more input channel, which is 1 outside the
    image and 0 inside (openai/glow, tfops.py, `add_edge_padding`). It shows the net where the border is.

    backward    dL/dx = dL/dy
                dL/dbias[di, dj] = sum_bij outside(i + di - r, j + dj - r) dL/dy[b, i, j]
    initialize  nothing is set from data; bias ~ N(0, std^2) at first, as a convolution's weights.

    >>> net = minglow.nets.EdgeBias(1, size=3)
    >>> net.params["bias"][...] = 1  # counts the taps outside
    >>> net.forward(np.zeros((1, 2, 3, 1), np.float32))[0].reshape(2, 3)
    array([[5., 3., 5.],
           [5., 3., 5.]], dtype=float32)
    """

    def __init__(self, channels: int, size: int = 3, std: float = 0.05, rng: Rng = None,
                 dtype: type = np.float32) -> None:
        super().__init__()
        self.add_param("bias", normal_weights((size, size, channels), std, rng, dtype))

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        bias = self.params["bias"]
        check_images(self, x, bias.shape[2])
        outside = self._outside(x)
        return x + (outside @ bias.reshape(-1, bias.shape[2])).reshape(x.shape[1:]), outside

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        outside = cache
        dbias = outside.T @ dy.sum(axis=0).reshape(-1, dy.shape[3])
        self.grads["bias"] += dbias.reshape(self.grads["bias"].shape)
        return dy

    def _outside(self, x: np.ndarray) -> np.ndarray:
        """1 for each pixel's taps that lie outside the image, (h*w, size*size)."""
        inside = np.ones_like(x, shape=(1, *x.shape[1:3], 1))
        return 1 - kernels.gather(inside, len(self.params["bias"]))


def add_taps(net: Net, shape: tuple[int, int, int, int], std: float, rng: Rng, dtype: type) -> None:
    """Give a convolution its weight, N(0, std^2)."""
    if shape[1] % 2 == 0:
        raise ValueError(f"{net} expected an odd size, got {shape[1]}")
    net.add_param("weight", normal_weights(shape, std, rng, dtype))
