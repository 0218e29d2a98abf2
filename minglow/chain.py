"""Composition, and with it all of the memory policy.

Floor 2. Both chains compute the same function and the same gradients; they differ in what
they remember between forward and backward.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minglow.arrays import check_input, zero_log_det
from minglow.bijection import Bijection


class Chain(Bijection):
    r"""Layers in a row: y = f_n(... f_2(f_1(x))).

    log_det   the sum of the layers' log_dets, since Jacobians multiply
    backward  the chain rule, last layer first; every layer meets the same dlog_det, since
              each log_det is one term of the sum

    Keeps every layer's cache: memory grows with the number of layers.
    """

    def __init__(self, *layers: Bijection) -> None:
        super().__init__()
        self.layers = layers
        self.children.update({str(i): layer for i, layer in enumerate(layers)})

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        check_input(self, x)
        total, caches = zero_log_det(x), []
        for layer in self.layers:
            x, log_det, cache = layer.forward(x)
            total = total + log_det
            caches.append(cache)
        return x, total, caches

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, y)
        caches = []
        for layer in reversed(self.layers):
            y, cache = layer.inverse(y)
            caches.append(cache)
        return y, caches[::-1]

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        for layer, layer_cache in zip(reversed(self.layers), reversed(cache)):
            dy = layer.backward(dy, dlog_det, layer_cache)
        return dy

    def initialize(self, x: np.ndarray) -> np.ndarray:
        check_input(self, x)
        for layer in self.layers:
            x = layer.initialize(x)
        return x


class ReversibleChain(Chain):
    """A Chain that keeps its output alone, and computes everything else again.

    On the way back each layer's inverse gives its input and, by the contract, its cache
    (Gomez et al. 2017, section 3). Memory does not grow with the number of layers; the
    price is one inverse pass and the rounding that inverting adds.
    """

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        check_input(self, x)
        total = zero_log_det(x)
        for layer in self.layers:
            x, log_det, _ = layer.forward(x)
            total = total + log_det
        return x, total, x

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        check_input(self, y)
        x = y
        for layer in reversed(self.layers):
            x, _ = layer.inverse(x)
        return x, y

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        y = cache
        for layer in reversed(self.layers):
            y, layer_cache = layer.inverse(y)
            dy = layer.backward(dy, dlog_det, layer_cache)
        return dy
