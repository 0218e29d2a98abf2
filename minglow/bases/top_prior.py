"""A learned, possibly class-conditional base distribution for the latents of the top level."""

from math import log, pi, prod

import numpy as np

from minglow.arrays.device import to_device_of
from minglow.bases.base import Base, Labels
from minglow.bijection import Rng


class TopPrior(Base):
    r"""N(0, I) with a learned mean and scale for each channel of the top level.

    The last h*w*C of the D latents, u: (B, h*w, C), belong to the top level; e are the others.

        r_bkpc = (u_bpc - mean_kc) * exp(-log_std_kc)          mean, log_std: (K, C); k: a class
        log p(z_b | k) = log N(e_b; 0, I) + sum_pc [log N(r_bkpc; 0, 1) - log_std_kc]
        log p(z_b) = log 1/K sum_k p(z_b | k)                  if no labels are given

    backward  with the responsibility w_bk of class k: p(k | z_b) without labels; with labels
              1 for the label and 0 for the others; and g_bk = dL/dlog p(z_b) * w_bk
              dL/de = -dL/dlog p * e
              dL/du_bpc = -sum_k g_bk r_bkpc exp(-log_std_kc)
              dL/dmean_kc = sum_bp g_bk r_bkpc exp(-log_std_kc)
              dL/dlog_std_kc = sum_bp g_bk (r_bkpc^2 - 1)
    initialization  zeros: N(0, I) for every class

    classes=0 corresponds to `learn_top` of the official code, with K = 1; classes=K corresponds to its
    `ycond` (openai/glow, model.py, `prior`). With classes, it also has the official code's classifier
    (`weight_y` there), a zero-initialized linear map of the top level's mean over pixels:

        logits_bk = mean_p(u_bp) . weight_k + bias_k           weight: (K, C); bias: (K,)

    dims     D
    top      (h, w, C), the shape of the top level's latents
    classes  number of classes

    Raises ValueError if the top level has more than D latents.
    """

    def __init__(self, dims: int, top: tuple[int, ...], classes: int = 0,
                 dtype: type = np.float32) -> None:
        super().__init__((dims,), classes)
        if prod(top) > dims:
            raise ValueError(f"expected a top level within {dims} latents, got {tuple(top)}")
        self.top = tuple(top)
        for name in "mean", "log_std":
            self.add_param(name, np.zeros((max(1, classes), top[-1]), dtype))
        if classes:
            self.add_param("weight", np.zeros((classes, top[-1]), dtype))
            self.add_param("bias", np.zeros(classes, dtype))

    def log_prob_given_class(self, z: np.ndarray) -> np.ndarray:
        others, top = self._parts(z)
        r = self._residual(top)
        squares = np.einsum("bi,bi->b", others, others)[:, None] + np.einsum("bkpc,bkpc->bk", r, r)
        log_std = top.shape[1] * self.params["log_std"].sum(axis=1)
        return -0.5 * squares - log_std - 0.5 * self.shape[0] * log(2 * pi)

    def log_prob(self, z: np.ndarray, labels: Labels = None) -> np.ndarray:
        log_probs = self.log_prob_given_class(z)
        if labels is not None and self.classes:
            return _at(log_probs, labels)
        # log p_k - log(p_k / sum p) = log sum p for every k; the likeliest class has the least rounding
        k = log_probs.argmax(axis=1)
        return _at(log_probs, k) - _at(log_softmax(log_probs), k) - log(log_probs.shape[1])

    def backward(self, dlog_prob: np.ndarray, z: np.ndarray, labels: Labels = None) -> np.ndarray:
        others, top = self._parts(z)
        responsibility = np.exp(log_softmax(self.log_prob_given_class(z)))
        if labels is not None and self.classes:
            responsibility = one_hot(labels, responsibility)
        weighted = (dlog_prob[:, None] * responsibility)[:, :, None, None]
        r, inverse_std = self._residual(top), np.exp(-self.params["log_std"])
        dtop = -weighted * r * inverse_std[:, None]  # for each class, (B, K, P, C)
        self.grads["mean"] -= dtop.sum(axis=(0, 2))
        self.grads["log_std"] += (weighted * (r * r - 1)).sum(axis=(0, 2))
        dtop = dtop.sum(axis=1).reshape(len(z), -1)
        return np.concatenate([-dlog_prob[:, None] * others, dtop], axis=1)

    def sample(self, n: int, rng: Rng = None, dtype: type = np.float32, temperature: float = 1.0,
               labels: Labels = None) -> np.ndarray:
        """Base's; without labels, of uniformly random classes. The means have no temperature."""
        rng, mean, std = np.random.default_rng(rng), self.params["mean"], np.exp(self.params["log_std"])
        if labels is None or not self.classes:
            labels = rng.integers(len(mean), size=n)
        z = to_device_of(dtype(temperature) * rng.standard_normal((n, *self.shape), dtype), mean)
        others, top = self._parts(z)
        labels = to_device_of(labels, mean)
        top = top * std[labels, None] + mean[labels, None]
        return np.concatenate([others, top.reshape(n, -1)], axis=1)

    def logits(self, z: np.ndarray) -> np.ndarray:
        """The classifier's unnormalized log-probabilities of the classes, (B, K)."""
        return self._parts(z)[1].mean(axis=1) @ self.params["weight"].T + self.params["bias"]

    def cross_entropy(self, z: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return -_at(log_softmax(self.logits(z)), labels)

    def cross_entropy_backward(self, dentropy: np.ndarray, z: np.ndarray,
                               labels: np.ndarray) -> np.ndarray:
        _, top = self._parts(z)
        probability = np.exp(log_softmax(self.logits(z)))
        dlogits = dentropy[:, None] * (probability - one_hot(labels, probability))
        self.grads["weight"] += dlogits.T @ top.mean(axis=1)
        self.grads["bias"] += dlogits.sum(axis=0)
        dz = np.zeros_like(z)
        self._parts(dz)[1][...] = (dlogits @ self.params["weight"])[:, None] / top.shape[1]
        return dz

    def _parts(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The factored-out latents, (B, D'), and the top level's, (B, P, C), as views."""
        z, split = self.as_vectors(z), self.shape[0] - prod(self.top)
        return z[:, :split], z[:, split:].reshape(len(z), -1, self.top[-1])

    def _residual(self, top: np.ndarray) -> np.ndarray:
        """r, (B, K, P, C)."""
        mean, log_std = self.params["mean"][:, None], self.params["log_std"][:, None]
        return (top[:, None] - mean) * np.exp(-log_std)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log [exp(logits_k) / sum_j exp(logits_j)] along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)  # so that exp does not overflow
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def one_hot(labels: np.ndarray, like: np.ndarray) -> np.ndarray:
    """1 at each row's label and 0 elsewhere, (B, K), in like's shape and dtype."""
    classes = np.arange(like.shape[1], like=like)
    return (to_device_of(labels, like)[:, None] == classes).astype(like.dtype)


def _at(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The value at each row's label, (B,)."""
    return np.take_along_axis(values, to_device_of(labels, values)[:, None], axis=1)[:, 0]
