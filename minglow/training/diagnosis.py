"""What is wrong with a flow, or soon will be: the first NaN, and how invertible it is."""

from typing import NamedTuple

import numpy as np

from minglow.arrays.device import all_finite, to_host
from minglow.bijection import SingularWeightError
from minglow.flow import Contexts, Flow

# Rounding grows with a weight's condition number and with 1 / scale; one of 256 bins is lost
# where the round trip errs by half a cell.
ROUND_TRIP = 1e-3


class Diverged(FloatingPointError):
    """Training met NaN or inf; the message has the step, the first layer concerned, and advice."""

    def __init__(self, step: int, fault: str, error: Exception) -> None:
        super().__init__(f"training diverged in step {step}: {fault} ({error}); a lower learning rate, "
                         "a longer warm-up or a smaller max_grad_norm may help")


class Invertibility(NamedTuple):
    """How far a flow is from having no inverse; each with the layer where it is worst."""

    condition: float  # of the worst 1x1 convolution's weight
    worst_weight: str
    scale: float  # the smallest of a coupling, over a batch
    worst_coupling: str
    round_trip: float  # max |x - inverse(forward(x))| over the batch; of vectors, in column ranges
    dtype: np.dtype

    def warning(self) -> str:
        """One line, or nothing, while a few digits are left."""
        room = 1e-2 / np.finfo(self.dtype).eps
        if not self.condition < room:
            return (f"{self.worst_weight} is hardly invertible: "
                    f"its weight's condition number is {self.condition:.1e}")
        if not self.scale * room > 1:
            return f"{self.worst_coupling} is hardly invertible: its smallest scale is {self.scale:.1e}"
        if not self.round_trip < ROUND_TRIP:
            return (f"forward and inverse differ by {self.round_trip:.1e}: lower the learning rate, or "
                    "bound the scale of couplings")
        return ""


def invertibility(flow: Flow, x: np.ndarray, context: Contexts = None) -> Invertibility:
    """How invertible a flow is around a batch x (B, ...).

    Looks at every layer with a `matrix()` (C, C), as the 1x1 convolutions have, and at every layer
    with `scales(x)`, as couplings have, also inside bijections that show them by `trace`.
    """
    condition, weight, scale, coupling = 1.0, "no weight", float("inf"), "no coupling"
    x = x.astype(flow.dtype, copy=False)
    with flow.conditioned(x, context) as bijection:
        for layer, at, _, _ in bijection.trace(x):
            if hasattr(layer, "matrix"):
                found = float(np.linalg.cond(to_host(layer.matrix())))
                if not found <= condition:
                    condition, weight = found, str(layer)
            elif hasattr(layer, "scales"):
                found = float(to_host(layer.scales(at).min()))
                if not found >= scale:
                    scale, coupling = found, str(layer)
    error = to_host(np.abs(flow.from_latents(flow.latents(x, context), context) - x))
    ranges = np.ptp(to_host(x), axis=0) if x.ndim == 2 else np.ones(1)
    round_trip = float((error / np.where(ranges > 0, ranges, 1)).max())
    return Invertibility(condition, weight, scale, coupling, round_trip, np.dtype(flow.dtype))


def first_nonfinite(flow: Flow, x: np.ndarray | None, context: Contexts = None) -> str:
    """The first parameter, output or gradient of a flow that is NaN or inf at x, as a clause."""
    for name in flow.flat.where:
        if not all_finite(flow.flat.view(flow.flat.value, name)):
            return f"the parameter {name} is NaN or inf"
    if x is None or not all_finite(x):
        return "x is NaN or inf: the dequantizer has diverged"
    try:
        with flow.conditioned(x, context) as bijection:
            for layer, _, y, log_det in bijection.trace(x):
                if not (all_finite(y) and all_finite(log_det)):
                    return f"{layer} is the first layer whose output is NaN or inf"
    except SingularWeightError as error:
        return str(error)
    for name in reversed(flow.flat.where):  # backward begins with the last layer
        if not all_finite(flow.flat.view(flow.flat.grad, name)):
            return f"the gradient of {name} is the first that is NaN or inf"
    return "no layer's output is NaN or inf by itself, but their sum is"
