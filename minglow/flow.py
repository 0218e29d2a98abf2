"""A density: a bijection to latents, and a base distribution over them.

Floor 2.
"""

from __future__ import annotations

from math import prod
from typing import TypeVar

import numpy as np

from minglow import arguments, kernels
from minglow.arrays import check_input, check_side
from minglow.bijection import Bijection, Module
from minglow.blas import for_products_of
from minglow.device import all_finite, beside, on_host, to_host
from minglow.distributions import Labels, Rng, StandardLogistic, StandardNormal
from minglow.memory import give_back_freed_memory
from minglow.params import FlatParams
from minglow.top_prior import TopPrior

Base = StandardNormal | StandardLogistic | TopPrior
T = TypeVar("T", float, np.ndarray)
ON_DEVICE = "cupy", "numpy"  # the backends whose kernels a device's arrays answer


class Flow(Module):
    """log p(x) = log p_base(z) + log|det dz/dx|, with z = bijection(x).

    flat   all parameters as one vector (FlatParams)
    dtype  the parameters' dtype; arrays that come in are cast to it
    largest  how many numbers its largest parameter holds: with the batch, how large its products are

    labels, (B,) integers, are the classes of the samples, for a base that has some: densities are
    then p(x | label), and without labels those of the mixture of all classes.

    Every method raises ValueError for input that is empty, not of floats, or not finite in the
    flow's dtype, and for labels that its base does not have; FloatingPointError where finite input
    leads to a result that is not.

    A flow that was moved to a device (`minglow.to_device`) takes and gives arrays there, under the
    backend "cupy"; `nll_and_grad` then looks at no number, so that nothing is waited for: a NaN that
    goes in, or comes about, is in its result.
    """

    def __init__(self, bijection: Bijection, base: Base) -> None:
        super().__init__()
        arguments.instance("a flow's bijection", bijection, Bijection)
        arguments.instance("a flow's base", base, Module)
        self.bijection, self.base = bijection, base
        self.children.update(bijection=bijection, base=base)
        self.flat = FlatParams(self)
        give_back_freed_memory()  # the arrays that the vector's views have replaced
        self.dtype = self.flat.value.dtype.type
        self.largest = max((prod(shape) for _, shape in self.flat.where.values()), default=0)
        for path, module in self.walk():
            module.path = path

    def __reduce__(self) -> tuple[type[Flow], tuple[Bijection, Base]]:
        """Copies and pickles are built anew: a copied view would not be a view of the copied vector."""
        return Flow, (self.bijection, self.base)

    def log_prob(self, x: np.ndarray, labels: Labels = None) -> np.ndarray:
        """log p(x_b) of each sample, (B,), in nats."""
        x, labels = self._checked(x), self._checked_labels(labels, len(x))
        with for_products_of(x.size * self.largest):
            z, log_det = self.bijection.forward_only(x)
        return self._finite(self.base.log_prob(z, labels) + log_det, "log_prob")

    def class_log_prob(self, x: np.ndarray) -> np.ndarray:
        """log p(x_b | k) of each sample and class, (B, K), in nats.

        By Bayes' rule the largest of a row is the likeliest class, if all are equally frequent.
        """
        if not isinstance(self.base, TopPrior) or not self.base.classes:
            raise ValueError(f"{self} expected a base with classes, got {type(self.base).__name__}")
        z, log_det = self.bijection.forward_only(self._checked(x))
        return self._finite(self.base.class_log_prob(z) + log_det[:, None], "class_log_prob")

    def sample(self, n: int, rng: Rng = None, temperature: float = 1.0,
               labels: int | Labels = None) -> np.ndarray:
        """Draw n samples, of one label or of n. The latents' noise is multiplied by `temperature`, in
        every level (Kingma & Dhariwal 2018, section 6)."""
        n = arguments.count("the number of samples", n)
        temperature = arguments.amount("temperature", temperature)
        if labels is not None:
            each = np.full(n, labels) if np.ndim(labels) == 0 else np.asarray(labels)
            labels = self._checked_labels(each, n)
        z = self.base.sample(n, np.random.default_rng(rng), self.dtype, temperature, labels)
        z = beside(z, self.flat.value)
        with for_products_of(z.size * self.largest):
            x = self.bijection.inverse_only(z)
        if not all_finite(x):
            raise FloatingPointError(f"samples at temperature {temperature:g} are NaN or inf")
        return x

    def nll_and_grad(self, x: np.ndarray, labels: Labels = None, classification: float = 0.0,
                     ) -> tuple[float | np.ndarray, np.ndarray]:
        """Mean negative log-likelihood of a batch in nats, and its derivative by x.

            loss = -1/B sum_b [log p_base(z_b) + log_det_b]

        so that dloss/dlog p_base = dloss/dlog_det_b = -1/B. Adds the derivatives by the parameters
        to every module's grads. On a device the first is an array of no dimensions.
        `classification` adds so many times the mean cross entropy of the
        base's classifier, in nats, to what is derived, not to what is returned.
        """
        x, labels = self._checked(x), self._checked_labels(labels, len(x))
        with for_products_of(x.size * self.largest):
            z, log_det, cache = self.bijection.forward(x)
            nll = -np.mean(self.base.log_prob(z, labels) + log_det)
            nll = self._finite(float(nll), "nll") if on_host(nll) else nll
            share = np.full_like(log_det, -1 / len(x))
            dz = self.base.backward(share, z, labels)
            if classification:
                if labels is None or not isinstance(self.base, TopPrior):
                    raise ValueError(f"{self} expected labels to classify by, got none")
                dz += self.base.cross_entropy_backward(-classification * share, z, labels)
            dx = self.bijection.backward(dz, share, cache)
        return nll, dx

    def initialize(self, x: np.ndarray) -> None:
        """Set the data-dependent parameters from one batch, before training, once."""
        self._finite(self.bijection.initialize(self._checked(x)), "initialize")
        self._finite(self.flat.value, "initialize")

    def latents(self, x: np.ndarray) -> np.ndarray:
        """z = bijection(x), (B, D): every level's, in one vector."""
        return self._finite(self.bijection.forward_only(self._checked(x))[0], "latents")

    def from_latents(self, z: np.ndarray) -> np.ndarray:
        """The x whose latents are z, (B, D): the inverse of `latents`."""
        return self._finite(self.bijection.inverse_only(self._checked(z)), "from_latents")

    def reconstruction_error(self, x: np.ndarray) -> float:
        """max |x - inverse(forward(x))| over the batch: how invertible the flow is in its dtype."""
        x = self._checked(x)
        back = self.bijection.inverse_only(self.bijection.forward_only(x)[0])
        return self._finite(float(to_host(np.max(np.abs(back - x)))), "reconstruction_error")

    def _checked(self, x: np.ndarray) -> np.ndarray:
        check_input(self, x)
        check_side(self, x, self.flat.value)
        if not on_host(x) and kernels.current() not in ON_DEVICE:
            raise ValueError(f"expected minglow.use('cupy') for a flow on a device, "
                             f"got the backend {kernels.current()}")
        with np.errstate(over="ignore"):  # a float64 that is too large for float32 becomes inf
            x = x.astype(self.dtype, copy=False)
        if on_host(x) and not np.isfinite(x).all():
            raise ValueError(f"{self} expected finite {np.dtype(self.dtype)}, got NaN or inf")
        return x

    def _checked_labels(self, labels: Labels, samples: int) -> Labels:
        if labels is None:
            return None
        labels, classes = np.asarray(to_host(labels)), self.base.classes
        if not classes:
            raise ValueError(f"{self} expected no labels: its base has no classes")
        if labels.shape != (samples,) or labels.dtype.kind not in "iu":
            raise ValueError(f"{self} expected integer labels of shape ({samples},), "
                             f"got {labels.dtype} {labels.shape}")
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"{self} expected labels from 0 to {classes - 1}, "
                             f"got {labels.min()} to {labels.max()}")
        return labels

    def _finite(self, result: T, name: str) -> T:
        if not all_finite(result):
            raise FloatingPointError(f"{name} of a finite input is NaN or inf: {self} has diverged")
        return result
