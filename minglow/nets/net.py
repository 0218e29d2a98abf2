"""Compositions of nets, and the elementwise nets between matrix products."""

from typing import Any

import numpy as np

from minglow import kernels
from minglow.arrays.shapes import check_input, rows
from minglow.bijection import Bijection, Net
from minglow.layers.actnorm import ActNorm


class Sequence(Net):
    """Nets in a row: y = m_n(... m_1(x)); backward is the chain rule, last net first.

    >>> net = minglow.nets.Sequence(minglow.nets.ReLU(), minglow.nets.AsNet(minglow.Reverse(2)))
    >>> net.forward(np.array([[-1.0, 2.0]]))[0]
    array([[2., 0.]])
    """

    def __init__(self, *nets: Net) -> None:
        super().__init__()
        self.nets = nets
        self.children.update({str(i): net for i, net in enumerate(nets)})

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        caches = []
        for net in self.nets:
            x, cache = net.forward(x)
            caches.append(cache)
        return x, caches

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        for net, net_cache in zip(reversed(self.nets), reversed(cache)):
            dy = net.backward(dy, net_cache)
        return dy

    def initialize(self, x: np.ndarray) -> np.ndarray:
        for net in self.nets:
            x = net.initialize(x)
        return x


class Residual(Net):
    """y = x + net(x);  dL/dx = dL/dy + (dnet/dx)^T dL/dy (He et al. 2016, equation 1).

    >>> minglow.nets.Residual(minglow.nets.ReLU()).forward(np.array([[-1.0, 2.0]]))[0]
    array([[-1.,  4.]])
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        self.children["net"] = net

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        y, cache = self.net.forward(x)
        return x + y, cache

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        return dy + self.net.backward(dy, cache)

    def initialize(self, x: np.ndarray) -> np.ndarray:
        return x + self.net.initialize(x)


class AsNet(Net):
    """A bijection used as a net: its y, without its log_det.

    >>> minglow.nets.AsNet(minglow.Reverse(2)).forward(np.array([[1.0, 2.0]]))[0]
    array([[2., 1.]])
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection
        self.children["bijection"] = bijection

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        y, _, cache = self.bijection.forward(x)
        return y, cache

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        return self.bijection.backward(dy, np.zeros_like(dy, shape=len(dy)), cache)

    def initialize(self, x: np.ndarray) -> np.ndarray:
        return self.bijection.initialize(x)


class ReLU(Net):
    """y = max(0, x);  dL/dx = dL/dy where y > 0, and 0 elsewhere.

    >>> minglow.nets.ReLU().forward(np.array([[-1.0, 2.0]]))[0]
    array([[0., 2.]])
    """

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        y = np.maximum(x, 0)
        return y, y

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        y = cache
        return dy * (y > 0)


class NormReLU(Net):
    """Actnorm, then ReLU: these follow each hidden convolution in Glow's official code.

        y = max(0, (x + shift) * scale)              shift, scale, factor: as in ActNorm

    backward    ActNorm's gradients, with dL/dy set to 0 where y = 0; they need only y.
    initialize  gives every channel mean 0 and variance 1 before the ReLU.

    >>> minglow.nets.NormReLU(1, np.float64).initialize(np.array([[1.0], [3.0]]))
    array([[0.],
           [1.]])
    """

    def __init__(self, channels: int, dtype: type = np.float32, factor: float = 1.0) -> None:
        super().__init__()
        self.norm = ActNorm(channels, dtype, factor)
        self.children["norm"] = self.norm

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        shift, log_scale = self.norm.params["shift"], self.norm.log_scale()
        check_input(self, x, len(shift))
        y = kernels.shift_scale_relu(rows(x), shift, np.exp(log_scale)).reshape(x.shape)
        return y, y

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        y = cache
        scale = np.exp(self.norm.log_scale())
        dx, dshift, dlog_scale = kernels.shift_scale_relu_backward(rows(dy), rows(y), scale)
        self.norm.grads["shift"] += dshift
        self.norm.grads["log_scale"] += self.norm.factor * dlog_scale
        return dx.reshape(dy.shape)

    def initialize(self, x: np.ndarray) -> np.ndarray:
        self.norm.initialize(x)
        return self.forward(x)[0]


class ShiftScale(Net):
    """y = (x + shift) * exp(3 * log_scale): the end of a zero-initialized convolution.

    As in the official code, shift and log_scale are 0 at first and not set from data. With the 3, the
    scale changes three times as fast as the weights.

    backward    dL/dx = dL/dy * exp(3 * log_scale)
                dL/dshift = sum dL/dx
                dL/dlog_scale = 3 * sum dL/dy * y

    >>> net = minglow.nets.ShiftScale(1)
    >>> net.params["log_scale"][...] = np.log(2) / 3
    >>> net.forward(np.ones((1, 1), np.float32))[0].round(3)
    array([[2.]], dtype=float32)
    """

    def __init__(self, channels: int, dtype: type = np.float32) -> None:
        super().__init__()
        self.add_param("shift", np.zeros(channels, dtype))
        self.add_param("log_scale", np.zeros(channels, dtype))

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        shift, scale = self.params["shift"], np.exp(3 * self.params["log_scale"])
        check_input(self, x, len(shift))
        y = kernels.shift_scale(rows(x), shift, scale).reshape(x.shape)
        return y, y

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        y = cache
        scale = np.exp(3 * self.params["log_scale"])
        dx, dshift, dlog_scale = kernels.shift_scale_backward(rows(dy), rows(y), scale)
        self.grads["shift"] += dshift
        self.grads["log_scale"] += 3 * dlog_scale
        return dx.reshape(dy.shape)
