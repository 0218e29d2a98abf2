"""A conditioner that also reads the flow's standardized context."""

from typing import Any

import numpy as np

from minglow import validation
from minglow.arrays.shapes import split
from minglow.bijection import Net
from minglow.layers.context import Context, no_context


class ContextNet(Net):
    r"""A net that reads the context beside its input: y = net([x, s]), inside a Conditional.

        x: (B, ..., C1), s: (B, K) -> joined: (B, ..., C1 + K) -> net -> y: (B, ..., C')
        joined[b, p] = [x[b, p], s[b]]       p runs over the pixels; C1 may be 0
        s = (c - mean) / std                 the context as the Conditional has standardized it

    backward    [dL/dx, dL/djoined_s] is net's backward.
                dL/ds_b = sum_p dL/djoined_s[b, p], since every pixel reads the same s_b; it is added to
                context.grad.

    net         its input has C1 + K channels
    context     the Context of the Conditional around it

    Raises ValueError outside a Conditional, where there is no context.

    >>> context = minglow.nets.Context()
    >>> net = minglow.nets.ContextNet(minglow.nets.Dense(3, 1), context)
    >>> net.net.params["weight"][...] = [[1], [10], [100]]
    >>> with context.of(np.array([[3]], np.float32)):  # as a Conditional does
    ...     net.forward(np.array([[1, 2]], np.float32))[0]
    array([[321.]], dtype=float32)
    """

    def __init__(self, net: Net, context: Context) -> None:
        super().__init__()
        self.net = validation.check_instance("a conditioner", net, Net)
        self.context = validation.check_instance("context", context, Context)
        self.children["net"] = net

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        y, net_cache = self.net.forward(self._joined(x))
        return y, (net_cache, x.shape[-1])

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        net_cache, channels = cache
        if self.context.grad is None:
            raise no_context(self)
        dx, ds = split(self.net.backward(dy, net_cache), channels)
        self.context.grad += ds.reshape(len(ds), -1, ds.shape[-1]).sum(axis=1)
        return dx

    def initialize(self, x: np.ndarray) -> np.ndarray:
        return self.net.initialize(self._joined(x))

    def _joined(self, x: np.ndarray) -> np.ndarray:
        """[x, s], with s at every pixel."""
        s = self.context.value
        if s is None:
            raise no_context(self)
        channels = x.shape[-1]
        joined = np.empty_like(x, shape=(*x.shape[:-1], channels + s.shape[-1]))
        joined[..., :channels] = x
        joined[..., channels:] = s.reshape(len(s), *[1] * (x.ndim - 2), -1)
        return joined
