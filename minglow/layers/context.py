"""What a Conditional and the nets inside it share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minglow.bijection import Module


class Context(threading.local):
    """What a Conditional and the nets inside it share during a call; each thread has its own values.

    value  (B, K), the standardized context of each sample; None outside a call
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


def no_context(module: Module) -> ValueError:
    """The error of a module that needs a context."""
    return ValueError(f"{module}: the flow needs a context: give context=c")
