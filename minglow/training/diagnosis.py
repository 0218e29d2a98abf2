"""What is wrong with a flow, or soon will be: the first NaN, lost invertibility, exploding samples."""

from math import prod
from typing import NamedTuple

import numpy as np

from minglow.arrays.device import all_finite, to_device_of, to_host
from minglow.bijection import SingularWeightError
from minglow.data import Images, Table
from minglow.dequantization import Dequantizer
from minglow.flow import Context, Flow
from minglow.training.evaluation import baseline, context_at

# Rounding grows with a weight's condition number and with 1 / scale; one of 256 bins is lost
# where the round trip errs by half a cell.
ROUND_TRIP = 1e-3
OUTSIDE = 3.0  # times the data's range: a sample beyond it counts as outside
FAR = 10.0  # times the data's range: no sample should be beyond it
MOST_OUTSIDE = 1e-3  # of all samples
VALUES = 2**14  # of all samples that are drawn at an evaluation
FINAL_VALUES = 2**17  # and at the end of training


class Diverged(FloatingPointError):
    """Training met NaN or inf; the message has the step, the first layer concerned, and advice."""

    def __init__(self, step: int, fault: str, error: Exception) -> None:
        super().__init__(f"training diverged in step {step}: {fault} ({error}); a lower learning rate, "
                         "a longer warm-up or a smaller max_grad_norm may help")


class TrainingWarning(UserWarning):
    """A flow was trained that is hardly invertible, whose samples explode, or that learned little."""


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
            return (f"forward and inverse differ by {self.round_trip:.1e}: lower the learning rate, "
                    "or use float64")
        return ""


def invertibility(flow: Flow, x: np.ndarray, context: Context = None) -> Invertibility:
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
    ranges = to_host(np.ptp(x, axis=0)) if x.ndim == 2 else np.ones(1)
    round_trip = float((error / np.where(ranges > 0, ranges, 1)).max())
    return Invertibility(condition, weight, scale, coupling, round_trip, np.dtype(flow.dtype))


class Explosion(NamedTuple):
    """How far samples of a flow lie from its data; a flow of good likelihood may draw samples of 1e9."""

    samples: int
    nonfinite: int  # samples that are NaN or inf
    outside: float  # the fraction of samples beyond OUTSIDE times the data's range
    farthest: float  # the farthest sample's distance from the middle of the data, in half ranges
    round_trip: float  # max |z - forward(inverse(z))| over the samples
    layer: str  # the layer whose inverse magnifies the farthest sample most
    factor: float  # by how much, compared with the median sample
    low: np.ndarray  # the smallest value of the data, or of each column
    high: np.ndarray  # and the largest

    def warning(self) -> str:
        """One line, or nothing, while samples are like the data."""
        if not self.nonfinite and self.farthest <= FAR and self.outside <= MOST_OUTSIDE:
            return ""
        found = (f"{self.nonfinite} of {self.samples} samples are NaN or inf" if self.nonfinite else
                 f"{self.outside:.2%} of {self.samples} samples lie beyond {OUTSIDE:g} times the data's "
                 f"range, the farthest at {self.farthest:.1e} times")
        return (f"samples explode: {found}; the inverse of {self.layer} magnifies most, "
                f"{self.factor:.0f} times: bound the scale (scale='tanh'), lower the learning rate, or "
                "take fewer flow steps")


def explosion(flow: Flow, low: np.ndarray, high: np.ndarray, samples: int, context: Context = None,
              ) -> Explosion:
    """Draw samples at temperature 1, and compare them with the range of the data, [low, high].

    low, high: numbers, or one for each column, (D,). context: (samples, K).
    """
    z = flow.base.sample(samples, np.random.default_rng(0), flow.dtype)
    z, growths = to_device_of(z, flow.flat.value), []
    with np.errstate(all="ignore"):
        with flow.conditioned(z, context) as bijection:
            for layer, y, x in bijection.trace_inverse(z):
                growths.append((largest(x) / largest(y), str(layer)))
            finite = np.isfinite(largest(x))
            again = bijection.forward_only(x)[0]
        middle, half = (low + high) / 2, np.maximum((high - low) / 2, np.finfo(flow.dtype).tiny)
        far = largest((to_host(x) - middle) / half)
        far = np.where(finite, far, np.inf)
        errors = largest(again - z)[finite]
        worst = int(far.argmax())
        factors = [(ratio[worst] / np.nanmedian(ratio), name) for ratio, name in growths]
    factor, name = max((pair for pair in factors if not np.isnan(pair[0])), default=(1.0, "no layer"))
    return Explosion(samples, int((~finite).sum()), float((far > OUTSIDE).mean()), float(far[worst]),
                     float(errors.max(initial=0)), name, float(factor), low, high)


def largest(x: np.ndarray) -> np.ndarray:
    """The largest absolute value of each sample, (B,), on the host."""
    return to_host(np.abs(x).reshape(len(x), -1).max(axis=1))


def sample_count(flow: Flow, values: int) -> int:
    """How many samples of a flow have about so many values: at least 16, at most 20,000."""
    return int(np.clip(values // prod(flow.base.shape), 16, 20_000))


class Monitor:
    """Looks at a flow in training from both sides: around its data, and around its samples."""

    def __init__(self, flow: Flow, data: Images | Table, dequantizer: Dequantizer) -> None:
        self.flow, self.data = flow, data
        self.low, self.high = data_range(data)
        self.count = 16 if data.bins else 256
        x = dequantizer.dequantize(data.held_out[:self.count], 0, flow.dtype)[0]
        self.x = to_device_of(x, flow.flat.value)

    def warnings(self, values: int = VALUES) -> list[str]:
        """A line for each thing that is wrong."""
        count = sample_count(self.flow, values)
        contexts = self.data.held_out_context
        x_context = context_at(self.flow, contexts, slice(self.count))
        z_context = None if contexts is None else context_at(
            self.flow, contexts, np.arange(count) % len(contexts))
        found = [invertibility(self.flow, self.x, x_context).warning(),
                 explosion(self.flow, self.low, self.high, count, z_context).warning()]
        return [line for line in found if line]

    def final_warnings(self, best: float) -> list[str]:
        """Those at the end of training, when more samples are drawn, and whether it has learned."""
        found, simple = self.warnings(FINAL_VALUES), baseline(self.data)
        if best > simple:
            name, unit = ("a uniform model", "bits per dimension") if self.data.bins else (
                "a Gaussian fitted to the training data", "nats")
            found.append(f"the held-out loss of {best:.3f} {unit} is worse than that of {name}, "
                         f"{simple:.3f}: lower the learning rate, or train for more steps")
        return found


def data_range(data: Images | Table) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest value of each column; of dequantized images, of all pixels."""
    if data.bins:
        return np.array(-0.5), np.array(0.5)
    return data.train.min(axis=0), data.train.max(axis=0)


def first_nonfinite(flow: Flow, x: np.ndarray | None, context: Context = None) -> str:
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
