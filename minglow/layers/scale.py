"""How an affine coupling turns what its net says into a scale. Floor 2.

Each function maps raw, of any shape, to (log scale, dlog scale/draw), both of raw's shape.
"""

from __future__ import annotations

import numpy as np


def sigmoid_scale(raw: np.ndarray, floor: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """log scale and dlog scale/draw, of raw's shape, for scale = floor + (1 - floor) sigmoid(raw + 2).

    The published code's scale, with a floor: without one, dividing by sigmoid(-16) = 1e-7 loses
    all digits of a float32. With it no inverse magnifies rounding more than 1/floor times.
    The 2 starts the scale near 0.88.
    """
    t = raw + 2
    e = np.exp(-np.abs(t))  # no exponential here overflows: each is at most 1
    if floor == 0:  # log sigmoid(t), and sigmoid(-t): s itself may be 0 in its dtype
        return np.minimum(t, 0) - np.log1p(e), np.exp(np.minimum(-t, 0)) / (1 + e)
    s = np.exp(np.minimum(t, 0)) / (1 + e)  # sigmoid(t), whose derivative is s (1 - s) = e / (1 + e)^2
    scale = floor + (1 - floor) * s
    return np.log(scale), (1 - floor) * e / ((1 + e) ** 2 * scale)


def exp_scale(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log scale = raw and its derivative, 1: the paper's scale exp(raw), which has no bounds."""
    return raw, np.ones_like(raw)


def tanh_scale(raw: np.ndarray, bound: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """log scale = bound * tanh(raw / bound) and its derivative, 1 - tanh(raw / bound)^2.

    RealNVP's bounded scale (Dinh et al. 2017, section 4.1): between exp(-bound) and exp(bound). The
    paper learns the bound; here it is fixed, and the slope at 0 is 1 whatever it is.
    """
    t = np.tanh(raw / raw.dtype.type(bound))
    return raw.dtype.type(bound) * t, 1 - t * t
