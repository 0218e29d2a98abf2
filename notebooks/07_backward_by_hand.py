# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 7. Backward by hand
#
# **You will be able to** derive the backward pass of every layer of Glow in a few lines, and find each line
# in the library's code; check a whole Jacobian with one random projection; say which wrong gradients a test
# sees and which it does not; do one flow step, forwards and backwards, on paper.
#
# **You need** notebooks 3 (couplings), 4 (actnorm), 5 (the 1×1 convolution) and 6 (multi-scale), the chain
# rule for functions of several variables, matrix products. About 90 minutes with the exercises: 30 for part
# 1 (what a backward pass is), 40 for part 2 (every layer), 20 for part 3 (one step on paper). It runs in
# seconds.

# %%
import inspect
import math
import re
import textwrap

import matplotlib.pyplot as plt
import numpy as np

import minglow
from minglow import plots
from minglow.arrays.shapes import halves, join
from minglow.kernels import reference
from minglow.nets import Conv, Dense, NormReLU, ReLU, ShiftScale, TransposedConv, conv_net, mlp
from minglow.testing import (
    NotSmooth,
    PropertyFailed,
    check_backward,
    check_layer,
    directional_derivative,
    numerical_jacobian,
    perturbed,
    taylor_slope,
)
from minglow.testing.gradients import gradients, parameters

plots.style()
rng = np.random.default_rng(0)
minglow.use("numpy");                                # the hot loops as minglow/kernels/reference.py has them

# %% [markdown]
# ## Part 1: what a backward pass is
#
# ### Cotangents
#
# Let $y = f(x)$ be a layer with Jacobian $J = \partial y / \partial x$, and $L$ a number that depends on
# $y$: the **loss**. (Only the loss is called $L$ here.) Write $\bar a = \partial L / \partial a$, the
# **cotangent** of $a$: an array of the shape of $a$ that says how $L$ responds to each of its numbers. The
# chain rule sums over all ways on which $x_j$ reaches $L$, and each way leads through one $y_i$:
#
# $$
# \bar x_j = \sum_i \frac{\partial y_i}{\partial x_j}\, \bar y_i, \qquad\text{that is}\qquad \bar x = J^{\top} \bar y.
# \tag{7.1}
# $$
#
# This is a **vector-Jacobian product**. It is all that `backward` does: it takes $\bar y$ and gives
# $\bar x$. A small case: $y_1 = x_1 x_2$, $y_2 = x_1 + \sin x_2$, $L = y_1^2 - y_2$.

# %%
# checks (7.1): a map of the plane, against differences of the loss itself
x = np.array([1.5, 0.5])
y = np.array([x[0] * x[1], x[0] + np.sin(x[1])])
dy = np.array([2 * y[0], -1.0])                      # dL/dy
J = np.array([[x[1], x[0]], [1.0, np.cos(x[1])]])    # row: one y, column: one x
dx = J.T @ dy


def small_loss(x):
    """L as a function of x alone."""
    return (x[0] * x[1]) ** 2 - (x[0] + np.sin(x[1]))


differences = [directional_derivative(small_loss, x, unit) for unit in np.eye(2)]
print("by the chain rule ", dx.round(6), "\nby differences    ", np.round(differences, 6))
assert np.allclose(dx, differences, atol=1e-9)


# %%
def draw_graph(axis, places, edges, values=None, cotangents=None):
    """Names at their places, arrows (from, to, slope); values above in blue, cotangents below in red."""
    for start, end, slope in edges:
        axis.annotate("", places[end], places[start], arrowprops={
            "arrowstyle": "->", "color": "0.55", "shrinkA": 13, "shrinkB": 13})
        middle = 0.7 * np.array(places[start]) + 0.3 * np.array(places[end])
        axis.text(*middle, slope, ha="center", va="center", fontsize=8, color="0.3",
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    for name, (across, up) in places.items():
        axis.text(across, up, f"${name}$", ha="center", va="center", fontsize=10,
                  bbox={"boxstyle": "circle,pad=0.35", "facecolor": "white", "edgecolor": "0.3"})
        for numbers, side, color in (values, 0.36, plots.COLORS[0]), (cotangents, -0.38, plots.COLORS[1]):
            if numbers and name in numbers:
                axis.text(across, up + side, f"{numbers[name]:.3f}", ha="center", va="center", color=color,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    across, up = np.array(list(places.values())).T
    axis.set(xlim=(across.min() - 0.3, across.max() + 0.3), ylim=(up.min() - 0.65, up.max() + 0.65))
    axis.axis("off")


figure, axis = plt.subplots(figsize=(6, 2.5))
draw_graph(axis, {"x_1": (0, 1.3), "x_2": (0, 0), "y_1": (1.5, 1.3), "y_2": (1.5, 0), "L": (2.7, 0.65)},
           [("x_1", "y_1", "0.500"), ("x_2", "y_1", "1.500"), ("x_1", "y_2", "1.000"),
            ("x_2", "y_2", "0.878"), ("y_1", "L", "1.500"), ("y_2", "L", "-1.000")],
           {"x_1": x[0], "x_2": x[1], "y_1": y[0], "y_2": y[1], "L": small_loss(x)},
           {"x_1": dx[0], "x_2": dx[1], "y_1": dy[0], "y_2": dy[1], "L": 1.0})

# %% [markdown]
# *What to see:* values (blue) are made from left to right, cotangents (red) from right to left. Each arrow
# has a slope; a cotangent is the sum, over the arrows that leave, of slope times the cotangent at the
# arrow's end: $-0.250 = 0.500 \cdot 1.500 + 1.000 \cdot (-1.000)$.

# %% [markdown]
# ### Why backwards
#
# A flow is a chain of $n$ layers, with Jacobians $J_1, \dots, J_n$ of $D \times D$ numbers each. Its
# Jacobian is their product, and (7.1) becomes
#
# $$
# \bar x = (J_n \cdots J_2\, J_1)^{\top}\, \bar y = J_1^{\top} \big( J_2^{\top} \cdots ( J_n^{\top}\, \bar y ) \big).
# \tag{7.2}
# $$
#
# The left side asks for products of matrices, about $D^3$ multiplications each; the right side, read from
# the inside out, for products of a matrix with a vector, $D^2$ each. The last layer comes first: hence
# *backward*. And no layer has to write its $J$ down, as long as it can multiply by $J^{\top}$ (Baydin et
# al. 2018, *Automatic differentiation in machine learning: a survey*, section 3.2).

# %%
# checks (7.2): six 1x1 convolutions, whose Jacobians are their weights
D, n = 48, 6
layers = [minglow.InvConv1x1(D, rng=i, dtype=np.float64) for i in range(n)]
dense = np.eye(D)
for layer in layers:
    dense = layer.params["weight"] @ dense
chain = minglow.Chain(*layers)
y, _, caches = chain.forward(rng.standard_normal((1, D)))
dy = rng.standard_normal((1, D))
assert np.allclose(chain.backward(dy, np.zeros(1), caches)[0], dense.T @ dy[0])
print(f"product of Jacobians: {(n - 1) * D**3:,} multiplications;  backwards: {n * D**2:,}")
flow = minglow.load("models/digits.npz")
print(f"a gradient by all parameters of the digits' flow: differences take {2 * flow.flat.value.size:,} "
      "forward passes; one backward pass gives it")

# %% [markdown]
# ### One identity that checks a whole Jacobian
#
# Write $\langle a, b \rangle = \sum_i a_i b_i$, over all numbers of two arrays of one shape. For any
# direction $v$ in which $x$ may move, and any $\bar y$, both sides of
#
# $$
# \langle \bar y,\; J v \rangle = \langle J^{\top} \bar y,\; v \rangle
# \tag{7.3}
# $$
#
# are the same double sum $\sum_{ij} \bar y_i J_{ij} v_j$. The left side needs `forward` alone: $J v$ is the
# speed of $y$ when $x$ moves along $v$, a difference of two values. The right side needs `backward` alone.
# So the two can be held against each other, without ever building $J$. It is called the **adjoint test**,
# or dot-product test.
#
# How much does it see? Suppose that `backward` multiplies by a wrong matrix $A$ in place of $J^{\top}$, off
# by $E = A - J^{\top}$. The two sides then differ by $\langle E \bar y, v \rangle$. Draw all numbers of $v$
# and $\bar y$ from $N(0, 1)$, independently, and expand the square. A product of two different numbers has
# mean 0, a number's square has mean 1, so that of all products only the squares remain:
#
# $$
# \mathbb{E}\, \langle E \bar y, v \rangle^2 = \sum_{ij} E_{ij}^2 .
# \tag{7.4}
# $$
#
# Every entry of $J$ is in there. One draw of $v$ and $\bar y$ looks at them all.

# %%
# checks (7.3): a coupling, J v from forward, J^T dy from backward
coupling = perturbed(minglow.AffineCoupling(mlp(2, 8, 4, rng=0, dtype=np.float64)))
x = rng.standard_normal((1, 4))
y, _, cache = coupling.forward(x)
dy, v = rng.standard_normal((1, 4)), rng.standard_normal((1, 4))
Jv = directional_derivative(lambda point: coupling.forward(point)[0], x, v)
left, right = (dy * Jv).sum(), (coupling.backward(dy, np.zeros(1), cache) * v).sum()
print(f"<dy, J v> = {left:.9f}    <J^T dy, v> = {right:.9f}")
assert np.isclose(left, right, rtol=1e-8)

# %%
# checks (7.4): the mean of 100,000 squares, for two kinds of mistake
J = rng.standard_normal((16, 16))
one_entry = np.zeros((16, 16))
one_entry[3, 5] = -2 * J.T[3, 5]                     # one entry with the wrong sign
figure, axis = plt.subplots(figsize=(6.5, 2.8))
for name, E in ("one entry's sign", one_entry), ("all entries 1% off", 0.01 * J.T):
    draws_dy, draws_v = rng.standard_normal((2, 100_000, 16))
    gap = np.einsum("ni,ij,nj->n", draws_v, E, draws_dy, optimize=True)
    size = np.linalg.norm(E)
    assert np.isclose((gap**2).mean(), size**2, rtol=0.05)
    axis.hist(np.log10(np.abs(gap) / size), np.linspace(-4, 1.2, 80), histtype="step", linewidth=1.5,
              label=f"{name}: {100 * (np.abs(gap) < 1e-3 * size).mean():.1f}% below 0.001")
axis.set(xlabel="log10 of |gap| / size of E", ylabel="draws", title="what one random projection sees")
axis.legend(loc="upper left");

# %% [markdown]
# *What to see:* the gap is nearly always of the size of the mistake itself. A draw that makes a mistake look a
# thousand times smaller is a matter of tenths of a percent; two or three such draws in a row hardly ever happen.

# %% [markdown]
# ### The second cotangent, `dlog_det`
#
# A flow's layer gives two things: $y$, and for each sample $b$ the number $\ell_b = \log|\det J_b|$, in
# code `log_det`. The loss depends on both. Each has its cotangent, $\bar y$ (`dy`) and
# $\bar\ell_b = \partial L / \partial \ell_b$ (`dlog_det`), and the sum over all ways has one term more:
#
# $$
# \bar x_b = J_b^{\top}\, \bar y_b + \bar\ell_b\, \frac{\partial \ell_b}{\partial x_b} .
# \tag{7.5}
# $$
#
# A parameter $\theta$ of the layer (a weight, a shift) meets every sample, so that its ways lead through
# all of them:
#
# $$
# \bar\theta = \sum_b \Big[ \Big(\frac{\partial y_b}{\partial \theta}\Big)^{\top} \bar y_b
# + \bar\ell_b\, \frac{\partial \ell_b}{\partial \theta} \Big].
# \tag{7.6}
# $$

# %%
# checks (7.5) and (7.6): all four Jacobians by brute force
x = rng.standard_normal((3, 4))
y, _, cache = coupling.forward(x)
dy, dlog_det = rng.standard_normal((3, 4)), rng.standard_normal(3)
found = gradients(coupling, cache, dy, dlog_det)     # calls backward; a dictionary: "x", and every parameter
for b in range(3):
    J_b = numerical_jacobian(coupling.forward, x[b])
    log_det_by_x = numerical_jacobian(lambda points: coupling.forward(points)[1][:, None], x[b])[0]
    assert np.allclose(found["x"][b], J_b.T @ dy[b] + dlog_det[b] * log_det_by_x, atol=1e-7)
bias = coupling.net.nets[-1].params["bias"]          # the last bias of the net: one parameter of many
start = bias.copy()


def of_bias(values):
    """y and log_det of all samples, for each of several values of the bias."""
    results = []
    for value in values:
        bias[...] = value                            # in place
        y, log_det, _ = coupling.forward(x)
        results.append(np.append(y, log_det))
    bias[...] = start
    return np.array(results)


by_bias = numerical_jacobian(of_bias, start)         # (12 + 3, 4): all y, then all log_det
assert np.allclose(found["net.4.bias"], by_bias.T @ np.append(dy, dlog_det), atol=1e-7)

# %% [markdown]
# #### A layer does not know the loss's sign
#
# Training makes the negative log-likelihood small, so it hands in $\bar\ell_b = -1/B$. Nothing of this
# belongs in a layer. By (7.5), what it returns is **linear** in the pair of cotangents: for numbers
# $\alpha, \beta$ and pairs $(\bar y, \bar\ell)$, $(\bar y', \bar\ell')$,
#
# $$
# \operatorname{backward}(\alpha \bar y + \beta \bar y',\; \alpha \bar\ell + \beta \bar\ell') =
# \alpha \operatorname{backward}(\bar y, \bar\ell) + \beta \operatorname{backward}(\bar y', \bar\ell').
# \tag{7.7}
# $$
#
# A layer that adds its log-determinant's gradient by itself, with a sign and a $1/B$ that it assumes,
# breaks this: $\operatorname{backward}(0, 0)$ would not be 0. Then the layer is wrong under any other loss,
# and inside a conditioner, where nobody wants its log-determinant. So minglow's checks draw `dlog_det` at
# random, too.

# %%
# checks (7.7)
other_dy, other_dlog_det = rng.standard_normal((3, 4)), rng.standard_normal(3)
first, second = gradients(coupling, cache, dy, dlog_det), gradients(coupling, cache, other_dy, other_dlog_det)
both = gradients(coupling, cache, 2 * dy - 3 * other_dy, 2 * dlog_det - 3 * other_dlog_det)
for name in both:
    assert np.allclose(both[name], 2 * first[name] - 3 * second[name])
assert not any(value.any() for value in gradients(coupling, cache, 0 * dy, 0 * dlog_det).values())

# %% [markdown]
# **Exercise 7.1: the adjoint test as a function** (2 points). With both outputs, the identity is about
# $S = \langle \bar y, y \rangle + \langle \bar\ell, \ell \rangle$: its speed when $x$ moves along $v$ has
# to be $\langle \bar x, v \rangle$. Write `adjoint_gap(layer, x, dy, dlog_det, v)`, which returns the
# difference of the two relative to the larger of their sizes. For the speed, take
# $(S(x + \eta v) - S(x - \eta v)) / 2\eta$ with $\eta = 10^{-6}$.

# %% solution="adjoint-gap"
def adjoint_gap(layer, x, dy, dlog_det, v):
    """|speed - <dx, v>| / max(|speed|, |<dx, v>|); about 1e-9 for a right backward."""
    ### BEGIN SOLUTION
    def S(points):
        y, log_det, _ = layer.forward(points)
        return (dy * y).sum() + (dlog_det * log_det).sum()

    speed = (S(x + 1e-6 * v) - S(x - 1e-6 * v)) / 2e-6
    product = (layer.backward(dy, dlog_det, layer.forward(x)[2]) * v).sum()
    return abs(speed - product) / max(abs(speed), abs(product))
    ### END SOLUTION


# %% test="adjoint-gap" points=2
class NotTransposed(minglow.InvConv1x1):
    """dx = W dy in place of W^T dy."""

    def backward(self, dy, dlog_det, cache):
        return dy @ self.params["weight"].T


class NoLogDet(minglow.AffineCoupling):
    """The log-determinant's cotangent is lost."""

    def backward(self, dy, dlog_det, cache):
        return super().backward(dy, 0 * dlog_det, cache)


for seed in range(3):
    draw = np.random.default_rng(seed).standard_normal
    drawn = draw((5, 4)), draw((5, 4)), draw(5), draw((5, 4))
    nets = [mlp(2, 8, 4, rng=seed, dtype=np.float64) for _ in range(2)]
    for layer in minglow.InvConv1x1(4, seed, np.float64), perturbed(minglow.AffineCoupling(nets[0])):
        assert adjoint_gap(layer, *drawn) < 1e-6, f"{layer} is right: is dlog_det in both sides?"
    for layer in NotTransposed(4, seed, np.float64), perturbed(NoLogDet(nets[1])):
        assert adjoint_gap(layer, *drawn) > 1e-3, f"{type(layer).__name__} is wrong, and was not seen"

# %% [markdown]
# ### Three kinds of test, and how sharp they are
#
# #### Central differences
#
# Let $S(\eta)$ be the loss when something moves by $\eta$ along a direction. The central difference is off
# by **truncation** (the Taylor terms that it drops; the one in $\eta^2$ is the first that does not cancel)
# and by **rounding**: each of the two values may be wrong by some $\delta$, and their difference is divided
# by $2\eta$. So
#
# $$
# \Big| \frac{S(\eta) - S(-\eta)}{2\eta} - S'(0) \Big| \;\le\; \frac{\eta^2}{6} \max |S'''| + \frac{\delta}{\eta} .
# \tag{7.8}
# $$
#
# One term grows with $\eta$, the other shrinks. Their sum is least where its derivative by $\eta$ is zero:
#
# $$
# \eta_* = \Big( \frac{3\, \delta}{\max |S'''|} \Big)^{1/3}
# \tag{7.9}
# $$
#
# (Nocedal & Wright 2006, *Numerical Optimization*, section 8.1). Test it where everything is known: an
# actnorm whose log scales move by $\eta\,v$ gives $y \odot e^{\eta v}$, so
# $S(\eta) = \langle \bar y, y \odot e^{\eta v} \rangle$, and its $k$-th derivative at 0 is
# $\langle \bar y, y \odot v^k \rangle$ ($\odot$ multiplies number by number).


# %%
def inner(a, b):
    """<a, b>."""
    return (a * b).sum()


def run(module, x):
    """forward's y, log_det and cache; a conditioner (Net) has no log_det: zeros."""
    result = module.forward(x)
    return result if len(result) == 3 else (result[0], np.zeros(len(x)), result[1])


def loss_by(module, x, variable, dy, dlog_det):
    """S = <dy, y> + <dlog_det, log_det> as a function of one variable: x itself, or a parameter."""
    start = variable.copy()

    def loss(value):
        variable[...] = value                        # in place, as all of minglow's arrays are written
        y, log_det, _ = run(module, x)
        total = inner(dy, y) + inner(dlog_det, log_det)
        variable[...] = start
        return total

    return loss


# %%
# checks (7.8) and (7.9): where all derivatives have a closed form
actnorm = perturbed(minglow.ActNorm(4, np.float64))
x, dy, v = rng.standard_normal((8, 4)), rng.standard_normal((8, 4)), rng.standard_normal(4)
y = actnorm.forward(x)[0]
slope, third = inner(dy, y * v), inner(dy, y * v**3)
steps = 10.0 ** np.arange(-12, 0.01, 0.25)
errors = {}
for dtype in np.float64, np.float32:
    layer = perturbed(actnorm, size=0, dtype=dtype)
    start = layer.params["log_scale"].copy()
    S = loss_by(layer, x.astype(dtype), layer.params["log_scale"], dy.astype(dtype), np.zeros(8, dtype))
    ahead, behind = (np.array([float(S(start + eta * v)) for eta in side * steps]) for side in (1, -1))
    errors[f"central, {dtype.__name__}"] = abs((ahead - behind) / (2 * steps) - slope)
    if dtype == np.float64:
        errors["one-sided, float64"] = abs((ahead - S(start)) / steps - slope)
central = errors["central, float64"]
delta = 4 * np.finfo(float).eps * np.abs(dy * y).sum()  # four roundings of the numbers that are summed
third_max = np.abs(dy * y * v**3 * np.exp(np.abs(v))).sum()  # no S''' within a step of 1 is larger
assert np.all(central <= steps**2 / 6 * third_max + delta / steps)
assert np.allclose(central[-13:-4], steps[-13:-4] ** 2 / 6 * abs(third), rtol=0.1)
best, fine = (3 * delta / abs(third)) ** (1 / 3), np.geomspace(1e-8, 1, 10_001)
assert np.isclose(fine[np.argmin(fine**2 / 6 * abs(third) + delta / fine)], best, rtol=0.01)

# %%
figure, axis = plt.subplots(figsize=(9, 3.4))
for name, error in errors.items():
    axis.loglog(steps, error / abs(slope) + 1e-17, "o-", markersize=3, linewidth=1, label=name)
for limit, line, name in ((steps**2 / 6 * abs(third), "k:", "truncation $\\eta^2 |S'''| / 6$"),
                          (delta / steps, "k--", "rounding $\\delta / \\eta$, float64")):
    axis.loglog(steps, limit / abs(slope), line, linewidth=1, label=name)
axis.axvline(best, color="0.8", zorder=0)
axis.text(best * 1.2, 3e-14, "$\\eta_*$")
axis.set(xlabel="step $\\eta$", ylabel="relative error of the difference", ylim=(1e-14, 30),
         title="a V: too long a step truncates, too short a one rounds")
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5));

# %% [markdown]
# *What to see:* on the right flank the errors follow a line of slope 2 (central) or 1 (one-sided). On the
# left, in float64, they are noise below the dashed line of slope $-1$; the best central differences have some
# ten right digits, near $\eta = 10^{-5}$. In float32 the noise lies about nine decades higher: at $\eta_*$
# two digits are right, and steps below $10^{-8}$ are lost altogether. So gradients are tested in float64.

# %% [markdown]
# #### Taylor's remainder
#
# Second test: no tolerance, but an *order*. Let $g$ be the gradient by $\theta$ that `backward` claims, and
# take steps $\eta$ along a direction $v$. What the first-order formula misses is
#
# $$
# R(\eta) = \big| S(\theta + \eta v) - S(\theta) - \eta\, \langle g, v \rangle \big|
# = \Big| \eta\, \langle \nabla S - g,\, v \rangle + \frac{\eta^2}{2}\, v^{\top} H v + O(\eta^3) \Big| ,
# \tag{7.10}
# $$
#
# with $\nabla S$ the true gradient and $H$ the matrix of second derivatives. If $g$ is right, $R$ shrinks
# like $\eta^2$; if not, like $\eta$, once $\eta$ is short enough that the first term is the larger one.
# `taylor_slope` fits the order.
#
# Take the weight of a 1×1 convolution. Its gradient has two parts, one from each cotangent, and that gives
# room for mistakes.

# %%
conv = perturbed(minglow.InvConv1x1(3, rng=0, dtype=np.float64))
weight = conv.params["weight"].copy()
x, dy, dlog_det = rng.standard_normal((4, 2, 2, 3)), rng.standard_normal((4, 2, 2, 3)), rng.standard_normal(4)
cache = conv.forward(x)[2]
S = loss_by(conv, x, conv.params["weight"], dy, dlog_det)
of_dy = gradients(conv, cache, dy, 0 * dlog_det)["weight"]        # backward is linear: two parts
of_log_det = gradients(conv, cache, 0 * dy, dlog_det)["weight"]
sign = np.ones_like(weight)
sign[2, 1] = -1
candidates = {                                       # what a backward might return, of these two parts
    "right": lambda p, q: p + q, "1.01 times": lambda p, q: 1.01 * (p + q),
    "log-det part missing": lambda p, q: p, "W^-1 for W^-T": lambda p, q: p + q.T,
    "one entry's sign": lambda p, q: sign * (p + q)}

# %%
# checks (7.10): the order, and both terms of R by themselves
v = rng.standard_normal(weight.shape)
steps = 10.0 ** np.arange(-5, -0.9, 0.5)
figure, axis = plt.subplots(figsize=(6.5, 3.4))
for name in "right", "1.01 times", "log-det part missing":
    claimed = inner(candidates[name](of_dy, of_log_det), v)
    remainders = [abs(S(weight + eta * v) - S(weight) - eta * claimed) for eta in steps]
    order = taylor_slope(S, weight, v, claimed, steps=(4e-4, 2e-4, 1e-4, 5e-5))
    assert abs(order - (2 if name == "right" else 1)) < 0.1
    axis.loglog(steps, remainders, "o-", markersize=3, label=f"{name}: order {order:.2f}")
    wrong_by = abs(inner(of_dy + of_log_det, v) - claimed)  # the two terms of R, by themselves
    bend = abs(S(weight + 1e-3 * v) - 2 * S(weight) + S(weight - 1e-3 * v)) / 2e-6
    if name == "right":
        assert np.isclose(remainders[4], steps[4] ** 2 * bend, rtol=0.02)
    else:
        assert np.isclose(remainders[0], steps[0] * wrong_by, rtol=0.02)
    if name == "1.01 times":
        print(f"{name}: order by the default steps {taylor_slope(S, weight, v, claimed):.2f}")
axis.set(xlabel="step $\\eta$", ylabel="remainder $R(\\eta)$", title="only the right gradient keeps slope 2")
axis.legend();

# %% [markdown]
# *What to see:* with long steps $\eta^2$ hides a small mistake: the factor of 1.01 leaves the right line
# near $\eta = 10^{-2}$, and only below $10^{-3}$ it has the slope 1 of a wrong gradient. With
# `taylor_slope`'s default steps, $4 \cdot 10^{-3}$ to $5 \cdot 10^{-4}$, it gets an order between 1 and 2:
# wrong still, but less plainly.

# %% [markdown]
# #### Which test sees which mistake
#
# The same five candidates, four of them wrong, and tests as people write them. The third kind, the adjoint
# test, is (7.3) with the parameter in the place of $x$: the speed of $S$ along a random $v$ against
# $\langle g, v \rangle$.


# %%
def one_entry_loosely(S, g):
    """One entry, a one-sided difference, 2% allowed: 2 forward passes."""
    unit = np.zeros_like(g)
    unit[0, 0] = 1
    return np.isclose((S(weight + 1e-4 * unit) - S(weight)) / 1e-4, g[0, 0], rtol=0.02)


def every_entry(S, g):
    """All entries, central differences: 2 forward passes for each."""
    units = np.eye(g.size).reshape(-1, *g.shape)
    slopes = [(S(weight + 1e-5 * unit) - S(weight - 1e-5 * unit)) / 2e-5 for unit in units]
    return np.allclose(slopes, g.ravel(), rtol=1e-6, atol=1e-6)


def taylor(S, g):
    """The order of the remainder along a random direction: 5 forward passes."""
    v = np.random.default_rng(1).standard_normal(g.shape)
    return abs(taylor_slope(S, weight, v, inner(g, v), steps=(4e-4, 2e-4, 1e-4, 5e-5)) - 2) < 0.1


def adjoint(S, g):
    """A central difference along a random direction: 2 forward passes."""
    v = np.random.default_rng(1).standard_normal(g.shape)
    return np.isclose((S(weight + 1e-5 * v) - S(weight - 1e-5 * v)) / 2e-5, inner(g, v), rtol=1e-6)


# %%
S_flat = loss_by(conv, x, conv.params["weight"], dy, 0 * dlog_det)
tests = {
    "entry": lambda claim: one_entry_loosely(S, claim(of_dy, of_log_det)),
    "every entry": lambda claim: every_entry(S, claim(of_dy, of_log_det)),
    "Taylor": lambda claim: taylor(S, claim(of_dy, of_log_det)),
    "adjoint": lambda claim: adjoint(S, claim(of_dy, of_log_det)),
    "dlog_det = 0": lambda claim: adjoint(S_flat, claim(of_dy, 0 * of_log_det))}
print(f"{'':22}" + "".join(f"{name:>14}" for name in tests))
for name, claim in candidates.items():
    passed = [test(claim) for test in tests.values()]
    print(f"{name:22}" + "".join(f"{'-' if p else 'SEEN':>14}" for p in passed))
    assert all(passed) if name == "right" else not any(passed[1:4])

# %% [markdown]
# *What to see:* the three sharp tests see all four mistakes. The loose one looks at one entry, on the
# diagonal, where a matrix and its transpose agree, and its tolerance of 2% lets a factor of 1.01 pass. In
# the last column the adjoint test is run with a loss without log-determinant: it cannot see that its
# gradient is missing, or transposed. The adjoint test costs two forward passes, however many entries there
# are, where differences of every entry cost two for each. `minglow.testing.check_backward` is this test,
# for $x$ and every parameter. It combines differences of two step lengths so that the term in $\eta^2$
# cancels (Richardson's extrapolation).

# %% [markdown]
# #### Kinks
#
# All of this takes for granted that there *is* a derivative. A ReLU, $r(u) = \max(0, u)$, has none at $0$.
# Where the kink lies within the step, $|u| < \eta$, a central difference mixes the two slopes:
#
# $$
# \frac{r(u + \eta) - r(u - \eta)}{2\eta} = \frac{u + \eta}{2\eta} = \frac12 + \frac{u}{2\eta} .
# \tag{7.11}
# $$

# %%
# checks (7.11): against the library's ReLU
eta, u = 0.1, np.linspace(-0.3, 0.3, 121)[:, None]
relu = ReLU()
by_differences = (relu.forward(u + eta)[0] - relu.forward(u - eta)[0]) / (2 * eta)
by_backward = relu.backward(np.ones_like(u), relu.forward(u)[1])
inside = np.abs(u) < eta
assert np.allclose(by_differences[inside], 0.5 + u[inside] / (2 * eta))
assert np.allclose(by_differences[~inside], by_backward[~inside])

figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.6))
axes[0].plot(u, relu.forward(u)[0])
axes[0].plot([-0.07, 0.13], [0, 0.13], "o--", markersize=4, label="central difference at 0.03")
axes[0].set(xlabel="u", ylabel="max(0, u)")
axes[1].plot(u, by_backward, label="backward: 0 or 1")
axes[1].plot(u, by_differences, "--", label="difference, $\\eta$ = 0.1")
axes[1].set(xlabel="u", ylabel="slope")
axes[0].legend()
axes[1].legend(loc="lower right", bbox_to_anchor=(1, 0.05))
try:
    directional_derivative(lambda point: relu.forward(point)[0].sum(), np.array([[1e-7]]), np.ones((1, 1)))
except NotSmooth as error:
    print("NotSmooth:", error)

# %% [markdown]
# *What to see:* near the kink a difference gives any number between 0 and 1, and the right backward looks
# wrong. Short steps make it rare, and comparing two steps makes it visible: minglow's
# `directional_derivative` then tries shorter steps, and raises `NotSmooth` if the shortest meets the kink, too. At $u = 0$
# itself minglow takes the slope 0; any slope from 0 to 1 would do, since inputs hardly ever hit it exactly.

# %% [markdown]
# ## Part 2: every layer
#
# ### Five kinds of arrows
#
# Every layer of Glow is made of steps of five kinds. For each, multiplying by the transposed Jacobian is as
# short as the step itself:
#
# | forward | its Jacobian | backward |
# | --- | --- | --- |
# | scale each number | diagonal | scale by the same factors |
# | multiply by a matrix | $W$ | multiply by $W^{\top}$ |
# | move numbers | a permutation $P$ | move them back, $P^{\top} = P^{-1}$ |
# | let some pass, set others to 0 | a diagonal of 1 and 0 | let the same pass |
# | copy a number to many places | ones in one column | **sum** over those places |
#
# The last row is where the sums come from: a shift is copied to all pixels of all samples, so its cotangent
# is a sum over all of them. The rest is the product rule: where two things are multiplied, each has the
# other for its slope.
#
# ### How we check, and how we quote
#
# `verify` takes the formulas of a layer, written out. It draws $\bar y$ and $\bar\ell$, asserts that the
# library's `backward` gives the same, and returns by how much they miss differences of `forward` at most (the
# adjoint test, for $x$ and for each parameter). `quote` prints the library's own lines, with the number of the
# formula beside each, and stops the notebook if a line is not there any more. In code `dy` is $\bar y$, `dx`
# is $\bar x$, and so on.


# %%
def verify(module, x, formulas):
    """Hold formulas(dy, dlog_det), a dictionary of cotangents, against backward; their largest gap to differences."""
    y, _, cache = run(module, x)
    dy, dlog_det = rng.standard_normal(y.shape), rng.standard_normal(len(x))
    claims = formulas(dy, dlog_det)
    library = gradients(module, cache, *(dy, dlog_det)[:1 if isinstance(module, minglow.Net) else 2])
    assert claims.keys() == library.keys(), library.keys()
    variables = {"x": x} | {name: owner.params[key] for name, owner, key in parameters(module)}
    gaps = {}
    for name, claim in claims.items():
        v = rng.standard_normal(claim.shape)
        speed = directional_derivative(loss_by(module, x, variables[name], dy, dlog_det),
                                       variables[name].copy(), v)
        gaps[name] = abs(speed - inner(claim, v)) / np.linalg.norm(claim)
        assert np.allclose(claim, library[name], rtol=1e-10, atol=1e-10), f"{name}: the library differs"
    print(f"{module}: formulas against differences:", ", ".join(f"{name} {gap:.0e}" for name, gap in gaps.items()))
    return max(gaps.values())


def quote(function, numbers):
    """Print a function's source, without its docstring; beside a line that holds a key, the number."""
    source = re.sub(r'\n\s*r?""".*?"""', "", inspect.getsource(function), flags=re.DOTALL)
    lines, keys = textwrap.dedent(source).splitlines(), set(numbers)
    for line in lines:
        here = [key for key in keys if key in line]
        keys -= set(here)
        print(f"{' '.join(numbers[key] for key in here):16}| {line}")
    assert not keys, f"not in the source any more: {keys}"


# %% [markdown]
# ### Scale: `Scaling` and `ActNorm`
#
# $y = (x + t) \odot s$ for every pixel, with a shift $t_c$ and a scale $s_c = e^{\lambda_c}$ for each
# channel $c$, and $\ell_b = h\,w \sum_c \lambda_c$ (notebook 4). The slopes: $\partial y / \partial x = s$,
# $\partial y / \partial t = s$, and, since the exponential is its own derivative,
# $\partial y / \partial \lambda = (x + t)\,s = y$. Shift and log scale are copied to all $B\,h\,w$ pixels,
# hence the sums; and $\ell_b$ has slope $h\,w$ by each $\lambda_c$:
#
# $$
# \bar x = \bar y \odot s,
# \tag{7.12}
# $$
#
# $$
# \bar t_c = \sum_{b,i,j} \bar x_{bijc},
# \tag{7.13}
# $$
#
# $$
# \bar\lambda_c = \sum_{b,i,j} \bar y_{bijc}\, y_{bijc} + h\,w \sum_b \bar\ell_b .
# \tag{7.14}
# $$

# %%
# checks (7.12), (7.13) and (7.14)
x = rng.standard_normal((3, 2, 3, 4))                # B, h, w, C: from here on
actnorm = perturbed(minglow.ActNorm(4, np.float64))
s, y = np.exp(actnorm.params["log_scale"]), actnorm.forward(x)[0]
assert verify(actnorm, x, lambda dy, dlog_det: {
    "x": dy * s,
    "shift": np.einsum("bijc->c", dy * s),
    "log_scale": np.einsum("bijc,bijc->c", dy, y) + 2 * 3 * dlog_det.sum()}) < 1e-7
tripled = perturbed(minglow.ActNorm(4, np.float64, factor=3.0))
s3, y3 = np.exp(3 * tripled.params["log_scale"]), tripled.forward(x)[0]
assert verify(tripled, x, lambda dy, dlog_det: {
    "x": dy * s3,
    "shift": np.einsum("bijc->c", dy * s3),
    "log_scale": 3 * (np.einsum("bijc,bijc->c", dy, y3) + 2 * 3 * dlog_det.sum())}) < 1e-7
scaling = perturbed(minglow.Scaling(4, np.float64))      # NICE's: the same without a shift
assert verify(scaling, x, lambda dy, dlog_det: {
    "x": dy * np.exp(scaling.params["log_scale"]),
    "log_scale": np.einsum("bijc,bijc->c", dy, scaling.forward(x)[0]) + 6 * dlog_det.sum()}) < 1e-7
quote(reference.shift_scale_backward, {"dx = dy * scale": "(7.12)", "dx.sum(axis=0)": "(7.13) (7.14)"})
quote(minglow.ActNorm.backward, {"dlog_det.sum() * pixels(y)": "(7.14)"})

# %% [markdown]
# [minglow/layers/actnorm.py](../minglow/layers/actnorm.py), with its hot loop in
# [minglow/kernels/reference.py](../minglow/kernels/reference.py). Two things to notice. First, **what is
# cached**: the output $y$ alone. Neither $x$ nor $t$ is needed, and $y$ lives on anyhow, as the next
# layer's input. Second, `factor`, checked above with 3: where $\lambda = f\,\theta$, as in Glow's official
# code with $f = 3$, the chain rule multiplies $\bar\lambda$ by $f$.

# %% [markdown]
# **Exercise 7.2: predict, then run** (1 point). A batch of $B = 16$ images of $8 \times 8$ pixels with 4
# channels, and the likelihood's cotangent $\bar\ell_b = -1/B$. Suppose that $\bar y = 0$: the latents do
# not pull at all. What is $\bar\lambda_c$ of each channel?

# %% solution="predicted-gradient"
### BEGIN SOLUTION
predicted_gradient = -64.0                           # h w times the sum of -1/B over B samples
### END SOLUTION

# %% test="predicted-gradient" points=1
lone = minglow.ActNorm(4, np.float64)
images = np.ones((16, 8, 8, 4))
lone.backward(0 * images, np.full(16, -1 / 16), lone.forward(images)[2])
measured = lone.grads["log_scale"]
message = f"every pixel counts once, and the samples' cotangents add up to -1: {measured}"
assert np.allclose(predicted_gradient, measured), message

# %% [markdown]
# ### Matrix: `InvConv1x1` and `Dense`
#
# Notebook 5 derived the 1×1 convolution ([minglow/layers/invconv.py](../minglow/layers/invconv.py)),
# $y_{bij} = W x_{bij}$ with $\ell_b = h\,w \log|\det W|$. The result, (5.7) and (5.8):
#
# $$
# \bar x_{bij} = W^{\top} \bar y_{bij},
# \tag{7.15}
# $$
#
# $$
# \bar W = \sum_{b,i,j} \bar y_{bij}\, x_{bij}^{\top} + h\,w\, \Big(\sum_b \bar\ell_b\Big)\, W^{-\top} .
# \tag{7.16}
# $$

# %%
# checks (7.15) and (7.16)
conv = perturbed(minglow.InvConv1x1(4, rng=0, dtype=np.float64))
W = conv.params["weight"]
assert verify(conv, x, lambda dy, dlog_det: {
    "x": np.einsum("kl,bijk->bijl", W, dy),
    "weight": np.einsum("bijk,bijl->kl", dy, x) + 6 * dlog_det.sum() * np.linalg.inv(W).T}) < 1e-7
quote(minglow.InvConv1x1.backward, {"rows(dy).T @ rows(x)": "(7.16)", "dlog_det.sum()": "(7.16)",
                                    "return": "(7.15)"})

# %% [markdown]
# `rows(x)` has every pixel's channels as a row: $X$ with $N = B\,h\,w$ rows. A pixel that is a *row* meets
# $W$ from the right: $x^{\top} W^{\top} = (W x)^{\top}$. So in code $\bar X = \bar Y W$ and
# $\bar W = \bar Y^{\top} X$.
#
# The dense layer of a conditioner ([minglow/nets/dense.py](../minglow/nets/dense.py)) keeps its weight the
# other way round, $(C_\text{in}, C_\text{out})$: $Y = X W + \mathbf{1} b^{\top}$, with $\mathbf{1}$ a
# column of $N$ ones that copies the bias $b$ to all rows. So every formula is transposed, and **the shapes
# alone say where each factor goes**: $\bar X$ has to be $(N, C_\text{in})$, and there is one way to make
# that from $\bar Y$, $(N, C_\text{out})$, and $W$.
#
# $$
# \bar X = \bar Y\, W^{\top},
# \tag{7.17}
# $$
#
# $$
# \bar W = X^{\top}\, \bar Y,
# \tag{7.18}
# $$
#
# $$
# \bar b = \bar Y^{\top} \mathbf{1} .
# \tag{7.19}
# $$

# %%
# checks (7.17), (7.18) and (7.19)
dense = perturbed(Dense(4, 5, rng=0, dtype=np.float64))
X, ones = x.reshape(-1, 4), np.ones(18)
assert verify(dense, x, lambda dy, _: {
    "x": (dy.reshape(-1, 5) @ dense.params["weight"].T).reshape(x.shape),
    "weight": X.T @ dy.reshape(-1, 5),
    "bias": dy.reshape(-1, 5).T @ ones}) < 1e-7
quote(Dense.backward, {'"weight"] +=': "(7.18)", '"bias"] +=': "(7.19)", "return": "(7.17)"})

# %% [markdown]
# ### Move: `Squeeze`, `Shuffle`, `Flatten`
#
# ([minglow/layers/squeeze.py](../minglow/layers/squeeze.py), [permute.py](../minglow/layers/permute.py)) A
# layer that moves numbers is a permutation matrix $P$ on the flattened sample. Its rows are unit vectors at
# right angles to each other, so $P P^{\top} = I$: the transpose is the inverse, and
# $\ell_b = \log|\det P| = 0$. No `dlog_det` is used, no cache is needed, and `backward` is `inverse`,
# applied to $\bar y$:
#
# $$
# \bar x = P^{\top} \bar y = P^{-1} \bar y .
# \tag{7.20}
# $$


# %%
# checks (7.20): P built from unit images, then the formula
def matrix_of(linear, shape):
    """The matrix of a linear map of arrays: column j is what it makes of the j-th unit array."""
    units = np.eye(math.prod(shape)).reshape(-1, *shape)
    return np.stack([linear(unit).ravel() for unit in units], axis=1)


even = rng.standard_normal((3, 4, 2, 3))
for mover in minglow.Squeeze(), minglow.Shuffle(3, rng=0), minglow.Reverse(3), minglow.Flatten((4, 2, 3)):
    P = matrix_of(lambda image, mover=mover: mover.forward(image[None])[0], (4, 2, 3))
    assert np.array_equal(P @ P.T, np.eye(24))
    assert verify(mover, even, lambda dy, _, mover=mover, P=P: {"x": (dy.reshape(3, 24) @ P).reshape(even.shape)}) < 1e-7
    dy = mover.forward(rng.standard_normal(even.shape))[0]
    assert np.array_equal(mover.backward(dy, np.zeros(3), None), mover.inverse(dy)[0])
quote(minglow.Squeeze.backward, {"self._unsqueeze(dy)": "(7.20)"})

# %% [markdown]
# ### Gate: `ReLU` and `NormReLU`
#
# A ReLU ([minglow/nets/net.py](../minglow/nets/net.py)) lets the positive numbers pass. With $[\,\cdot\,]$
# for 1 where true and 0 where false,
#
# $$
# \bar x = \bar y \odot [\,y > 0\,].
# \tag{7.21}
# $$
#
# Glow's official net puts an actnorm before each ReLU: $y = \max(0, a)$ with
# $a = (x + t) \odot e^{\lambda}$. First back through the gate, $\bar a = \bar y \odot [\,y > 0\,]$, then
# through the actnorm, whose (7.14) wants $\bar a \odot a$. But $a$ is gone: only $y$ is kept. It does not
# matter, since where $a$ and $y$ differ, $\bar a$ is 0:
#
# $$
# \bar\lambda_c = \sum_{b,i,j} \bar a_{bijc}\, a_{bijc} = \sum_{b,i,j} \bar a_{bijc}\, y_{bijc} .
# \tag{7.22}
# $$

# %%
# checks (7.21) and (7.22)
assert verify(ReLU(), x, lambda dy, _: {"x": dy * (x > 0)}) < 1e-7
gate = perturbed(NormReLU(4, np.float64))
s, y = np.exp(gate.norm.params["log_scale"]), gate.forward(x)[0]
a = (x + gate.norm.params["shift"]) * s
assert np.array_equal(y, np.maximum(a, 0)) and not np.allclose(a, y)
for kept in a, y:                                    # both must do
    assert verify(gate, x, lambda dy, _, kept=kept: {
        "x": dy * (y > 0) * s,
        "norm.shift": np.einsum("bijc->c", dy * (y > 0) * s),
        "norm.log_scale": np.einsum("bijc,bijc->c", dy * (y > 0), kept)}) < 1e-7
quote(reference.shift_scale_relu_backward, {"(y > 0)": "(7.21) (7.22)"})

# %% [markdown]
# ### Couple: `AdditiveCoupling`
#
# $y_1 = x_1$ and $y_2 = x_2 + m(x_1)$, with a net $m$ whose Jacobian is $M = \partial m / \partial x_1$.
# Draw the ways: $x_2$ reaches the loss through $y_2$ alone, with slope 1. $x_1$ has two ways, straight on
# to $y_1$, and through the net into $y_2$:
#
# $$
# \bar x_2 = \bar y_2,
# \tag{7.23}
# $$
#
# $$
# \bar x_1 = \bar y_1 + M^{\top} \bar y_2 .
# \tag{7.24}
# $$
#
# $M^{\top} \bar y_2$ is the net's own backward, with $\bar m = \bar y_2$; it fills the net's gradients on
# the way. $\ell_b = 0$: nothing to add.

# %%
# checks (7.23) and (7.24): M^T from a Jacobian by brute force
net = perturbed(mlp(2, 6, 2, rng=0, dtype=np.float64))
additive = minglow.AdditiveCoupling(net)
vectors = rng.standard_normal((3, 4))
M = [numerical_jacobian(net.forward, x1) for x1 in vectors[:, :2]]
net_cache = net.forward(vectors[:, :2])[1]


def additive_formulas(dy, _):
    dy1, dy2 = halves(dy)
    dx1 = dy1 + np.stack([M[b].T @ dy2[b] for b in range(3)])
    of_net = gradients(net, net_cache, dy2)
    return {"x": join(dx1, dy2)} | {f"net.{name}": g for name, g in of_net.items() if name != "x"}


assert verify(additive, vectors, additive_formulas) < 1e-7
quote(minglow.AdditiveCoupling.backward, {"return join": "(7.23) (7.24)"})

# %% [markdown]
# ### Couple: `AffineCoupling`
#
# The net says two things of every number that changes, a shift $t$ and a raw number $r$: $[t, r] = m(x_1)$,
# with the Jacobian $M = \partial m / \partial x_1$. The raw number becomes a log scale,
# $\lambda = \lambda(r)$, and $y_1 = x_1$, $y_2 = (x_2 + t) \odot e^{\lambda}$, $\ell_b = \sum \lambda_b$
# over pixels and channels.

# %%
figure, axis = plt.subplots(figsize=(8, 3.6))
draw_graph(axis, {"x_1": (0, 3), "x_2": (0, 0), "r": (1.1, 2), "t": (1.1, 1), "\\lambda": (2.2, 2),
                  "y_1": (3.4, 3), "\\ell_b": (3.4, 2), "y_2": (3.4, 0)},
           [("x_1", "y_1", "1"), ("x_1", "r", "net"), ("x_1", "t", "net"),
            ("r", "\\lambda", "$\\lambda'(r)$"), ("\\lambda", "\\ell_b", "1"), ("\\lambda", "y_2", "$y_2$"),
            ("t", "y_2", "$e^{\\lambda}$"), ("x_2", "y_2", "$e^{\\lambda}$")])

# %% [markdown]
# *What to see:* the slopes stand on the arrows. The log scale $\lambda$ has **two** ways to the loss: it
# stretches $y_2$, and it counts in the log-determinant. $x_1$ has three ways. The three outputs have the
# cotangents that `backward` is handed; read the others off, from right to left:
#
# $$
# \bar x_2 = \bar t = \bar y_2 \odot e^{\lambda},
# \tag{7.25}
# $$
#
# $$
# \bar\lambda_b = \bar y_{2,b} \odot y_{2,b} + \bar\ell_b,
# \tag{7.26}
# $$
#
# $$
# \bar r = \bar\lambda \odot \lambda'(r),
# \tag{7.27}
# $$
#
# $$
# \bar x_1 = \bar y_1 + M^{\top} [\,\bar t,\, \bar r\,].
# \tag{7.28}
# $$
#
# In actnorm (7.14) the log scale was one number for all; here it is one for each pixel and sample, and so
# nothing is summed, and $\bar\ell_b$ stands beside each sample's own numbers. The log scale's gradient goes
# on *into the net*: that is how the log-determinant trains it.

# %%
# checks (7.25), (7.26), (7.27) and (7.28): the net's Jacobian by brute force
net = perturbed(mlp(2, 6, 4, rng=1, dtype=np.float64))
affine = minglow.AffineCoupling(net)                 # with sigmoid_scale
M = [numerical_jacobian(net.forward, x1) for x1 in vectors[:, :2]]
said, net_cache = net.forward(vectors[:, :2])
t, r = halves(said)
log_scale, dlog_scale = minglow.sigmoid_scale(r)
y2 = (vectors[:, 2:] + t) * np.exp(log_scale)


def affine_formulas(dy, dlog_det):
    dy1, dy2 = halves(dy)
    dt = dy2 * np.exp(log_scale)
    dlambda = dy2 * y2 + dlog_det[:, None]
    dh = join(dt, dlambda * dlog_scale)
    dx1 = dy1 + np.stack([M[b].T @ dh[b] for b in range(3)])
    of_net = gradients(net, net_cache, dh)
    return {"x": join(dx1, dt)} | {f"net.{name}": g for name, g in of_net.items() if name != "x"}


assert verify(affine, vectors, affine_formulas) < 1e-7
quote(reference.couple_backward, {
    "dshift, ds =": "(7.25)-(7.27)", "dy[:, :, :-changing], dshift": "dx so far",
    "[dshift, ds]": "to the net"})
quote(minglow.AffineCoupling.backward, {"couple_backward": "(7.25)-(7.27)", "dx1 +=": "(7.28)"})

# %% [markdown]
# [minglow/layers/coupling.py](../minglow/layers/coupling.py). The code calls the raw
# numbers $r$ `s`, and what comes out of the net `h`. The kernel computes $\bar r$ of (7.26) and (7.27) in one
# expression, `ds`. It puts $\bar y_1$ where $\bar x_1$ will be; `backward` then adds the net's part in place.
#
# #### The slope of the scale
#
# ([minglow/layers/scale.py](../minglow/layers/scale.py)) What is left is $\lambda'(r)$, which depends on how
# raw numbers become scales. Notebook 3 had the scale of Glow's official code, the sigmoid $\sigma(u) = 1 /
# (1 + e^{-u})$ of $r + 2$, and minglow's floor $\varepsilon = 10^{-3}$ under it, (3.8). The derivative of
# $\sigma$ is $\sigma (1 - \sigma)$. So for
#
# $$
# \lambda(r) = \log\big( \varepsilon + (1 - \varepsilon)\, \sigma(r + 2) \big)
# \tag{7.29}
# $$
#
# the chain rule for the logarithm gives
#
# $$
# \lambda'(r) = \frac{(1 - \varepsilon)\, \sigma\, (1 - \sigma)}{\varepsilon + (1 - \varepsilon)\, \sigma},
# \qquad \sigma = \sigma(r + 2).
# \tag{7.30}
# $$

# %%
# checks (7.29) and (7.30): against the library, and by differences
r = np.linspace(-16, 8, 481)
sigma = 1 / (1 + np.exp(-(r + 2)))
for floor in 1e-3, 0.0:
    log_scale, slope = minglow.sigmoid_scale(r, floor)
    scale = floor + (1 - floor) * sigma
    assert np.allclose(log_scale, np.log(scale))
    assert np.allclose(slope, (1 - floor) * sigma * (1 - sigma) / scale)
    by_differences = directional_derivative(lambda u, floor=floor: minglow.sigmoid_scale(u, floor)[0],
                                            r, np.ones_like(r))
    assert np.allclose(slope, by_differences, atol=1e-8)
    print(f"floor {floor:5}: slope", ", ".join(f"{slope[r == at][0]:.3f} at {at}" for at in (-16, -6, 0, 8)))
quote(minglow.sigmoid_scale, {"return np.log(scale)": "(7.29) (7.30)"})

# %% [markdown]
# *What to see:* the log scale cannot grow above 0, so its slope dies out on the right; with a floor it dies
# out on the left as well. Training starts at $r = 0$. The code writes $\sigma (1 - \sigma)$ as
# $e / (1 + e)^2$ with $e = e^{-|r + 2|}$, which is the same number and never overflows.

# %% [markdown]
# **Exercise 7.3: find the fault** (2 points). A colleague rewrote the coupling's kernel. Below is what the
# checks say. Find the wrong line, and write `repaired`, which returns the right `dx` and `dh` from the same
# arguments; derive it, do not call `reference.couple_backward`. Here all $P$ pixels of an image stand in one
# axis: of $C_1$ channels that pass and $C_2$ that change, `dy` and `y` are $(B, P, C_1 + C_2)$, `scale` and
# `dlog_scale_ds` (which is $\lambda'(r)$) are $(B, P, C_2)$, and `dh` is $[\bar t, \bar r]$. With `exp_scale`
# the wrong one passes: ask yourself why.


# %%
def suspect(dy, y, scale, dlog_scale_ds, dlog_det):
    """The gradients of couple, with a mistake."""
    changing = scale.shape[2]
    dy2, y2 = dy[:, :, -changing:], y[:, :, -changing:]
    dshift = dy2 * scale
    ds = dy2 * y2 * dlog_scale_ds + dlog_det[:, None, None]
    dx = np.concatenate([dy[:, :, :-changing], dshift], axis=2)
    dh = np.concatenate([dshift, ds], axis=2)
    return dx, dh


class WithKernel(minglow.AffineCoupling):
    """An affine coupling whose backward calls another kernel."""

    kernel = staticmethod(suspect)

    def backward(self, dy, dlog_det, cache):
        net_cache, y, scale, dlog_scale_ds = cache
        dx, dh = self.kernel(dy.reshape(y.shape), y, scale, dlog_scale_ds, dlog_det)
        dx, dh = dx.reshape(dy.shape), dh.reshape(*dy.shape[:-1], -1)
        dx[..., :-dh.shape[-1] // 2] += self.net.backward(dh, net_cache)
        return dx


try:
    check_backward(WithKernel(mlp(2, 6, 4, rng=0)))
except PropertyFailed as message:
    print(textwrap.fill(str(message), 100))
check_backward(WithKernel(mlp(2, 6, 4, rng=0), minglow.exp_scale))  # silent: not seen


# %% solution="repaired"
def repaired(dy, y, scale, dlog_scale_ds, dlog_det):
    """The gradients of couple: dx (B, P, C1 + C2) and dh (B, P, 2 C2)."""
    ### BEGIN SOLUTION
    changing = scale.shape[2]
    dy2, y2 = dy[:, :, -changing:], y[:, :, -changing:]
    dshift = dy2 * scale
    ds = (dy2 * y2 + dlog_det[:, None, None]) * dlog_scale_ds
    dx = np.concatenate([dy[:, :, :-changing], dshift], axis=2)
    dh = np.concatenate([dshift, ds], axis=2)
    return dx, dh
    ### END SOLUTION


# %% test="repaired" points=2
class Repaired(WithKernel):
    kernel = staticmethod(repaired)


for scale_function in minglow.sigmoid_scale, minglow.tanh_scale, minglow.exp_scale:
    check_backward(Repaired(mlp(2, 6, 4, rng=0), scale_function))

# %% [markdown]
# ### Copy and sum: `Conv`
#
# A $3 \times 3$ convolution gives each pixel a weighted sum over its neighborhood. minglow
# ([minglow/nets/conv.py](../minglow/nets/conv.py)) does it in two linear steps: `gather` lays each pixel's
# neighborhood out as a row of $9\,C$ numbers (0 where it reaches beyond the image), and a matrix product
# does the rest. With $G$ for the matrix of `gather` on the flattened image, $W$ of shape
# $(C_\text{out}, 9\,C_\text{in})$, and the rows of patches as a matrix,
#
# $$
# \text{patches} = G x, \qquad Y = \text{patches}\; W^{\top} .
# \tag{7.31}
# $$

# %%
# checks (7.31): against the sum that defines a convolution, in loops
conv3 = perturbed(Conv(2, 3, rng=0, dtype=np.float64))
weight, image = conv3.params["weight"], rng.standard_normal((1, 3, 4, 2))
by_loops = np.zeros((3, 4, 3))
for i in range(3):
    for j in range(4):
        for di in range(3):
            for dj in range(3):
                if 0 <= i + di - 1 < 3 and 0 <= j + dj - 1 < 4:  # zeros outside the image
                    by_loops[i, j] += weight[:, di, dj] @ image[0, i + di - 1, j + dj - 1]
assert np.allclose(conv3.forward(image)[0][0], by_loops)
G = matrix_of(lambda unit: reference.gather(unit[None], 3), (3, 4, 2))
patches = (G @ image.ravel()).reshape(12, 18)
assert np.allclose((patches @ weight.reshape(3, 18).T).ravel(), by_loops.ravel())
assert set(np.unique(G)) == {0, 1} and G.sum(axis=1).max() == 1
print(f"G is {G.shape[0]} x {G.shape[1]}, of zeros and ones, at most one 1 in a row")

# %% [markdown]
# Backwards, in the reverse order. The product is a `Dense` layer for rows of patches, its weight kept the
# other way round ($W$ for $W^{\top}$): by (7.17) and (7.18), its cotangents are products. Then the
# transpose of $G$:
#
# $$
# \bar W = \bar Y^{\top}\, \text{patches},
# \tag{7.32}
# $$
#
# $$
# \bar x = G^{\top}\, \big( \bar Y\, W \big).
# \tag{7.33}
# $$
#
# `gather` copies a pixel into every neighborhood that it belongs to. So its transpose **adds** what stands
# at all these places back into the pixel. That is `scatter`:
#
# $$
# \operatorname{scatter}(p) = G^{\top} p .
# \tag{7.34}
# $$

# %%
# checks (7.34): both matrices, built from unit arrays, on an image of 3 x 3 pixels
G = matrix_of(lambda unit: reference.gather(unit[None], 3), (3, 3, 1))
S = matrix_of(lambda unit: reference.scatter(unit, 3, 3, 3), (9, 9))
assert np.array_equal(S, G.T)
p, image = rng.standard_normal((9, 9)), rng.standard_normal((1, 3, 3, 1))
left, right = inner(p, reference.gather(image, 3)), inner(reference.scatter(p, 3, 3, 3), image)
assert np.isclose(left, right, rtol=1e-12)           # the adjoint test, exact: nothing here is a difference

figure, axes = plt.subplots(2, 1, figsize=(9, 3.2), sharex=True)
for axis, matrix, name in (axes[0], S, "matrix of scatter"), (axes[1], G.T, "matrix of gather, transposed"):
    axis.imshow(matrix, cmap="gray_r", vmin=0, vmax=1)
    axis.set(title=name, ylabel="pixel", xticks=range(0, 81, 9), yticks=[0, 4, 8])
    for border in range(1, 9):
        axis.axvline(9 * border - 0.5, color="0.8", linewidth=0.8)
axes[1].set_xlabel("number in the patches: 9 patches of 9 numbers");

# %% [markdown]
# *What to see:* a row is one pixel of the image, a black field one place to which `gather` copies it. The
# middle pixel (row 4) stands in all nine patches, a corner (rows 0, 2, 6, 8) in four. Both pictures are the
# same: `scatter` is `gather`'s transpose.
#
# It is **not** its inverse. There and back, each pixel comes home as often as it was copied:
#
# $$
# \operatorname{scatter}(\operatorname{gather}(x)) = G^{\top} G\, x = n \odot x,
# \qquad n_q = \text{number of patches that hold pixel } q .
# \tag{7.35}
# $$

# %%
# checks (7.32), (7.33) and (7.35)
images = rng.standard_normal((2, 3, 4, 2))
patches = reference.gather(images, 3)
assert verify(conv3, images, lambda dy, _: {
    "x": reference.scatter(dy.reshape(-1, 3) @ weight.reshape(3, 18), 3, 3, 4),
    "weight": (dy.reshape(-1, 3).T @ patches).reshape(weight.shape)}) < 1e-7
n_there_and_back = reference.scatter(reference.gather(np.ones((1, 5, 5, 1)), 3), 3, 5, 5)[0, :, :, 0]
counted = [[(min(i + 1, 4) - max(i - 1, 0) + 1) * (min(j + 1, 4) - max(j - 1, 0) + 1) for j in range(5)]
           for i in range(5)]
assert np.array_equal(n_there_and_back, counted)
print(n_there_and_back.astype(int))
quote(Conv.backward, {"dweight +=": "(7.32)", "dpatches =": "(7.33)", "kernels.scatter": "(7.33)"})

# %% [markdown]
# **Exercise 7.4: scatter from gather** (2 points). `gather` puts `x[b, i + di - 1, j + dj - 1]` at
# `patches[b, i, j, di, dj]`, where that pixel exists. Write `my_scatter(patches)`, its transpose for
# $3 \times 3$ windows, with loops over `i`, `j`, `di` and `dj` and no call of the library. `patches` has shape
# `(B, h, w, 3, 3, C)`; the result `(B, h, w, C)`. (A pixel stands in many patches: `=` will not do.)

# %% solution="my-scatter"
def my_scatter(patches):
    """The transpose of gather: (B, h, w, 3, 3, C) -> (B, h, w, C)."""
    ### BEGIN SOLUTION
    batch, height, width, _, _, channels = patches.shape
    x = np.zeros((batch, height, width, channels))
    for i in range(height):
        for j in range(width):
            for di in range(3):
                for dj in range(3):
                    if 0 <= i + di - 1 < height and 0 <= j + dj - 1 < width:
                        x[:, i + di - 1, j + dj - 1] += patches[:, i, j, di, dj]
    return x
    ### END SOLUTION


# %% test="my-scatter" points=2
for shape in (1, 1, 1, 1), (1, 3, 3, 1), (2, 2, 4, 3):
    test_patches = np.random.default_rng(0).standard_normal((*shape[:3], 3, 3, shape[3]))
    test_image = np.random.default_rng(1).standard_normal(shape)
    result = my_scatter(test_patches)
    assert np.shape(result) == shape, f"expected {shape}, got {np.shape(result)}"
    left = inner(test_patches.ravel(), reference.gather(test_image, 3).ravel())
    assert np.isclose(left, inner(result, test_image)), "<p, gather(x)> is not <my_scatter(p), x>"
    flat_patches = test_patches.reshape(-1, 9 * shape[3])
    assert np.allclose(result, reference.scatter(flat_patches, 3, *shape[1:3]))

# %% [markdown]
# ### The zero-start convolution: `TransposedConv` and `ShiftScale`
#
# Since gather and scatter are each other's transposes, they can swap roles. The convolution that ends a
# conditioner starts with a weight of 0 (notebook 4). It has many channels in (512 in the paper) and few out, so
# it is cheaper to multiply first: $y = \operatorname{scatter}(X W)$, with $W$ of shape
# $(C_\text{in}, 9\,C_\text{out})$ and $X$ the pixels as rows. Backwards `scatter` becomes `gather`:
#
# $$
# \bar X = \operatorname{gather}(\bar y)\; W^{\top},
# \tag{7.36}
# $$
#
# $$
# \bar W = X^{\top} \operatorname{gather}(\bar y) .
# \tag{7.37}
# $$
#
# After it comes $y = (a + t) \odot e^{3 \lambda}$ for its output $a$: actnorm's formulas, with the factor 3
# and without a log-determinant, since a conditioner has none:
#
# $$
# \bar\lambda_c = 3 \sum_{b,i,j} \bar y_{bijc}\, y_{bijc} .
# \tag{7.38}
# $$

# %%
# checks (7.36), (7.37) and (7.38)
transposed = perturbed(TransposedConv(3, 2, rng=0, dtype=np.float64))
weight, features = transposed.params["weight"].reshape(3, 18), rng.standard_normal((2, 3, 4, 3))
assert verify(transposed, features, lambda dy, _: {
    "x": (reference.gather(dy, 3) @ weight.T).reshape(features.shape),
    "weight": (features.reshape(-1, 3).T @ reference.gather(dy, 3)).reshape(3, 3, 3, 2)}) < 1e-7
end = perturbed(ShiftScale(3, np.float64))
y, s = end.forward(features)[0], np.exp(3 * end.params["log_scale"])
assert verify(end, features, lambda dy, _: {
    "x": dy * s, "shift": np.einsum("bijc->c", dy * s), "log_scale": 3 * np.einsum("bijc,bijc->c", dy, y)}) < 1e-7
quote(TransposedConv.backward, {"dweight +=": "(7.37)", "return": "(7.36)"})
quote(ShiftScale.backward, {"+= 3 * dlog_scale": "(7.38)"})

# %% [markdown]
# At the start $W = 0$, and so $y = 0$. By (7.36) then $\bar X = 0$ as well: **nothing in front of the
# zero-start convolution gets any gradient at first**. By (7.37) $\bar W$ is not zero, since $X$ is not. Of
# all the net, the first step of training moves the last convolution alone; from the second step on all of
# it learns.

# %%
features, net = rng.standard_normal((4, 4, 4, 2)), conv_net(2, 6, 4, rng=0, dtype=np.float64)
dy = rng.standard_normal((4, 4, 4, 4))
before = gradients(net, net.forward(features)[1], dy)
for name, owner, key in parameters(net):
    owner.params[key] -= 0.01 * before[name]         # one step of gradient descent
after = gradients(net, net.forward(features)[1], dy)
print(f"{'':22}{'at the start':>14}{'one step later':>16}")
for name in before:
    print(f"{name:22}{np.linalg.norm(before[name]):14.4f}{np.linalg.norm(after[name]):16.4f}")
    assert np.any(before[name]) == (name in ("4.weight", "5.shift")) and np.any(after[name])

# %% [markdown]
# *What to see:* zeros, exactly, at the start, but for the last convolution's weight and shift. A gradient
# test at this start compares 0 with 0 and says nothing. So `perturbed` adds noise to all parameters
# first, in this notebook and in `check_layer`.

# %% [markdown]
# ### Compose: `Chain` and `Level`
#
# ([minglow/chain.py](../minglow/chain.py), [minglow/layers/level.py](../minglow/layers/level.py)) A chain
# runs $y^{(k)} = f_k(y^{(k-1)})$ for $k = 1 \dots n$, with $y^{(0)} = x$, and adds the log-determinants,
# $\ell_b = \sum_k \ell_b^{(k)}$. Every $\ell_b^{(k)}$ has slope 1 in that sum, so **every layer meets the
# same** $\bar\ell_b$. And (7.5) is applied from the last layer to the first, each with the cache that its
# own forward made:
#
# $$
# \bar y_b^{(k-1)} = \big(J_b^{(k)}\big)^{\top}\, \bar y_b^{(k)} + \bar\ell_b\, \frac{\partial \ell_b^{(k)}}{\partial y_b^{(k-1)}},
# \qquad k = n, \dots, 1 .
# \tag{7.39}
# $$

# %%
# checks (7.39): brute-force Jacobians of each layer, multiplied from the last to the first
couplings = [minglow.AffineCoupling(mlp(2, 6, 4, rng=i, dtype=np.float64)) for i in range(2)]
chain = perturbed(minglow.Chain(minglow.ActNorm(4, np.float64), minglow.InvConv1x1(4, 0, np.float64),
                            couplings[0], minglow.Reverse(4), couplings[1]))
y, _, caches = chain.forward(vectors)
dy, dlog_det = rng.standard_normal(y.shape), rng.standard_normal(3)
for b in range(3):
    points = [vectors[b]]
    for layer in chain.layers:
        points.append(layer.forward(points[-1][None])[0][0])
    cotangent = dy[b]
    for layer, point in zip(reversed(chain.layers), reversed(points[:-1])):
        J_k = numerical_jacobian(layer.forward, point)
        of_log_det = numerical_jacobian(lambda p, layer=layer: layer.forward(p)[1][:, None], point)[0]
        cotangent = J_k.T @ cotangent + dlog_det[b] * of_log_det
    assert np.allclose(chain.backward(dy, dlog_det, caches)[b], cotangent, atol=1e-7)
quote(minglow.Chain.backward, {"reversed(cache)": "caches, reversed", "dy = layer.backward": "(7.39)"})

# %% [markdown]
# The list of caches is used up from its end. It is also the whole memory of training: notebook 9 shows how
# to do without it.
#
# A level of the multi-scale flow runs its `steps`, splits the result into halves $a$ and $b$, and sends $a$
# through `inner`: $z = [\,b,\, \operatorname{inner}(a)\,]$. Each half has one way, and the two cotangents
# are joined as the halves were:
#
# $$
# \bar z = [\,\bar b,\, \bar z_a\,], \qquad \bar a = \operatorname{inner.backward}(\bar z_a, \bar\ell), \qquad
# \bar x = \operatorname{steps.backward}([\,\bar a,\, \bar b\,], \bar\ell).
# \tag{7.40}
# $$

# %%
# checks (7.40)
later = minglow.Chain(minglow.InvConv1x1(2, 0, np.float64), minglow.Flatten((2, 3, 2)))
level = perturbed(minglow.Level(minglow.ActNorm(4, np.float64), later, (2, 3, 4)))
middle, _, steps_cache = level.steps.forward(x)
inner_cache = level.inner.forward(halves(middle)[0])[2]


def level_formulas(dz, dlog_det):
    db, dz_a = dz[:, :12].reshape(3, 2, 3, 2), dz[:, 12:]
    of_inner = gradients(level.inner, inner_cache, dz_a, dlog_det)
    of_steps = gradients(level.steps, steps_cache, join(of_inner["x"], db), dlog_det)
    return ({"x": of_steps["x"]} | {f"steps.{name}": of_steps[name] for name in ("shift", "log_scale")}
            | {"inner.0.weight": of_inner["0.weight"]})


assert verify(level, x, level_formulas) < 1e-7
quote(minglow.Level.backward, {"db, dz =": "(7.40)", "da =": "(7.40)", "return": "(7.40)"})

# %% [markdown]
# ### The end: base distribution and loss
#
# ([minglow/flow.py](../minglow/flow.py), [minglow/bases/standard.py](../minglow/bases/standard.py)) At the
# end stand $\log p(z_b) = -\tfrac12 \lVert z_b \rVert^2 - \tfrac{D}{2} \log 2\pi$ and the loss, the mean
# negative log-likelihood in nats:
#
# $$
# L = -\frac1B \sum_b \big[ \log p(z_b) + \ell_b \big].
# \tag{7.41}
# $$
#
# Here, and nowhere else, the sign and the $1/B$ come in. Both terms have the same slope,
#
# $$
# \frac{\partial L}{\partial \log p(z_b)} = \bar\ell_b = -\frac1B ,
# \tag{7.42}
# $$
#
# and the base distribution pulls its part back to $z$, by $\partial \log p / \partial z = -z$:
#
# $$
# \bar z_b = -z_b\, \frac{\partial L}{\partial \log p(z_b)} = \frac{z_b}{B} .
# \tag{7.43}
# $$
#
# The latents are pulled towards 0, the log-determinant is pushed up. All of training is this balance.

# %%
# checks (7.41), (7.42) and (7.43): a Glow with two levels, the loss and z / B written out
flow = perturbed(minglow.glow((4, 4, 1), levels=2, flow_steps=2, hidden=6, dtype=np.float64, rng=0))
images = rng.standard_normal((5, 4, 4, 1))
flow.flat.grad[...] = 0
nll, dx = flow.nll_backward(images)[:2]
z, log_det, cache = flow.bijection.forward(images)
log_p = -0.5 * (z**2).sum(axis=1) - 16 / 2 * np.log(2 * np.pi)
assert np.isclose(nll, -(log_p + log_det).mean())
by_library = flow.flat.grad.copy()
flow.flat.grad[...] = 0
assert np.allclose(flow.bijection.backward(z / 5, np.full(5, -1 / 5), cache), dx)
assert np.allclose(flow.flat.grad, by_library)
quote(minglow.Flow.nll_backward, {"nll =": "(7.41)", "dlog_prob = ": "(7.42)", "dz = ": "(7.43)",
                                  "dx = ": "(7.39)"})
quote(minglow.StandardNormal.backward, {"return": "(7.43)"})

# %% [markdown]
# The lines about `labels` and `cross_entropy` are for models with classes; here they do nothing.
#
# One check is left, of everything at once: a random direction in the space of *all* parameters. If one of
# the lines that this flow runs were wrong, the two numbers would not agree.

# %%
# checks (7.41), (7.42) and (7.43): the whole gradient, from log_prob alone
start, v = flow.flat.value.copy(), rng.standard_normal(flow.flat.value.size)
v /= np.linalg.norm(v)


def nll_by(value):
    """The loss as a function of all parameters at once."""
    flow.flat.value[...] = value
    result = -flow.log_prob(images).mean()
    flow.flat.value[...] = start
    return result


speed, product = directional_derivative(nll_by, start, v), inner(by_library, v)
order = taylor_slope(nll_by, start, v, product)
print(f"{start.size} parameters: speed {speed:.9f}, <gradient, v> {product:.9f}, order {order:.2f}")
assert np.isclose(speed, product, rtol=1e-6) and abs(order - 2) < 0.1

# %% [markdown]
# **Exercise 7.5: a layer of your own** (3 points). The layer below stretches far values more than near
# ones: $y = \sinh(a_c\, x) / a_c$ for each channel, with $a_c = e^{\alpha_c} > 0$ and $\alpha$ (`log_a`)
# learned. Its slope is $\partial y / \partial x = \cosh(a_c x)$, so $\ell_b = \sum \log\cosh(a_c x)$. Write
# its backward. It has two ways for $x$ *and* two for $\alpha$: each reaches the loss through $y$ and
# through $\ell_b$. You need $\frac{\mathrm d}{\mathrm d u} \log\cosh u = \tanh u$, and, from the quotient
# rule, $\partial y / \partial \alpha = a\, \partial y / \partial a = x \cosh(a x) - y$.


# %%
class Sinh(minglow.Bijection):
    """y = sinh(a x) / a for every channel, a = exp(log_a)."""

    def __init__(self, channels, dtype=np.float32):
        super().__init__()
        self.add_param("log_a", np.zeros(channels, dtype))

    def forward(self, x):
        minglow.arrays.shapes.check_input(self, x, len(self.params["log_a"]))
        a = np.exp(self.params["log_a"])
        log_slope = np.log(np.cosh(a * x))
        return np.sinh(a * x) / a, log_slope.reshape(len(x), -1).sum(axis=1), x

    def inverse(self, y):
        minglow.arrays.shapes.check_input(self, y, len(self.params["log_a"]))
        a = np.exp(self.params["log_a"])
        x = np.arcsinh(a * y) / a
        return x, x


# %% solution="sinh-backward"
def sinh_backward(self, dy, dlog_det, cache):
    """Return dx, and add (+=) the gradient by log_a to self.grads["log_a"]; cache is x."""
    x, a = cache, np.exp(self.params["log_a"])
    ### BEGIN SOLUTION
    of_each = dlog_det.reshape(-1, *[1] * (x.ndim - 1))  # one number a sample, to meet (B, ..., C)
    dlog_a = dy * (x * np.cosh(a * x) - np.sinh(a * x) / a) + of_each * a * x * np.tanh(a * x)
    self.grads["log_a"] += dlog_a.reshape(-1, len(a)).sum(axis=0)
    return dy * np.cosh(a * x) + of_each * a * np.tanh(a * x)
    ### END SOLUTION


# %% test="sinh-backward" points=3
class Graded(Sinh):
    backward = sinh_backward


check_layer(Graded(4))                               # explains itself where it fails
check_layer(Graded(3))

# %% [markdown]
# ## Part 3: one flow step on paper
#
# One sample, one pixel, two channels. Three layers, with parameters that a pocket calculator can do:
#
# - actnorm: $a = (x + t) \odot s$ with $t = (-1, 1)$, $s = (2, \tfrac14)$;
# - 1×1 convolution: $u = W a$ with $W = \begin{pmatrix} 1 & -2 \\ 1 & 2 \end{pmatrix}$, so $\det W = 4$ and
#   $W^{-\top} = \begin{pmatrix} 0.5 & -0.25 \\ 0.5 & 0.25 \end{pmatrix}$;
# - affine coupling: $u_1$ passes, the net is linear, $\tau = -u_1$ and $r = -\tfrac12 u_1$ ($\tau$ is the
#   coupling's shift, since $t$ is taken), and the scale is the paper's, $e^r$: $z_1 = u_1$, $z_2 = (u_2 +
#   \tau)\, e^r$.
#
# The sample is $x = (2, 1)$. With $B = 1$ and $D = 2$ the loss is
#
# $$
# L = \tfrac12 (z_1^2 + z_2^2) + \log 2\pi - \ell, \qquad \ell = \log s_1 + \log s_2 + \log|\det W| + r .
# \tag{7.44}
# $$
#
# Take a sheet of paper before you go on: first all values, then all cotangents, from $\bar z = z$ and
# $\bar\ell = -1$ to $\bar x$.

# %%
x, t, s = np.array([2.0, 1.0]), np.array([-1.0, 1.0]), np.array([2.0, 0.25])
W, net_weight = np.array([[1.0, -2.0], [1.0, 2.0]]), np.array([-1.0, -0.5])


def line(name, how, value, number=""):
    """One line of the sheet: what, how, its numbers, the formula."""
    numbers = "  ".join(f"{entry:8.3f}" for entry in np.ravel(value))
    print(f"{name:12} = {how:35} = {numbers:40} {number}")


a = (x + t) * s
u = W @ a
tau, r = net_weight * u[0]
z = np.array([u[0], (u[1] + tau) * np.exp(r)])
log_det = np.log(s).sum() + np.log(4) + r
loss = 0.5 * (z**2).sum() + np.log(2 * np.pi) - log_det
line("a", "(x + t) * s", a)
line("u", "W a", u)
line("tau", "-u1", tau)
line("r", "-u1 / 2", r)
line("z", "(u1, (u2 + tau) e^r)", z)
line("log_det", "log 2 + log 1/4 + log 4 + r", log_det)
line("loss", "(z1^2 + z2^2)/2 + log 2pi - log_det", loss)

# %%
dz, dlog_det = z, -1.0
dtau = dz[1] * np.exp(r)
dr = dz[1] * z[1] + dlog_det                         # exp_scale: its slope is 1
du = np.array([dz[0] + net_weight[0] * dtau + net_weight[1] * dr, dtau])
dnet_weight = u[0] * np.array([dtau, dr])
da = W.T @ du
dW = np.outer(du, a) + dlog_det * np.linalg.inv(W).T
dx = da * s
dlog_s = da * a + dlog_det
line("dz", "z", dz, "(7.43)")
line("dlog_det", "-1/B", dlog_det, "(7.42)")
line("dtau", "dz2 e^r", dtau, "(7.25)")
line("dr", "dz2 z2 + dlog_det", dr, "(7.26) (7.27)")
line("du1", "dz1 - dtau - dr/2", du[0], "(7.28)")
line("du2", "dtau", du[1], "(7.25)")
line("dnet weight", "u1 (dtau, dr)", dnet_weight, "(7.18)")
line("da", "W^T du", da, "(7.15)")
line("dW, by rows", "du a^T + dlog_det W^-T", dW, "(7.16)")
line("dx", "da * s", dx, "(7.12)")
line("dshift", "dx", dx, "(7.13)")
line("dlog s", "da * a + dlog_det", dlog_s, "(7.14)")

# %%
# checks (7.44): minglow's own layers with the same parameters, and the loss by differences
net = Dense(1, 2, dtype=np.float64)
step = minglow.Chain(minglow.ActNorm(2, np.float64), minglow.InvConv1x1(2, dtype=np.float64),
                     minglow.AffineCoupling(net, minglow.exp_scale), minglow.Flatten((1, 1, 2)))
flow = minglow.Flow(step, minglow.StandardNormal((2,)))
on_paper = {"0.shift": t, "0.log_scale": np.log(s), "1.weight": W, "2.net.weight": net_weight[None]}
for name, value in on_paper.items():
    flow.flat.view(flow.flat.value, f"bijection.{name}")[...] = value
sample = x.reshape(1, 1, 1, 2)
nll, dx_library = flow.nll_backward(sample)[:2]
assert np.isclose(nll, loss) and np.isclose(-flow.log_prob(sample)[0], loss)
by_hand = {"0.shift": dx, "0.log_scale": dlog_s, "1.weight": dW, "2.net.weight": dnet_weight[None],
           "2.net.bias": [dtau, dr]}
for name, value in by_hand.items():
    assert np.allclose(flow.flat.view(flow.flat.grad, f"bijection.{name}"), value)
    print(f"{name:14} agrees:", np.round(value, 3).tolist())
assert np.allclose(dx_library.ravel(), dx)
slopes = [directional_derivative(lambda point: -flow.log_prob(point)[0], sample, unit)
          for unit in np.eye(2).reshape(2, 1, 1, 1, 2)]
assert np.allclose(slopes, dx, atol=1e-8)

# %%
names = "x_1", "x_2", "a_1", "a_2", "u_1", "u_2", "\\tau", "r", "z_1", "z_2", "\\ell"
values = dict(zip(names, [*x, *a, *u, tau, r, *z, log_det]))
cotangents = dict(zip(names, [*dx, *da, *du, dtau, dr, *dz, dlog_det]))
figure, axis = plt.subplots(figsize=(9, 4.4))
places = dict(zip(names, [(0, 3), (0, 0), (1, 3), (1, 0), (2.1, 3), (2.1, 0), (3.1, 1), (3.1, 2.3),
                          (4.3, 3.6), (4.3, 0), (4.3, 2.3)]))
draw_graph(axis, places,
           [("x_1", "a_1", "2"), ("x_2", "a_2", "0.25"), ("a_1", "u_1", "1"), ("a_2", "u_1", "-2"),
            ("a_1", "u_2", "1"), ("a_2", "u_2", "2"), ("u_1", "z_1", "1"), ("u_1", "r", "-0.5"),
            ("u_1", "\\tau", "-1"), ("r", "\\ell", "1"), ("r", "z_2", f"{z[1]:.3f}"),
            ("\\tau", "z_2", f"{np.exp(r):.3f}"), ("u_2", "z_2", f"{np.exp(r):.3f}")], values, cotangents)

# %% [markdown]
# *What to see:* the same sheet as a graph, values blue, cotangents red, slopes on the arrows. Check the
# busiest place, $u_1$: $0.028 = 1 \cdot 1.000 + (-0.5) \cdot 0.472 + (-1) \cdot 0.736$. Three ways leave,
# and three terms arrive. The constant parts of $\ell$ (actnorm's and the 1×1 convolution's) do not depend
# on the sample: they reach the parameters, and no arrow of this picture.

# %% [markdown]
# ## To take away
#
# - A backward pass multiplies by $J^{\top}$: it sums, over all ways to the loss, slope times cotangent. A copy
#   becomes a sum, a permutation its inverse, a matrix its transpose, `gather` becomes `scatter`.
# - `log_det` is a second output with a cotangent of its own, `dlog_det`, for each sample. The layer does not
#   know the loss; $-1/B$ enters at the very end.
# - One random projection, $\langle \bar y, J v \rangle = \langle J^{\top} \bar y, v \rangle$, checks a whole
#   Jacobian for the price of two forward passes and one backward pass: in float64, off the zero start, with a
#   random `dlog_det`, away from kinks.
# - What has to be cached is what the formulas ask for, and often the output alone will do.
#
# Next: [8. Glow on images](08_glow_on_images.ipynb).
