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
# # 13. Dequantization
#
# **You will be able to** say why a density must not be fitted to integers; turn integers into real numbers so
# that the density's likelihood bounds the integers' probability, and prove the bound; compute bits per
# dimension and spot a number that cannot be true; tighten the bound by learned noise and by more draws.
#
# **You need** notebooks 0 (Jensen's inequality, Kullback-Leibler divergence, more draws), 1 (change of variables,
# entropy) and 8 (bits per dimension). About 60 minutes with the exercises; it runs in seconds.

# %%
from math import log, log2, pi, sqrt

import matplotlib.pyplot as plt
import numpy as np

import minglow
from minglow import plots
from minglow.data import digits, reduce_bits
from minglow.data.dataset import Images
from minglow.dequantization.dequantizers import UniformDequantizer, VariationalDequantizer, log_bound
from minglow.training import Adam

plots.style()
rng = np.random.default_rng(0)
images = digits()                                        # 8 x 8 pixels, integers 0 .. 16

# %% [markdown]
# ## A density on integers has no limit
#
# A pixel is an integer $k$ from $0$ to $n - 1$, with $n$ gray **levels**. It has a *probability* $P(k)$, which is at most 1.
# A flow gives a *density* $p(x)$ of real numbers, which may be as large as it likes where it is narrow. Fit one to
# the other and see what happens. Let the integer $k$ make up a share $w_k$ of the data, and let the
# model put a normal bump of width $\sigma$ on each: $p_\sigma(x) = \sum_k w_k\, \mathcal N(x; k, \sigma^2)$. Once the bumps do
# not overlap, only one matters at each data point, and the mean log-likelihood of the data is
#
# $$
# \sum_k w_k \log p_\sigma(k) \;\approx\; \sum_k w_k \log w_k \;-\; \log\!\big(\sigma \sqrt{2\pi}\big).
# \tag{13.1}
# $$
#
# (log is natural, in nats; divided by $\log 2$ it is in bits.) The first sum is fixed. The second term has no
# upper limit.


# %%
# checks (13.1): the sum over all bumps, and that each is a density
def bumps(x, weights, sigma):
    """The density: a normal of width sigma on every integer k, with weight w_k."""
    z = (np.asarray(x, float)[..., None] - np.arange(len(weights))) / sigma
    return (weights * np.exp(-z ** 2 / 2)).sum(axis=-1) / (sigma * sqrt(2 * pi))


values = images.train[:, 4, 3, 0] // 2                   # one pixel of all digits, in 9 levels
weights = np.bincount(values, minlength=9) / len(values)
line = np.linspace(-6, 14, 40_001)
sigmas, likelihood = np.geomspace(1, 1e-4, 25), []
for sigma in sigmas:
    likelihood.append((weights * np.log(bumps(np.arange(9), weights, sigma))).sum())
    if sigma < 0.15:
        assert np.isclose(likelihood[-1], (weights * np.log(weights)).sum() - log(sigma * sqrt(2 * pi)))
    if sigma > 3e-3:                                     # integrated on the line
        assert np.isclose(bumps(line, weights, sigma).sum() * (line[1] - line[0]), 1, atol=1e-6)

# %%
figure, axes = plt.subplots(1, 2, figsize=(8.5, 3))
for sigma in 0.4, 0.15, 0.05:
    axes[0].plot(line, bumps(line, weights, sigma), linewidth=1, label=f"$\\sigma$ = {sigma}")
axes[1].semilogx(sigmas, likelihood, "o-", markersize=3)
axes[1].axhline(0, color="0.6", linestyle=":")
axes[0].set(xlabel="pixel value", ylabel="density", title="the model", xlim=(-1.5, 9.5))
axes[1].set(xlabel="width of the bumps $\\sigma$", ylabel="mean log-likelihood, nats", title="narrower is better, without end")
axes[1].invert_xaxis()
axes[0].legend();

# %% [markdown]
# *What to see:* the narrower the bumps, the higher the likelihood, and nothing is learned by it: the shares $w_k$ are
# the same all the time. A likelihood that can be raised without limit measures nothing.

# %% [markdown]
# **Exercise 13.1: predict, then run** (1 point). By how many **bits** does the mean log-likelihood rise each time $\sigma$
# is halved? Set `bits_per_halving`.

# %% solution="bits-per-halving"
### BEGIN SOLUTION
bits_per_halving = 1.0                                   # -log2(sigma) rises by 1
### END SOLUTION

# %% test="bits-per-halving" points=1
wide, narrow = ((weights * np.log2(bumps(np.arange(9), weights, sigma))).sum() for sigma in (0.02, 0.01))
assert np.isclose(bits_per_halving, narrow - wide), "look at (13.1): what does log2(sigma) do?"

# %% [markdown]
# ### A flow does it, too
#
# Two neighboring pixels of the digits, in 4 levels each. All there is to know is a table of 16
# probabilities, and its *entropy* $-\sum P \log_2 P$ is the least that any code can spend on average (Shannon 1948).
# Half of it is the limit in bits per dimension. Two flows are trained, one on the bare integers (scaled
# into the cells' middles), one with the noise that we come to in a minute.

# %%
pairs = np.minimum(images.train[:, 3, 3:5, 0] // 4, 3)   # (1500, 2), integers 0 .. 3
table = np.zeros((4, 4))
np.add.at(table, (pairs[:, 0], pairs[:, 1]), 1 / len(pairs))
entropy = -(table * np.log2(table)).sum() / 2            # bits per dimension
flows, curves = {}, {}
for name in "bare integers", "with noise":
    flow, curve, noise = minglow.glow((2,), flow_steps=6, hidden=32, scale="sigmoid", rng=0), [], np.random.default_rng(0)
    optimizer = Adam(flow.flat)
    for step in range(500):
        batch = pairs[noise.integers(len(pairs), size=256)]
        x = minglow.dequantize(batch, 4, noise)
        if name == "bare integers":
            x = ((batch + 0.5) / 4 - 0.5).astype(np.float32)
        if step == 0:
            flow.initialize(x)
        flow.flat.grad[...] = 0
        nll = flow.nll_backward(x).nll
        optimizer.step(0.005 * min(1, (500 - step) / 250))
        curve.append(minglow.bits_per_dim(-nll, 2, 4))
    flows[name], curves[name] = flow, curve
assert np.mean(curves["bare integers"][-50:]) < entropy - 0.3 and np.mean(curves["with noise"][-50:]) > entropy

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3), width_ratios=[1, 1, 1.3])
for axis, (name, flow) in zip(axes, flows.items()):
    edges, density, _ = plots.density_on_grid(flow.log_prob, limit=0.55, cells=220)
    drawn = axis.pcolormesh(edges, edges, density, vmin=0, vmax=8)
    axis.plot(*np.meshgrid(*2 * [(np.arange(4) + 0.5) / 4 - 0.5]), "o", color="white", markersize=5, fillstyle="none")
    axis.set(title=f"density, {name}", xlabel="first pixel", ylabel="second pixel", aspect="equal")
figure.colorbar(drawn, ax=axes[1], label="density, cut at 8")
for name, curve in curves.items():
    smooth = np.convolve(curve, np.ones(10) / 10, "valid")
    axes[2].plot(smooth, label=name)
axes[2].axhline(entropy, color="0.3", linestyle=":", label="entropy of the pairs")
axes[2].set(xlabel="training step", ylabel="bits per dimension", title="below the dotted line no code can be")
axes[2].legend();

# %% [markdown]
# *What to see:* circles are the 16 points on which data lie. Without noise the density gathers in threads through
# them, thinner and thinner, and its bits per dimension go below the entropy: the number is no code length any
# more. With noise the flow learns a landscape, and its bits stay above the dotted line. Why they have to is the
# next two sections.

# %% [markdown]
# ## Uniform noise
#
# Give every integer a **cell** of width $1/n$ and add noise $u$ that fills the cell. An image of $D$ integers becomes
#
# $$
# x = \frac{k + u}{n} - \frac12, \qquad u \sim U[0, 1)^D .
# \tag{13.2}
# $$
#
# ([minglow/dequantization/bits.py](../minglow/dequantization/bits.py), `dequantize`; `quantize` goes back.) A density $p$ of real numbers now says
# what an integer's probability is, with no choice left: the mass on its cell. Substituting (13.2), $\mathrm dx =
# n^{-D}\, \mathrm du$,
#
# $$
# P(k) = \int_{\text{cell of } k} p(x)\, \mathrm dx = \int_{[0,1)^D} p\Big(\frac{k+u}{n} - \frac12\Big)\, n^{-D}\, \mathrm du .
# \tag{13.3}
# $$
#
# These are honest probabilities: summed over all images they give the mass of $p$ on the cube
# $[-\frac12, \frac12)^D$, at most 1. As an
# example whose $P$ is known, take one pixel in $n = 8$ levels and a *logistic* density, whose integral is
# the sigmoid: $\int_{-\infty}^x p = \mathrm{sigmoid}((x - m)/s)$ with middle $m$ and scale $s$.

# %%
# checks (13.2): the library's x, its noise, and the way back
sheet = images.train[:6] // 4                            # in 5 levels, 0 .. 4, so that the noise is seen
x = minglow.dequantize(sheet, 5, rng=0, dtype=np.float64)
u = (x + 0.5) * 5 - sheet
assert u.min() >= -1e-12 and u.max() < 1 and abs(u.mean() - 0.5) < 0.05 and abs(u.var() - 1 / 12) < 0.01
assert np.array_equal(minglow.quantize(x, 5), sheet)

figure, axes = plt.subplots(3, 1, figsize=(7, 3.9))
plots.draw_images(axes[0], sheet, 5, 6, "integers 0 .. 4")
plots.draw_images(axes[1], (x + 0.5) * 4, 5, 6, "x, with noise of one level's width")
plots.draw_images(axes[2], minglow.quantize(x, 5), 5, 6, "quantized again: the same integers")



# %% [markdown]
# *What to see:* the second row is what a flow is trained on. White paper has become a light gray noise, yet nothing is
# lost: the third row is the first.

# %%
# checks (13.3): by quadrature, beside the closed form; in one dimension and in two
n, middle, scale = 8, -0.1, 0.04
nodes, node_weights = np.polynomial.legendre.leggauss(60)
nodes, node_weights = (nodes + 1) / 2, node_weights / 2  # Gauss and Legendre's, on [0, 1]


def cdf(x):
    """The logistic's integral up to x."""
    return 1 / (1 + np.exp(-(x - middle) / scale))


def density(x):
    """The logistic density, the derivative of cdf."""
    return cdf(x) * (1 - cdf(x)) / scale


levels = np.arange(n)
in_cells = density((levels[:, None] + nodes) / n - 0.5)  # (k, u)
P = in_cells @ node_weights / n
assert np.allclose(P, np.diff(cdf(np.arange(n + 1) / n - 0.5)), atol=1e-9)
assert 0.999 < P.sum() <= 1                              # a little of the logistic lies outside the cube
two = np.einsum("ku,lv->kluv", in_cells, in_cells)       # two independent pixels: p(x1) p(x2)
assert np.allclose(np.einsum("kluv,u,v->kl", two, node_weights, node_weights) / n ** 2, np.outer(P, P))

# %% [markdown]
# **Exercise 13.2: there and back** (2 points). Write `spread(images, levels, rng)`, which is (13.2), and
# `collect(x, levels)`, which returns the integers. Numbers outside of $[-\tfrac12, \tfrac12)$, which a
# flow's samples may contain, go to the nearest integer that exists. No `minglow` inside.

# %% solution="spread-and-collect"
# spread(images, levels, rng): real numbers (float64) of the integers' shape; rng is a NumPy Generator
# collect(x, levels): the integers 0 .. levels - 1 whose cells hold x, or the nearest of them
### BEGIN SOLUTION
def spread(images, levels, rng):
    return (images + rng.random(images.shape)) / levels - 0.5


def collect(x, levels):
    return np.clip(np.floor((x + 0.5) * levels), 0, levels - 1).astype(int)
### END SOLUTION


# %% test="spread-and-collect" points=2
for test_levels in 2, 17, 256:
    test_images = np.arange(test_levels).repeat(400).reshape(-1, 4, 4, 1)
    test_x = spread(test_images, test_levels, np.random.default_rng(1))
    expected_x = minglow.dequantize(test_images, test_levels, np.random.default_rng(1), np.float64)
    assert np.array_equal(collect(expected_x, test_levels), test_images), "collect does not undo minglow.dequantize"
    place = (test_x + 0.5) * test_levels - test_images   # u
    assert place.min() > -1e-9 and place.max() < 1 + 1e-9, f"u from {place.min():.2f} to {place.max():.2f}, not 0 to 1"
    assert abs(place.mean() - 0.5) < 0.05 and abs(place.var() - 1 / 12) < 0.015, "u does not fill its cell"
    assert len(np.unique(test_x)) > 0.9 * test_x.size, "every number needs noise of its own"
    outside = np.array([-0.7, -0.5, 0.4999, 0.5, 3.0])
    assert np.array_equal(collect(outside, test_levels), minglow.quantize(outside, test_levels)), "outside the cube"

# %% [markdown]
# **Exercise 13.3: probabilities from a density** (2 points). Write `cell_probabilities(density, levels, points)`: the
# array of $P(0) \dots P(\text{levels} - 1)$ of one pixel by (13.3), each integral as the mean of the density at
# `points` equally spaced $u$, in the middles of `points` little intervals. Mind the factor $1/n$.

# %% solution="cell-probabilities"
def cell_probabilities(density, levels, points=200):
    """P(k) of one pixel, (levels,), for a density of real numbers that takes arrays."""
    ### BEGIN SOLUTION
    u = (np.arange(points) + 0.5) / points
    return density((np.arange(levels)[:, None] + u) / levels - 0.5).mean(axis=1) / levels
    ### END SOLUTION


# %% test="cell-probabilities" points=2
for test_levels in 2, 8, 17:
    found = cell_probabilities(density, test_levels)
    assert np.shape(found) == (test_levels,), f"expected {test_levels} probabilities, got {np.shape(found)}"
    expected = np.diff(cdf(np.arange(test_levels + 1) / test_levels - 0.5))
    assert np.allclose(found, expected, atol=1e-4), f"the masses on {test_levels} cells are wrong; they add up to {sum(found):.3f}"
assert np.allclose(cell_probabilities(np.ones_like, 5), 0.2), "a density of 1 makes all levels equally likely"
assert np.allclose(cell_probabilities(lambda x: 2.0 * (x < 0), 4), [0.5, 0.5, 0, 0]), "a density of 2 on the lower half"

# %% [markdown]
# ## The bound
#
# The integral (13.3) has $D$ dimensions, and a flow evaluates $p$ at one point. But an integral over the unit cube
# is a mean, over uniform $u$, and the logarithm is concave, so that **Jensen's inequality** holds: the mean of
# the logarithm is at most the logarithm of the mean (Theis et al. 2016, section 3.1),
#
# $$
# \mathbb E_{u \sim U[0,1)^D}\Big[\log p\Big(\frac{k+u}{n} - \frac12\Big)\Big] - D \log n \;\le\; \log P(k) .
# \tag{13.4}
# $$
#
# What training maximizes, the log-likelihood of noisy images, is a lower bound of the log-probability of the
# integers. That is why it cannot run away: $P(k)$ is at most 1. How much is lost has a name. Given $k$, the model itself
# has an opinion where in the cell $x$ lies, the *posterior* $p(u \mid k) = p\big(\frac{k+u}{n} - \frac12\big)\, n^{-D} / P(k)$.
# The gap is the Kullback-Leibler divergence from the uniform noise to it,
#
# $$
# \log P(k) - \Big(\mathbb E_u[\log p] - D \log n\Big) = \mathrm{KL}\big(U[0,1)^D \,\big\|\, p(u \mid k)\big)
# = \int_{[0,1)^D} \log \frac{1}{p(u \mid k)}\, \mathrm du .
# \tag{13.5}
# $$

# %%
# checks (13.4) and (13.5): for every level of the known example
bound = np.log(in_cells) @ node_weights - log(n)
posterior = in_cells / n / P[:, None]                    # p(u | k), (k, u)
assert np.allclose(posterior @ node_weights, 1)
assert (bound <= np.log(P) + 1e-12).all()
assert np.allclose(np.log(P) - bound, -np.log(posterior) @ node_weights)

fine = np.linspace(-0.5, 0.5, 801)
figure, axes = plt.subplots(1, 2, figsize=(8.5, 3))
axes[0].plot(fine, density(fine), label="density p")
axes[0].stairs(n * P, np.arange(n + 1) / n - 0.5, fill=True, alpha=0.3, label="its mean on each cell")
axes[0].vlines(np.arange(n + 1) / n - 0.5, 0, 0.3, color="0.4")
axes[1].plot(levels, -np.log2(P), "o-", label="$-\\log_2 P(k)$")
axes[1].plot(levels, -bound / log(2), "s--", label="with uniform noise")
axes[0].set(xlabel="x", ylabel="density", title="8 cells")
axes[1].set(xlabel="level k", ylabel="bits", title="what k costs")
for axis in axes:
    axis.legend()

# %% [markdown]
# *What to see:* on the right the dashed line is never below the other: noise makes a level dearer, never
# cheaper. They are nearest in the cell of the peak ($k = 3$), where the density varies by the smallest factor, and
# half a bit apart in the tails, where it falls by a factor of twenty within one cell.

# %% [markdown]
# ## The constants
#
# The literature reports **bits per dimension**, as notebook 8 does: nats become bits, and $D$ numbers share them. The cells' volume
# $n^{-D}$ in (13.4) becomes $\log_2 n$,
#
# $$
# \text{bits/dim} = -\frac{\log p(x)}{D \log 2} + \log_2 n .
# \tag{13.6}
# $$
#
# Signs, 255 in place of 256, and a forgotten constant are where implementations differ most. Two values to
# test yours by. A density of 1 on the cube costs $\log_2 n$: $\log_2 256 = 8$ for eight bits, $\log_2 17 = 4.087$ for the
# digits. And images of uniform 8-bit noise under a flow that does nothing ($z = x$, a standard
# normal): since $\mathbb E[x^2] = 1/12$ for uniform $x$ in $[-\frac12, \frac12)$,
#
# $$
# 8 + \frac12 \log_2 2\pi + \frac{1}{24 \log 2} = 9.385860 .
# \tag{13.7}
# $$

# %%
# checks (13.6) and (13.7): the library's function, and a Monte-Carlo mean over 400,000 pixels
assert np.isclose(minglow.bits_per_dim(0.0, 64, 17), log2(17)) and round(log2(17), 3) == 4.087
assert np.isclose(minglow.bits_per_dim(-123.4, 64, 17), 123.4 / (64 * log(2)) + log2(17))
identity = minglow.Flow(minglow.Chain(minglow.Flatten((10, 10, 1))), minglow.StandardNormal((100,)))
noise_images = rng.integers(0, 256, (4000, 10, 10, 1))
each = minglow.bits_per_dim(identity.log_prob(minglow.dequantize(noise_images, 256, rng)).astype(float), 100, 256)
closed_form = 8 + 0.5 * log2(2 * pi) + 1 / (24 * log(2))
print(f"measured {each.mean():.4f}, closed form {closed_form:.6f}")
assert abs(each.mean() - closed_form) < 5 * each.std() / sqrt(len(each)) and round(closed_form, 6) == 9.385860

# %% [markdown]
# ### Noise that does not fill its cell
#
# A bug that no test of the flow finds: noise in $[0, a)$ with $a < 1$, while the constant stays $\log n$. It happens
# with noise of half a level, $a = \frac12$, or with `image / 255 + noise / 256`, $a = 255/256$ of the distance of two
# levels. The noise has the density $a^{-D}$, so Jensen's inequality only gives
#
# $$
# \mathbb E_{u \sim U[0,a)^D}\Big[\log p\Big(\frac{k+u}{n} - \frac12\Big)\Big] - D \log n \;\le\; \log P(k) + D \log \frac1a ,
# \tag{13.8}
# $$
#
# and a model can have all of this: it puts its mass where the noise falls and none elsewhere. The claim is then
# too low by $\log_2 \frac1a$ bits per dimension: a whole bit for $a = \frac12$.

# %%
# checks (13.8): for the logistic, and with equality for a model that knows where the noise falls
shares = rng.dirichlet(np.ones(n))                       # any probabilities of 8 levels
for a in 1 / 2, 255 / 256, 1.0:
    partial_cells = density((levels[:, None] + a * nodes) / n - 0.5)
    claim = np.log(partial_cells) @ node_weights - log(n)
    assert (claim <= np.log(P) + log(1 / a) + 1e-12).all()
    sly = shares * n / a                                 # on the first a of each cell; 0 on the rest
    assert np.isclose((sly * a / n).sum(), 1)            # a density, and P(k) = shares
    claim = np.log(sly) - log(n)
    assert np.allclose(claim, np.log(shares) + log(1 / a))
    bits = -(shares * claim).sum() / log(2)
    print(f"noise fills {a:.4f} of the cell: claims {bits:.4f} bits, entropy {-(shares * np.log2(shares)).sum():.4f}; "
          f"the claimed probabilities add up to {np.exp(claim).sum():.4f}")

# %% [markdown]
# *What to see:* with half-width noise the claim lies one bit below the entropy, and the "probabilities" add up to 2. For
# $a = 255/256$ it is 0.0056 bits, which will not be noticed and is still wrong. No good model and no photographs are
# needed to find such a bug: feed uniform random integers, whose entropy is $\log_2 n$, and train. Whoever reports less than $\log_2
# n$ on average has a bug of this kind. And no lossless code length is negative, on any data.

# %% [markdown]
# **Exercise 13.4: which cannot be true?** (1 point). Three reports of held-out means. **A**: 32-level images of uniform
# random integers, 4.6 bits/dim. **B**: 8-bit photographs, 3.35 bits/dim. **C**: binary images ($n = 2$) of text,
# $-0.1$ bits/dim. Set `impossible` to the letters, such as `{"B"}`, and `limit_a` to the number of
# bits/dim below which no report on A's images can be.

# %% solution="impossible"
### BEGIN SOLUTION
impossible, limit_a = {"A", "C"}, 5.0
### END SOLUTION

# %% test="impossible" points=1
uniform_32 = np.full(32, 1 / 32)
assert np.isclose(limit_a, -(uniform_32 * np.log2(uniform_32)).sum()), "the entropy of 32 equally likely levels"
assert set(impossible) == {letter for letter, report, least in (("A", 4.6, limit_a), ("B", 3.35, 0), ("C", -0.1, 0))
                           if report < least}, "compare each report with the least that a code can spend"

# %% [markdown]
# ### Fewer bits
#
# Glow's faces are 5-bit images: $j = \lfloor k / 8 \rfloor$ of 8-bit ones, 32 levels in place of 256 (`reduce_bits`,
# `minglow train --bits 5`). A coarse level holds eight fine ones, and probabilities add:
#
# $$
# P_5(j) = \sum_{k = 8j}^{8j + 7} P_8(k) ,
# \tag{13.9}
# $$
#
# so that a coarse level is never dearer than one of those that it holds:
#
# $$
# -\log_2 P_5(\lfloor k/8 \rfloor) \le -\log_2 P_8(k) .
# \tag{13.10}
# $$
#
# Coarse images cost less, for lack of detail and for no other reason. Bits per dimension compare models only at the
# same number of levels.

# %%
# checks (13.9) and (13.10): probabilities in cells of two sizes, from one density
P_8, P_5 = (np.diff(cdf(np.arange(count + 1) / count - 0.5)) for count in (256, 32))
assert np.allclose(P_8.reshape(32, 8).sum(axis=1), P_5)
assert (np.log2(P_5)[np.arange(256) // 8] >= np.log2(P_8)).all()
fine_images = rng.choice(256, (50, 4, 4, 1), p=P_8 / P_8.sum()).astype(np.uint8)
coarse = reduce_bits(Images(fine_images, fine_images[:5], 256), 5)
assert coarse.bins == 32 and np.array_equal(coarse.train, fine_images // 8)
print(f"one density, entropy in 256 levels {-(P_8 * np.log2(P_8)).sum():.2f} bits, "
      f"in 32 levels {-(P_5 * np.log2(P_5)).sum():.2f} bits")

# %% [markdown]
# ## Learned noise
#
# Who says that the noise has to be uniform? Let $q(u \mid k)$ be *any* density on the cell that may depend on the image.
# Multiply and divide by it in (13.3), and Jensen gives (Ho et al. 2019, Flow++, section 3.1)
#
# $$
# \mathbb E_{u \sim q}\big[\log p(x) - \log q(u \mid k)\big] - D \log n
# \;=\; \log P(k) - \mathrm{KL}\big(q(u \mid k) \,\big\|\, p(u \mid k)\big) \;\le\; \log P(k) .
# \tag{13.11}
# $$
#
# Uniform noise is the case $\log q = 0$. The gap closes where $q$ is the posterior: noise that falls where the
# model expects it, so that the model need not learn the steps from cell to cell.

# %%
# checks (13.11): noise of density q(u) = 1 + c (u - 1/2), and the posterior itself, by quadrature
for k in levels:
    for c in -1.5, 0.0, 1.0:
        q = 1 + c * (nodes - 0.5)
        value = (q * (np.log(in_cells[k]) - np.log(q))) @ node_weights - log(n)
        divergence = (q * np.log(q / posterior[k])) @ node_weights
        assert np.isclose(value, np.log(P[k]) - divergence) and value <= log(P[k]) + 1e-12
    q = posterior[k]
    assert np.isclose((q * (np.log(in_cells[k]) - np.log(q))) @ node_weights - log(n), log(P[k]))

# %% [markdown]
# Which density on the cell can be sampled, evaluated and trained? A flow's:
# [minglow/dequantization/dequantizers.py](../minglow/dequantization/dequantizers.py), `VariationalDequantizer`, sends normal noise through couplings
# that see the image, then through a sigmoid into $(0, 1)$. For a test, let the model $p$ be fixed and known: images of
# $2 \times 2$ pixels, each logistic as above. Only $q$ learns, by the gradient of (13.11).

# %%
shift_scale = minglow.ActNorm(1)
shift_scale.params["shift"][...], shift_scale.params["log_scale"][...] = -middle, -log(scale)
known = minglow.Flow(minglow.Chain(shift_scale, minglow.Flatten((2, 2, 1))), minglow.StandardLogistic((4,)))
tiny = rng.choice(n, (2000, 2, 2, 1), p=P / P.sum())     # images that the model itself draws

learned = VariationalDequantizer((2, 2, 1), n, hidden=32, rng=0)
optimizer = Adam(learned.flat)
for step in range(600):
    batch = tiny[rng.integers(len(tiny), size=128)]
    x, log_q, cache = learned.dequantize(batch, rng)
    learned.flat.grad[...] = 0
    dx = known.nll_backward(x).dx                         # of the loss mean(log q - log p)
    learned.backward(dx, np.full_like(log_q, 1 / len(batch)), cache)
    optimizer.step(0.01 * min(1, 2 * (1 - step / 600)))

# %%
x, _, _ = learned.dequantize(np.repeat(tiny, 8, axis=0), rng)
repeated = np.repeat(tiny, 8, axis=0)
u = (x + 0.5) * n - repeated
figure, axes = plt.subplots(1, 4, figsize=(9, 2.5), sharey=True)
for axis, k in zip(axes, (1, 2, 3, 4)):
    axis.hist(u[repeated == k], bins=20, range=(0, 1), density=True, alpha=0.5, label="learned noise")
    axis.plot(nodes, posterior[k], color=plots.COLORS[1], label="posterior $p(u | k)$")
    axis.axhline(1, color="0.4", linestyle=":", label="uniform")
    axis.set(xlabel="u", title=f"k = {k}")
axes[0].set_ylabel("density")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3);

# %% [markdown]
# *What to see:* the noise has moved to where the model is dense. In the cells below the logistic's middle it crowds
# against the upper end, in those above against the lower one, and in the cell that holds the middle ($k = 3$) it
# leans a little to the left. Nobody told it the formula of the vermilion curves.

# %% [markdown]
# ## More draws
#
# A second way to a tighter bound costs no training. Draw $N$ noises $u_1 \dots u_N$ from $q$ for the same image and take
# the mean *inside* the logarithm (Burda et al. 2016, theorem 1; `log_bound(..., samples=N)`):
#
# $$
# \mathcal L_N = \mathbb E\Big[\log \frac1N \sum_{i=1}^{N} \frac{p(x_i)}{q(u_i \mid k)}\Big] - D \log n .
# \tag{13.12}
# $$
#
# More draws never loosen it, and no number of them makes it more than the truth:
#
# $$
# \mathcal L_1 \le \mathcal L_2 \le \dots \le \log P(k) .
# \tag{13.13}
# $$
#
# $\mathcal L_1$ is (13.11). For $N \to \infty$ the mean becomes the integral (13.3).

# %%
# checks (13.12) and (13.13): N = 1, 2, 3 by one-, two- and threefold quadrature, uniform noise; then the library's draws
exact = np.empty((3, n))
for k, p_u in enumerate(in_cells):
    sums = p_u, p_u[:, None] + p_u, p_u[:, None, None] + p_u[:, None] + p_u
    for N, total in enumerate(sums, start=1):
        mean = np.log(total / N)
        for _ in range(N):
            mean = mean @ node_weights
        exact[N - 1, k] = mean - log(n)
assert (np.diff(np.vstack([exact, np.log(P)]), axis=0) > -1e-12).all()

many = np.repeat(np.full((1, 2, 2, 1), 1), 4000, axis=0) # an image whose four pixels are 1
draws = log_bound(known, many, UniformDequantizer(n), rng) - 4 * log(n)
assert abs(draws.mean() - 4 * exact[0, 1]) < 5 * draws.std() / sqrt(len(draws))
draw, again = np.random.default_rng(1), np.random.default_rng(1)     # the same draws, written out
ratios = [np.exp(known.log_prob(minglow.dequantize(many, n, draw)).astype(float)) for _ in range(3)]
assert np.allclose(log_bound(known, many, UniformDequantizer(n), again, 3), np.log(np.mean(ratios, axis=0)), atol=1e-4)

# %%
truth = -np.log2(P)[tiny].mean()
counts, rows = [1, 2, 4, 8, 16, 32], {}
for name, dequantizer in ("uniform noise", UniformDequantizer(n)), ("learned noise", learned):
    rows[name] = [minglow.bits_per_dim(float(log_bound(known, tiny, dequantizer, 1, N).mean()), 4, n) for N in counts]
flow = minglow.load("models/digits.npz")
of_digits = [minglow.bits_per_dim(float(log_bound(flow, images.held_out[:100], UniformDequantizer(17), 0, N).mean()), 64, 17)
             for N in counts[:5]]
assert rows["uniform noise"][0] > rows["learned noise"][0] > truth - 0.01

figure, axes = plt.subplots(1, 2, figsize=(8.5, 3))
for name, row in rows.items():
    axes[0].semilogx(counts, row, "o-", base=2, label=name)
axes[0].axhline(truth, color="0.3", linestyle=":", label="exact")
axes[1].semilogx(counts[:5], of_digits, "o-", base=2, label="uniform noise")
axes[0].set(ylabel="bits per dimension", title="2 × 2 pixels, known P")
axes[1].set(ylabel="bits per dimension", title="the digits model, 100 held-out images")
for axis in axes:
    axis.set_xlabel("draws N for each image")
    axis.legend()

# %% [markdown]
# *What to see:* on the left both bounds come down to the exact value and stay above it; learned noise starts where uniform
# noise arrives after some ten draws. On the right the same model looks better with every doubling, though no
# parameter has changed: $N$ belongs to the number that one reports. How far it has still to go is not known
# there.

# %% [markdown]
# **Exercise 13.5: bits from many draws** (2 points). Write `bits_by_draws(log_p, log_q, D, levels)`: the bits per dimension
# of each of $B$ images, $(B,)$, by $N$ draws for each, (13.12) and (13.6). `log_p` and `log_q` are $(B, N)$, the $\log p(x_i)$ and
# $\log q(u_i \mid k)$. A flow on images has $\log p$ of some thousand nats, positive or negative, whose exponentials no float
# holds: remember `log_mean_exp` of exercise 0.3.

# %% solution="bits-by-draws"
def bits_by_draws(log_p, log_q, D, levels):
    """Bits per dimension of each image, (B,), by the mean over its N draws; log_p, log_q: (B, N), in nats."""
    ### BEGIN SOLUTION
    ratios = log_p - log_q
    largest = ratios.max(axis=1, keepdims=True)
    bound = largest[:, 0] + np.log(np.exp(ratios - largest).mean(axis=1)) - D * log(levels)
    return -bound / (D * log(2))
    ### END SOLUTION


# %% test="bits-by-draws" points=2
generator = np.random.default_rng(0)
test_p, test_q = generator.standard_normal((2, 5, 7))
expected = log2(32) - np.log2(np.exp(test_p - test_q).mean(axis=1)) / 12
for offset in 0, -5000, 5000:
    with np.errstate(all="ignore"):
        found = bits_by_draws(test_p + offset, test_q, 12, 32)
    assert np.shape(found) == (5,), f"expected one number for each of 5 images, got {np.shape(found)}"
    assert np.allclose(found, expected - offset / (12 * log(2))), f"wrong where log p is near {offset}"
found = bits_by_draws(test_p[:, :1], 0 * test_q[:, :1], 64, 17)
assert np.allclose(found, minglow.bits_per_dim(test_p[:, 0], 64, 17)), "with one uniform draw it is (13.6)"
draw, again = np.random.default_rng(3), np.random.default_rng(3)         # the library, on the same draws
log_p = np.stack([known.log_prob(minglow.dequantize(tiny[:9], n, draw)) for _ in range(4)], axis=1).astype(float)
from_library = log_bound(known, tiny[:9], UniformDequantizer(n), again, samples=4)
assert np.allclose(bits_by_draws(log_p, np.zeros((9, 4)), 4, n), minglow.bits_per_dim(from_library, 4, n), atol=1e-4)

# %% [markdown]
# ## To take away
#
# - A density fitted to integers can be raised without limit; noise that fills the cells turns it into a lower bound of a
#   log-probability, by Jensen's inequality.
# - The gap is the divergence from the noise to the model's posterior in the cell: learned noise and more draws
#   shrink it, uniform ≥ learned ≥ exact in bits.
# - bits/dim $= -\log p / (D \log 2) + \log_2 n$. Test yours on uniform noise: 9.385860 under the identity, never below
#   $\log_2 n$ after training.
# - A number below the entropy, or below 0, is a bug in the noise, the constant or the sign.
#
# **The end of the course.** You have met every layer of Glow, its inverse, its log-determinant and its backward
# pass, and the ways to test, debug and train them. Where to go from here: write a layer of your own and hold it
# against [docs/contract.md](../docs/contract.md), with `minglow check`; read
# [minglow/training/loop.py](../minglow/training/loop.py) from top to bottom; repeat an experiment of
# [docs/experiments.md](../docs/experiments.md), and then ask one of your own.
