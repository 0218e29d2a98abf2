"""Mistakes that people make in a layer, as edits of foreign_layers.py.

    for mistake in MISTAKES:
        layer = mistake.build()()  # an instance of the wrong class
        assert mistake.explained_by(message)
"""

import re
from pathlib import Path
from typing import NamedTuple

import foreign_layers

PATH = Path(foreign_layers.__file__)

SUM = "g.reshape(len(g), -1).sum(axis=1)"
FULL = "np.full(len(x), pixels * log_d.sum())"
DG = "dg = dy * y + per_sample(dlog_det, y)"
PIXELS = "pixels = math.prod(x.shape[1:-1])\n        return"
NORM = 'np.linalg.norm(self.params["v"], axis=1)[:, None]'
WEIGHT = 'product(self.params["v"]) * np.exp(self.params["log_d"])'
SPLINE_SUM = "log_derivative.reshape(len(x), -1).sum(axis=1)"
LOG = "2 * np.log(s) + np.log(m) - 2 * np.log(den)"

HW = r"h\W*w|pixels"
IN_PLACE = "in place|modif|writes|changes"
STALE = "remembers an old|a change of .* only"

# what is wrong: (what an explanation must mention, original text, wrong text, and further edits)
LEAKY_RELU = {
    "log_det has the wrong sign": ("log_det & sign", SUM, f"-{SUM}"),
    "log_det counts elements with x >= 0": (
        "log_det", SUM, '(0 * x + self.params["log_a"]).reshape(len(x), -1).sum(axis=1)'),
    "log_det has shape () for B = 1": (
        r"log_det & shape & \(1, 4\)", SUM, f"{SUM}.squeeze()"),
    "log_det is 0 for float32": (
        "log_det & float32", SUM, "(g * (g.dtype == float)).reshape(len(g), -1).sum(axis=1)"),
    "gradient of log_a without dlog_det": ("log_a & log_det", DG, "dg = dy * y"),
    "gradient of log_a without the factor exp(log_a)": (
        r"log_a & \bdy\b|not dlog_det", DG, "dg = dy * y / np.exp(g) + per_sample(dlog_det, y)"),
    "gradient of log_a is the same for all channels": (
        "log_a & channel|entr|same", "(dg * negative).sum(axis=tuple(range(y.ndim - 1)))",
        "(dg * negative).sum()"),
    "backward tests the sign of dy for that of y": ("log_a", "negative = y < 0", "negative = dy < 0"),
    "dlog_det broadcasts along the width of an image": (
        r"image|pixels|\bw\b|\(\d, \d, \d, \d\)", DG, "dg = dy * y + dlog_det[:, None]"),
    "dx is float64": (
        r"dx|backward|\bx\b & float64", "return dy * np.exp(g)",
        "return dy * np.where(negative, np.exp(g), np.ones(g.shape))"),
    "inverse multiplies": ("inverse", "return y / np.exp(g)", "return y * np.exp(g)"),
    "epsilon in the inverse": (
        "inverse & epsilon|small constant", "return y / np.exp(g)", "return y / (np.exp(g) + 1e-6)"),
    "inverse caches x for y": (
        "inverse & cache", "return y / np.exp(g), (y, g)", "return y / np.exp(g), (y / np.exp(g), g)"),
    "forward modifies x": (
        rf"forward & \bx\b|input & {IN_PLACE}", "y = x * np.exp(g)", "x *= np.exp(g)\n        y = x"),
    "backward modifies y": (
        rf"backward & cache|\by\b|twice|second & {IN_PLACE}", DG,
        DG.replace("dg = dy * y", "y *= dy\n        dg = y")),
    "backward uses the arrays of the last call": (
        "cache|self|state & another|other|later|last", "return y, log_det, (y, g)",
        "self.last = y, g\n        return y, log_det, None", "return y / np.exp(g), (y, g)",
        "self.last = y, g\n        return y / np.exp(g), None", "y, g = cache", "y, g = self.last"),
    "exp(log_a) is computed only in __init__": (
        f"log_a|param & {STALE}", "dtype))\n\n    def log_derivative",
        'dtype))\n        self._a = np.exp(self.params["log_a"])\n\n    def log_derivative',
        "y = x * np.exp(g)", "y = x * np.where(x < 0, self._a, 1)",
        "return y / np.exp(g)", "return y / np.where(y < 0, self._a, 1)"),
    "log_a is an attribute, not a parameter": (
        "log_a & param", 'self.add_param("log_a", np.full(channels, -1.0, dtype))',
        "self.log_a = np.full(channels, -1.0, dtype)", 'require(x, self.params["log_a"])',
        "require(x, self.log_a)", '(x < 0) * self.params["log_a"]', "(x < 0) * self.log_a",
        'self.grads["log_a"] += (dg * negative).sum(axis=tuple(range(y.ndim - 1)))', "pass"),
}

HOUSEHOLDER = {
    "log_det forgets h*w": (f"log_det & {HW}", FULL, "np.full(len(x), log_d.sum())"),
    "log_det counts h*h pixels": (
        "log_det & w/h", PIXELS, "pixels = x.shape[1] ** (x.ndim - 2)\n        return"),
    "log_det counts the pixels of the batch": (
        r"log_det & batch|samples|\bB\b", PIXELS, PIXELS.replace("1:", ":")),
    "log_det has shape ()": (r"log_det & shape & \(\)|\(B,\)", FULL, "pixels * log_d.sum()"),
    "log_det is float64": ("log_det & float64", FULL, "np.full(len(x), pixels * float(log_d.sum()))"),
    "forward multiplies by W^T": (
        "transpos|disagree|forward or inverse",
        '"ij,...j->...i", self.weight(), x', '"ji,...j->...i", self.weight(), x'),
    "forward without 1/|v|^2": ("inverse|log_det", "np.outer(Q @ u, u) / (u @ u)", "np.outer(Q @ u, u)"),
    "forward normalizes the parameter v": (
        rf"forward & \bv\b & {IN_PLACE}", "log_d)\n        y = np.einsum(",
        f'log_d)\n        self.params["v"] /= {NORM}\n        y = np.einsum('),
    "the identity matrix is float64": ("float64", ", dtype=v.dtype)", ")"),
    "W is computed once": (
        rf"\bv\b|log_d|param & {STALE}", f"return {WEIGHT}",
        f'self.W = getattr(self, "W", {WEIGHT})\n        return self.W'),
    "inverse computes exp(log_d) once": (
        f"inverse & log_d|param & {STALE}", 'x = x / np.exp(self.params["log_d"])',
        'self.d = getattr(self, "d", np.exp(self.params["log_d"]))\n        x = x / self.d'),
    "inverse reflects in the wrong order": (
        "inverse", 'for u in self.params["v"]:', 'for u in self.params["v"][::-1]:'),
    "inverse modifies y": (rf"inverse & \by\b|input|argument & {IN_PLACE}", "x = x - 2 /", "x -= 2 /"),
    "dx multiplies by W": (r"dx|respect to x\b", '"ij,...i->...j"', '"ij,...j->...i"'),
    "gradient of v without the derivative of |v|^2": (r"\bv\b", "+= through_square - 2 *", "+= -2 *"),
    "gradient of v is overwritten": (
        r"\bv\b & \badd|accumul|overw|\+=", 'self.grads["v"][k] += ', 'self.grads["v"][k] = '),
    "gradient of the last v is forgotten": (
        r"\bv\b & \[2\b|row 2|entry 2|last", "in enumerate(v):", "in enumerate(v[:-1]):"),
    "gradient of log_d without dlog_det": ("log_d & dlog_det", " + pixels * dlog_det.sum()", ""),
    "gradient of log_d forgets h*w": (rf"log_d\b & {HW}", "pixels * dlog_det.sum()", "dlog_det.sum()"),
    "gradients of parameters are averaged over the batch": (
        r"\bv\b|log_d\b & batch|mean|averag|1/B|times|factor", "axes=(every, every))",
        "axes=(every, every)) / len(x)"),
}

SPLINE = {
    "log_det has shape (B, 1)": (
        r"log_det & shape & \(B", SPLINE_SUM, SPLINE_SUM.replace("is=1", "is=1, keepdims=True")),
    "log_det is the mean over pixels": (
        f"log_det & {HW}|mean|averag", SPLINE_SUM,
        "log_derivative.sum(axis=-1).reshape(len(x), -1).mean(axis=1)"),
    "log_det of half the channels that change": (
        "log_det & channel", SPLINE_SUM, SPLINE_SUM.replace("e.", "e[..., :1].")),
    "log_det of the rational function outside the bound": (
        "log_det", "spline.t = (np.clip(x2, -self.bound, self.bound) - ", "spline.t = (x2 - ",
        f"np.where(spline.inside, {LOG}, 0)", LOG),
    "the derivatives at the bound are float64": (
        "float64", "np.ones_like(c[..., :1])", "np.ones((*c.shape[:-1], 1))"),
    "the net reads a batch statistic": (
        "(other|another|rest).*(sample|batch)|batch statistic|depends on .*batch",
        "self.net.forward(x1)", "self.net.forward(x1 - x1.mean(axis=0))"),
    "the net is not in children": ("children", 'self.children["net"] = self.net', "pass"),
    "forward's net reads the half that changes": (
        "forward", 'self.spline(x1, x2, "x")', 'self.spline(x2, x2, "x")'),
    "forward swaps the halves": (
        "swap|permut|disagree|forward or inverse",
        "np.concatenate([x1, y2], axis=-1)", "np.concatenate([y2, x1], axis=-1)"),
    "inverse never finds the last bin": (
        "inverse", "axis=-1)[..., :-1] - bound", 'axis=-1)[..., :-1 if axis == "x" else -2] - bound'),
    "inverse looks up y among the knots of x": (
        "inverse", 'widths if axis == "x" else heights', "widths"),
    "inverse without the softplus": (
        "inverse", "np.logaddexp(0, c), one", '(np.logaddexp(0, c) if axis == "x" else c), one'),
    "inverse divides 0 by 0 before training": (
        r"inverse & nan|NaN|finite|initial|0/0", "2 * c / (-b - np.sqrt(b * b - 4 * a * c))",
        "(-b + np.sqrt(b * b - 4 * a * c)) / (2 * a)"),
    "inverse caches t of y": (
        "inverse & cache", "return np.concatenate([x1, x2]",
        "spline.t = rise / spline.h\n        return np.concatenate([x1, x2]"),
    "backward modifies its cache": (
        f"backward & cache|twice|second & {IN_PLACE}", "dd0 = (dnum + dden) * r + dm * (1 - t) ** 2", "",
        "dt * t) / w\n", "dt * t) / w\n        t -= 1\n        dd0 = (dnum + dden) * r + dm * t**2\n"),
    "backward without dlog_det": (
        "dlog_det", "np.where(spline.inside, per_sample(dlog_det, dy), 0)", "np.zeros_like(dy2)"),
    "gradient of d1 without dlog_det": (
        r"\bnet\b & dlog_det", "dd1 = dden * r + dm * t**2", "dd1 = dden * r"),
    "gradient of the widths without x0": (r"\bnet\b", " - spline.before * dx2[..., None]", ""),
    "gradient of softmax without its sum": (
        r"\bnet\b", "p * (dp - (dp * p).sum(axis=-1, keepdims=True))", "p * dp"),
    "gradient of softplus is 1": (r"\bnet\b", "dinner * sigmoid(spline.c)", "dinner"),
    "dx without the net": (
        r"dx|respect to x\b & 0, 1|first half|identity", "dx1 = dy1 + self.", "dx1 = dy1 + 0 * self."),
    "dx is 0 outside the bound": (
        r"dx|respect to x\b & 2, 3|second half", "np.where(spline.inside, dx2, dy2)]", "dx2]"),
}


class Mistake(NamedTuple):
    """The class of a layer, what is wrong in it, what an explanation must mention, and the edits."""

    layer: str
    wrong: str
    mentions: list[str]  # regular expressions; an explanation that leads to the mistake holds them all
    edits: list[tuple[str, str]]

    def build(self):
        """The layer's class with the mistake in it."""
        source = PATH.read_text(encoding="utf-8")
        for old, new in self.edits:
            if source.count(old) != 1:
                raise ValueError(f"{self.layer}, {self.wrong}: expected {old!r} once in {PATH.name}, "
                                 f"got it {source.count(old)} times")
            source = source.replace(old, new)
        namespace = {"__name__": PATH.stem}
        exec(compile(source, PATH.name, "exec"), namespace)
        return namespace[self.layer]

    def explained_by(self, message):
        return all(re.search(expression, message) for expression in self.mentions)


MISTAKES = [
    Mistake(layer, wrong, mentions.split(" & "), list(zip(texts[::2], texts[1::2])))
    for layer, mistakes in zip(foreign_layers.LAYERS, (LEAKY_RELU, HOUSEHOLDER, SPLINE))
    for wrong, (mentions, *texts) in mistakes.items()]
