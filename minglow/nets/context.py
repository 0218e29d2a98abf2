"""A conditioner that also reads the flow's context."""

from typing import Any

import numpy as np

from minglow import validation
from minglow.arrays.shapes import split
from minglow.bijection import Net
from minglow.layers.conditional import Context, no_context


class ContextNet(Net):
    r"""A net that reads the context beside its input: y = net([x, c]), inside a Conditional.

        x: (B, ..., C1), c: (B, K) -> joined: (B, ..., C1 + K) -> net -> y: (B, ..., C')
        joined[b, p] = [x[b, p], c[b]]       p runs over the pixels; C1 may be 0

    backward    [dL/dx, dL/djoined_c] is net's backward.
                dL/dc_b = sum_p dL/djoined_c[b, p], since every pixel reads the same c_b; it is added to
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
        dx, dc = split(self.net.backward(dy, net_cache), channels)
        self.context.grad += dc.reshape(len(dc), -1, dc.shape[-1]).sum(axis=1)
        return dx

    def initialize(self, x: np.ndarray) -> np.ndarray:
        return self.net.initialize(self._joined(x))

    def _joined(self, x: np.ndarray) -> np.ndarray:
        """[x, c], with c at every pixel."""
        c = self.context.value
        if c is None:
            raise no_context(self)
        channels = x.shape[-1]
        joined = np.empty_like(x, shape=(*x.shape[:-1], channels + c.shape[-1]))
        joined[..., :channels] = x
        joined[..., channels:] = c.reshape(len(c), *[1] * (x.ndim - 2), -1)
        return joined
