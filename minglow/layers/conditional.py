"""Conditioning on a vector: one bijection of x for each context c."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from math import prod
from typing import Any, TypeVar

import numpy as np

from minglow import validation
from minglow.arrays.device import on_host
from minglow.arrays.shapes import check_samples, check_side, join, split
from minglow.bijection import Bijection, InverseVisit, Visit
from minglow.layers.context import Context, no_context
from minglow.layers.standardization import mean_and_std

Step = TypeVar("Step", Visit, InverseVisit)


class Conditional(Bijection):
    r"""A bijection of x that depends on a context c, as a bijection of pairs (Ardizzone et al. 2019, 3).

        [c, x] -> [c, y], y = inner(x; s)    c: (B, K), x: (B, *shape) flattened, y: (B, D)
        s = (c - mean) / std                 what the nets read; mean, std: (K,), constants in float64

    inverse     [c, y] -> [c, x], x = inner^-1(y; s)
    log_det     dc/dx = 0, so the Jacobian is block triangular:
                J = [[I, 0], [dy/dc, dy/dx]], log|det J| = log|det dy/dx|, which is inner's log_det.
    backward    dL/dx is inner's.
                dL/dc = the loss's derivative with respect to the c of the output
                        + sum over the nets m inside of (dm/ds)^T dL/dm / std
    initialize  mean and (biased) std of the batch's contexts, then inner's. A context that is constant
                there gets std = 1.

    inner       a bijection from (B, *shape) to (B, D), D the product of shape: for images it ends in
                Flatten. The nets inside that read c are ContextNets.
    context     the Context that these nets share
    channels    K

    Raises ValueError for arrays of another shape than (B, K + D), for an inner bijection whose output is
    not (B, D), and for a std that is not positive.

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
        self.constants.update(mean=np.zeros(self.channels), std=np.ones(self.channels))

    def check_constants(self, constants: dict[str, np.ndarray]) -> None:
        if not (constants["std"] > 0).all():
            raise ValueError("expected positive standard deviations, got others")

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
        c, inner_x = self._split_x(x)
        with self._reading(c, x.dtype):
            y, log_det, inner_cache = self.inner.forward(inner_x)
        return self._joined(c, y), log_det, (c, inner_cache)

    def inverse(self, y: np.ndarray) -> tuple[np.ndarray, Any]:
        c, inner_y = self._split_pair(y)
        with self._reading(c, y.dtype):
            x, inner_cache = self.inner.inverse(inner_y)
        return join(c, flat(x)), (c, inner_cache)

    def forward_only(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        c, inner_x = self._split_x(x)
        with self._reading(c, x.dtype):
            y, log_det = self.inner.forward_only(inner_x)
        return self._joined(c, y), log_det

    def inverse_only(self, y: np.ndarray) -> np.ndarray:
        c, inner_y = self._split_pair(y)
        with self._reading(c, y.dtype):
            return join(c, flat(self.inner.inverse_only(inner_y)))

    def backward(self, dy: np.ndarray, dlog_det: np.ndarray, cache: Any) -> np.ndarray:
        c, inner_cache = cache
        dc, inner_dy = split(dy, self.channels)
        with self._reading(c, dy.dtype):
            dx = self.inner.backward(inner_dy, dlog_det, inner_cache)
            return join(dc + self.dcontext(), flat(dx))

    def initialize(self, x: np.ndarray) -> np.ndarray:
        c, inner_x = self._split_x(x)
        self.standardize_context(c, x)
        with self._reading(c, x.dtype):
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

        Raises ValueError for a context that does not fit x, and for None.
        """
        with self._reading(self._check_context(context, x), x.dtype):
            yield self.inner

    def standardize_context(self, context: np.ndarray | None, x: np.ndarray) -> None:
        """Set mean and std from the contexts (B, K) of the samples x. Raises as `given` does."""
        context = self._check_context(context, x)
        self.constants["mean"][...], self.constants["std"][...] = mean_and_std(context)

    def dcontext(self) -> np.ndarray:
        """The derivative with respect to c, (B, K), that the nets inside have added during this call."""
        ds: Any = self.context.grad
        return (ds / self.constants["std"]).astype(ds.dtype)

    def _reading(self, c: np.ndarray, dtype: np.dtype) -> AbstractContextManager[None]:
        """The nets read the standardized c until the end of the block."""
        check_side(self, c, self.constants["mean"])
        s = (c - self.constants["mean"]) / self.constants["std"]
        return self.context.of(s.astype(dtype))

    def _check_context(self, context: np.ndarray | None, x: np.ndarray) -> np.ndarray:
        """The context. Raises ValueError unless it fits x."""
        if context is None:
            raise no_context(self)
        shape, dtype = getattr(context, "shape", ()), getattr(context, "dtype", np.dtype(object))
        if shape != (len(x), self.channels) or dtype.kind != "f":
            got = f"{dtype} {shape}" if shape else f"a {type(context).__name__}"
            expected = f"{self} expected a context of floats ({len(x)}, {self.channels})"
            raise ValueError(f"{expected}, got {got}")
        check_side(self, context, x)
        with np.errstate(over="ignore"):  # a float64 that is too large for float32 becomes inf
            finite = not on_host(context) or np.isfinite(context.astype(x.dtype, copy=False)).all()
        if not finite:
            raise ValueError(f"{self} expected a context of finite {x.dtype}, got NaN or inf")
        return context

    def _steps(self, c: np.ndarray, steps: Generator[Step, None, np.ndarray],
               ) -> Generator[Step, None, np.ndarray]:
        """A trace's steps, each with the context set anew, since between two may come another call."""
        while True:
            with self._reading(c, c.dtype):
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


def flat(x: np.ndarray) -> np.ndarray:
    """(B, ...) as (B, D)."""
    return x.reshape(len(x), -1)
