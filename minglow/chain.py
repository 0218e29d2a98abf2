"""Composition, and with it all of the memory policy.

Floor 2. Both chains compute the same function and the same gradients; they differ in what
they remember between forward and backward.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minglow import arguments
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
        self.layers = tuple(arguments.instance("each layer of a chain", layer, Bijection)
                            for layer in layers)
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

    def forward_only(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_input(self, x)
        total = zero_log_det(x)
        for layer in self.layers:
            x, log_det = layer.forward_only(x)
            total = total + log_det
        return x, total

    def inverse_only(self, y: np.ndarray) -> np.ndarray:
        check_input(self, y)
        for layer in reversed(self.layers):
            y = layer.inverse_only(y)
        return y

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
    """A Chain that keeps the output of its first layers alone, and computes everything else again.

    On the way back each layer's inverse gives its input and, by the contract, its cache
    (Gomez et al. 2017, section 3). Memory does not grow with the number of layers; the price is one
    inverse pass, and the rounding that inverting adds.

    kept    how many of the last layers keep their caches as in a Chain. Backward begins with
            them, as soon as forward has made them: they are stored for a moment only, and spare
            the inverse pass their part.
    """

    def __init__(self, *layers: Bijection, kept: int = 0) -> None:
        super().__init__(*layers)
        middle = max(0, len(layers) - arguments.count("kept", kept, 0))
        self.first, self.last = Chain(*layers[:middle]), Chain(*layers[middle:])

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        h, log_det = self.first.forward_only(x)
        y, last_log_det, last_cache = self.last.forward(h)
        return y, log_det + last_log_det, (y, [(h, last_cache)])

    def forward_only(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        h, log_det = self.first.forward_only(x)
        y, last_log_det = self.last.forward_only(h)
        return y, log_det + last_log_det  # summed as in forward, so that both round alike

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        h, last_cache = self.last.inverse(y)
        return self.first.inverse_only(h), (y, [(h, last_cache)])

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        y, kept = cache
        layers = self.layers
        if kept:  # used up, so that it is gone while the others are recomputed
            y, last_cache = kept.pop()
            dy, layers = self.last.backward(dy, dlog_det, last_cache), self.first.layers
            del last_cache
        for layer in reversed(layers):
            y, layer_cache = layer.inverse(y)
            dy = layer.backward(dy, dlog_det, layer_cache)
        return dy
