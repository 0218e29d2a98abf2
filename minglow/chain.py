"""Composition, and with it the memory policy.

Both chains compute the same function and gradients; they differ in what they store for backward.
"""

from collections.abc import Generator
from typing import Any

import numpy as np

from minglow import validation
from minglow.arrays.shapes import check_input, zero_log_det
from minglow.bijection import Bijection, InverseVisit, Visit


class Chain(Bijection):
    r"""Layers in a row: y = f_n(... f_2(f_1(x))).

    inverse     x = f_1^-1(... f_n^-1(y)): the inverses, last layer first
    log_det     the sum of the layers' log_dets, since the determinants of Jacobians multiply
    backward    the chain rule, last layer first; every layer gets the same dlog_det, since each log_det
                is one term of the sum

    It stores every layer's cache: memory grows with the number of layers.

    >>> chain = minglow.Chain(minglow.Squeeze(), minglow.Reverse(4))
    >>> y, log_det, _ = chain.forward(np.arange(4.0).reshape(1, 2, 2, 1))
    >>> y, log_det
    (array([[[[3., 2., 1., 0.]]]]), array([0.]))
    """

    def __init__(self, *layers: Bijection) -> None:
        super().__init__()
        self.layers = tuple(validation.check_instance("each layer of a chain", layer, Bijection)
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
        for layer in reversed(self.layers):
            y = layer.inverse_only(y)
        return y

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        for layer, layer_cache in zip(reversed(self.layers), reversed(cache)):
            dy = layer.backward(dy, dlog_det, layer_cache)
        return dy

    def initialize(self, x: np.ndarray) -> np.ndarray:
        for layer in self.layers:
            x = layer.initialize(x)
        return x

    def trace(self, x: np.ndarray) -> Generator[Visit, None, np.ndarray]:
        for layer in self.layers:
            x = yield from layer.trace(x)
        return x

    def trace_inverse(self, y: np.ndarray) -> Generator[InverseVisit, None, np.ndarray]:
        for layer in reversed(self.layers):
            y = yield from layer.trace_inverse(y)
        return y


class ReversibleChain(Chain):
    """A Chain that stores the output of its first layers, and recomputes everything before it.

    In backward each layer's inverse gives its input and, by the contract, its cache (Gomez et al. 2017,
    section 3). Memory does not grow with the number of layers. The price is one more inverse of these
    layers, and the rounding that inverting adds.

    stored  how many of the last layers store their caches as in a Chain: backward needs no inverse of
            these layers, and frees their caches first.

    >>> chain, x = minglow.ReversibleChain(minglow.Squeeze(), minglow.Reverse(4)), np.ones((1, 2, 2, 1))
    >>> y, log_det, cache = chain.forward(x)
    >>> chain.backward(y, log_det, cache).shape
    (1, 2, 2, 1)
    """

    def __init__(self, *layers: Bijection, stored: int = 0) -> None:
        super().__init__(*layers)
        middle = max(0, len(layers) - validation.check_count("stored", stored, 0))
        self.first, self.last = Chain(*layers[:middle]), Chain(*layers[middle:])

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"class": "Chain"}  # the same function

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
        (y, stored), layers = cache, self.layers
        if stored:  # popped, so that these caches are freed while the others are recomputed
            y, last_cache = stored.pop()
            dy, layers = self.last.backward(dy, dlog_det, last_cache), self.first.layers
            del last_cache
        for layer in reversed(layers):
            y, layer_cache = layer.inverse(y)
            dy = layer.backward(dy, dlog_det, layer_cache)
        return dy
