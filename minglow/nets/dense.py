"""Dense layers, which on images are 1x1 convolutions."""

from typing import Any

import numpy as np

from minglow.arrays.shapes import check_input, normal_weights, rows
from minglow.bijection import Net, Rng


class Dense(Net):
    r"""The same matrix for every channel vector: a dense layer, or a 1x1 convolution of images.

        y_n = x_n W + bias                   n runs over (B, h, w); W: (C_in, C_out)

    backward    dL/dW = sum_n x_n^T dL/dy_n
                dL/dbias = sum_n dL/dy_n
                dL/dx_n = dL/dy_n W^T
    initialize  nothing is set from data; W ~ N(0, std^2) at first, and bias = 0.

    std         by default sqrt(2 / C_in) (He et al. 2015, equation 10)

    >>> net = minglow.nets.Dense(2, 1)
    >>> net.params["weight"][...] = [[1], [10]]
    >>> net.forward(np.array([[1, 2]], np.float32))[0]
    array([[21.]], dtype=float32)
    """

    def __init__(self, channels_in: int, channels_out: int, bias: bool = True, std: float | None = None,
                 rng: Rng = None, dtype: type = np.float32) -> None:
        super().__init__()
        std = np.sqrt(2 / channels_in) if std is None else std
        self.add_param("weight", normal_weights((channels_in, channels_out), std, rng, dtype))
        if bias:
            self.add_param("bias", np.zeros(channels_out, dtype))

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, x, len(self.params["weight"]))
        y = rows(x) @ self.params["weight"]
        if "bias" in self.params:
            y += self.params["bias"]
        return y.reshape(*x.shape[:-1], -1), x

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        x = cache
        self.grads["weight"] += rows(x).T @ rows(dy)
        if "bias" in self.params:
            self.grads["bias"] += rows(dy).sum(axis=0)
        return (rows(dy) @ self.params["weight"].T).reshape(x.shape)


class Bias(Net):
    """y = x + bias;  dL/dx = dL/dy, dL/dbias = sum_n dL/dy_n; bias: (C,), 0 at first.

    >>> net = minglow.nets.Bias(2)
    >>> net.backward(np.ones((3, 2), np.float32), None), net.grads["bias"]
    (array([[1., 1.],
           [1., 1.],
           [1., 1.]], dtype=float32), array([3., 3.], dtype=float32))
    """

    def __init__(self, channels: int, dtype: type = np.float32) -> None:
        super().__init__()
        self.add_param("bias", np.zeros(channels, dtype))

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, x, len(self.params["bias"]))
        return x + self.params["bias"], None

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        self.grads["bias"] += rows(dy).sum(axis=0)
        return dy
