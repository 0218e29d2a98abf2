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
# # 3. RealNVP: affine couplings and masks
#
# **You will be able to** write an affine coupling, its inverse and its log-determinant, which differs from sample to
# sample; choose a scale that neither underflows nor loses digits; turn a mask into a permutation and back; find a
# leak, a conditioner that sees what it changes, and say what it breaks; train a RealNVP on points in the plane.
#
# **You need** notebooks 1 (change of variables) and 2 (additive couplings, patterns of Jacobians). About 55 minutes with the
# exercises; it runs in seconds.

# %%
from functools import partial
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import PolyCollection

import minglow
from minglow import plots
from minglow.arrays.shapes import halves, join
from minglow.bijection import Net
from minglow.data import two_moons
from minglow.layers.checkerboard import to_fields
from minglow.nets import conv_net, mlp
from minglow.testing import check_layer, numerical_jacobian, perturbed, taylor_slope

plots.style()
rng = np.random.default_rng(0)

# %% [markdown]
# ## Shift, then scale
#
# NICE's additive coupling moves the second half $x_2$ of the numbers by what the first half $x_1$ says, and keeps
# volume. RealNVP (Dinh, Sohl-Dickstein & Bengio 2017, section 3.2) lets $x_1$ say a scale, too. The conditioner is
# one net with two outputs for each number of $x_2$, a shift $t$ and a positive scale $s$. With $\odot$ for products number
# by number, an **affine coupling** is, in minglow's form,
#
# $$
# y_1 = x_1, \qquad y_2 = (x_2 + t(x_1)) \odot s(x_1).
# \tag{3.1}
# $$
#
# The inverse computes $t$ and $s$ again from $y_1 = x_1$ and undoes the two steps, last step first:
#
# $$
# x_1 = y_1, \qquad x_2 = y_2 / s(y_1) - t(y_1).
# \tag{3.2}
# $$

# %%
# checks (3.1) and (3.2): the library's layer, whose conditioner is a perceptron, written out
layer = minglow.AffineCoupling(mlp(3, 16, 6, rng=0), minglow.tanh_scale)  # D = 6: 3 numbers pass, 3 change
layer = perturbed(layer, rng=1, size=0.4, dtype=np.float64)  # off its start, at which the net says 0
x = rng.standard_normal((5, 6))                      # a batch of B = 5 samples
y, log_det, cache = layer.forward(x)
t, raw = halves(layer.net.forward(x[:, :3])[0])      # the net's two outputs
s = np.exp(minglow.tanh_scale(raw)[0])               # from raw numbers to positive scales: see below
assert np.array_equal(y[:, :3], x[:, :3]) and np.allclose(y[:, 3:], (x[:, 3:] + t) * s)

back = join(y[:, :3], y[:, 3:] / s - t)
assert np.allclose(back, layer.inverse(y)[0])
print(f"largest error of the round trip: {np.abs(back - x).max():.1e}")
assert np.allclose(back, x, atol=1e-12)

# %% [markdown]
# The library's layer is [minglow/layers/coupling.py](../minglow/layers/coupling.py), class `AffineCoupling`. The paper scales first
# and shifts then, with a log-scale $\rho$ and a shift $\tau$: $y_2 = x_2 \odot e^{\rho(x_1)} + \tau(x_1)$ (its
# equations 4 and 5). It is the same family, $s = e^{\rho}$ and $s \odot t = \tau$.
#
# **Exercise 3.1: invert the paper's form** (2 points). `conditioner(x1)` returns $\rho$ and $\tau$. Write the inverse of the
# paper's coupling. Never divide: $1/e^{\rho} = e^{-\rho}$.

# %% solution="paper-inverse"
def paper_inverse(y, conditioner):
    """The x, (B, D), of which y1 = x1, y2 = x2 * exp(rho) + tau, with rho, tau = conditioner(x1)."""
    ### BEGIN SOLUTION
    y1, y2 = halves(y)
    rho, tau = conditioner(y1)
    return join(y1, (y2 - tau) * np.exp(-rho))
    ### END SOLUTION


# %% test="paper-inverse" points=2
def paper_conditioner(x1):
    return np.sin(3 * x1), x1**2 - 1


for seed, size in (0, 2), (1, 6):
    went_in = np.random.default_rng(seed).standard_normal((4, size))
    first, second = halves(went_in)
    rho, tau = paper_conditioner(first)
    came_out = join(first, second * np.exp(rho) + tau)
    found = paper_inverse(came_out.copy(), paper_conditioner)
    assert np.shape(found) == went_in.shape, f"expected {went_in.shape}, got {np.shape(found)}"
    assert np.allclose(found[:, :size // 2], first), "the first half passes unchanged"
    assert np.allclose(found, went_in), "undo the shift first, then the scale; both come from y1"

# %% [markdown]
# ## The Jacobian, and a log-determinant for each sample
#
# $y_2$ depends on $x_2$ through the scale, number by number, and on $x_1$ in any way the net likes:
#
# $$
# J = \frac{\partial y}{\partial x} = \begin{pmatrix} I & 0 \\ \partial y_2 / \partial x_1 & \operatorname{diag}(s(x_1)) \end{pmatrix}.
# \tag{3.3}
# $$
#
# It is triangular again, now with the scales on the second half of its diagonal. The log of a product is a sum:
#
# $$
# \log|\det J| = \sum_{k} \log s_k(x_1),
# \tag{3.4}
# $$
#
# with $k$ over all numbers that change: for images, over all pixels and the changed channels. Since $s$ depends on $x_1$, every
# sample of a batch has a log-determinant of its own. That is why `log_det` has shape $(B,)$ in minglow.

# %%
# checks (3.3) and (3.4): dense Jacobians of all five samples, by differences
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2))
for b in range(5):
    J = numerical_jacobian(layer.forward, x[b])
    assert np.allclose(J[:3], np.eye(6)[:3], atol=1e-8)      # the rows of y1
    assert np.allclose(J[3:, 3:], np.diag(s[b]), atol=1e-8)  # y2 by x2
    brute_force = np.linalg.slogdet(J)[1]
    assert np.isclose(brute_force, np.log(s[b]).sum()) and np.isclose(brute_force, log_det[b])
    if b < 2:
        plots.draw_matrix(axes[b], J, f"sample {b}: $\\log|\\det J|$ = {brute_force:.2f}", 2.0)
        axes[b].set(xlabel="number in x", ylabel="number in y")
print("log_det of the batch:", log_det.round(2))

# %% [markdown]
# *What to see:* two samples, one layer. The last three numbers of the diagonal are the scales, and differ; so
# does the block below the zeros, which the determinant does not look at.
#
# ### Seen in the plane
#
# For a conditioner with a formula, the areas of small cells can be measured. A region $A$ becomes one of area
#
# $$
# \operatorname{area}(f(A)) = \int_A s(x_1)\, \mathrm{d}x_1\, \mathrm{d}x_2 .
# \tag{3.5}
# $$


# %%
class Bellows(Net):
    """t(u) = 0.4 sin(2 u) and log s(u) = 0.6 cos(1.6 u): nothing to learn."""

    def forward(self, x):
        return join(0.4 * np.sin(2 * x), 0.6 * np.cos(1.6 * x)), x


def square(left, bottom, side, points=100):
    """The border of a square as a polygon, (4 * points, 2)."""
    u, o = np.arange(points) / points, np.zeros(points)
    return np.array([left, bottom]) + side * np.r_[np.c_[u, o], np.c_[o + 1, u], np.c_[1 - u, o + 1], np.c_[o, 1 - u]]


def polygon_area(polygon):
    """The area inside, by the shoelace formula."""
    u, v = polygon.T
    return abs((u * np.roll(v, -1) - np.roll(u, -1) * v).sum()) / 2


# %%
# checks (3.5): areas of 64 cells against the integral of the scale, by the trapezoidal rule
breathing = minglow.AffineCoupling(Bellows(), minglow.exp_scale)
side = 0.5
corners = [(left, bottom) for left in np.arange(-2, 2, side) for bottom in np.arange(-2, 2, side)]
cells = [square(*corner, side) for corner in corners]
mapped = [breathing.forward(cell)[0] for cell in cells]
for (left, _), polygon in zip(corners, mapped):
    u = np.linspace(left, left + side, 2001)
    assert np.isclose(polygon_area(polygon), side * np.trapezoid(np.exp(0.6 * np.cos(1.6 * u)), u), rtol=1e-3)

ratios = np.log([polygon_area(polygon) / side**2 for polygon in mapped])
figure, axes = plt.subplots(1, 2, figsize=(7, 4))
for axis, polygons, values in (axes[0], cells, np.zeros(64)), (axes[1], mapped, ratios):
    drawn = PolyCollection(polygons, array=values, cmap=plots.SIGNED, clim=(-0.7, 0.7), edgecolors="0.4", linewidths=0.6)
    axis.add_collection(drawn)
    axis.set(aspect="equal", xlim=(-3.6, 3.6), ylim=(-4.6, 4.6), xlabel="passes", ylabel="changes")
axes[0].set_title("cells of equal area")
axes[1].set_title("after an affine coupling")
figure.colorbar(drawn, ax=axes, label="log(area / area before)");

# %% [markdown]
# *What to see:* red columns have grown and blue ones have shrunk. Within a column all cells have the same color:
# the scale knows $x_1$, not $x_2$.

# %% [markdown]
# **Exercise 3.2: predict, then run** (1 point). Images of $4 \times 4$ pixels with 6 channels; 2 channels pass
# and the net says a scale of $1/2$ for all that change. What is the log-determinant, in nats? Put it into
# `predicted_log_det`. Now take any affine coupling, and an image in which only the changing channels get other values: does its
# log-determinant change? Put `True` or `False` into `changes`.

# %% solution="predicted-log-det"
### BEGIN SOLUTION
predicted_log_det = 16 * 4 * np.log(0.5)
changes = False
### END SOLUTION

# %% test="predicted-log-det" points=1
class Halve(Net):
    def forward(self, x):
        return join(np.zeros((*x.shape[:-1], 4)), np.full((*x.shape[:-1], 4), np.log(0.5))), x


halving = minglow.AffineCoupling(Halve(), minglow.exp_scale, identity_channels=2)
measured = halving.forward(np.ones((1, 4, 4, 6)))[1][0]
assert np.isclose(predicted_log_det, measured, atol=0.01), "one log s for each number that changes: how many are there?"
others = layer.forward(np.c_[x[:, :3], 5 * x[:, 3:]])[1]
assert isinstance(changes, bool) and changes == (not np.allclose(others, log_det)), "who decides the scale?"

# %% [markdown]
# ## Where the scale comes from
#
# A net's output $r$ (`raw`) is any number; a scale has to be positive. minglow has three ways from one to the other, each returning
# $\log s$ and its slope: [minglow/layers/scale.py](../minglow/layers/scale.py). Glow's paper has the exponential,
#
# $$
# \log s = r .
# \tag{3.6}
# $$
#
# RealNVP bounds the log-scale (section 4.1) between $-\beta$ and $\beta$, with $\beta = 1$ by default in minglow:
#
# $$
# \log s = \beta \tanh(r / \beta) .
# \tag{3.7}
# $$
#
# Glow's official code has a sigmoid, $\sigma(u) = 1/(1 + e^{-u})$, of $r + 2$, so that a net that says 0 gives $s = 0.88$, close to
# doing nothing. minglow adds a **floor** $\epsilon = 10^{-3}$, below which no scale falls:
#
# $$
# s = \epsilon + (1 - \epsilon)\, \sigma(r + 2) .
# \tag{3.8}
# $$

# %%
# checks (3.6), (3.7) and (3.8): the library's log-scales, and their slopes by differences
r = np.linspace(-30, 10, 4001)
formulas = {
    "exp_scale": (minglow.exp_scale, r),
    "tanh_scale": (minglow.tanh_scale, np.tanh(r)),
    "sigmoid_scale": (minglow.sigmoid_scale, np.log(1e-3 + (1 - 1e-3) / (1 + np.exp(-(r + 2))))),
    "without its floor": (partial(minglow.sigmoid_scale, floor=0.0), -np.log1p(np.exp(-(r + 2)))),
}
figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.1))
for number, (name, (function, formula)) in enumerate(formulas.items()):
    log_scale, slope = function(r)
    assert np.allclose(log_scale, formula)
    assert np.allclose(slope[1:-1], np.gradient(log_scale, r)[1:-1], atol=1e-4)
    dashes = "--" if number == 3 else "-"            # one lies on the other
    axes[0].plot(r, np.exp(log_scale), dashes, label=name)
    axes[1].plot(r, log_scale, dashes, label=name)
assert np.allclose(minglow.tanh_scale(r, 0.5)[0], 0.5 * np.tanh(r / 0.5))  # beta = 0.5
axes[0].set(xlim=(-6, 4), ylim=(0, 3.2), xlabel="raw r", ylabel="scale s")
axes[1].set(xlim=(-12, 4), ylim=(-11, 4), xlabel="raw r", ylabel="log s")
axes[0].legend()
print(f"s at r = 0: {[round(float(np.exp(function(np.zeros(1))[0][0])), 3) for function, _ in formulas.values()]}");

# %% [markdown]
# *What to see:* only the exponential has no upper end; the sigmoids stop at 1, so they can only shrink. On the
# right: without a floor $\log s$ falls for ever, with it, it stops at $\log 10^{-3} = -6.9$.
#
# ### What the floor is for
#
# Rounding happens everywhere in a flow. Let $y_2$ be off by $\delta$ when it comes back from later layers. By (3.2), $x_2$ is then
# off by $\delta / s$. With the floor,
#
# $$
# |\delta x_2| = \frac{|\delta y_2|}{s} \le \frac{|\delta y_2|}{\epsilon} .
# \tag{3.9}
# $$
#
# We let a layer behind the coupling add 1 to $y_2$, which in float32 rounds it to steps of about $10^{-7}$, and go
# back.


# %%
class Given(Net):
    """Says the same whatever it sees, and keeps what backward hands it."""

    def __init__(self, *says):
        super().__init__()
        self.says = np.array(says, np.float64)

    def forward(self, x):
        return np.tile(self.says.astype(x.dtype), (*x.shape[:-1], 1)), x

    def backward(self, dy, cache):
        self.heard = dy
        return np.zeros_like(cache)


def recovered(raw, scale, dtype=np.float32):
    """What comes back of x2 = 0.3 from a coupling with this raw, and one behind it that adds 1."""
    chain = minglow.Chain(minglow.AffineCoupling(Given(0, raw), scale), minglow.AdditiveCoupling(Given(1)))
    sample = np.array([[0.0, 0.3]], dtype)
    return float(chain.inverse(chain.forward(sample)[0])[0][0, 1])


# %%
# checks (3.9): y2 off by delta, in float64
for raw_value in -20.0, -8.0, -2.0, 1.0:
    coupling = minglow.AffineCoupling(Given(0.4, raw_value))
    back = coupling.inverse(np.array([[0.0, 0.3], [0.0, 0.3 + 1e-6]]))[0][:, 1]
    magnified, scale = (back[1] - back[0]) / 1e-6, coupling.scales(np.zeros((1, 2)))[0, 0, 0]
    assert np.isclose(magnified, 1 / scale, rtol=1e-5) and magnified <= 1 / 1e-3

# %%
bare = partial(minglow.sigmoid_scale, floor=0.0)
for raw_value in -8, -14, -18:
    print(f"r = {raw_value:3}: 0.3 comes back as {recovered(raw_value, bare):.4f} without floor,"
          f" {recovered(raw_value, minglow.sigmoid_scale):.4f} with it")

# %%
raws = np.linspace(-22, 4, 105)
figure, axis = plt.subplots(figsize=(6, 3.1))
for name, scale in ("sigmoid_scale without floor", bare), ("sigmoid_scale", minglow.sigmoid_scale), \
        ("tanh_scale", minglow.tanh_scale):
    errors = [abs(recovered(value, scale) - 0.3) for value in raws]
    axis.semilogy(raws, np.maximum(errors, 1e-9), label=name)
axis.axhline(6e-8 / 1e-3, color="0.5", linestyle=":", label="half a rounding step / floor")
axis.set(xlabel="raw r", ylabel="error of the recovered 0.3", title="float32", ylim=(3e-9, 3))
axis.legend();

# %% [markdown]
# *What to see:* without a floor the error grows by a factor $e$ for each step of $r$ to the left, until all of $x_2$ is
# lost and the error is 0.3 itself: the inverse is none any more. With the floor it stays below $10^{-4}$ whatever the net says.
# `tanh_scale` never falls below $1/e$, and loses next to nothing.

# %% [markdown]
# ### Logarithms that do not underflow
#
# The log-determinant needs $\log \sigma(u)$ for very negative $u$. Computed as it is written, that is the logarithm
# of 0 as soon as $e^{-u}$ overflows.

# %%
u = np.array([-5, -20, -80, -100], np.float32)
with np.errstate(all="ignore"):
    naive = np.log(1 / (1 + np.exp(-u)))
print("u                     ", u)
print("log(1 / (1 + e^-u))   ", naive)
print("sigmoid_scale         ", minglow.sigmoid_scale(u - np.float32(2))[0])

# %% [markdown]
# `sigmoid_scale` takes the logarithm of a number that its floor keeps above $10^{-3}$, and so never meets a 0. A scale without a
# floor, such as that of Glow's official code, needs more care.
#
# **Exercise 3.3: a stable log sigmoid** (2 points). Write `log_sigmoid(u)` so that it is right to float32's precision for
# every $u$ from $-1000$ to 1000, without an overflow or a logarithm of 0 on the way. (Of
# $\sigma(u) = 1/(1 + e^{-u}) = e^{u}/(1 + e^{u})$, one form is harmless for $u \ge 0$ and the other for $u < 0$. The exponential of
# $-|u|$ never overflows. `np.log1p(v)` is $\log(1 + v)$, exact for small $v$, too.)

# %% solution="log-sigmoid"
def log_sigmoid(u):
    """log(1 / (1 + exp(-u))) of an array, in its dtype."""
    ### BEGIN SOLUTION
    return np.minimum(u, 0) - np.log1p(np.exp(-np.abs(u)))
    ### END SOLUTION


# %% test="log-sigmoid" points=2
graded_u = np.array([-1000, -100, -20, -3, -0.5, 0, 0.5, 3, 12, 15, 80, 1000], np.float32)
with np.errstate(over="raise", divide="raise", invalid="raise"):
    try:
        graded_log = log_sigmoid(graded_u)
    except FloatingPointError as error:
        raise AssertionError(f"on the way there is an {error}") from None
exact = -np.logaddexp(0, -graded_u.astype(np.float64))
assert np.shape(graded_log) == graded_u.shape and graded_log.dtype == np.float32, "an array like u"
worst = int(np.argmax(np.abs(graded_log - exact) / np.maximum(np.abs(exact), 1e-36)))
assert np.allclose(graded_log, exact, rtol=3e-6, atol=1e-42), (  # exp and log1p err by some units in the last place
    f"at u = {graded_u[worst]:g}: {graded_log[worst]:g}, expected {exact[worst]:g}")

# %% [markdown]
# **Exercise 3.4: the slope of the log-scale** (2 points). `backward` needs $\mathrm{d} \log s / \mathrm{d} r$. Derive it for (3.8), with the
# floor $\epsilon$ as an argument. ($\sigma' = \sigma (1 - \sigma)$, and $\mathrm{d}\log s = \mathrm{d}s / s$. Moderate $r$ will do.)

# %% solution="log-scale-slope"
def log_scale_slope(raw, floor):
    """dlog s / draw of s = floor + (1 - floor) * sigmoid(raw + 2)."""
    ### BEGIN SOLUTION
    sigmoid = 1 / (1 + np.exp(-(raw + 2)))
    return (1 - floor) * sigmoid * (1 - sigmoid) / (floor + (1 - floor) * sigmoid)
    ### END SOLUTION


# %% test="log-scale-slope" points=2
graded_raw = np.linspace(-12, 8, 81)
for graded_floor in 0.0, 1e-3, 0.2:
    found = log_scale_slope(graded_raw, graded_floor)
    expected = minglow.sigmoid_scale(graded_raw, graded_floor)[1]
    assert not np.allclose(found, minglow.sigmoid_scale(graded_raw, 0.0)[1]) or graded_floor == 0, "and the floor?"
    assert np.allclose(found, expected, rtol=1e-6), f"floor {graded_floor}: {found[::20]}, expected {expected[::20]}"

# %% [markdown]
# ### What goes back through the coupling
#
# Write $\bar a = \partial L / \partial a$ for a loss $L$, and $\bar\ell_b = \partial L / \partial\,\texttt{log\_det}_b$ for sample $b$. The
# raw number reaches $L$ in two ways, through $y_2$ (whose slope by $\log s$ is $y_2$ itself, since $y_2 = (x_2 + t)\, e^{\log s}$) and through the
# log-determinant (slope 1 by (3.4)):
#
# $$
# \bar r_b = \big(\bar y_{2,b} \odot y_{2,b} + \bar\ell_b\big) \odot \frac{\mathrm{d} \log s}{\mathrm{d} r} .
# \tag{3.10}
# $$
#
# $x_2$ and $t$ reach $L$ together, as a sum that is multiplied by $s$:
#
# $$
# \bar x_2 = \bar t = \bar y_2 \odot s .
# \tag{3.11}
# $$

# %%
# checks (3.10) and (3.11): against what the library hands to its net, and the order of Taylor's remainder
says = np.array([0.3, -0.2, 0.5, 0.1, -1.5, 0.7])    # t and r of three numbers
told = minglow.AffineCoupling(Given(*says), minglow.sigmoid_scale)
y_told, _, told_cache = told.forward(x)
dy, dlog_det = rng.standard_normal(y_told.shape), rng.standard_normal(5)
dx = told.backward(dy, dlog_det, told_cache)
log_s, slope = minglow.sigmoid_scale(says[3:])
t_bar = dy[:, 3:] * np.exp(log_s)
r_bar = (dy[:, 3:] * y_told[:, 3:] + dlog_det[:, None]) * slope
assert np.allclose(told.net.heard, join(t_bar, r_bar)) and np.allclose(dx[:, 3:], t_bar)


def loss(h):
    """<dy, y> + <dlog_det, log_det> of a coupling whose net says h: its slopes are dy and dlog_det."""
    y_moved, log_det_moved, _ = minglow.AffineCoupling(Given(*h), minglow.sigmoid_scale).forward(x)
    return (dy * y_moved).sum() + (dlog_det * log_det_moved).sum()


direction = rng.standard_normal(6)
order = taylor_slope(loss, says, direction, (join(t_bar, r_bar).sum(axis=0) * direction).sum())
print(f"Taylor's remainder has order {order:.2f}")
assert abs(order - 2) < 0.1
check_layer(layer)                                   # the library's own checks: silent when all hold

# %% [markdown]
# ## Masks: which numbers pass?
#
# An image's halves can be chosen in many ways. RealNVP writes any choice as a **mask** $b$, an array of ones (passes) and zeros
# (changes) of the image's shape. The net sees $b \odot x$, the image with zeros at all that will change (section 3.4, equation 9; here with
# minglow's order of shift and scale):
#
# $$
# y = b \odot x + (1 - b) \odot \big(x + t(b \odot x)\big) \odot s(b \odot x) .
# \tag{3.12}
# $$
#
# Two kinds of masks take turns: checkerboards, under which every pixel that changes has neighbors that pass, and, after a
# *squeeze* that moves every $2 \times 2$ block of pixels into 4 channels, masks of whole channels.

# %%
i, j = np.indices((4, 4))
boards = [((i + j + parity) % 2 == 0).astype(float)[..., None] for parity in (0, 1)]
numbered = np.arange(16.0).reshape(1, 4, 4, 1)
squeezed = minglow.Squeeze().forward(numbered)[0][0].astype(int)  # 2 x 2 pixels, 4 channels


def draw_mask(axis, passes, numbers, title):
    """Dark fields pass; every field says which pixel of the image it is."""
    axis.imshow(passes, cmap=plots.GRAYS, vmin=0, vmax=1.6)
    for (row, column), number in np.ndenumerate(numbers):
        axis.text(column, row, str(number), ha="center", va="center", color="white" if passes[row, column] else "black")
    axis.set(xticks=[], yticks=[], title=title)
    axis.spines[:].set_visible(True)


figure, axes = plt.subplots(1, 6, figsize=(9, 2.0), width_ratios=[2, 2, 1, 1, 1, 1])
for parity in 0, 1:
    draw_mask(axes[parity], boards[parity][..., 0], numbered[0, ..., 0].astype(int), f"checkerboard, parity {parity}")
for channel in range(4):
    passes = np.full((2, 2), float(channel < 2))
    draw_mask(axes[2 + channel], passes, squeezed[..., channel], f"channel {channel}")

# %% [markdown]
# *What to see:* the numbers are the 16 pixels of one $4 \times 4$ image; dark fields pass. On the left the two checkerboards, each
# changing what the other lets pass. On the right the image after a squeeze: four channels of $2 \times 2$, of which two pass.
#
# ### A mask is a permutation
#
# minglow's couplings know no masks, only halves of the channels. A mask becomes a bijection around the coupling: move the passing numbers into
# the first half, run the coupling, move everything back. With $P$ for the permutation matrix of the move and $J$ for the triangular
# Jacobian of the coupling inside,
#
# $$
# J_{\text{mask}} = P^{\top} J\, P, \qquad |\det J_{\text{mask}}| = |\det J| .
# \tag{3.13}
# $$
#
# `Checkerboard(coupling, parity)` does the moving, and `CheckerboardNet(net, parity)` puts the fields that the coupling hands to
# its net back to where they stand in the image, with zeros between, so that a convolution meets true neighbors:
# [minglow/layers/checkerboard.py](../minglow/layers/checkerboard.py). For vectors and the mask $(1, 0, 1, 0, \dots)$ the move is `EvenOdd`.

# %%
# checks (3.12): the masked formula, written out, and minglow's bijection of halves
net = perturbed(conv_net(1, 8, 2, rng=0), size=0, dtype=np.float64)
net.initialize(rng.standard_normal((64, 4, 4, 1)) * boards[0])  # hidden units of variance 1
net = perturbed(net, rng=4, size=0.07)
board_layer = minglow.Checkerboard(minglow.AffineCoupling(minglow.CheckerboardNet(net, parity=0), minglow.tanh_scale), parity=0)
b = boards[0]
image = rng.standard_normal((3, 4, 4, 1))
t, raw = halves(net.forward(b * image)[0])
log_s = minglow.tanh_scale(raw)[0]
masked = b * image + (1 - b) * (image + t) * np.exp(log_s)
found, found_log_det, _ = board_layer.forward(image)
assert np.allclose(found, masked) and np.allclose(found_log_det, ((1 - b) * log_s).sum(axis=(1, 2, 3)))

# %%
# checks (3.13): Jacobians by differences; the order of the move is read off an image of pixel numbers
pixel_order = np.concatenate([np.ravel(part) for part in halves(to_fields(numbered, 0))]).astype(int)
P = np.eye(16)[pixel_order]
J_mask = numerical_jacobian(board_layer.forward, image[0])
J = P @ J_mask @ P.T
assert np.allclose(J, np.tril(J), atol=1e-8)
fields = np.eye(16)[to_fields(numbered, 0).ravel().astype(int)]  # the same move, in the order of the coupling's array
J_inside = numerical_jacobian(board_layer.inner.forward, to_fields(image[:1], 0)[0])
assert np.allclose(fields.T @ J_inside @ fields, J_mask, atol=1e-7)
assert np.isclose(np.linalg.slogdet(J_mask)[1], found_log_det[0])

vector_mask = minglow.Chain(minglow.EvenOdd(6), layer, minglow.Permutation(np.argsort([0, 2, 4, 1, 3, 5])))
P6 = np.eye(6)[[0, 2, 4, 1, 3, 5]]
J6 = numerical_jacobian(layer.forward, (P6 @ x[0]))
assert np.allclose(numerical_jacobian(vector_mask.forward, x[0]), P6.T @ J6 @ P6, atol=1e-8)

figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.7))
plots.draw_matrix(axes[0], J_mask, "$J_{mask}$, pixels line by line", 1)
plots.draw_matrix(axes[1], J, "the same, passing pixels first", 1)
for axis in axes:
    axis.set(xlabel="number in x", ylabel="number in y")

# %% [markdown]
# *What to see:* on the left no triangle is to be seen, though half of the rows are rows of the identity. Sorted, it is the
# picture of (3.3): identity, zeros, a busy block (sparse, for a convolution sees neighbors only), scales.
#
# `minglow.realnvp` ([minglow/models/realnvp.py](../minglow/models/realnvp.py)) is made of these pieces. Here is a tiny one, layer by layer (`ActNorm` is notebook 4,
# `Level` notebook 6), its log-determinant held against brute force.

# %%
tiny = perturbed(minglow.realnvp((4, 4, 1), levels=2, hidden=4, rng=0).bijection, rng=3, size=0.1, dtype=np.float64)
steps = [(path, part) for path, part in tiny.walk() if isinstance(part, minglow.AffineCoupling | minglow.Squeeze)]
inside = {path.rpartition(".")[0]: part.parity for path, part in tiny.walk() if isinstance(part, minglow.CheckerboardNet)}
kinds = ["squeeze" if isinstance(part, minglow.Squeeze) else f"board {inside[path]}" if path in inside else "channels"
         for path, part in steps]
print("couplings, in order:", ", ".join(kinds))
brute_force = np.linalg.slogdet(numerical_jacobian(tiny.forward, image[0]))[1]
formula = tiny.forward(image[:1])[1][0]
print(f"log-determinant: {formula:.6f}, by brute force {brute_force:.6f}")
assert np.isclose(formula, brute_force)

# %% [markdown]
# ## A leak
#
# All of this rests on one promise: what is changed does not decide how. Break it, and let the net see $x$ where it should see $b
# \odot x$. The code runs, shapes fit, training proceeds. But now $t$ and $s$ depend on $x_2$ as well, and the block of $J$ that was diagonal gets
# two terms more:
#
# $$
# \frac{\partial y_2}{\partial x_2} = \operatorname{diag}(s) + \operatorname{diag}(s)\, \frac{\partial t}{\partial x_2}
# + \operatorname{diag}(y_2)\, \frac{\partial \log s}{\partial x_2} .
# \tag{3.14}
# $$
#
# The sum of $\log s$ is no longer the log-determinant, and (3.2) no longer the inverse, since $y$ does not show the net what it saw.


# %%
def masked_coupling(x, b, conditioner):
    """(3.12) and (3.4); conditioner(x, b) returns t and log s and is trusted to use b."""
    t, log_s = conditioner(x, b)
    return b * x + (1 - b) * (x + t) * np.exp(log_s), ((1 - b) * log_s).sum(axis=(1, 2, 3))


def masked_inverse(y, b, conditioner):
    t, log_s = conditioner(y, b)
    return b * y + (1 - b) * (y * np.exp(-log_s) - t)


def shift_and_log_scale(seen):
    t, raw = halves(net.forward(seen)[0])
    return t, minglow.tanh_scale(raw)[0]


def tight(x, b):
    return shift_and_log_scale(b * x)


def leaky(x, b):
    return shift_and_log_scale(x)


# %%
# checks (3.14): the block of what changes, by differences of y, t and log s
figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.7))
for axis, conditioner in zip(axes, (tight, leaky)):
    J_found = P @ numerical_jacobian(partial(masked_coupling, b=b, conditioner=conditioner), image[1]) @ P.T
    both = numerical_jacobian(lambda x, says=conditioner: np.stack(says(x, b), axis=1), image[1])  # t, then log s
    dt, dlog_s = P @ both[:16] @ P.T, P @ both[16:] @ P.T
    y_one, claimed = masked_coupling(image[1:2], b, conditioner)
    s_all, y_all = P @ np.exp(conditioner(image[1:2], b)[1]).ravel(), P @ y_one.ravel()
    block = np.diag(s_all) + s_all[:, None] * dt + y_all[:, None] * dlog_s
    assert np.allclose(J_found[8:, 8:], block[8:, 8:], atol=1e-7)
    true = np.linalg.slogdet(J_found)[1]
    error = np.abs(masked_inverse(y_one, b, conditioner) - image[1:2]).max()
    print(f"{conditioner.__name__}: sum of log s {claimed[0]:.4f}, log|det J| {true:.4f}, round trip off by {error:.0e}")
    assert np.isclose(claimed[0], true) == (error < 1e-9) == (conditioner is tight)
    plots.draw_matrix(axis, J_found, f"{conditioner.__name__}, passing pixels first", 1)
    axis.set(xlabel="number in x", ylabel="number in y")

# %% [markdown]
# *What to see:* on the right the lower right block is no longer diagonal, and the printed sum of $\log s$ is wrong.
#
# A wrong log-determinant is worse than an exception. Training maximizes what the formula claims, and learns to
# inflate it. What is claimed to be a density need not integrate to 1. In the plane, with a scale that sees the number that it
# scales:

# %%
def claimed_log_prob(points, leak):
    """log p of one coupling under N(0, I): log s = 0.8 cos(1.5 u) with u = x1, or x2 if it leaks."""
    log_s = 0.8 * np.cos(1.5 * points[:, 1 if leak else 0])
    latents = np.c_[points[:, 0], points[:, 1] * np.exp(log_s)]
    return minglow.StandardNormal((2,)).log_prob(latents) + log_s


for leak in False, True:
    mass = plots.density_on_grid(partial(claimed_log_prob, leak=leak), 14.0, 1000, np.float64)[2]
    print(f"{'with a leak' if leak else 'without':12} the density integrates to {mass:.4f}")
    assert np.isclose(mass, 1, atol=1e-3) == (not leak)

# %% [markdown]
# `AffineCoupling` hands its net the array $x_1$ and nothing else, so that a net inside it cannot leak. Even
# a `CheckerboardNet` with the wrong parity shows the right numbers, in the wrong places. Masks that are multiplied, as in many
# other codes, keep the promise only if nobody forgets one.
#
# **Exercise 3.5: find the leak** (3 points). Write `leaks(conditioner, b, x)`: whether what `conditioner(x, b)` says *about the
# numbers that change* depends on the numbers that change. Beware: the net may look at all of $x$ and still not leak, and what it says about numbers that
# pass is multiplied by 0. Both of its outputs count. (Move the changing numbers of $x$, by different amounts, and look.)

# %% solution="leaks"
def leaks(conditioner, b, x):
    """True if t or log s, where b is 0, depend on x where b is 0. x: (B, h, w, C), b: (h, w, C)."""
    ### BEGIN SOLUTION
    moved_x = x + (1 - b) * np.random.default_rng(0).standard_normal(x.shape)
    before, after = conditioner(x, b), conditioner(moved_x, b)
    return not all(np.allclose((1 - b) * old, (1 - b) * new, rtol=0, atol=1e-10)
                   for old, new in zip(before, after))
    ### END SOLUTION


# %% test="leaks" points=3
def neighbors(x):
    """The sum of the four pixels beside each: under a checkerboard, all of the other color."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]


suspects = {
    "the net sees b * x": (tight, False),
    "the net sees x": (leaky, True),
    "it sees x, but only the four neighbors": (lambda x, b: (neighbors(x), np.tanh(neighbors(x))), False),
    "t is masked, log s forgot the mask": (lambda x, b: (tight(x, b)[0], leaky(x, b)[1]), True),
    "log s is masked, t forgot the mask": (lambda x, b: (leaky(x, b)[0], tight(x, b)[1]), True),
    "b * x, normalized by the mean of all of x": (
        lambda x, b: tight(x - x.mean(axis=(1, 2, 3), keepdims=True), b), True),
    "t knows how widely the changing numbers are spread": (
        lambda x, b: (tight(x, b)[0] + x[:, b == 0].std(axis=1)[:, None, None, None], tight(x, b)[1]), True),
    "it says more about pixels that pass": (lambda x, b: (tight(x, b)[0] + b * neighbors(x), tight(x, b)[1]), False),
    "the mask stands behind the net": (lambda x, b: tuple((1 - b) * part for part in leaky(x, b)), True),
}
graded_x = np.random.default_rng(8).standard_normal((2, 4, 4, 1))
for what, (suspect, does) in suspects.items():
    for mask in boards:
        verdict = leaks(suspect, mask, graded_x.copy())
        assert bool(verdict) == does, f"{what}: {'a leak' if does else 'no leak'}, you said {verdict}"

# %% [markdown]
# ## Affine against additive, trained
#
# Notebook 2 ended with a limit of NICE: one `Scaling` sharpens all of space alike. So take data of two scales: half of the points from a tight normal, half
# from a wide one. We train flows of the same size, eight couplings with 32 hidden units (and a `Scaling` at the end): with additive couplings, and with affine
# ones of two scales. The couplings and swaps are put in a chain by hand, so that nothing else differs.


# %%
CENTERS, SIGMAS = np.array([[-1.5, 0.0], [1.2, 0.0]]), np.array([0.12, 0.8])


def two_scales(n, seed):
    """Half of the points around one center with a small deviation, half around the other with a large one."""
    draw = np.random.default_rng(seed)
    which = draw.integers(2, size=n)
    return (CENTERS[which] + SIGMAS[which, None] * draw.standard_normal((n, 2))).astype(np.float32)


def true_log_prob(points):
    parts = [-((points - center) ** 2).sum(axis=1) / (2 * sigma**2) - np.log(4 * np.pi * sigma**2)
             for center, sigma in zip(CENTERS, SIGMAS)]
    return np.logaddexp(*parts)


def trained(coupling, data, couplings=8):
    """A flow of such couplings in the plane, trained on the data."""
    start = np.random.default_rng(1)
    kind = getattr(coupling, "func", coupling)
    layers = []
    for _ in range(couplings):
        layers += [coupling(mlp(1, 32, kind.net_outputs, start)), minglow.Swap(2)]
    flow = minglow.Flow(minglow.Chain(*layers, minglow.Scaling(2)), minglow.StandardNormal((2,)))
    minglow.train(flow, data, steps=600, learning_rate=0.01, ema_decay=0.98)
    return flow


# %%
data, held_out = two_scales(4000, 0), two_scales(4000, 1)
flows = {name: trained(coupling, data) for name, coupling in {
    "additive": minglow.AdditiveCoupling,
    "affine, sigmoid_scale": minglow.AffineCoupling,
    "affine, tanh_scale": partial(minglow.AffineCoupling, scale=minglow.tanh_scale)}.items()}
print(f"{'':22} parameters   NLL held out, nats")
for name, flow in flows.items():
    print(f"{name:22} {flow.flat.value.size:8}      {-flow.log_prob(held_out).mean():6.2f}")
print(f"{'the true density':22}               {-true_log_prob(held_out).mean():6.2f}")

# %%
additive, affine = flows["additive"], flows["affine, tanh_scale"]
figure, axes = plt.subplots(2, 2, figsize=(7.6, 6.2))
for axis, name, log_prob in zip(axes.flat, ("true density", "additive", "affine, tanh_scale"),
                                (true_log_prob, additive.log_prob, affine.log_prob)):
    edges, density, mass = plots.density_on_grid(log_prob, 4.0, 140)
    drawn = axis.pcolormesh(edges, edges, np.log(np.maximum(density, 1e-12)), vmin=-8, vmax=2, rasterized=True)
    axis.set(aspect="equal", title=name, xlabel="$x_1$", ylabel="$x_2$")
figure.colorbar(drawn, ax=axes[0], label="log density")
middles = (edges[:-1] + edges[1:]) / 2
plane = np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2).astype(np.float32)
affine_log_det = affine.bijection.forward_only(plane)[1].reshape(140, 140)
assert np.ptp(additive.bijection.forward_only(plane)[1]) == 0
drawn = axes[1, 1].pcolormesh(edges, edges, affine_log_det, cmap=plots.SIGNED, vmin=-6, vmax=6, rasterized=True)
axes[1, 1].set(aspect="equal", title="affine: its log-determinant", xlabel="$x_1$", ylabel="$x_2$")
figure.colorbar(drawn, ax=axes[1], label="$\\log|\\det J|$");

# %% [markdown]
# *What to see:* the additive flow has one log-determinant for the whole plane and cannot be sharp on the left and flat on the right; it
# folds instead. The affine flow stretches where the tight normal is (red) and not elsewhere, which the last
# picture shows. Its NLL comes close to the true density's, at nearly the same number of parameters. With `sigmoid_scale` it is between the two: scales below 1 can only
# shrink, and one `Scaling` at the end has to make up for all of them. In Glow there is an `ActNorm` in every step that can stretch.

# %% [markdown]
# ## RealNVP for vectors
#
# `minglow.realnvp` also makes flows of vectors. The numbers of a vector have no neighbors, so there are no
# checkerboards: one half passes, then the other. Each step has an `ActNorm`, an affine coupling whose first half passes, and a `Reverse`,
# which puts the numbers into the opposite order. The next coupling then changes what this one has let pass. For an odd number of
# numbers the halves differ by one.


# %%
def masks(flow):
    """The mask b of each coupling, for the numbers in the order in which they come in."""
    order, found = np.arange(flow.config.shape[0]), []
    for layer in flow.bijection.layers:
        if isinstance(layer, minglow.AffineCoupling):
            found.append(np.isin(np.arange(len(order)), order[:layer.identity_channels]).astype(int))
        if isinstance(layer, minglow.Reverse):
            order = order[::-1]
    return found


for D in 2, 3, 4:
    of_size_D = minglow.realnvp((D,), couplings=4, hidden=8, rng=0)
    found = masks(of_size_D)
    print(f"D = {D}: masks", *found)
    assert all(np.all(one + following == 1) for one, following in pairwise(found))  # every number gets its turn
    vectors = perturbed(of_size_D.bijection, rng=2, size=0.3, dtype=np.float64)
    point = rng.standard_normal(D)
    brute_force = np.linalg.slogdet(numerical_jacobian(vectors.forward, point))[1]
    assert np.isclose(vectors.forward(point[None])[1][0], brute_force, atol=1e-7)

# %% [markdown]
# Now train one on two half moons. `minglow.train` holds out a tenth of the points, and maximizes the likelihood of the others. The
# layers before the first step make the two numbers uncorrelated, with mean 0 and variance 1; data set them once.
# The figure follows a grid through the six couplings. The layers between two couplings that change the second number are put together
# as in (3.13), reverse, couple, reverse, so that every panel has $x_1$ on the horizontal axis.

# %%
moons = two_moons(5000, rng=0)
in_the_plane = minglow.realnvp((2,), couplings=6, rng=1)
minglow.train(in_the_plane, moons, steps=1000, learning_rate=0.01, ema_decay=0.98)
print(f"NLL of new points: {-in_the_plane.log_prob(two_moons(5000, rng=1)).mean():.2f} nats")

layers = in_the_plane.bijection.layers
first = next(k for k, layer in enumerate(layers) if isinstance(layer, minglow.ActNorm))  # of the first step
start, layers = minglow.Chain(*layers[:first]).forward_only(moons)[0], layers[first:]
parts = [minglow.Chain(*layers[k:k + 2]) if k % 2 == 0 else minglow.Chain(minglow.Reverse(2), *layers[k:k + 3])
         for k in range(0, len(layers), 3)]          # of each coupling: actnorm and coupling, in the first order
end = start
for part in parts:
    end = part.forward_only(end)[0]
assert np.allclose(end, in_the_plane.latents(moons), atol=1e-4)
changes = [f"{k + 1}: changes $x_{2 - k % 2}$" for k in range(6)]
figure = plots.warped_grid([lambda x, part=part: part.forward_only(x)[0] for part in parts],
                           ["standardized data", *changes], start[:400])
figure.set_dpi(64)
figure

# %% [markdown]
# *What to see:* a point keeps its color. A coupling moves points along one axis only, as in the picture of (3.5): couplings 1, 3 and 5
# keep all vertical lines of what they get vertical, couplings 2, 4 and 6 all horizontal ones. An `ActNorm` shifts and stretches both axes. After six couplings the points
# lie like normal noise.

# %%
limits = plots.robust_limits(moons)
edges, density, mass = plots.density_on_grid(in_the_plane.log_prob, limits)
figure = plots.plane_summary(moons[:1500], in_the_plane.sample(1500, rng=5), edges, density)
figure.set_dpi(70)
figure

# %% [markdown]
# *What to see:* samples and density follow the data. A bridge is left between the moons: a smooth map stretches one cloud of noise, and
# does not tear it.

# %% [markdown]
# ## To take away
#
# - An affine coupling's Jacobian is triangular with the scales on its diagonal; its log-determinant is the sum of the
#   log-scales, and differs from sample to sample.
# - Scales are positive by construction. A floor bounds how much an inverse magnifies rounding; logarithms are computed as
#   logarithms, not of numbers that may be 0.
# - A mask is a permutation around a coupling of halves: nothing new to derive. Masks alternate, so that every number changes.
# - A conditioner that sees what it changes breaks the log-determinant and the inverse, silently. A Jacobian by brute force shows it.
#
# Next: [4. Actnorm](04_actnorm.ipynb).
