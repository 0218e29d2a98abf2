"""Three correct layers, not written in minglow's style, on which the property-test kit is judged.

foreign_mistakes.py plants mistakes in this source.
"""

import math
from dataclasses import dataclass

import numpy as np

from minglow.bijection import Bijection
from minglow.nets import mlp


class LeakyReLU(Bijection):
    """y = x for x >= 0 and y = exp(log_a) x for x < 0; log_a holds a number for each channel.

    Every element has the derivative dy/dx = exp(g), with g = log_a for x < 0 and g = 0 otherwise.
    exp(g) is positive, so x and y have the same sign. log_det is the sum of g over a sample.
    """

    def __init__(self, channels=4, dtype=np.float32):
        super().__init__()
        self.add_param("log_a", np.full(channels, -1.0, dtype))

    def log_derivative(self, x):
        require(x, self.params["log_a"])
        return (x < 0) * self.params["log_a"]

    def forward(self, x):
        g = self.log_derivative(x)
        y = x * np.exp(g)
        log_det = g.reshape(len(g), -1).sum(axis=1)
        return y, log_det, (y, g)

    def inverse(self, y):
        g = self.log_derivative(y)
        return y / np.exp(g), (y, g)

    def backward(self, dy, dlog_det, cache):
        y, g = cache
        negative = y < 0
        dg = dy * y + per_sample(dlog_det, y)  # dy/dg = y and dlog_det/dg = 1
        self.grads["log_a"] += (dg * negative).sum(axis=tuple(range(y.ndim - 1)))
        return dy * np.exp(g)


class Householder1x1(Bijection):
    """1x1 convolution y = W x with W = Q D, Q = H_1 H_2 ... H_n and D = diag(exp(log_d)).

    A Householder reflection H_k = I - 2 v_k v_k^T / |v_k|^2 is symmetric and is its own inverse.
    So log|det W| is the sum of log_d.
    """

    def __init__(self, channels=4, reflections=3, rng=0, dtype=np.float32):
        super().__init__()
        v = np.random.default_rng(rng).standard_normal((reflections, channels))
        self.add_param("v", v.astype(dtype))
        self.add_param("log_d", np.zeros(channels, dtype))

    def weight(self):
        return product(self.params["v"]) * np.exp(self.params["log_d"])

    def forward(self, x):
        log_d = self.params["log_d"]
        require(x, log_d)
        y = np.einsum("ij,...j->...i", self.weight(), x)
        pixels = math.prod(x.shape[1:-1])
        return y, np.full(len(x), pixels * log_d.sum()), x

    def inverse(self, y):
        require(y, self.params["log_d"])
        x = y
        for u in self.params["v"]:  # W^-1 = D^-1 H_n ... H_1, so H_1 comes first
            x = x - 2 / (u @ u) * (x @ u)[..., None] * u
        x = x / np.exp(self.params["log_d"])
        return x, x

    def backward(self, dy, dlog_det, cache):
        x = cache
        v, scale = self.params["v"], np.exp(self.params["log_d"])
        pixels = math.prod(x.shape[1:-1])
        every = list(range(x.ndim - 1))  # samples and pixels
        dW = np.tensordot(dy, x, axes=(every, every))
        self.grads["log_d"] += (dW * self.weight()).sum(axis=0) + pixels * dlog_det.sum()
        dQ = dW * scale
        for k, u in enumerate(v):
            left, right, square = product(v[:k]), product(v[k + 1:]), u @ u  # Q = left H_k right
            dH = left.T @ dQ @ right.T
            through_square = 4 * (u @ dH @ u) / square**2 * u  # |v_k|^2 depends on v_k
            self.grads["v"][k] += through_square - 2 * (dH + dH.T) @ u / square
        return np.einsum("ij,...i->...j", self.weight(), dy)


def product(v):
    """H_1 H_2 ... H_n for the n rows of v, (n, C); the identity for n = 0."""
    Q = np.eye(v.shape[1], dtype=v.dtype)
    for u in v:
        Q = Q - 2 * np.outer(Q @ u, u) / (u @ u)
    return Q


@dataclass
class Spline:
    """The spline of each element of x2: its parameters, and the piece that holds the element.

    p, q            widths and heights as fractions of 2 bound without their floor, (..., K)
    c               their softplus gives the derivatives at the inner knots, (..., K - 1)
    inside          whether the element is in [-bound, bound]
    at, before      whether each bin is the element's, or to the left of the element's, (..., K)
    w, h, d0, d1    width and height of the bin, derivatives at its left and right knot
    x0, y0          the left knot
    t               (x - x0) / w, set by forward and inverse
    """

    p: np.ndarray
    q: np.ndarray
    c: np.ndarray
    inside: np.ndarray
    at: np.ndarray
    before: np.ndarray
    w: np.ndarray
    h: np.ndarray
    d0: np.ndarray
    d1: np.ndarray
    x0: np.ndarray
    y0: np.ndarray
    net_cache: object
    t: np.ndarray | None = None


class SplineCoupling(Bijection):
    """Rational-quadratic spline coupling (Durkan et al. 2019, section 3 and appendix A.1).

    The first half of the channels, x1, is unchanged. A net reads x1 and gives each element of the second
    half the 3 K - 1 parameters of a monotone spline on [-bound, bound]. Outside, y2 = x2.

        s = h / w, t = (x - x0) / w                  s: mean derivative over the bin
        y = y0 + h num / den                         num = s t^2 + d0 t (1 - t)
                                                     den = s + (d0 + d1 - 2 s) t (1 - t)
        dy/dx = s^2 m / den^2                        m = d1 t^2 + 2 s t (1 - t) + d0 (1 - t)^2

    The spline is the identity at first, because the net's output is 0 at first.
    """

    floor = 1e-2  # of the derivatives, and of the widths and heights as fractions of 2 bound

    def __init__(self, channels=4, bins=4, bound=1.5, hidden=8, rng=0, dtype=np.float32):
        super().__init__()
        self.bins, self.bound = bins, bound
        self.offset = math.log(math.expm1(1 - self.floor))  # floor + softplus(offset) = 1
        self.net = mlp(channels // 2, hidden, channels // 2 * (3 * bins - 1), rng, dtype)
        self.children["net"] = self.net

    def forward(self, x):
        x1, x2 = np.split(x, 2, axis=-1)
        spline = self.spline(x1, x2, "x")
        spline.t = (np.clip(x2, -self.bound, self.bound) - spline.x0) / spline.w
        s, num, den, m = polynomials(spline)
        y2 = np.where(spline.inside, spline.y0 + spline.h * num / den, x2)
        log_derivative = np.where(spline.inside, 2 * np.log(s) + np.log(m) - 2 * np.log(den), 0)
        log_det = log_derivative.reshape(len(x), -1).sum(axis=1)
        return np.concatenate([x1, y2], axis=-1), log_det, spline

    def inverse(self, y):
        x1, y2 = np.split(y, 2, axis=-1)
        spline = self.spline(x1, y2, "y")
        s, d0, bend = spline.h / spline.w, spline.d0, spline.d0 + spline.d1 - 2 * spline.h / spline.w
        # num / den = rise / h is the quadratic equation a t^2 + b t + c = 0
        rise = np.clip(y2, -self.bound, self.bound) - spline.y0
        a, b, c = spline.h * (s - d0) + rise * bend, spline.h * d0 - rise * bend, -s * rise
        spline.t = 2 * c / (-b - np.sqrt(b * b - 4 * a * c))
        x2 = np.where(spline.inside, spline.x0 + spline.t * spline.w, y2)
        return np.concatenate([x1, x2], axis=-1), spline

    def backward(self, dy, dlog_det, cache):
        spline, K = cache, self.bins
        dy1, dy2 = np.split(dy, 2, axis=-1)
        dspline = np.where(spline.inside, dy2, 0)
        dlog = np.where(spline.inside, per_sample(dlog_det, dy), 0)
        w, h, d0, d1, t = spline.w, spline.h, spline.d0, spline.d1, spline.t
        s, num, den, m = polynomials(spline)
        r = t * (1 - t)
        dnum = dspline * h / den
        dden = -(dnum * num + 2 * dlog) / den
        dm = dlog / m
        dr = dnum * d0 + dden * (d0 + d1 - 2 * s) + 2 * dm * s
        dt = 2 * dnum * s * t + 2 * dm * (d1 * t - d0 * (1 - t)) + dr * (1 - 2 * t)
        ds = dnum * t**2 + dden * (1 - 2 * r) + 2 * dm * r + 2 * dlog / s
        dd0 = (dnum + dden) * r + dm * (1 - t) ** 2
        dd1 = dden * r + dm * t**2
        dx2 = dt / w
        dw = -(ds * s + dt * t) / w
        dh = ds / w + dspline * num / den
        # x0 and y0 are sums of the widths and heights before the bin
        dwidths = spline.at * dw[..., None] - spline.before * dx2[..., None]
        dheights = spline.at * dh[..., None] + spline.before * dspline[..., None]
        dinner = (spline.at * dd0[..., None])[..., 1:] + (spline.at * dd1[..., None])[..., :-1]
        size = 2 * self.bound * (1 - K * self.floor)
        draw = np.concatenate([
            size * softmax_backward(dwidths, spline.p), size * softmax_backward(dheights, spline.q),
            dinner * sigmoid(spline.c)], axis=-1)
        dx1 = dy1 + self.net.backward(draw.reshape(*dy.shape[:-1], -1), spline.net_cache)
        return np.concatenate([dx1, np.where(spline.inside, dx2, dy2)], axis=-1)

    def spline(self, x1, value, axis):
        """The splines that the net gives for x1, and the pieces that hold the values of x2 or y2."""
        K, bound = self.bins, self.bound
        raw, net_cache = self.net.forward(x1)
        raw = raw.reshape(*value.shape, 3 * K - 1)
        p, q, c = softmax(raw[..., :K]), softmax(raw[..., K:2 * K]), raw[..., 2 * K:] + self.offset
        widths, heights = (2 * bound * (self.floor + (1 - K * self.floor) * each) for each in (p, q))
        one = np.ones_like(c[..., :1])
        derivatives = np.concatenate([one, self.floor + np.logaddexp(0, c), one], axis=-1)
        knots = np.cumsum(widths if axis == "x" else heights, axis=-1)[..., :-1] - bound
        index = (value[..., None] >= knots).sum(axis=-1, keepdims=True)
        at, before = np.arange(K) == index, np.arange(K) < index
        w, h, d0, d1 = ((at * each).sum(axis=-1) for each in (
            widths, heights, derivatives[..., :-1], derivatives[..., 1:]))
        x0, y0 = (before * widths).sum(axis=-1) - bound, (before * heights).sum(axis=-1) - bound
        return Spline(p, q, c, np.abs(value) <= bound, at, before, w, h, d0, d1, x0, y0, net_cache)


def polynomials(spline):
    """s, num, den and m of SplineCoupling's formulas."""
    s, d0, d1, t = spline.h / spline.w, spline.d0, spline.d1, spline.t
    r = t * (1 - t)
    return s, s * t**2 + d0 * r, s + (d0 + d1 - 2 * s) * r, d1 * t**2 + 2 * s * r + d0 * (1 - t) ** 2


def softmax(a):
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_backward(dp, p):
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))


def sigmoid(a):
    return (1 + np.tanh(a / 2)) / 2


def per_sample(dlog_det, like):
    """dlog_det, (B,), in a shape that broadcasts over arrays (B, ..., C)."""
    return dlog_det.reshape(-1, *[1] * (like.ndim - 1))


def require(x, parameter):
    """Raise ValueError unless x has a channel for each entry of the parameter, and its dtype."""
    if x.ndim < 2 or x.shape[-1] != len(parameter) or x.dtype != parameter.dtype:
        raise ValueError(f"expected {parameter.dtype} of shape (B, ..., {len(parameter)}), "
                         f"got {x.dtype} of shape {x.shape}")


LAYERS = {"LeakyReLU": LeakyReLU, "Householder1x1": Householder1x1, "SplineCoupling": SplineCoupling}
