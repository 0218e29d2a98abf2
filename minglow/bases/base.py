"""What every base distribution promises."""

import numpy as np

from minglow import validation
from minglow.arrays.device import to_host
from minglow.bijection import Module, Rng

Labels = np.ndarray | None


class Base(Module):
    """A distribution over latents of one shape, with or without parameters of its own.

    shape    of one sample, without the batch
    classes  how many classes it distinguishes; 0 if it ignores labels

    labels, (B,) integers, are the samples' classes. Without labels a class-conditional base is the
    mixture of its classes. All log-probabilities are in nats. Raises ValueError for an invalid shape.
    """

    def __init__(self, shape: tuple[int, ...], classes: int = 0) -> None:
        super().__init__()
        self.shape = validation.check_shape(shape)
        self.classes = validation.check_count("classes", classes, 0)

    def log_prob(self, z: np.ndarray, labels: Labels = None) -> np.ndarray:
        """log p(z_b) of each sample, or log p(z_b | label_b), (B,), in nats; z: (B, *shape)."""
        raise NotImplementedError(f"{type(self).__name__} has no log_prob")

    def backward(self, dlog_prob: np.ndarray, z: np.ndarray, labels: Labels = None) -> np.ndarray:
        """Pull a loss's derivative with respect to log_prob, (B,), back to z; adds to `grads`."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def sample(self, n: int, rng: Rng = None, dtype: type = np.float32, temperature: float = 1.0,
               labels: Labels = None) -> np.ndarray:
        """Draw n samples, (n, *shape); temperature multiplies the standard deviation."""
        raise NotImplementedError(f"{type(self).__name__} has no sample")

    def log_prob_given_class(self, z: np.ndarray) -> np.ndarray:
        """log p(z_b | k) of each sample and class, (B, K), in nats."""
        return np.stack([self.log_prob(z, np.full(len(z), k)) for k in range(self.classes)], axis=1)

    def cross_entropy(self, z: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """-log of the label's probability by the base's classifier, (B,), in nats."""
        raise ValueError(f"{self} expected a base with a classifier, got none")

    def cross_entropy_backward(self, dentropy: np.ndarray, z: np.ndarray,
                               labels: np.ndarray) -> np.ndarray:
        """Pull a loss's derivative with respect to cross_entropy, (B,), back to z; adds to `grads`."""
        raise ValueError(f"{self} expected a base with a classifier, got none")

    def checked_labels(self, labels: Labels, samples: int) -> Labels:
        """The labels (samples,) on the host, or None. Raises ValueError for those that it has not."""
        if labels is None:
            return None
        labels = np.asarray(to_host(labels))
        if not self.classes:
            raise ValueError(f"{self} expected no labels: it has no classes")
        if labels.shape != (samples,) or labels.dtype.kind not in "iu":
            raise ValueError(f"{self} expected integer labels of shape ({samples},), "
                             f"got {labels.dtype} {labels.shape}")
        if labels.min() < 0 or labels.max() >= self.classes:
            raise ValueError(f"{self} expected labels from 0 to {self.classes - 1}, "
                             f"got {labels.min()} to {labels.max()}")
        return labels

    def as_vectors(self, z: np.ndarray) -> np.ndarray:
        """z as (B, D). Raises ValueError for latents of another shape than the base's."""
        if z.shape[1:] != self.shape:
            raise ValueError(f"expected latents of shape {self.shape}, got {z.shape[1:]}")
        return z.reshape(len(z), -1)
