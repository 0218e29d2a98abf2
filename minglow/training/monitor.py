"""A flow in training, seen from both sides: around its data, and around its samples."""

from math import prod
from typing import NamedTuple

import numpy as np

from minglow.arrays.device import to_device_of, to_host
from minglow.data import Images, Table
from minglow.dequantization import Dequantizer
from minglow.flow import Contexts, Flow
from minglow.layers import Standardization
from minglow.training.diagnosis import invertibility
from minglow.training.evaluation import baseline, context_at

OUTSIDE = 3.0  # times the data's radius: a sample beyond it counts as outside
FAR = 10.0  # times the data's radius: no sample is as far as that from data of heavy tails
HEAVY = 8.0  # standard deviations in the radius of a column that has heavy tails
NOISE = 0.02  # nats for each column: a loss that is worse by less may be as good
VALUES = 2**14  # of all samples that are drawn at an evaluation
FINAL_VALUES = 2**17  # and at the end of training


class TrainingWarning(UserWarning):
    """A flow was trained that is hardly invertible, whose samples explode, or that learned little."""


class Explosion(NamedTuple):
    """How far samples of a flow lie from its data; a flow of good likelihood may draw samples of 1e9."""

    samples: int
    nonfinite: int  # samples that are NaN or inf
    outside: float  # the fraction of samples beyond OUTSIDE times the data's radius
    farthest: float  # the farthest sample's distance from the center of the data, in their radius
    round_trip: float  # max |z - forward(inverse(z))| over the samples
    layer: str  # the layer whose inverse magnifies the farthest sample most
    factor: float  # by how much
    center: np.ndarray  # the median of the data, or of each column
    radius: np.ndarray  # the largest distance of a value from it
    advice: str  # what to do against samples that are far from the data

    def warning(self, limit: float = FAR) -> str:
        """One line, or nothing, while no sample is farther than `limit` times the data's radius."""
        if self.farthest <= limit:
            return ""
        found = (f"{self.nonfinite} of {self.samples} samples are NaN or inf" if self.nonfinite else
                 f"{self.outside:.2%} of {self.samples} samples lie beyond {OUTSIDE:g} times the data's "
                 f"radius, the farthest at {self.farthest:.2g} times")
        return (f"{found}; the inverse of {self.layer} magnifies most, {self.factor:.2g} times: "
                f"{self.advice}")


def explosion(flow: Flow, center: np.ndarray, radius: np.ndarray, samples: int,
              context: Contexts = None) -> Explosion:
    """Draw samples at temperature 1, and compare them with the data, which lie in center +- radius.

    center, radius: numbers, or one for each column, (D,). context: (samples, K).
    """
    z = flow.base.sample(samples, np.random.default_rng(0), flow.dtype)
    z, growths = to_device_of(z, flow.flat.value), []
    with np.errstate(all="ignore"):
        with flow.conditioned(z, context) as bijection:
            for layer, y, x in bijection.trace_inverse(z):
                if not isinstance(layer, Standardization):  # its factors are the units of the data
                    growths.append((largest(x) / largest(y), str(layer)))
            finite = np.isfinite(largest(x))
            again = bijection.forward_only(x)[0]
        far = largest((to_host(x) - center) / radius)
        far = np.where(finite, far, np.inf)
        errors = largest(again - z)[finite]
        worst = int(far.argmax())
        factors = [(growth[worst], name) for growth, name in growths]
    factor, name = max((pair for pair in factors if not np.isnan(pair[0])), default=(1.0, "no layer"))
    return Explosion(samples, int((~finite).sum()), float((far > OUTSIDE).mean()), float(far[worst]),
                     float(errors.max(initial=0)), name, float(factor), center, radius, advice_for(flow))


def advice_for(flow: Flow) -> str:
    """What to do against samples that are far from the data."""
    scale = getattr(flow.config, "scale", None)
    bounded = "bound the scale (scale='tanh'), " if scale in ("sigmoid", "exp") else ""
    return f"{bounded}lower the learning rate, or take fewer flow steps"


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
        self.center, self.radius = data_range(data)
        heavy = data.bins or (self.radius > HEAVY * data.train.std(axis=0)).any()
        self.limit = FAR if heavy else OUTSIDE
        self.count = 16 if data.bins else 256
        x = dequantizer.dequantize(data.held_out[:self.count], 0, flow.dtype)[0]
        self.x = to_device_of(x, flow.flat.value)

    def around_data(self) -> list[str]:
        """A line if the flow is hardly invertible at held-out data; else none."""
        context = context_at(self.flow, self.data.held_out_context, slice(self.count))
        return list(filter(None, [invertibility(self.flow, self.x, context).warning()]))

    def around_samples(self, values: int = VALUES, limit: float = FAR) -> list[str]:
        """A line if a sample is farther from the data than `limit` times their radius; else none."""
        count, contexts = sample_count(self.flow, values), self.data.held_out_context
        context = None if contexts is None else context_at(
            self.flow, contexts, np.arange(count) % len(contexts))
        found = explosion(self.flow, self.center, self.radius, count, context)
        return list(filter(None, [found.warning(limit)]))

    def final_warnings(self, best: float, since_best: int = 0) -> list[str]:
        """Those at the end of training, when more samples are drawn, and whether it has learned.

        best: the lowest held-out loss; since_best: evaluations after it.
        """
        found = [*self.around_data(), *self.around_samples(FINAL_VALUES, self.limit)]
        simple = baseline(self.data)
        if best > simple + (0 if self.data.bins else NOISE * self.x.shape[1]):
            name, unit = ("a uniform model", "bits per dimension") if self.data.bins else (
                "a Gaussian fitted to the training data", "nats")
            advice = ("it rose later, so take a smaller flow, a lower learning rate or patience"
                      if since_best else "lower the learning rate, or train for more steps")
            found.append(f"the held-out loss of {best:.3f} {unit} is worse than that of {name}, "
                         f"{simple:.3f}: {advice}")
        return found


def data_range(data: Images | Table) -> tuple[np.ndarray, np.ndarray]:
    """The median of each column, and the largest distance of a value from it; of dequantized images 0
    and 1/2."""
    if data.bins:
        return np.array(0.0), np.array(0.5)
    center = np.median(data.train, axis=0)
    return center, np.abs(data.train - center).max(axis=0)
