"""Conditional densities p(x | c) whose logarithm is known: c in R^3, standard normal."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Draws(NamedTuple):
    """Contexts (n, 3), samples (n, ...), both float32, and log p(x | c) of each, (n,), in nats."""

    context: np.ndarray
    x: np.ndarray
    log_prob: np.ndarray


Density = Callable[[int, np.random.Generator], Draws]


def plane(n: int, rng: np.random.Generator) -> Draws:
    """x in R^2: a normal variable whose mean, standard deviations and axes depend on c.

        x = m(c) + R(c_1) diag(s(c)) e,      e ~ N(0, I), R(a): the rotation by the angle a
        m = (c_0 + sin 2 c_1, c_2 - c_0 / 2),    log s = (sin(c_0) / 2, cos(c_2) / 2 - 1)
    """
    c, e = rng.standard_normal((n, 3)), rng.standard_normal((n, 2))
    c0, c1, c2 = c.T
    mean = np.stack([c0 + np.sin(2 * c1), c2 - c0 / 2], axis=1)
    log_std = np.stack([np.sin(c0) / 2, np.cos(c2) / 2 - 1], axis=1)
    a, b = (np.exp(log_std) * e).T
    turned = np.stack([np.cos(c1) * a - np.sin(c1) * b, np.sin(c1) * a + np.cos(c1) * b], axis=1)
    return draws(c, mean + turned, e, log_std.sum(axis=1))


def image(n: int, rng: np.random.Generator) -> Draws:
    """Images (8, 8, 1): waves with a phase, an amplitude and a noise that depend on c.

        x_ij = sin(c_0 + pi i / 4) / 2 + c_1 cos(pi j / 4) / 2 + exp(0.3 sin c_2) e_ij,  e_ij ~ N(0, 1)
    """
    c, e = rng.standard_normal((n, 3)), rng.standard_normal((n, 8, 8))
    c0, c1, c2 = c.T[..., None, None]
    i, j = np.mgrid[:8, :8]
    log_std = 0.3 * np.sin(c2)
    x = np.sin(c0 + np.pi * i / 4) / 2 + c1 * np.cos(np.pi * j / 4) / 2 + np.exp(log_std) * e
    return draws(c, x[..., None], e.reshape(n, -1), 64 * log_std[:, 0, 0])


def draws(c: np.ndarray, x: np.ndarray, e: np.ndarray, log_det: np.ndarray) -> Draws:
    """Draws of x, a function of standard normal e (n, D) with log|det dx/de| = log_det, (n,)."""
    log_prob = -0.5 * (e**2 + np.log(2 * np.pi)).sum(axis=1) - log_det
    return Draws(c.astype(np.float32), x.astype(np.float32), log_prob)
