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
# # 4. Actnorm
#
# **You will be able to** say why a flow cannot use a batch's statistics, and show it in a Jacobian;
# derive actnorm's log-determinant $h\,w \sum_c \log s_c$ and its gradients; write its data-dependent
# start; say what goes wrong if that start happens twice.
#
# **You need** notebooks 1 (change of variables) and 3 (couplings), mean and standard deviation, the chain
# rule. About 50 minutes with the exercises; it runs in seconds.

# %%
import copy

import matplotlib.pyplot as plt
import numpy as np

import minglow
from minglow import plots
from minglow.arrays.shapes import pixels, rows
from minglow.data import digits
from minglow.nets import Conv, ReLU, Sequence, TransposedConv
from minglow.testing import check_layer, numerical_jacobian, taylor_slope
from minglow.training import Adam

plots.style()
rng = np.random.default_rng(0)
images = digits()                                    # 8 x 8 pixels, 17 gray levels
held_out = minglow.dequantize(images.held_out, images.bins, rng=1)

# %% [markdown]
# ## What batch normalization does
#
# Deep networks train well if the numbers inside keep a mean near 0 and a standard deviation near 1. **Batch
# normalization** enforces it. Take a batch of $B$ images of $h \times w$ pixels with $C$ channels. One
# channel then holds $N = B\,h\,w$ numbers, $x_1 \dots x_N$. Batch norm computes their mean $m$ and
# standard deviation $s$, and returns
#
# $$
# y_n = \frac{x_n - m}{s}, \qquad
# m = \frac{1}{N} \sum_{n=1}^N x_n, \qquad
# s^2 = \frac{1}{N} \sum_{n=1}^N (x_n - m)^2 .
# \tag{4.1}
# $$


# %%
# checks (4.1): against the sums, written out
def batch_norm(x):
    """(B, h, w, C) or (B, C): every channel of the batch gets mean 0 and standard deviation 1."""
    m, s = rows(x).mean(axis=0), rows(x).std(axis=0)  # rows(x): (N, C), the channels of every pixel
    return (x - m) / s


x = 3 + 2 * rng.standard_normal((5, 2, 3, 4))         # B, h, w, C = 5, 2, 3, 4
y = batch_norm(x)
numbers = [float(x[b, i, j, 1]) for b in range(5) for i in range(2) for j in range(3)]
m = sum(numbers) / 30
s = (sum((number - m) ** 2 for number in numbers) / 30) ** 0.5
assert np.allclose(y[..., 1], (x[..., 1] - m) / s)
print("means", rows(y).mean(axis=0).round(12), " standard deviations", rows(y).std(axis=0).round(12))

# %% [markdown]
# RealNVP has such layers (Dinh et al. 2017, section 3.7). Glow does without (Kingma & Dhariwal 2018, section
# 3.1), for a reason that any network could have, and we add one that only a flow has.
#
# ## Reason one: noise
#
# Which other images are in the batch is chance, so $m$ and $s$ are noise for the image at hand. For
# independent numbers of standard deviation $\sigma$, the variances of a mean's terms add up:
#
# $$
# \operatorname{Var}(m) = \frac{\sigma^2}{N} .
# \tag{4.2}
# $$
#
# The standard deviation is noisy, too. For normal numbers $\operatorname{Var}(s^2) \approx 2\sigma^4/N$
# when $N$ is large, and because $\mathrm{d}\log s = \mathrm{d}s^2 / (2 s^2)$,
#
# $$
# \operatorname{Var}(\log s) \approx \frac{1}{2N} .
# \tag{4.3}
# $$

# %%
# checks (4.2) and (4.3): many batches of independent normal numbers
for N in 50, 200, 800:
    batches = 3 + 2 * rng.standard_normal((10_000, N))
    variance_m, variance_log_s = batches.mean(axis=1).var(), np.log(batches.std(axis=1)).var()
    print(f"N = {N:3}:  Var(m) {variance_m:.5f}, formula {4 / N:.5f};"
          f"  Var(log s) {variance_log_s:.6f}, formula {1 / (2 * N):.6f}")
    assert np.isclose(variance_m, 4 / N, rtol=0.06)
    assert np.isclose(variance_log_s, 1 / (2 * N), rtol=0.06)

# %% [markdown]
# $\log s$ matters to a flow: a division by $s$ puts $-\log s$ into the log-determinant, once for each of the
# $h\,w$ pixels of each channel. Measure its noise for digits: draw many batches of $B$ digits and look at how
# much $h\,w \sum_c \log s_c$ differs between them.

# %%
squeezed = minglow.Squeeze().forward(minglow.dequantize(images.train, images.bins, rng=2))[0]
batch_sizes = [1, 2, 4, 8, 16, 32, 64, 128]
mean_noise, log_det_noise = [], []
for size in batch_sizes:
    drawn = [rows(squeezed[rng.choice(1500, size, replace=False)]) for _ in range(200)]
    mean_noise.append(np.std([batch.mean(axis=0) for batch in drawn], axis=0).mean())
    log_det_noise.append(np.std([16 * np.log(batch.std(axis=0)).sum() for batch in drawn]))

sigma = rows(squeezed).std(axis=0).mean()
figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.1))
axes[0].loglog(batch_sizes, mean_noise, "o-", label="digits, measured")
axes[0].loglog(batch_sizes, sigma / np.sqrt(16 * np.array(batch_sizes)), ":", color="0.5",
               label="(4.2), were pixels independent")
axes[0].set(xlabel="images in the batch, B", ylabel="standard deviation of m", title="noise of the batch's mean")
axes[1].loglog(batch_sizes, log_det_noise, "o-", color=plots.COLORS[1], label="digits, measured")
axes[1].loglog(batch_sizes, 16 * 2 / np.sqrt(2 * 16 * np.array(batch_sizes)), ":", color="0.5",
               label="(4.3), 4 independent channels")
axes[1].set(xlabel="images in the batch, B", ylabel="nats", title="noise of one layer's log-determinant")
for axis in axes:
    axis.set_xticks(batch_sizes, batch_sizes)
    axis.minorticks_off()
    axis.legend()

# %% [markdown]
# *What to see:* both fall like $1/\sqrt{B}$. They lie below the dotted lines, because the pixels of one
# image are not independent: every digit has some ink in the middle and none at the sides, so 16 pixels of
# one digit are a more even sample than 16 pixels picked at random. Yet at $B = 1$ one layer's noise is still
# several nats, and a flow has dozens of such layers. Glow trained on images so large that memory had room
# for one on each processor: $B = 1$.

# %% [markdown]
# ## Reason two: it is no map of one sample
#
# The change of variables needs a map $x \mapsto y$ of *one* sample, with a Jacobian of its own. Under (4.1)
# the output of one sample depends on all the others. How much? Differentiate. $\partial m / \partial x_n =
# 1/N$, and $\partial s / \partial x_n = (x_n - m) / (N s) = y_n / N$, so with $\delta_{kn} = 1$ for $k = n$
# and 0 otherwise,
#
# $$
# \frac{\partial y_k}{\partial x_n} = \frac{1}{s} \Big( \delta_{kn} - \frac{1}{N} - \frac{y_k\, y_n}{N} \Big) .
# \tag{4.4}
# $$
#
# For $k \neq n$ that is not zero. And there are two directions in which the *whole batch* can move without
# moving $y$ at all: add the same number to all $x_n$, or stretch all $x_n - m$. With $\mathbf 1$ for the
# vector of ones,
#
# $$
# J\,\mathbf 1 = 0, \qquad J\,y = 0 .
# \tag{4.5}
# $$
#
# A matrix that sends a vector other than 0 to 0 has determinant 0: its logarithm is $-\infty$. Two batches, one
# brighter, one darker, may have one and the same output. Nothing inverts that.

# %%
# checks (4.4) and (4.5): brute force, with the whole batch taken as one point
batch = rng.standard_normal(12)                       # 3 images of 2 x 2 pixels with 1 channel, in a row


def normalized(batches):
    """Batch norm of each of many batches, (M, N)."""
    return (batches - batches.mean(axis=1, keepdims=True)) / batches.std(axis=1, keepdims=True)


J = numerical_jacobian(normalized, batch)
y = normalized(batch[None])[0]
assert np.allclose(J, (np.eye(12) - 1 / 12 - np.outer(y, y) / 12) / batch.std(), atol=1e-7)
assert np.allclose(J @ np.ones(12), 0, atol=1e-7) and np.allclose(J @ y, 0, atol=1e-7)
print("singular values of J:", np.linalg.svd(J, compute_uv=False).round(6))
print("derivative of the first number of image 1 by the first of image 2:", J[0, 4].round(4))
assert abs(J[0, 4]) > 0.01

# %%
fixed = minglow.ActNorm(1, dtype=np.float64)          # what this notebook is about: scales that stay
fixed.params["log_scale"][...] = -np.log(batch.std())
J_fixed = numerical_jacobian(lambda points: fixed.forward(points.reshape(-1, 12, 1))[0], batch)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.5))
plots.draw_matrix(axes[0], J, "batch norm", np.abs(J_fixed).max())
plots.draw_matrix(axes[1], J_fixed, "actnorm")
for axis in axes:
    axis.set(xlabel="number in x: three images of four pixels", ylabel="number in y")
    for edge in 3.5, 7.5:
        axis.axhline(edge, color="0.3", linewidth=0.8)
        axis.axvline(edge, color="0.3", linewidth=0.8)

# %% [markdown]
# *What to see:* the lines part the three images. On the left all blocks are filled: every image's output
# depends on every other image. Only the blocks on the diagonal would belong to a single image's Jacobian. On
# the right the rest is empty, and each image has a Jacobian of its own.
#
# RealNVP's way out is to treat $m$ and $s$ as constants, and to use running averages. Then training and
# evaluation are two different maps, and the noise stays. Glow's way is shorter: let the scales *be*
# constants.

# %% [markdown]
# ## Actnorm
#
# **Actnorm** (activation normalization) gives each channel $c$ two parameters, a shift and the logarithm of a
# scale, which belong to the layer and are learned like any other:
#
# $$
# y_{bij,c} = (x_{bij,c} + \texttt{shift}_c)\; e^{\texttt{log\_scale}_c} .
# \tag{4.6}
# $$
#
# The exponential keeps the scale positive, so the map can always be inverted. Every number goes its own
# way: the Jacobian of one image is diagonal, and $e^{\texttt{log\_scale}_c}$ stands there once for each of
# the $h\,w$ pixels. The logarithm of that product is
#
# $$
# \log|\det J| = h\,w \sum_{c=1}^{C} \texttt{log\_scale}_c .
# \tag{4.7}
# $$

# %%
# checks (4.6) and (4.7): number by number, and against the Jacobian by differences
layer = minglow.ActNorm(4, dtype=np.float64)
layer.params["shift"][...] = rng.standard_normal(4)
layer.params["log_scale"][...] = 0.5 * rng.standard_normal(4)
shift, log_scale = layer.params["shift"], layer.params["log_scale"]
y, log_det, cache = layer.forward(x)
for index in np.ndindex(x.shape):
    c = index[-1]
    assert np.isclose(y[index], (x[index] + shift[c]) * np.exp(log_scale[c]))
for b in range(5):
    J = numerical_jacobian(layer.forward, x[b])       # of one image: 24 x 24
    assert np.allclose(J, np.diag(np.tile(np.exp(log_scale), 6)), atol=1e-7)
    assert np.isclose(log_det[b], np.linalg.slogdet(J)[1], atol=1e-7)
assert np.allclose(log_det, 2 * 3 * log_scale.sum())
assert np.allclose(layer.inverse(y)[0], x)
print("log_det", log_det.round(6), ": the same for all images, whatever they show")

# %% [markdown]
# Read it in [minglow/layers/actnorm.py](../minglow/layers/actnorm.py), class `ActNorm`: `forward` is these
# two formulas.

# %% [markdown]
# ## The data-dependent start
#
# What does a layer that never looks at a batch normalize? Nothing, by itself. So Glow looks once: the method
# `initialize` takes one batch, *before* training, and sets the parameters so that the outputs of that
# batch have mean 0 and standard deviation 1 in each channel. With (4.1)'s $m_c$ and $s_c$ of channel $c$,
#
# $$
# \texttt{shift}_c = -m_c, \qquad \texttt{log\_scale}_c = -\log s_c .
# \tag{4.8}
# $$
#
# From then on they are parameters like others: gradients move them, batches do not.

# %%
# checks (4.8): outputs as batch norm's for this batch, but not for another
started = minglow.ActNorm(4, dtype=np.float64)
first = started.initialize(x)                         # sets the parameters, and returns y
assert np.allclose(first, batch_norm(x)) and np.allclose(first, started.forward(x)[0])
assert np.allclose(started.params["shift"], [-sum(channel) / 30 for channel in rows(x).T])
assert np.allclose(np.exp(-2 * started.params["log_scale"]), rows(x).var(axis=0))
other = started.forward(x[:2] + 1)[0]
print("this batch:    means", rows(first).mean(axis=0).round(2), " deviations", rows(first).std(axis=0).round(2))
print("another batch: means", rows(other).mean(axis=0).round(2), " deviations", rows(other).std(axis=0).round(2))

# %% [markdown]
# **Exercise 4.1: predict, then run** (1 point). Images have $4 \times 4$ pixels and 4 channels. In the first
# batch all channels have the standard deviation $1/4$ (and any means). What is the layer's log-determinant
# after `initialize`, in nats? Put it into `predicted_log_det`.

# %% solution="start-log-det"
### BEGIN SOLUTION
predicted_log_det = 16 * 4 * np.log(4)
### END SOLUTION

# %% test="start-log-det" points=1
quarter = 7 + batch_norm(np.random.default_rng(1).standard_normal((10, 4, 4, 4))) / 4
exercise_layer = minglow.ActNorm(4, dtype=np.float64)
exercise_layer.initialize(quarter)
measured = exercise_layer.forward(quarter)[1][0]
assert np.isclose(predicted_log_det, measured, rtol=1e-3), (
    "to get from 1/4 to 1, by what is each of the 64 numbers multiplied?")

# %% [markdown]
# ### What it does in a deep flow
#
# Without a start, actnorm is the identity, and depth is left to itself. Take 32 flow steps (actnorm, 1×1
# convolution, affine coupling), fresh from the random generator. Glow's couplings start with a net of
# zeros, which multiplies one half of the channels by 0.88 in every step. Beside it a flow whose additive
# couplings start with random nets, which add to the variance in every step.


# %%
def random_net(channels_in, hidden, channels_out, rng, dtype):
    """A conditioner that does not start at zero."""
    return Sequence(
        Conv(channels_in, hidden, std=(2 / (9 * channels_in)) ** 0.5, rng=rng, dtype=dtype), ReLU(),
        TransposedConv(hidden, channels_out, std=(2 / (9 * hidden)) ** 0.5, rng=rng, dtype=dtype))


def through(flow, x, start):
    """What actnorms put out on the way through a flow, a list of (B, h, w, C)."""
    found = []
    for layer in flow.bijection.layers:
        x = layer.initialize(x) if start else layer.forward(x)[0]
        if isinstance(layer, minglow.ActNorm):
            found.append(x)
    return found


digits_batch = minglow.dequantize(images.train[:256], images.bins, rng=0)
glow_like = {"shape": (8, 8, 1), "levels": 1, "flow_steps": 32, "hidden": 32, "rng": 0}
zero_nets = minglow.glow(**glow_like)
random_nets = minglow.glow(**glow_like, coupling=minglow.AdditiveCoupling, net=random_net)
runs = {"couplings at zero": through(zero_nets, digits_batch, False),
        "random couplings": through(random_nets, digits_batch, False),
        "random couplings, with the start": through(random_nets, digits_batch, True)}

# %%
figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.2))
for marker, (name, outputs) in zip("osx", runs.items()):
    steps = np.repeat(np.arange(1, 33), 4)            # four channels in each step
    axes[0].plot(steps, np.ravel([rows(y).std(axis=0) for y in outputs]), marker, markersize=3, label=name)
    axes[1].plot(steps, np.ravel([rows(y).mean(axis=0) for y in outputs]), marker, markersize=3)
axes[0].set(yscale="log", xlabel="flow step", ylabel="standard deviation of each channel",
            title="behind the actnorm of each step")
axes[1].set(xlabel="flow step", ylabel="mean of each channel", title="the same, means")
axes[1].set_yscale("symlog", linthresh=1)
axes[0].legend(fontsize=8);

# %%
figure, axes = plt.subplots(3, 4, figsize=(8.5, 4.6))
for row, color, (name, outputs) in zip(axes, plots.COLORS, runs.items()):
    for axis, step in zip(row, (1, 8, 16, 32)):
        limit = 700 if name == "random couplings" else 4
        axis.hist(outputs[step - 1].ravel(), bins=np.linspace(-limit, limit, 60), color=color)
        axis.set(yticks=[], title=f"step {step}")
    row[0].set_ylabel(name.replace(", ", ",\n"), fontsize=8)
for axis in axes[2]:
    axis.set_xlabel("activation")

# %% [markdown]
# *What to see:* with couplings at zero the activations shrink towards a spike; with random couplings they
# grow to hundreds (the middle row's axis is 175 times as wide). With the start every channel of every step
# has mean 0 and standard deviation 1: all green crosses of a step lie upon each other.
#
# For that, `initialize` has to go through the flow in order: each layer sees what the layers before it,
# already initialized, make of the batch (`Chain.initialize` in [minglow/chain.py](../minglow/chain.py)).

# %%
for y in runs["random couplings, with the start"]:
    assert np.allclose(rows(y).mean(axis=0), 0, atol=1e-4) and np.allclose(rows(y).std(axis=0), 1, atol=1e-4)
assert rows(runs["random couplings"][31]).std(axis=0).min() > 20
assert rows(runs["couplings at zero"][31]).std(axis=0).max() < 0.2

# %% [markdown]
# ### A channel that is constant
#
# If a channel has one value all over the batch (a border that is always white), its deviation is 0, and
# (4.8) says `log_scale` = $+\infty$. Rounding may make it $10^{-8}$ instead, which is no better. Glow's
# official code divides by $s + 10^{-6}$: a scale of a million, through which the first value in that channel that is
# off by 0.5 comes out as half a million. minglow asks whether the deviation is rounding alone, and if so leaves the
# scale at 1.

# %%
constant = np.full((30, 2, 2, 1), 0.1, np.float32)    # has no deviation but for rounding
border = minglow.ActNorm(1)
border.initialize(constant)
print("deviation found:", rows(constant).std(), " scale kept:", np.exp(border.params["log_scale"]))
print("a value of 0.6 later:   here", border.forward(constant + np.float32(0.5))[0].max(),
      "  with a scale of a million", 0.5 * 1e6)
assert border.params["log_scale"][0] == 0

# %% [markdown]
# **Exercise 4.2: write the start** (2 points). Write `start(x)`, which returns `shift` and `log_scale`, each
# $(C,)$, for a batch $(B, h, w, C)$ or $(B, C)$. Where a channel's deviation is at most $10^{-12}$, its
# `log_scale` is 0; its shift is still $-m_c$.

# %% solution="start"
def start(x):
    """shift and log_scale, (C,) each, after which each channel of x has mean 0 and deviation 1."""
    ### BEGIN SOLUTION
    m, s = rows(x).mean(axis=0), rows(x).std(axis=0)
    return -m, -np.log(np.where(s <= 1e-12, 1, s))
    ### END SOLUTION


# %% test="start" points=2
for shape in (20, 2, 3, 4), (50, 6), (2, 1, 1, 2):
    data = np.random.default_rng(3).standard_normal(shape) * np.arange(1, shape[-1] + 1) + 5
    data[..., 0] = 0.5                                # a constant channel
    by_library = minglow.ActNorm(shape[-1], dtype=np.float64)
    by_library.initialize(data)
    your_shift, your_log_scale = start(data)
    assert np.shape(your_shift) == np.shape(your_log_scale) == (shape[-1],), "one number for each channel"
    assert np.all(np.isfinite(your_log_scale)), "a constant channel has no scale to correct"
    assert np.allclose(your_shift, by_library.params["shift"]), "the shift is minus the mean"
    assert np.allclose(your_log_scale, by_library.params["log_scale"]), (
        "log_scale is minus the log of the deviation (of N numbers, not N - 1): mind the sign")

# %% [markdown]
# ## Once, and on purpose
#
# Many implementations hide the start inside `forward`: a flag says whether it has happened, and the first
# call does it. If the flag is a plain attribute, it is *not saved with the parameters*. Load a trained
# model, call it once, and the first batch overwrites what training has learned. This was reported, and
# mended, in one library after another: rosinality/glow-pytorch (issue 6), nflows (issue 4),
# normalizing-flows (pull request 2), FrEIA (pull request 33). Here it is:


# %%
class LazyActNorm(minglow.ActNorm):
    """Looks convenient: the first forward initializes. Do not do this."""

    started = False

    def forward(self, x):
        if not self.started:
            self.started = True
            self.initialize(x)                        # which calls forward, now started
        return super().forward(x)


trained = LazyActNorm(2, dtype=np.float64)
trained.forward(5 + 3 * rng.standard_normal((1000, 2)))  # training, in short
saved = {name: value.copy() for name, value in trained.params.items()}

loaded = LazyActNorm(2, dtype=np.float64)             # another day, another process
for name, value in saved.items():
    loaded.params[name][...] = value
point = np.array([[20.0, 0.0], [22.0, 1.0]])          # two samples to be judged
print("before saving:\n", trained.forward(point)[0].round(2))
print("after loading:\n", loaded.forward(point)[0].round(2))
assert not np.allclose(trained.forward(point)[0], loaded.forward(point)[0])

# %% [markdown]
# *What to see:* before saving, the layer says that 20 lies five deviations from what it has learned. After
# loading it has made the two samples its new normal. No error, no warning.
#
# What does it cost a whole flow? The model in [models/](models/) was trained on the digits. Initialize a
# copy of it again, by different batches, and measure bits per dimension of the same held-out digits.

# %%
flow = minglow.load("models/digits.npz")
train_x = minglow.dequantize(images.train, images.bins, rng=3)
ones = train_x[images.train_labels == 1]
again = {"as trained": None, "1,500 training digits": train_x, "64 training digits": train_x[:64],
         "64 ones": ones[:64], "a single digit": train_x[:1]}
bits = {}
for name, data in again.items():
    candidate = copy.deepcopy(flow)
    if data is not None:
        candidate.initialize(data)                    # never do this to a trained flow
    bits[name] = minglow.bits_per_dim(candidate.log_prob(held_out).mean(), 64, images.bins)

figure, axis = plt.subplots(figsize=(7, 2.6))
bars = axis.barh(list(bits), list(bits.values()), color=[plots.COLORS[2]] + 4 * [plots.COLORS[1]])
axis.bar_label(bars, fmt="%.2f", padding=5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
axis.axvline(np.log2(17), color="0.5", linestyle=":", zorder=0)
axis.set(xscale="log", xlim=(1, 10 * max(bits.values())),
         xlabel="bits per dimension of held-out digits (log scale; dotted: a uniform model)",
         title="one trained flow, initialized again by ...")
axis.invert_yaxis()
assert bits["as trained"] < min(value for name, value in bits.items() if name != "as trained")

# %% [markdown]
# *What to see:* even the data that it was trained on spoil it, because training had moved shifts and
# scales on purpose. A batch of ones makes it worse than a uniform model, and the batch of 1 is
# beyond use. So minglow's `forward` is pure: it never writes a parameter. `initialize` is a method of its
# own, which `train` calls once, and a flow that was loaded is never initialized unless you say so.

# %% [markdown]
# ## The gradients
#
# Let $L$ be a loss, and $\bar a = \partial L / \partial a$. `backward` is handed $\bar y$ (`dy`) and, for
# each image $b$, $\bar\ell_b = \partial L / \partial \texttt{log\_det}_b$ (`dlog_det`). In (4.6)
# $x_{bij,c}$ reaches the loss through $y_{bij,c}$ alone, with slope $e^{\texttt{log\_scale}_c}$:
#
# $$
# \bar x_{bij,c} = \bar y_{bij,c}\; e^{\texttt{log\_scale}_c} .
# \tag{4.9}
# $$
#
# The shift is added to every number of its channel, with the same slope as $x$:
#
# $$
# \overline{\texttt{shift}}_c = \sum_{b,i,j} \bar x_{bij,c} .
# \tag{4.10}
# $$
#
# The log-scale acts in two ways. Through $y$: the derivative of an exponential is itself, so $\partial y /
# \partial\,\texttt{log\_scale} = (x + \texttt{shift})\, e^{\texttt{log\_scale}} = y$. Through the
# log-determinant (4.7): slope $h\,w$ for each image. Both add up:
#
# $$
# \overline{\texttt{log\_scale}}_c = \sum_{b,i,j} \bar y_{bij,c}\; y_{bij,c} \;+\; h\,w \sum_b \bar\ell_b .
# \tag{4.11}
# $$
#
# That is why minglow shifts first and scales then: all three need $y$ and the parameters, never $x$.
# The cache of this layer is its output, which the next layer holds anyhow, and which `inverse` holds,
# too. Notebook 9 builds on that: memory that does not grow with depth.

# %%
# checks (4.9), (4.10) and (4.11): the formulas, the library, and Taylor's remainder
dy, dlog_det = rng.standard_normal(x.shape), rng.standard_normal(5)
y, _, cache = layer.forward(x)
assert cache is y and layer.inverse(y)[1] is y        # the cache, from either direction
for grad in layer.grads.values():
    grad[...] = 0
formulas = {"x": dy * np.exp(log_scale)}
formulas["shift"] = formulas["x"].sum(axis=(0, 1, 2))
formulas["log_scale"] = (dy * y).sum(axis=(0, 1, 2)) + 6 * dlog_det.sum()
assert np.allclose(layer.backward(dy, dlog_det, cache), formulas["x"])
for name in "shift", "log_scale":
    assert np.allclose(layer.grads[name], formulas[name])


def loss(x, shift, log_scale):
    """<dy, y> + <dlog_det, log_det>, whose derivatives by y and log_det are dy and dlog_det."""
    return (dy * (x + shift) * np.exp(log_scale)).sum() + dlog_det.sum() * 6 * log_scale.sum()


def along(t):
    """The loss after a step of length t along a random direction of all three."""
    return loss(x + t * moved["x"], shift + t * moved["shift"], log_scale + t * moved["log_scale"])


moved = {name: rng.standard_normal(np.shape(value)) for name, value in formulas.items()}
derivative = sum((formulas[name] * moved[name]).sum() for name in moved)
forgetful = derivative - 5 * dlog_det.sum() * moved["log_scale"].sum()  # the pixels counted once, not h w times
for name, slope in ("the formulas", derivative), ("without h w", forgetful):
    order = taylor_slope(along, np.array(0.0), np.array(1.0), slope)
    print(f"{name:13} Taylor's remainder has order {order:.2f}")
    assert (abs(order - 2) < 0.1) == (name == "the formulas")
check_layer(layer)                                    # the library's own checks: silent when all hold

# %% [markdown]
# *What to see:* a right derivative leaves a remainder of order 2, a wrong one of order 1. Forgetting the
# $h\,w$ is an easy mistake to make, and this test finds it.

# %% [markdown]
# **Exercise 4.3: the paper's form** (3 points). Glow's Table 1 writes actnorm as $y = s \odot x + b$ (here
# $t$ for $b$): scale, then shift. Write that layer, with $s$ itself as its parameter (no exponential; $s_c
# \neq 0$, but it may be negative). Think anew about what `backward` has to remember, and what the
# log-determinant's derivative by $s_c$ is. `rows(x)` is `x` as $(B\,h\,w, C)$, `pixels(x)` is $h\,w$.
# Gradients are *added* to `self.grads`.

# %% solution="scale-shift"
class ScaleShift(minglow.Bijection):
    """y = x * s + t for each channel; s, t: (C,)."""

    def __init__(self, channels, dtype=np.float64):
        super().__init__()
        self.add_param("s", np.ones(channels, dtype))
        self.add_param("t", np.zeros(channels, dtype))

    ### BEGIN SOLUTION
    def forward(self, x):
        s, t = self.params["s"], self.params["t"]
        log_det = np.full(len(x), pixels(x) * np.log(np.abs(s)).sum(), x.dtype)
        return x * s + t, log_det, x

    def inverse(self, y):
        x = (y - self.params["t"]) / self.params["s"]
        return x, x

    def backward(self, dy, dlog_det, cache):
        x, s = cache, self.params["s"]
        self.grads["t"] += rows(dy).sum(axis=0)
        self.grads["s"] += (rows(dy) * rows(x)).sum(axis=0) + dlog_det.sum() * pixels(x) / s
        return dy * s
    ### END SOLUTION


# %% test="scale-shift" points=3
check_layer(ScaleShift(4))                            # every promise of the contract; it explains what it breaks
mirrored = ScaleShift(2)
mirrored.params["s"][...] = -2.0, 0.5
mirrored.params["t"][...] = 1.0, 3.0
out, volume, _ = mirrored.forward(np.ones((3, 2, 2, 2)))
assert np.allclose(out[0, 0, 0], [-1.0, 3.5]), "y = x * s + t"
assert np.allclose(volume, 0), "|-2| * |0.5| = 1: a negative scale is no obstacle"
check_layer(mirrored, np.random.default_rng(4).standard_normal((3, 2, 2, 2)))

# %% [markdown]
# **Exercise 4.4: where the start stands** (2 points). A flow of a single actnorm has the loss $L = -\frac1B
# \sum_b [\log \mathcal N(y_b; 0, I) + \texttt{log\_det}_b]$, the mean negative log-likelihood, so $\bar y =
# y / B$ and $\bar\ell_b = -1/B$. Write `log_scale_gradient(y)`, the $(C,)$ array of (4.11) for this loss,
# from the outputs $y$, $(B, h, w, C)$, alone. Then put into `at_the_start` what each of its entries is
# right after `initialize`, for any data: a number that you can find on paper.

# %% solution="gradient-at-start"
def log_scale_gradient(y):
    """dL/dlog_scale, (C,), of the mean negative log-likelihood, from the outputs y."""
    ### BEGIN SOLUTION
    return (rows(y) ** 2).sum(axis=0) / len(y) - pixels(y)


at_the_start = 0.0                                   # the sum of y^2 / B is h w, since y has variance 1
### END SOLUTION

# %% test="gradient-at-start" points=2
single = minglow.Flow(minglow.Chain(minglow.ActNorm(4, dtype=np.float64)), minglow.StandardNormal((2, 3, 4)))
data = 2 + 3 * np.random.default_rng(5).standard_normal((7, 2, 3, 4))
for begun in False, True:
    if begun:
        single.initialize(data)
    single.flat.grad[...] = 0
    single.nll_backward(data)
    expected = single.bijection.layers[0].grads["log_scale"]
    found = log_scale_gradient(single.bijection.forward(data)[0])
    assert np.shape(found) == (4,), "one number for each channel"
    assert np.allclose(found, expected, atol=1e-9), f"expected {expected.round(3)}, got {np.round(found, 3)}"
assert np.allclose(expected, at_the_start, atol=1e-9), f"right after the start it is {expected.round(3)}"

# %% [markdown]
# ## Does the start help?
#
# Two copies of one small Glow on the digits, the same batches, the same optimizer, 128 steps. One had the
# start.


# %%
def short_training(start, steps=128):
    """Held-out bits per dimension at every 16th step."""
    flow = minglow.glow((8, 8, 1), levels=2, flow_steps=12, hidden=16, rng=0)
    if start:
        flow.initialize(digits_batch)
    optimizer, draw, curve = Adam(flow.flat), np.random.default_rng(0), []
    for step in range(steps + 1):
        if step % 16 == 0:
            curve.append(minglow.bits_per_dim(flow.log_prob(held_out).mean(), 64, images.bins))
        chosen = images.train[draw.integers(1500, size=64)]
        flow.flat.grad[...] = 0
        flow.nll_backward(minglow.dequantize(chosen, images.bins, draw))
        optimizer.step(learning_rate=0.005)
    return curve


curves = {"with the start": short_training(True), "without": short_training(False)}
figure, axis = plt.subplots(figsize=(6, 3.1))
for name, curve in curves.items():
    axis.plot(np.arange(0, 129, 16), curve, "o-", markersize=4, label=name)
axis.axhline(np.log2(17), color="0.5", linestyle=":", label="uniform model")
axis.set(xlabel="optimizer step", ylabel="bits per dimension, held out", title="2 levels of 12 steps on the digits")
axis.legend()
assert curves["with the start"][0] < curves["without"][0]

# %% [markdown]
# *What to see:* with the start the flow begins near what a uniform model costs. Without it, the first
# dozens of steps go into what one look at a batch would have told. It comes nearer, since shifts and scales are
# learned as well, but at step 128 it is about where the other flow was at step 64. What the start saves is time.

# %% [markdown]
# ## To take away
#
# - Batch statistics are noise that grows as the batch shrinks, and they tie samples together: the batch's
#   Jacobian has no determinant but 0, and no sample has one of its own.
# - Actnorm is $y = (x + \texttt{shift})\, e^{\texttt{log\_scale}}$ with a log-determinant of $h\,w
#   \sum_c \texttt{log\_scale}_c$; its gradients need its output alone.
# - It normalizes once, by one batch, in an explicit call. A single actnorm stands then where maximum likelihood would
#   have taken it.
# - A start that hides in `forward` will run again after loading, and spoil the model without a word.
#
# Next: [5. The invertible 1×1 convolution](05_invertible_1x1.ipynb).
