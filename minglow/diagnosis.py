"""What has gone wrong in a flow, or is about to: the first NaN, and how invertible it is. Floor 2."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import NamedTuple

import numpy as np

from minglow.arrays import halves, join
from minglow.bijection import Bijection, SingularWeightError
from minglow.chain import Chain
from minglow.device import all_finite, to_host
from minglow.flow import Flow
from minglow.layers import AffineCoupling, Checkerboard, InvConv1x1, InvConv1x1LU, Level
from minglow.layers.checkerboard import from_fields, to_fields

# Rounding grows with a weight's condition number and with 1 / scale; a digit of 256 levels is lost
# where the way there and back errs by half a cell.
ROUND_TRIP = 1e-3


class Invertibility(NamedTuple):
    """How far a flow is from having no inverse; each with the layer where it is worst."""

    condition: float  # of the worst 1x1 convolution's weight
    worst_weight: str
    scale: float  # the smallest of an affine coupling, over a batch
    worst_coupling: str
    round_trip: float  # max |x - inverse(forward(x))| over the batch
    dtype: np.dtype

    def warning(self) -> str:
        """One line, or nothing, while a few digits are left."""
        room = 1e-2 / np.finfo(self.dtype).eps
        if not self.condition < room:
            return (f"{self.worst_weight} is hardly invertible: "
                    f"its weight's condition number is {self.condition:.1e}")
        if not self.scale * room > 1:
            return (f"{self.worst_coupling} is hardly invertible: "
                    f"its smallest scale is {self.scale:.1e}")
        if not self.round_trip < ROUND_TRIP:
            return f"forward and inverse differ by {self.round_trip:.1e}: lower the rate, or use float64"
        return ""


def invertibility(flow: Flow, x: np.ndarray) -> Invertibility:
    """How invertible a flow is around a batch x (B, ...)."""
    condition, weight, scale, coupling = 1.0, "no weight", float("inf"), "no coupling"
    x = x.astype(flow.dtype, copy=False)
    for layer, at, _, _ in trace(flow.bijection, x):
        if isinstance(layer, (InvConv1x1, InvConv1x1LU)):
            found = float(np.linalg.cond(to_host(weight_of(layer))))
            if not found <= condition:
                condition, weight = found, str(layer)
        elif isinstance(layer, AffineCoupling):
            found = float(to_host(layer.scales(at).min()))
            if not found >= scale:
                scale, coupling = found, str(layer)
    return Invertibility(condition, weight, scale, coupling, flow.reconstruction_error(x),
                         np.dtype(flow.dtype))


def weight_of(layer: InvConv1x1 | InvConv1x1LU) -> np.ndarray:
    """The matrix that every pixel's channels meet, (C, C)."""
    if isinstance(layer, InvConv1x1):
        return layer.params["weight"]
    permuted_lower, upper = layer.factors()
    return permuted_lower @ upper


def first_fault(flow: Flow, x: np.ndarray | None) -> str:
    """The first parameter, output or gradient of a flow that is NaN or inf at x, in words."""
    for name in flow.flat.where:
        if not all_finite(flow.flat.view(flow.flat.value, name)):
            return f"the parameter {name} is NaN or inf"
    if x is None or not all_finite(x):
        return "x is NaN or inf: the dequantizer has diverged"
    try:
        for layer, _, y, log_det in trace(flow.bijection, x):
            if not (all_finite(y) and all_finite(log_det)):
                return f"{layer} is the first layer whose output is NaN or inf"
    except SingularWeightError as error:
        return str(error)
    for name in reversed(flow.flat.where):  # backward begins with the last layer
        if not all_finite(flow.flat.view(flow.flat.grad, name)):
            return f"the gradient of {name} is the first that is NaN or inf"
    return "no layer's output is NaN or inf by itself, but their sum is"


Visit = tuple[Bijection, np.ndarray, np.ndarray, np.ndarray]


def trace(bijection: Bijection, x: np.ndarray) -> Iterator[Visit]:
    """(layer, x, y, log_det) of each layer that is not made of others, in forward's order."""
    yield from _visits(bijection, x)


def _visits(bijection: Bijection, x: np.ndarray) -> Generator[Visit, None, np.ndarray]:
    """The visits of a bijection; what it returns is its output."""
    if isinstance(bijection, Chain):
        for layer in bijection.layers:
            x = yield from _visits(layer, x)
        return x
    if isinstance(bijection, Level):
        stays, leaves = halves((yield from _visits(bijection.steps, x)))
        z = yield from _visits(bijection.inner, stays)
        return join(leaves.reshape(len(x), -1), z)
    if isinstance(bijection, Checkerboard):
        parity = bijection.parity
        return from_fields((yield from _visits(bijection.inner, to_fields(x, parity))), parity)
    y, log_det = bijection.forward_only(x)
    yield bijection, x, y, log_det
    return y
