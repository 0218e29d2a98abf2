"""A learned base for the latents of the top level, by class where there are classes. Floor 1."""

from __future__ import annotations

from math import log, pi, prod

import numpy as np

from minglow import arguments
from minglow.bijection import Module
from minglow.device import beside
from minglow.distributions import Labels, Rng


class TopPrior(Module):
    r"""N(0, I), but for the latents of the top level, whose channels have means and scales to learn.

    The last h*w*C of the D latents, u: (B, h*w, C), belong to the top level; e are the others.

        r_bkpc = (u_bpc - mean_kc) * exp(-log_std_kc)          mean, log_std: (K, C); k: a class
        log p(z_b | k) = log N(e_b; 0, I) + sum_pc [log N(r_bkpc; 0, 1) - log_std_kc]
        log p(z_b) = log 1/K sum_k p(z_b | k)                  where the class is not known

    backward  with w_bk the share of class k: 1 for the class that is known, p(k | z_b) else,
              and g_bk = dL/dlog p(z_b) * w_bk
              dL/de = -dL/dlog p * e
              dL/du_bpc = -sum_k g_bk r_bkpc exp(-log_std_kc)
              dL/dmean_kc = sum_bp g_bk r_bkpc exp(-log_std_kc)
              dL/dlog_std_kc = sum_bp g_bk (r_bkpc^2 - 1)
    start     all zeros: N(0, I) for every class.

    classes=0 makes the one learned prior of the published code's `learn_top`, K = 1; its `ycond`
    has K classes (openai/glow, model.py, `prior`).

    The classification term that is trained beside it (`weight_y` there): a linear map of the top
    level's mean over pixels, started at zero,

        logits_bk = mean_p(u_bp) . weight_k + bias_k           weight: (K, C); bias: (K,)
    """

    def __init__(self, dims: int, top: tuple[int, ...], classes: int = 0,
                 dtype: type = np.float32) -> None:
        super().__init__()
        arguments.count("classes", classes, 0)
        if prod(top) > dims:
            raise ValueError(f"expected a top level within {dims} latents, got {tuple(top)}")
        self.shape, self.top, self.classes = (dims,), tuple(top), classes
        for name in "mean", "log_std":
            self.add_param(name, np.zeros((max(1, classes), top[-1]), dtype))
        if classes:
            self.add_param("weight", np.zeros((classes, top[-1]), dtype))
            self.add_param("bias", np.zeros(classes, dtype))

    def class_log_prob(self, z: np.ndarray) -> np.ndarray:
        """log p(z_b | k) of each sample and class, (B, K), in nats; z: (B, D)."""
        others, top = self._parts(z)
        r = self._residual(top)
        squares = np.einsum("bi,bi->b", others, others)[:, None] + np.einsum("bkpc,bkpc->bk", r, r)
        log_std = top.shape[1] * self.params["log_std"].sum(axis=1)
        return -0.5 * squares - log_std - 0.5 * self.shape[0] * log(2 * pi)

    def log_prob(self, z: np.ndarray, labels: Labels = None) -> np.ndarray:
        """log p(z_b | label_b), (B,), in nats; of the mixture of all classes without labels."""
        by_class = self.class_log_prob(z)
        if labels is not None and self.classes:
            return _of_each(by_class, labels)
        # log p_k - log(p_k / sum p) = log sum p, whichever k; the likeliest is rounded least
        k = by_class.argmax(axis=1)
        return _of_each(by_class, k) - _of_each(log_softmax(by_class), k) - log(by_class.shape[1])

    def backward(self, dlog_prob: np.ndarray, z: np.ndarray, labels: Labels = None) -> np.ndarray:
        """Pull a loss's derivative by log_prob, (B,), back to z, adding to `grads`."""
        others, top = self._parts(z)
        share = np.exp(log_softmax(self.class_log_prob(z)))
        if labels is not None and self.classes:
            share = one_hot(labels, share)
        weighted = (dlog_prob[:, None] * share)[:, :, None, None]
        r, inverse_std = self._residual(top), np.exp(-self.params["log_std"])
        dtop = -weighted * r * inverse_std[:, None]  # of each class, (B, K, P, C)
        self.grads["mean"] -= dtop.sum(axis=(0, 2))
        self.grads["log_std"] += (weighted * (r * r - 1)).sum(axis=(0, 2))
        dtop = dtop.sum(axis=1).reshape(len(z), -1)
        return np.concatenate([-dlog_prob[:, None] * others, dtop], axis=1)

    def sample(self, n: int, rng: Rng = None, dtype: type = np.float32, temperature: float = 1.0,
               labels: Labels = None) -> np.ndarray:
        """Draw n samples, (n, D), of classes drawn uniformly if there are no labels.

        temperature multiplies the standard deviations; the means stay.
        """
        rng = np.random.default_rng(rng)
        if labels is None or not self.classes:
            labels = rng.integers(len(self.params["mean"]), size=n)
        mean, std = self.params["mean"], np.exp(self.params["log_std"])
        z = beside(dtype(temperature) * rng.standard_normal((n, *self.shape), dtype), mean)
        others, top = self._parts(z)
        labels = beside(labels, mean)
        top = top * std[labels, None] + mean[labels, None]
        return np.concatenate([others, top.reshape(n, -1)], axis=1)

    def logits(self, z: np.ndarray) -> np.ndarray:
        """The classifier's unnormalised log-probabilities of the classes, (B, K)."""
        return self._parts(z)[1].mean(axis=1) @ self.params["weight"].T + self.params["bias"]

    def cross_entropy(self, z: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """-log of the label's probability by the classifier, (B,), in nats."""
        return -_of_each(log_softmax(self.logits(z)), labels)

    def cross_entropy_backward(self, dentropy: np.ndarray, z: np.ndarray, labels: np.ndarray,
                               ) -> np.ndarray:
        """Pull a loss's derivative by cross_entropy, (B,), back to z, adding to `grads`."""
        _, top = self._parts(z)
        probability = np.exp(log_softmax(self.logits(z)))
        dlogits = dentropy[:, None] * (probability - one_hot(labels, probability))
        self.grads["weight"] += dlogits.T @ top.mean(axis=1)
        self.grads["bias"] += dlogits.sum(axis=0)
        dz = np.zeros_like(z)
        self._parts(dz)[1][...] = (dlogits @ self.params["weight"])[:, None] / top.shape[1]
        return dz

    def _parts(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The latents that left early, (B, D'), and the top level's, (B, P, C), as views."""
        if z.shape[1:] != self.shape:
            raise ValueError(f"expected latents of shape {self.shape}, got {z.shape[1:]}")
        start = self.shape[0] - prod(self.top)
        return z[:, :start], z[:, start:].reshape(len(z), -1, self.top[-1])

    def _residual(self, top: np.ndarray) -> np.ndarray:
        """r, (B, K, P, C)."""
        mean, log_std = self.params["mean"][:, None], self.params["log_std"][:, None]
        return (top[:, None] - mean) * np.exp(-log_std)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log [exp(logits_k) / sum_j exp(logits_j)] along the last axis."""
    below_most = logits - logits.max(axis=-1, keepdims=True)
    return below_most - np.log(np.exp(below_most).sum(axis=-1, keepdims=True))


def one_hot(labels: np.ndarray, like: np.ndarray) -> np.ndarray:
    """1 at each row's label and 0 elsewhere, (B, K), of like's shape and dtype."""
    classes = np.arange(like.shape[1], like=like)
    return (beside(labels, like)[:, None] == classes).astype(like.dtype)


def _of_each(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The value at each row's label, (B,)."""
    return np.take_along_axis(values, beside(labels, values)[:, None], axis=1)[:, 0]
