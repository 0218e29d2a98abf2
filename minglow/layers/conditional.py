"""Conditioning on a vector: one bijection of x for each context c."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, TypeVar

import numpy as np

from minglow import validation
from minglow.arrays.device import on_host
from minglow.arrays.shapes import check_samples, check_side, join, split
from minglow.bijection import Bijection, InverseVisit, Module, Visit

Step = TypeVar("Step", Visit, InverseVisit)


class Context(threading.local):
    """What a Conditional and the nets inside it share during a call; each thread has its own values.

    value  (B, K), the context of each sample; None outside a call
    grad   (B, K), the loss's derivative with respect to it, to which every net's backward adds

    >>> context = minglow.nets.Context()
    >>> with context.of(np.array([[1.0, 2.0]])):
    ...     context.value, context.grad
    (array([[1., 2.]]), array([[0., 0.]]))
    """

    value: np.ndarray | None = None
    grad: np.ndarray | None = None

    @contextmanager
    def of(self, value: np.ndarray) -> Iterator[None]:
        """Hold a value and a gradient of zeros until the end of the block."""
        self.value, self.grad = value, np.zeros_like(value)
        try:
            yield
        finally:
            self.value = self.grad = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()  # how copy and pickle make another one: outside a call it holds nothing


class Conditional(Bijection):
    r"""A bijection of x that depends on a context c, as a bijection of pairs (Ardizzone et al. 2019, 3).

        [c, x] -> [c, y], y = inner(x; c)    c: (B, K), x: (B, *shape) flattened, y: (B, D)

    inverse     [c, y] -> [c, x], x = inner^-1(y; c)
    log_det     dc/dx = 0, so the Jacobian is block triangular:
                J = [[I, 0], [dy/dc, dy/dx]], log|det J| = log|det dy/dx|, which is inner's log_det.
    backward    dL/dx is inner's.
                dL/dc = the loss's derivative with respect to the c of the output
                        + sum over the nets m inside of (dm/dc)^T dL/dm

    inner       a bijection from (B, *shape) to (B, D), D the product of shape: for images it ends in
                Flatten. The nets inside that read c are ContextNets.
    context     the Context that these nets share
    channels    K

    Raises ValueError for arrays of another shape than (B, K + D), and for an inner bijection whose
    output is not (B, D).

    >>> context = minglow.nets.Context()
    >>> net = minglow.nets.ContextNet(minglow.nets.Dense(1, 1), context)  # reads c, and no channel of x
    >>> net.net.params["weight"][...] = 10
    >>> inner = minglow.AdditiveCoupling(net, identity_channels=0)
    >>> layer = minglow.Conditional(inner, context, channels=1, shape=(1,))
    >>> layer.forward(np.array([[2, 0.5]], np.float32))[0]
    array([[ 2. , 20.5]], dtype=float32)
    """

    def __init__(self, inner: Bijection, context: Context, channels: int,
                 shape: tuple[int, ...]) -> None:
        super().__init__()
        self.inner = validation.check_instance("the inner bijection", inner, Bijection)
        self.context = validation.check_instance("context", context, Context)
        self.channels = validation.check_count("channels", channels)
        self.shape = validation.check_shape(shape)
        self.children["inner"] = inner

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        c, inner_x = self._split_x(x)
        with self.context.of(c):
            y, log_det, inner_cache = self.inner.forward(inner_x)
        return self._joined(c, y), log_det, (c, inner_cache)

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        c, inner_y = self._split_pair(y)
        with self.context.of(c):
            x, inner_cache = self.inner.inverse(inner_y)
        return join(c, flat(x)), (c, inner_cache)

    def forward_only(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        c, inner_x = self._split_x(x)
        with self.context.of(c):
            y, log_det = self.inner.forward_only(inner_x)
        return self._joined(c, y), log_det

    def inverse_only(self, y: np.ndarray) -> np.ndarray:
        c, inner_y = self._split_pair(y)
        with self.context.of(c):
            return join(c, flat(self.inner.inverse_only(inner_y)))

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        c, inner_cache = cache
        dc, inner_dy = split(dy, self.channels)
        with self.context.of(c):
            dx = self.inner.backward(inner_dy, dlog_det, inner_cache)
            return join(dc + self.context.grad, flat(dx))

    def initialize(self, x: np.ndarray) -> np.ndarray:
        c, inner_x = self._split_x(x)
        with self.context.of(c):
            return self._joined(c, self.inner.initialize(inner_x))

    def trace(self, x: np.ndarray) -> Generator[Visit, None, np.ndarray]:
        c, inner_x = self._split_x(x)
        return self._joined(c, (yield from self._steps(c, self.inner.trace(inner_x))))

    def trace_inverse(self, y: np.ndarray) -> Generator[InverseVisit, None, np.ndarray]:
        c, inner_y = self._split_pair(y)
        return join(c, flat((yield from self._steps(c, self.inner.trace_inverse(inner_y)))))

    @contextmanager
    def given(self, context: np.ndarray | None, x: np.ndarray) -> Iterator[Bijection]:
        """The inner bijection, whose nets read a context (B, K) of the samples x until the block ends.

        Then context.grad holds what their backward adds. Raises ValueError for a context that does not
        fit x, and for None.
        """
        if context is None:
            raise no_context(self)
        shape, dtype = getattr(context, "shape", ()), getattr(context, "dtype", np.dtype(object))
        if shape != (len(x), self.channels) or dtype.kind != "f":
            got = f"{dtype} {shape}" if shape else f"a {type(context).__name__}"
            expected = f"{self} expected a context of floats ({len(x)}, {self.channels})"
            raise ValueError(f"{expected}, got {got}")
        check_side(self, context, x)
        with np.errstate(over="ignore"):  # a float64 that is too large for float32 becomes inf
            c = context.astype(x.dtype, copy=False)
        if on_host(c) and not np.isfinite(c).all():
            raise ValueError(f"{self} expected a context of finite {c.dtype}, got NaN or inf")
        with self.context.of(c):
            yield self.inner

    def _steps(self, c: np.ndarray, steps: Generator[Step, None, np.ndarray],
               ) -> Generator[Step, None, np.ndarray]:
        """A trace's steps, each with the context set anew, since between two may come another call."""
        while True:
            with self.context.of(c):
                try:
                    step = next(steps)
                except StopIteration as end:
                    return end.value
                yield step

    def _split_x(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """c, and x in inner's shape."""
        c, inner_x = self._split_pair(x)
        return c, inner_x.reshape(len(x), *self.shape)

    def _split_pair(self, pair: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """c and the rest, still flat, as views. Raises ValueError for another shape."""
        check_samples(self, pair, (self.channels + prod(self.shape),))
        return split(pair, self.channels)

    def _joined(self, c: np.ndarray, y: np.ndarray) -> np.ndarray:
        """[c, y] with inner's output."""
        if y.ndim != 2:
            raise ValueError(f"{self} expected inner to give vectors (B, D), got {y.shape}: "
                             "let it end in Flatten")
        return join(c, y)


def no_context(module: Module) -> ValueError:
    """The error of a module that needs a context."""
    return ValueError(f"{module}: the flow needs a context: log_prob(x, context=c)")


def flat(x: np.ndarray) -> np.ndarray:
    """(B, ...) as (B, D)."""
    return x.reshape(len(x), -1)
