"""Scale functions: how an affine coupling turns the output s of its net into a positive scale.

Each maps s, of any shape, to (log scale, dlog scale/ds), both of the shape of s.
"""

import numpy as np


def sigmoid_scale(s: np.ndarray, floor: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """scale = floor + (1 - floor) sigmoid(s + 2): the official code's scale, with a floor.

    Without a floor, dividing by sigmoid(-16) = 1e-7 loses all digits of a float32. With it, no inverse
    magnifies rounding more than 1/floor times. The 2 makes the scale 0.88 where s = 0.

    >>> log_scale, dlog_scale_ds = minglow.sigmoid_scale(np.array([-100.0, 0.0, 100.0]))
    >>> np.exp(log_scale).round(3)
    array([0.001, 0.881, 1.   ])
    """
    t = s + 2
    e = np.exp(-np.abs(t))  # no exponential here overflows: each is at most 1
    if floor == 0:  # log sigmoid(t), and sigmoid(-t): sigmoid(t) itself may be 0 in its dtype
        return np.minimum(t, 0) - np.log1p(e), np.exp(np.minimum(-t, 0)) / (1 + e)
    sigmoid = np.exp(np.minimum(t, 0)) / (1 + e)  # its derivative is e / (1 + e)^2
    scale = floor + (1 - floor) * sigmoid
    return np.log(scale), (1 - floor) * e / ((1 + e) ** 2 * scale)


def exp_scale(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """scale = exp(s): the paper's scale (Kingma & Dhariwal 2018, table 1), which has no bounds.

    >>> minglow.exp_scale(np.array([-1.0, 2.0]))
    (array([-1.,  2.]), array([1., 1.]))
    """
    return s, np.ones_like(s)


def tanh_scale(s: np.ndarray, bound: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """log scale = bound * tanh(s / bound): RealNVP's scale (Dinh et al. 2017, section 4.1).

    It lies between exp(-bound) and exp(bound). The paper learns the factor of the tanh; here it is
    fixed, and dlog scale/ds is 1 at s = 0 for every bound.

    >>> log_scale, dlog_scale_ds = minglow.tanh_scale(np.array([-50.0, 0.0, 50.0]), bound=2.0)
    >>> log_scale, dlog_scale_ds
    (array([-2.,  0.,  2.]), array([0., 1., 0.]))
    """
    t = np.tanh(s / s.dtype.type(bound))
    return s.dtype.type(bound) * t, 1 - t * t
