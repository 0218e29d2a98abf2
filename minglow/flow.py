"""A density: a bijection to latents, and a base distribution over them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from minglow import kernels, validation
from minglow.arrays.device import all_finite, on_host, to_device_of, to_host
from minglow.arrays.trainable import Trainable
from minglow.bases import Base
from minglow.bases.base import Labels
from minglow.bijection import Bijection, Rng
from minglow.layers.conditional import Conditional

Contexts = np.ndarray | None  # (B, K)
ON_DEVICE = "cupy", "numpy"  # the backends whose kernels a device's arrays answer


class Loss(NamedTuple):
    """What `Flow.nll_backward` returns; on a device the numbers are arrays."""

    nll: float | np.ndarray  # mean negative log-likelihood of the batch, in nats
    dx: np.ndarray  # derivative of nll + classification_weight * cross_entropy with respect to x
    cross_entropy: float | np.ndarray  # mean, of the base's classifier, in nats; 0 without one
    dcontext: Contexts = None  # derivative with respect to the context, (B, K), if there is one


class Flow(Trainable):
    """log p(x) = log p_base(z) + log|det dz/dx|, with z = bijection(x).

    bijection  from data to latents; a Conditional makes all densities p(x | context)
    base       the distribution of the latents
    config     the settings that it was built with, for a flow of minglow.models

    labels, (B,) integers, are the classes of the samples, for a base that has some: densities are then
    p(x | label), and without labels those of the mixture of all classes. context, (B, K) floats, has to
    be given if the bijection is a Conditional.

    Every method raises ValueError for input that is empty, not of floats, or not finite in the flow's
    dtype, and for labels or a context that do not fit; FloatingPointError where finite input leads to a
    result that is not.

    A flow that was moved to a device (`minglow.to_device`) takes and gives arrays there, under the
    backend "cupy". `nll_backward` then reads no value, so that nothing waits: NaN stays in its result.
    """

    def __init__(self, bijection: Bijection, base: Base, config: Any = None) -> None:
        super().__init__()
        self.bijection = validation.check_instance("a flow's bijection", bijection, Bijection)
        self.base = validation.check_instance("a flow's base", base, Base)
        self.config = config
        self.children.update(bijection=bijection, base=base)
        self.flatten()

    @property
    def context_size(self) -> int:
        """K, the length of the context; 0 without one."""
        return self.bijection.channels if isinstance(self.bijection, Conditional) else 0

    def log_prob(self, x: np.ndarray, labels: Labels = None, context: Contexts = None) -> np.ndarray:
        """log p(x_b) of each sample, (B,), in nats."""
        x, labels = self._checked(x), self.base.checked_labels(labels, len(x))
        with self.conditioned(x, context) as bijection:
            z, log_det = bijection.forward_only(x)
            log_prob = self.base.log_prob(z, labels) + log_det
        return self._finite(log_prob, "log_prob")

    def log_prob_given_class(self, x: np.ndarray, context: Contexts = None) -> np.ndarray:
        """log p(x_b | k) of each sample and class, (B, K), in nats.

        By Bayes' rule the largest of a row is the likeliest class, if all are equally frequent.
        """
        if not self.base.classes:
            raise ValueError(f"{self} expected a base with classes, got {type(self.base).__name__}")
        x = self._checked(x)
        with self.conditioned(x, context) as bijection:
            z, log_det = bijection.forward_only(x)
            log_prob = self.base.log_prob_given_class(z) + log_det[:, None]
        return self._finite(log_prob, "log_prob_given_class")

    def sample(self, n: int, rng: Rng = None, temperature: float = 1.0,
               labels: int | Labels = None, context: Contexts = None, on_bad: str = "raise",
               ) -> np.ndarray:
        """Draw n samples, of one label or of n, for one context (K,) or for n of them, (n, K).

        temperature  multiplies the noise of the latents, in every level (Kingma & Dhariwal 2018,
                     section 6)
        on_bad       what happens to samples that are NaN or inf: "raise" raises FloatingPointError,
                     which has their number and the layer that made them; "drop" returns the others,
                     "keep" all
        """
        if on_bad not in ("raise", "drop", "keep"):
            raise ValueError(f"expected on_bad to be raise, drop or keep, got {on_bad!r}")
        n = validation.check_count("the number of samples", n)
        temperature = validation.check_number("temperature", temperature)
        if labels is not None:
            labels = np.full(n, labels) if np.ndim(labels) == 0 else np.asarray(labels)
            labels = self.base.checked_labels(labels, n)
        if context is not None and getattr(context, "ndim", 0) == 1:
            context = np.repeat(context[None], n, axis=0)
        z = self.base.sample(n, np.random.default_rng(rng), self.dtype, temperature, labels)
        z = to_device_of(z, self.flat.value)
        with np.errstate(all="ignore"):
            x = self._inverse(z, context)
            finite = np.isfinite(x.reshape(n, -1)).all(axis=1)
            if on_bad == "keep" or all_finite(x):
                return x
            if on_bad == "drop" and finite.any():
                return x[finite]
            culprit = self.first_nonfinite_inverse(z, context)
        raise FloatingPointError(
            f"{int((~finite).sum())} of {n} samples at temperature {temperature:g} are NaN or inf, from "
            f"the inverse of {culprit}: on_bad='drop' leaves them out; see `minglow info` for a remedy")

    def first_nonfinite_inverse(self, z: np.ndarray, context: Contexts = None) -> str:
        """The layer whose inverse is the first, from the latents z (B, D) on, to give NaN or inf."""
        with np.errstate(all="ignore"), self.conditioned(z, context) as bijection:
            return next((str(layer) for layer, _, x in bijection.trace_inverse(z) if not all_finite(x)),
                        "no layer")

    def nll_backward(self, x: np.ndarray, labels: Labels = None, classification_weight: float = 0.0,
                     context: Contexts = None) -> Loss:
        """Mean negative log-likelihood of a batch in nats; its derivatives are added to every `grads`.

            nll = -1/B sum_b [log p_base(z_b) + log_det_b]

        so that dnll/dlog p_base = dnll/dlog_det_b = -1/B. The derivatives are those of
        nll + classification_weight * cross_entropy, the latter of the base's classifier.
        """
        x, labels = self._checked(x), self.base.checked_labels(labels, len(x))
        cross_entropy: Any = 0.0
        with self.conditioned(x, context) as bijection:
            z, log_det, cache = bijection.forward(x)
            nll = -np.mean(self.base.log_prob(z, labels) + log_det)
            nll = self._finite(float(nll), "nll") if on_host(nll) else nll
            dlog_prob = np.full_like(log_det, -1 / len(x))
            dz = self.base.backward(dlog_prob, z, labels)
            if classification_weight:
                if labels is None:
                    raise ValueError(f"{self} expected labels to classify by, got none")
                cross_entropy = self.base.cross_entropy(z, labels).mean()
                dz += self.base.cross_entropy_backward(-classification_weight * dlog_prob, z, labels)
            dx = bijection.backward(dz, dlog_prob, cache)
            dcontext = self.bijection.dcontext() if isinstance(self.bijection, Conditional) else None
        return Loss(nll, dx, cross_entropy, dcontext)

    def initialize(self, x: np.ndarray, context: Contexts = None) -> None:
        """Set the data-dependent parameters and constants from one batch, before training, once."""
        x = self._checked(x)
        if isinstance(self.bijection, Conditional):
            self.bijection.standardize_context(context, x)
        with self.conditioned(x, context) as bijection:
            self._finite(bijection.initialize(x), "initialize")
        self._finite(self.flat.value, "initialize")

    def latents(self, x: np.ndarray, context: Contexts = None) -> np.ndarray:
        """z = bijection(x), (B, D): every level's, in one vector."""
        return self._finite(self._forward(self._checked(x), context), "latents")

    def from_latents(self, z: np.ndarray, context: Contexts = None) -> np.ndarray:
        """The x whose latents are z, (B, D): the inverse of `latents`."""
        return self._finite(self._inverse(self._checked(z), context), "from_latents")

    def reconstruction_error(self, x: np.ndarray, context: Contexts = None) -> float:
        """max |x - inverse(forward(x))| over the batch: how invertible the flow is in its dtype."""
        x = self._checked(x)
        error = np.max(np.abs(self._inverse(self._forward(x, context), context) - x))
        return self._finite(float(to_host(error)), "reconstruction_error")

    def _forward(self, x: np.ndarray, context: Contexts) -> np.ndarray:
        with self.conditioned(x, context) as bijection:
            return bijection.forward_only(x)[0]

    def _inverse(self, z: np.ndarray, context: Contexts) -> np.ndarray:
        with self.conditioned(z, context) as bijection:
            return bijection.inverse_only(z)

    @contextmanager
    def conditioned(self, x: np.ndarray, context: Contexts) -> Iterator[Bijection]:
        """The bijection of x for one call; the nets inside read the context."""
        with self._threads(x):
            if isinstance(self.bijection, Conditional):
                with self.bijection.given(context, x) as inner:
                    yield inner
            elif context is not None:
                raise ValueError(f"{self} expected no context: its bijection is no Conditional")
            else:
                yield self.bijection

    def _checked(self, x: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
        x = super()._checked(x, shape)
        if not on_host(x) and kernels.current_backend() not in ON_DEVICE:
            raise ValueError("expected minglow.use('cupy') for a flow on a device, "
                             f"got the backend {kernels.current_backend()}")
        return x
