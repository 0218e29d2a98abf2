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
# # 8. Glow on images
#
# **You will be able to** train a Glow and watch digits appear; say what temperature trades for what; walk
# between two images, turn an attribute up and down, and redraw details alone; account for every bit of a
# model's bits per dimension, layer by layer; say when likelihood misleads.
#
# **You need** notebooks 0, 1 (change of variables) and 3 to 7 (the layers, several levels, the backward pass). About 75
# minutes with the exercises; it runs in about twenty seconds.

# %%
import zlib

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from matplotlib.animation import FuncAnimation
from matplotlib.patches import FancyBboxPatch

import minglow
from minglow import plots
from minglow.arrays.shapes import halves
from minglow.data import digits
from minglow.inference import (
    STRENGTH,
    anomaly_scores,
    apply_attribute,
    attribute_direction,
    interpolate,
    latent_views,
    resample,
)

plots.style()
rng = np.random.default_rng(0)
images = digits()                                    # 8 x 8 pixels, 17 gray levels: 1,500 and 297 held out
flow = minglow.load("models/digits.npz")

# %%
figure, axis = plt.subplots(figsize=(9, 2.6))
drawn = minglow.quantize(flow.sample(64, rng=8, temperature=0.7), 17)
plots.draw_images(axis, drawn, 17, 16, "64 digits that nobody wrote")

# %% [markdown]
# *What to see:* 3, 6, 9, 5, strokes that begin and end, here and there a hybrid that is no digit. Each of them began as 64
# independent normal numbers. This notebook is about the map between those numbers and these
# images, in both directions.

# %% [markdown]
# ## The whole model on one page
#
# The flow $f$ sends an image $x$ of $D$ numbers to $D$ latents $z = f(x)$. It runs its layers one after the
# other. After the first of two **levels**, half of the channels leave as finished latents; the other half goes on. The
# next cell walks through [minglow/layers/level.py](../minglow/layers/level.py), class `Level`, and
# [minglow/chain.py](../minglow/chain.py), class `Chain`, and hands out every layer that it meets. The rest of the notebook
# lives on this one function.


# %%
def run_layers(bijection, x, level=1):
    """Run a flow's layers one after the other: yields (level, layer, its output, its log_det (B,))."""
    splits = isinstance(bijection, minglow.layers.Level)
    for layer in (bijection.steps if splits else bijection).layers:
        x, log_det = layer.forward_only(x)
        yield level, layer, x, log_det
    if splits:
        stays, _ = halves(x)                         # the other half leaves
        yield from run_layers(bijection.inner, stays, level + 1)


def kind(layer):
    """What a layer is called here. The split prior is the coupling whose scale is an exponential."""
    if isinstance(layer, minglow.AffineCoupling):
        return "split prior" if layer.scale is minglow.exp_scale else "coupling"
    return {minglow.Squeeze: "squeeze", minglow.ActNorm: "actnorm", minglow.InvConv1x1: "1×1 convolution",
            minglow.Flatten: "flatten"}[type(layer)]


# %%
rows = {}                                            # (level, kind): [how many, output's shape, parameters]
for level, layer, y, _ in run_layers(flow.bijection, np.zeros((1, 8, 8, 1), np.float32)):
    row = rows.setdefault((level, kind(layer)), [0, y.shape[1:], 0])
    row[0] += 1
    row[2] += sum(array.size for _, module in layer.walk() for array in module.params.values())

print(f"{'level':5}  {'layer':16} {'how many':>8}  {'output':>11} {'each has':>9} {'together':>9}")
for (level, name), (count, shape, parameters) in rows.items():
    size = " × ".join(map(str, shape))
    print(f"{level:5}  {name:16} {count:8}  {size:>11} {parameters // count:9,} {parameters:9,}")
total = sum(row[2] for row in rows.values())
in_couplings = sum(row[2] for (_, name), row in rows.items() if name == "coupling")
print(f"\n{total:,} parameters, {100 * in_couplings / total:.0f}% of them in the couplings' nets")
assert total == flow.flat.value.size


# %%
def box(axis, x, y, width, text, color):
    """A rounded box with a text in it; x, y is its lower left corner."""
    axis.add_patch(FancyBboxPatch((x, y), width, 1.4, boxstyle="round,pad=0.1", facecolor=color + "30",
                                  edgecolor=color, linewidth=1.2))
    axis.text(x + width / 2, y + 0.7, text, ha="center", va="center", fontsize=8)


def arrow(axis, *corners):
    """A line through these points, with an arrow at its end."""
    axis.plot(*np.array(corners[:-1]).T, color="0.35", linewidth=1.2)
    axis.annotate("", corners[-1], corners[-2], arrowprops={"arrowstyle": "-|>", "color": "0.35"})


def picture(axis, bounds, values, text, **how):
    """A small picture at bounds (x, y, width, height), and a text below it."""
    inset = axis.inset_axes(bounds, transform=axis.transData)
    inset.imshow(values, **how)
    inset.set(xticks=[], yticks=[])
    inset.spines[:].set_visible(True)
    axis.text(bounds[0] + bounds[2] / 2, bounds[1] - 0.2, text, ha="center", va="top", fontsize=8)


# %%
ten = [int(np.flatnonzero(images.held_out_labels == digit)[1]) for digit in range(10)]   # one of each
one = images.held_out[ten[2]:ten[2] + 1]
x_one = minglow.dequantize(one, 17, rng=0)
level_1, level_2 = latent_views(flow, flow.latents(x_one)).values()   # (1, 4, 4, 2) and (1, 2, 2, 8)
blue, red, green, _, orange, sky = plots.COLORS
signed = {"cmap": plots.SIGNED, "vmin": -3, "vmax": 3}

figure, axis = plt.subplots(figsize=(9, 4.1))
axis.set(xlim=(-0.2, 20.5), ylim=(-1.1, 8), aspect="equal")
axis.axis("off")
picture(axis, (0, 4.4, 3, 3), one[0, ..., 0], "image\n8 × 8 × 1", cmap=plots.GRAYS, vmin=0, vmax=16)
box(axis, 4, 5.2, 2.2, "squeeze\n4 × 4 × 4", green)
box(axis, 7.2, 5.2, 4.8, "12 flow steps:\nactnorm, 1×1, coupling", blue)
box(axis, 13.0, 5.2, 2.2, "split\nprior", orange)
picture(axis, (17.2, 4.4, 3, 3), np.hstack([level_1[0, ..., 0], np.full((4, 1), np.nan), level_1[0, ..., 1]]),
        "32 latents of level 1\n4 × 4 × 2", **signed, aspect="auto")
box(axis, 4, 0.6, 2.2, "squeeze\n2 × 2 × 8", green)
box(axis, 7.2, 0.6, 4.8, "12 flow steps:\nactnorm, 1×1, coupling", blue)
picture(axis, (17.2, -0.2, 3, 3), level_2[0].reshape(4, 8), "32 latents of level 2\n2 × 2 × 8",
        **signed, aspect="auto")
for start, end, height in (3.0, 3.9, 5.9), (6.3, 7.1, 5.9), (12.1, 12.9, 5.9), (6.3, 7.1, 1.3), (12.1, 17.1, 1.3):
    arrow(axis, (start, height), (end, height))
arrow(axis, (15.3, 6.3), (17.1, 6.3))
arrow(axis, (15.3, 5.5), (15.8, 5.5), (15.8, 3.4), (3.4, 3.4), (3.4, 1.3), (3.9, 1.3))
axis.text(9.6, 3.55, "half of the channels goes on: 4 × 4 × 2", ha="center", fontsize=8)
axis.text(16.2, 6.45, "half leaves", ha="center", fontsize=8);

# %% [markdown]
# *What to see:* a 2 goes in at the left, and all that is known about it comes out at the right as 64 numbers. They look
# like noise, and that is the aim. Squeezing has no parameters and the split prior has few; nearly all
# of them sit in the couplings' nets.
#
# The layers' Jacobians multiply, so their log-determinants add, as in (1.9). With $\log|\det J_l|$ for that of layer $l$, and a
# base of independent standard normals $p_Z$,
#
# $$
# \log p(x) = \log p_Z(f(x)) + \sum_{l} \log|\det J_l| .
# \tag{8.1}
# $$
#
# The check does not trust any layer: it builds the same flow in float64, moves each of the 64 numbers of one image a
# little, and takes the determinant of the whole $64 \times 64$ Jacobian.

# %%
# checks (8.1): all 76 layers at once, against the determinant of a Jacobian by differences
flow64 = minglow.glow((8, 8, 1), levels=2, flow_steps=12, hidden=32, dtype=np.float64, rng=0)
flow64.flat.value[...] = flow.flat.value             # the trained parameters, more digits
point, nudges = x_one.astype(np.float64), 1e-6 * np.eye(64).reshape(64, 8, 8, 1)
J = (flow64.latents(point + nudges) - flow64.latents(point - nudges)).T / 2e-6
log_dets = [log_det[0] for *_, log_det in run_layers(flow64.bijection, point)]
brute_force = np.linalg.slogdet(J)[1]
print(f"{len(log_dets)} layers add up to {sum(log_dets):.6f} nats, the Jacobian says {brute_force:.6f}")
assert np.isclose(sum(log_dets), brute_force, atol=1e-5)
z = flow64.latents(point)[0]
log_p_z = (-0.5 * z**2 - 0.5 * np.log(2 * np.pi)).sum()
assert np.isclose(flow64.log_prob(point)[0], log_p_z + brute_force, atol=1e-5)

# %% [markdown]
# ## What a pixel costs: bits per dimension
#
# Nats per image are hard to compare, so (0.1) makes bits per dimension of them. Let $n$ be the number of gray levels (17
# here). A gray value is a cell of width $1/n$ on the line ([minglow/dequantization/bits.py](../minglow/dequantization/bits.py), `dequantize` spreads it over its
# cell; notebook 13 asks what that costs), an image a cube of volume $n^{-D}$, and its probability about $p(x)\,n^{-D}$:
#
# $$
# b(x) = -\frac{\log p(x)}{D \log 2} + \log_2 n .
# \tag{8.2}
# $$
#
# A model that knows nothing, with density 1 all over the cube, pays $\log_2 17 = 4.087$ bits for every pixel. That is
# the number to beat.

# %%
# checks (8.2): two models whose cost is known on paper
guessing = 1 / 17.0**64                              # the probability of any image, if all are equally likely
assert np.isclose(minglow.bits_per_dim(0.0, 64, 17), -np.log2(guessing) / 64)
# N(0, I) on uniform noise: log2 17 + 1/2 log2(2 pi) + E[x^2] / (2 log 2), where E[x^2] = 1/12
no_layers = minglow.Flow(minglow.Flatten((8, 8, 1)), minglow.StandardNormal((64,)))
noise = rng.integers(0, 17, (4000, 8, 8, 1)).astype(np.uint8)
measured = minglow.evaluate(no_layers, noise, 17, seed=1)    # not the seed that drew the images
by_hand = np.log2(17) + 0.5 * np.log2(2 * np.pi) + 1 / (24 * np.log(2))
print(f"guessing {np.log2(17):.3f}; N(0, I) on noise {measured:.4f}, on paper {by_hand:.4f}")
assert np.isclose(measured, by_hand, atol=1e-3)

# %% [markdown]
# **Exercise 8.1: nats to bits** (2 points). A paper reports that its flow gives MNIST's test images ($28 \times 28$ pixels, 256
# levels, spread over cells of width 1/256) 1980.5 nats on average (NICE, Dinh et al. 2015). Other papers give bits per
# dimension. Write `to_bits(nats, dims, levels)`, and below it put what NICE's number is in bits per dimension into `nice_bits`.

# %% solution="to-bits"
def to_bits(nats, dims, levels):
    """log p(x) in nats, of dims numbers, as bits per dimension of images with so many gray levels."""
    ### BEGIN SOLUTION
    return np.log2(levels) - nats / (dims * np.log(2))


nice_bits = to_bits(1980.5, 28 * 28, 256)
### END SOLUTION

# %% test="to-bits" points=2
for nats, dims, levels in (0.0, 64, 17), (84.24, 64, 17), (-500.0, 3072, 256), (10.0, 4, 2):
    expected = minglow.bits_per_dim(nats, dims, levels)
    assert np.isclose(to_bits(nats, dims, levels), expected), f"{nats} nats of {dims} numbers: {expected:.3f}"
assert np.isclose(nice_bits, 4.3556, atol=0.01), "784 numbers, 256 levels: more nats are fewer bits"

# %% [markdown]
# ## Train, and watch
#
# Training makes the training images likely. For a batch of $B$ images the loss is the mean of what they
# cost, in nats:
#
# $$
# \mathcal{L} = -\frac{1}{B} \sum_{b=1}^{B} \log p(x_b) .
# \tag{8.3}
# $$
#
# [minglow/training/loop.py](../minglow/training/loop.py) is the loop: draw a batch, spread it over its cells, `flow.nll_backward` (the backward
# pass of notebook 7), one step of Adam. It calls `on_step` after every step, and `on_evaluation` after every evaluation. The
# latter takes samples here, always from the same latents, with the *average* of the parameters over
# recent steps that evaluations use.

# %%
small = minglow.glow(shape=(8, 8, 1), levels=2, flow_steps=4, hidden=32, rng=0)
frames, progress = [(0, minglow.quantize(small.sample(24, rng=3, temperature=0.8), 17))], []


def keep_samples(state, best):
    """Called by train after every evaluation."""
    with state.averaged():
        frames.append((state.step, minglow.quantize(small.sample(24, rng=3, temperature=0.8), 17)))


minglow.train(small, images, steps=400, ema_decay=0.99, evaluate_every=40, on_step=progress.append, on_evaluation=keep_samples)
print(f"{small.flat.value.size:,} parameters, {progress[-1].held_out_loss:.2f} bits per dimension held out")

# %%
# checks (8.3): the number that training minimizes, and its derivative along a direction
x = minglow.dequantize(images.train[:64], 17, rng=0)
small64 = minglow.glow(shape=(8, 8, 1), levels=2, flow_steps=4, hidden=32, rng=0, dtype=np.float64)
small64.flat.value[...] = small.flat.value
loss = small64.nll_backward(x).nll                   # the gradient by the parameters goes to small64.flat.grad
one_by_one = [small64.log_prob(image[None])[0] for image in x]
assert np.isclose(loss, -sum(one_by_one) / 64)
start, direction = small64.flat.value.copy(), rng.standard_normal(small64.flat.value.size)
ends = []
for sign in 1, -1:
    small64.flat.value[...] = start + sign * 1e-9 * direction  # short: hardly a ReLU's kink lies within
    ends.append(-small64.log_prob(x).mean())
along, by_differences = small64.flat.grad @ direction, (ends[0] - ends[1]) / 2e-9
print(f"derivative {along:.3f}, by differences {by_differences:.3f}")
# Relative to the gradient's length: along a random direction the derivative may happen to be near 0.
assert abs(along - by_differences) < 1e-4 * np.linalg.norm(small64.flat.grad)

# %%
strip = [0, 1, 2, 3, 4, 5, 6, 8, 10]                 # of the frames, 40 steps apart
figure = plots.image_sheet(np.concatenate([frames[k][1][:16] for k in strip]), 16, 17,
                           "the same latents, as training goes on", [f"step {frames[k][0]}" for k in strip])
figure

# %%
curve = [(p.step, p.loss, p.held_out_loss) for p in progress if p.held_out_loss]
plots.training_curves(curve, "bits per dimension", np.log2(17), "uniform model")

# %% [markdown]
# *What to see:* an untrained flow gives noise. After 40 steps there is gray where digits have ink; later the
# page around it empties, and the blobs become strokes: nearly digits, after a few seconds. Held-out bits lie below the
# dotted line of guessing from the first evaluation on, and still fall at the end. (They lie above the batches' bits
# partly because the averaged parameters lag behind.)

# %%
figure, axis = plt.subplots(figsize=(4.8, 3.6), dpi=50)


def draw_frame(number):
    """One picture of the animation."""
    axis.clear()
    plots.draw_images(axis, frames[number][1][:24], 17, 6, f"step {frames[number][0]}")


animation = FuncAnimation(figure, draw_frame, frames=len(frames), interval=300)
plt.close(figure)
HTML(plots.animation_html(animation, "24 samples, redrawn as training goes on, become digits"))

# %% [markdown]
# ### A model with more patience
#
# The model in [models/](models/) has three times the depth and 2,500 steps instead of 400, about a minute. The command that made it:
#
# ```sh
# minglow train --name digits          # and then: cp runs/digits/model.npz notebooks/models/digits.npz
# ```
#
# All that follows asks this model, unless it says otherwise.

# %%
held_out_bits = minglow.evaluate(flow, images.held_out, 17)
print(f"{flow.flat.value.size:,} parameters; bits per dimension: {minglow.evaluate(flow, images.train, 17):.2f} training "
      f"images, {held_out_bits:.2f} held out; guessing costs {np.log2(17):.2f}")

# %% [markdown]
# ## Samples and their temperature
#
# To sample, draw $\varepsilon \sim \mathcal{N}(0, I)$ and go backwards. **Temperature** $T$ multiplies the noise of
# every level first (Kingma & Dhariwal 2018, section 6; notebook 6 showed what that is at a split):
#
# $$
# x = f^{-1}(T \varepsilon) .
# \tag{8.4}
# $$

# %%
# checks (8.4): flow.sample, in two lines
noise = np.random.default_rng(8).standard_normal((64, 64), dtype=np.float32)
assert np.allclose(flow.sample(64, rng=8, temperature=0.7), flow.from_latents(np.float32(0.7) * noise))

temperatures = [0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2]
sheet = [minglow.quantize(flow.sample(16, rng=3, temperature=T), 17) for T in temperatures]
plots.image_sheet(np.concatenate(sheet), 16, 17, "the same 16 latents times T", [f"T = {T}" for T in temperatures])

# %% [markdown]
# *What to see:* follow a column from the top down. At $T = 0$ all are one image, $f^{-1}(0)$, a blur that could become
# any digit. Then they make up their minds, one after the other; beyond 1 strokes fray.
#
# What is traded for what? For $\varepsilon \sim \mathcal{N}(0, I)$, $\mathbb{E}\,\varepsilon_i^2 = 1$, so the base says
#
# $$
# \mathbb{E} \log p_Z(T \varepsilon) = -\frac{D}{2} \left( \log 2\pi + T^2 \right) ,
# \tag{8.5}
# $$
#
# and low temperatures are likelier by $D/2 \cdot (1 - T^2)$ nats, that is $(1 - T^2) / (2 \log 2)$ bits per
# dimension. They pay with diversity: $T \varepsilon$ has the density
#
# $$
# \mathcal{N}(z;\, 0, T^2 I) \;\propto\; \mathcal{N}(z;\, 0, I)^{1/T^2} ,
# \tag{8.6}
# $$
#
# which for $T < 1$ prefers what was likely before even more. Where log-determinants are the same for all $x$ (additive
# couplings), the same holds for images, $p_T(x) \propto p(x)^{1/T^2}$; with affine couplings nearly so. (The
# paper's section 6 prints the exponent as $T^2$; the check says which it is.)

# %%
# checks (8.5) and (8.6): by sampling, and by a ratio that must not depend on z
base, T = flow.base, 0.7
found = base.log_prob(T * rng.standard_normal((20000, 64))).mean()
print(f"E log p_Z = {found:.2f}, by the formula {-32 * (np.log(2 * np.pi) + T**2):.2f}")
assert np.isclose(found, -32 * (np.log(2 * np.pi) + T**2), atol=0.2)
z = 3 * rng.standard_normal((100, 64))
cold = (-0.5 * (z / T) ** 2 - 0.5 * np.log(2 * np.pi * T**2)).sum(axis=1)      # log N(z; 0, T^2 I)
assert np.ptp(cold - base.log_prob(z) / T**2) < 1e-9
assert np.ptp(cold - base.log_prob(z) * T**2) > 100                           # T^2 instead of 1/T^2


# %%
def distances(a, b):
    """Root-mean-square differences in gray levels: every image of a (N) with every one of b (M), (N, M)."""
    a, b = a.reshape(len(a), 64).astype(float), b.reshape(len(b), 64).astype(float)
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0) / 64)


def of_pairs(a):
    """The mean distance between two different images of a."""
    return distances(a, a).sum() / (len(a) * (len(a) - 1))


grid = np.arange(7) / 5
cost, diversity, nearest = [], [], []
for T in grid:
    x = flow.sample(200, rng=5, temperature=T)
    cost.append(minglow.bits_per_dim(flow.log_prob(x).mean(), 64, 17))
    samples = minglow.quantize(x, 17)
    diversity.append(of_pairs(samples))
    nearest.append(distances(samples, images.train).min(axis=1).mean())

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 2.9))
at_1 = cost[5]
axes[0].plot(grid, cost, "o-", markersize=4, label="samples, measured")
axes[0].plot(grid, at_1 - (1 - grid**2) / (2 * np.log(2)), color="0.5", linestyle=":", label="T = 1, and (8.5)")
axes[0].axhline(held_out_bits, color=red, linestyle="--", label="held-out digits")
axes[0].set(xlabel="temperature T", ylabel="bits per dimension", title="what the model thinks of its samples")
for values, real, color, name in ((diversity, of_pairs(images.held_out), blue, "two samples"),
                                   (nearest, distances(images.held_out, images.train).min(axis=1).mean(), red,
                                    "a sample, nearest training image")):
    axes[1].plot(grid, values, "o-", markersize=4, color=color, label=name)
    axes[1].axhline(real, color=color, linestyle="--", linewidth=1)
axes[1].set(xlabel="temperature T", ylabel="distance, gray levels", ylim=(0, None),
            title="dashed: the same of held-out digits")
for axis in axes:
    axis.legend(loc="lower right", fontsize=8)

# %% [markdown]
# *What to see:* on the left, cold samples cost less, by nearly what (8.5) says of the base alone. On
# the right, the price: the colder, the more they resemble each other. In exchange they come nearer to real digits, down to
# about $T = 0.4$, where they are as near to a training image as a held-out digit is. At $T = 1$ they are almost as
# diverse as held-out digits, but farther from the training images. Which is better depends on what samples are for:
# pictures are often shown at 0.7, as above; statistics of the model are taken at 1.

# %% [markdown]
# ### Are they copies?
#
# A model could learn its images by heart. Put the nearest training image below each sample.

# %%
samples = minglow.quantize(flow.sample(200, rng=8, temperature=0.7), 17)
to_training = distances(samples, images.train)
neighbors = images.train[to_training.argmin(axis=1)]
plots.image_sheet(np.concatenate([samples[:16], neighbors[:16]]), 16, 17, "a sample, and the training image nearest to it",
                  ["sample", "nearest"])

# %%
figure, axis = plt.subplots(figsize=(6.5, 2.8))
bins = np.linspace(0, 5, 41)
of_held_out = distances(images.held_out, images.train).min(axis=1)
for values, name in (to_training.min(axis=1), "samples, T = 0.7"), (of_held_out, "held-out digits"):
    axis.hist(values, bins, density=True, histtype="stepfilled", alpha=0.45, label=name)
axis.set(xlabel="distance to the nearest training image, gray levels", ylabel="density")
axis.legend()
print(f"smallest distance of a sample {to_training.min():.2f}, of a held-out digit {of_held_out.min():.2f}; "
      f"exact copies: {(to_training == 0).sum()}")

# %% [markdown]
# *What to see:* a copy would lie at 0. No sample does: they keep as much distance from the training images
# as digits do that people wrote, and somewhat more.

# %% [markdown]
# **Exercise 8.2: predict temperature 0** (2 points). Draw 50 samples at $T = 0$ with 50 different random
# numbers. How many *different* images are there (`different`)? And what is $\log p_Z$ of their latents, in nats
# (`base_nats`)? Write down both before you run anything.

# %% solution="temperature-zero"
### BEGIN SOLUTION
different = 1                                        # all latents are 0
base_nats = -0.5 * 64 * np.log(2 * np.pi)            # (8.5) with T = 0
### END SOLUTION

# %% test="temperature-zero" points=2
frozen = minglow.quantize(flow.sample(50, rng=1, temperature=0), 17)
assert different == len(np.unique(frozen.reshape(50, -1), axis=0)), "0 times any noise is 0"
measured = flow.base.log_prob(flow.base.sample(50, 1, temperature=0.0)).mean()
assert np.isclose(base_nats, measured, atol=0.05), f"D = 64 terms, each the density's peak: {measured:.2f}"

# %% [markdown]
# ## From one digit to another
#
# Two images $x_0$ and $x_1$ have latents, and between latents there is a straight line. Its images are
#
# $$
# x(t) = f^{-1}\big( (1 - t)\, f(x_0) + t\, f(x_1) \big), \qquad 0 \le t \le 1 .
# \tag{8.7}
# $$
#
# Beside it, the cross-fade: the straight line between the pixels, $(1 - t)\, x_0 + t\, x_1$.

# %%
# checks (8.7): the library's path, point by point
held_out = minglow.dequantize(images.held_out, 17, rng=0)
pairs = np.array([(ten[0], ten[6]), (ten[7], ten[2]), (ten[3], ten[5]), (ten[4], ten[9])])
x0, x1 = held_out[pairs[:, 0]], held_out[pairs[:, 1]]
times = np.linspace(0, 1, 11)
path = interpolate(flow, x0, x1, frames=11)          # (pairs, 11, 8, 8, 1)
for k, t in enumerate(times):
    expected = flow.from_latents((1 - t) * flow.latents(x0) + t * flow.latents(x1))
    assert np.allclose(path[:, k], expected, atol=1e-3)
assert np.allclose(path[:, 0], x0, atol=1e-3) and np.allclose(path[:, -1], x1, atol=1e-3)
fade = np.stack([(1 - t) * x0 + t * x1 for t in times], axis=1)

# %%
lines = np.stack([path, fade], axis=1).reshape(-1, 8, 8, 1)
plots.image_sheet(minglow.quantize(lines, 17), 11, 17, "t from 0 to 1, between held-out digits",
                  4 * ["latents", "pixels"])

# %% [markdown]
# *What to see:* in each pair of lines the ends are the same. The cross-fade lays one digit over the other: its middle is
# two ghosts. The path through the latents moves strokes: its middle is one figure, often a digit, sometimes another one.
#
# Does the model see the difference? There is a subtlety. Two independent latents are nearly orthogonal in
# 64 dimensions, so the line between them passes nearer to the origin than its ends: with $\varepsilon_0, \varepsilon_1
# \sim \mathcal{N}(0, I)$, independent, $(1 - t)\,\varepsilon_0 + t\,\varepsilon_1$ is normal with standard deviation
#
# $$
# T(t) = \sqrt{(1 - t)^2 + t^2} .
# \tag{8.8}
# $$
#
# The middle of a line has temperature $\sqrt{1/2} \approx 0.71$.

# %%
# checks (8.8): on random latents; and the same of real digits
a, b = rng.standard_normal((2, 20000, 64))
for t in times:
    assert np.isclose(((1 - t) * a + t * b).std(), np.sqrt((1 - t) ** 2 + t**2), rtol=5e-3)

start, end = held_out[:60], held_out[60:120]
many, z = interpolate(flow, start, end, frames=11), flow.latents(held_out[:120])
faded = np.stack([(1 - t) * start + t * end for t in times], axis=1)
figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.7))
for name, lines in ("through the latents", many), ("through the pixels", faded):
    bits = minglow.bits_per_dim(flow.log_prob(lines.reshape(-1, 8, 8, 1)).reshape(60, 11).mean(axis=0), 64, 17)
    axes[0].plot(times, bits, "o-", markersize=4, label=name)
axes[0].set(xlabel="t", ylabel="bits per dimension", title="what the images on the way cost")
axes[0].legend()
lengths = [np.sqrt((((1 - t) * z[:60] + t * z[60:]) ** 2).mean()) for t in times]
axes[1].plot(times, lengths, "o-", markersize=4, label="60 pairs of digits")
axes[1].plot(times, np.sqrt((1 - times) ** 2 + times**2), color="0.5", linestyle=":", label="(8.8)")
axes[1].set(xlabel="t", ylabel="root mean square of z", ylim=(0, 1.3), title="a line passes near the origin")
axes[1].legend(loc="lower right");

# %% [markdown]
# *What to see:* left, the way through the latents gets *cheaper* towards its middle, as cold samples are; the way
# through pixels gets dearer. Right, real digits' latents do as (8.8) says of independent normal ones, but for a
# factor: the model has not been trained on these digits, and their latents are about a tenth too long.

# %% [markdown]
# **Exercise 8.3: an arc instead of a line** (2 points). To keep the temperature at its ends' all the way, weigh with a circle:
# $z(t) = \cos(\pi t / 2)\, f(x_0) + \sin(\pi t / 2)\, f(x_1)$. Write `arc(flow, x0, x1, frames)`, which returns images
# $(B, \texttt{frames}, h, w, C)$ as `interpolate` does, with $t$ at equal distances from 0 to 1.

# %% solution="arc"
def arc(flow, x0, x1, frames):
    """Images on arcs between latents: (B, h, w, C) twice -> (B, frames, h, w, C)."""
    ### BEGIN SOLUTION
    z0, z1 = flow.latents(x0), flow.latents(x1)
    angles = np.linspace(0, np.pi / 2, frames)
    return np.stack([flow.from_latents(np.cos(angle) * z0 + np.sin(angle) * z1) for angle in angles], axis=1)
    ### END SOLUTION


# %% test="arc" points=2
found = arc(flow, x0, x1, 5)
assert found.shape == (4, 5, 8, 8, 1), f"expected (4, 5, 8, 8, 1), got {found.shape}"
assert np.allclose(found[:, 0], x0, atol=2e-3), "at t = 0 it is x0"
assert np.allclose(found[:, 4], x1, atol=2e-3), "at t = 1 it is x1"
z0, z1 = flow.latents(x0), flow.latents(x1)
for k, t in enumerate((0.25, 0.5, 0.75), start=1):
    expected = np.cos(np.pi * t / 2) * z0 + np.sin(np.pi * t / 2) * z1
    assert np.allclose(found[:, k], flow.from_latents(expected), atol=2e-3), f"wrong at t = {t}: is it the line?"

# %% [markdown]
# ## Turn one knob: directions of attributes
#
# The paper makes faces smile. Digits have attributes, too, and two of them can be measured: **ink**, the mean gray
# value, and **slant**, by how many pixels a stroke moves to the right for each pixel upwards (the slope of the line
# that fits the ink best). For a positive and a negative group of images with latents $z^+$ and $z^-$, the direction is
#
# $$
# d = \operatorname{mean}(z^+) - \operatorname{mean}(z^-) ,
# \tag{8.9}
# $$
#
# and an image moves along it by a strength $\alpha$ from $-1$ to $1$, times 1.6 (both as in Glow's official code):
#
# $$
# x_\alpha = f^{-1}\big( f(x) + 1.6\, \alpha\, d \big) .
# \tag{8.10}
# $$
#
# Ones have little ink, eights have much. To change ink and not the digit, the groups are taken class by class: the upper and
# the lower quarter of the zeros, of the ones, and so on.


# %%
def ink(pictures):
    """The mean gray value of integer images (N, 8, 8, 1), (N,)."""
    return pictures.reshape(len(pictures), 64).mean(axis=1)


def slant(pictures):
    """How far ink moves to the right for each pixel upwards, (N,)."""
    weight = pictures[..., 0] / pictures.sum(axis=(1, 2, 3))[:, None, None]
    row, column = np.mgrid[:8, :8]
    row = row - (weight * row).sum(axis=(1, 2), keepdims=True)           # from the center of mass
    column = column - (weight * column).sum(axis=(1, 2), keepdims=True)
    return -(weight * row * column).sum(axis=(1, 2)) / (weight * row**2).sum(axis=(1, 2))


def quarters(values, labels):
    """Masks (N,) of the upper and the lower quarter of each class."""
    upper, lower = np.zeros(len(values), bool), np.zeros(len(values), bool)
    for digit in range(10):
        low, high = np.quantile(values[labels == digit], (0.25, 0.75))
        upper |= (labels == digit) & (values >= high)
        lower |= (labels == digit) & (values <= low)
    return upper, lower


# %%
# checks (8.9) and (8.10): the library, beside the sums written out
x_train = minglow.dequantize(images.train, 17, rng=0)
z_train = flow.latents(x_train)
directions = {}
for measure in ink, slant:
    upper, lower = quarters(measure(images.train), images.train_labels)
    d = directions[measure] = attribute_direction(flow, x_train[upper], x_train[lower])
    by_hand = sum(z_train[upper]) / upper.sum() - sum(z_train[lower]) / lower.sum()
    assert np.allclose(d, by_hand, atol=1e-3)
    moved = apply_attribute(flow, held_out[:5], d, 0.5)
    assert STRENGTH == 1.6
    assert np.allclose(flow.latents(moved), flow.latents(held_out[:5]) + 0.8 * d, atol=1e-2)
    print(f"{measure.__name__:5}: {upper.sum()} and {lower.sum()} images; |d| = {np.linalg.norm(d):.2f}, "
          f"of it in level 1 {np.linalg.norm(d[:32]):.2f}, in level 2 {np.linalg.norm(d[32:]):.2f}")

# %%
six = [ten[digit] for digit in (0, 2, 3, 5, 6, 8)]
strengths = [-1, -0.5, 0, 0.5, 1]
figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.3))
for axis, (measure, d) in zip(axes, directions.items()):
    moved = np.concatenate([apply_attribute(flow, held_out[six], d, strength) for strength in strengths])
    plots.draw_images(axis, minglow.quantize(moved, 17), 17, 6, measure.__name__)
    axis.set_yticks([3.5 + 9 * k for k in range(5)], [f"α = {strength:g}" for strength in strengths])
    axis.tick_params(length=0)

# %%
figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.7), sharey=True)
for axis, (measure, d) in zip(axes, directions.items()):
    moved = [minglow.quantize(apply_attribute(flow, held_out[:120], d, strength), 17) for strength in strengths]
    for other in ink, slant:
        values = np.array([other(pictures) for pictures in moved])
        values = (values - values[2]) / values[2].std()                  # each image's own change
        axis.plot(strengths, values.mean(axis=1), "o-", markersize=4, label=other.__name__)
        axis.fill_between(strengths, *np.quantile(values, (0.1, 0.9), axis=1), alpha=0.15)
    axis.set(xlabel="strength α", xticks=strengths, title=f"along the direction of {measure.__name__}")
    axis.legend(loc="upper left")
axes[0].set_ylabel("change, standard deviations");

# %% [markdown]
# *What to see:* 120 held-out digits, which had no part in $d$; lines are means, bands reach from the tenth to the ninetieth
# percentile. Each direction turns its own attribute, almost in proportion, and on average changes the other one
# little (the strongest slant comes with some more ink). In the pictures strokes become thicker *as strokes*, and leaning
# ones stay strokes: no pixel rule has been written for either. At the ends a digit may turn into another one.

# %% [markdown]
# ## Details and plan: redraw one level
#
# The 32 latents of level 1 left early, after the split prior had taken from them what the other half tells about them. So
# which half knows what? Notebook 6 has drawn the one half anew, and kept the other, and looked at the pictures. Here it is
# in numbers, with the same function `resample`.

# %%
print("mean distance from the original, gray levels (two held-out digits: "
      f"{of_pairs(images.held_out):.1f})")
for level in "level 1", "level 2":
    again = minglow.quantize(resample(flow, held_out[:150], [level], rng=0), 17)
    print(f"  {level} anew: {np.diagonal(distances(again, images.held_out)).mean():.1f}")

# %% [markdown]
# *What to see:* with level 1 drawn anew, an image moves by little more than one gray level: these latents decide about
# fine shades. With level 2 anew, it moves as far as to any other digit: those hold the plan. Level 1 is half of all
# numbers, and there is nearly nothing to see of it. That is why a level may let them go early.

# %% [markdown]
# **Exercise 8.4: which level knows the digit?** (3 points). Write `nearest_class(z, means)`, which gives each
# latent vector the class whose mean is nearest, and below it use it to fill `accuracy`, a dictionary with the keys `"level 1"` and `"level 2"`: which share
# of the held-out digits it gets right with the latents of that level alone. The means come from the
# training images; `z_train[:, :32]` is level 1, `z_train[:, 32:]` level 2. Predict first!

# %% solution="nearest-class"
z_held_out = flow.latents(held_out)


def nearest_class(z, means):
    """z (N, d), means (10, d) -> the number of the nearest mean for each, (N,)."""
    ### BEGIN SOLUTION
    return ((z[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)


accuracy = {}
for name, part in ("level 1", slice(0, 32)), ("level 2", slice(32, 64)):
    class_means = np.stack([z_train[images.train_labels == digit, part].mean(axis=0) for digit in range(10)])
    accuracy[name] = (nearest_class(z_held_out[:, part], class_means) == images.held_out_labels).mean()
### END SOLUTION

# %% test="nearest-class" points=3
points, centers = np.random.default_rng(0).standard_normal((50, 7)), np.random.default_rng(1).standard_normal((10, 7))
expected = [min(range(10), key=lambda k: np.linalg.norm(point - centers[k])) for point in points]
assert np.array_equal(nearest_class(points, centers), expected), "the smallest distance, not the largest product"
for name, part in ("level 1", z_held_out[:, :32]), ("level 2", z_held_out[:, 32:]):
    sources = z_train[:, :32] if name == "level 1" else z_train[:, 32:]
    centers = np.stack([sources[images.train_labels == digit].mean(axis=0) for digit in range(10)])
    expected = np.mean(np.linalg.norm(part[:, None] - centers, axis=2).argmin(axis=1) == images.held_out_labels)
    assert np.isclose(accuracy[name], expected, atol=0.01), f"{name}: expected {expected:.2f}, got {accuracy[name]:.2f}"

# %% [markdown]
# (Guessing gets 0.10. The same rule on the 64 pixels themselves gets 0.85, more than on either level: a flow is trained to make
# images likely, not to pull classes apart. What level 2 knows of classes came for free.)

# %%
pixel_means = np.stack([images.train[images.train_labels == digit].mean(axis=0).ravel() for digit in range(10)])
apart = np.linalg.norm(images.held_out.reshape(-1, 1, 64) - pixel_means, axis=2)
print(f"nearest mean of the pixels: {(apart.argmin(axis=1) == images.held_out_labels).mean():.2f}")

# %% [markdown]
# ## The ledger: where the bits go
#
# Held-out digits cost 2.19 bits per dimension. Guessing costs 4.09. Notebook 6 took the difference apart by levels; which
# layer saves what? Put (8.1) into (8.2), and the bits are a sum with one term for each layer:
#
# $$
# b(x) = \log_2 n \;-\; \frac{\log p_Z(f(x))}{D \log 2} \;-\; \sum_l \frac{\log|\det J_l|}{D \log 2} .
# \tag{8.11}
# $$
#
# `run_layers` has all terms. Run it on the held-out images, with the same noise as `evaluate`, take means, and add up
# by kind of layer. The sum must be what `evaluate` says.

# %%
# checks (8.11): the ledger's sum against evaluate, with the same dequantization noise
x = minglow.dequantize(images.held_out, 17, rng=0)   # evaluate's noise, too, begins at seed 0
nats_per_bit = 64 * np.log(2)
entries = [(level, kind(layer), -log_det.astype(float) / nats_per_bit)
           for level, layer, _, log_det in run_layers(flow.bijection, x)]
by_image = {"cells: log2 17": np.full(len(x), np.log2(17)),
            "base": -flow.base.log_prob(flow.latents(x)).astype(float) / nats_per_bit}
for _, name, bits in entries:
    by_image[name] = by_image.get(name, 0) + bits
del by_image["squeeze"], by_image["flatten"]         # exactly 0: they move numbers and change none
ledger = {name: bits.mean() for name, bits in by_image.items()}
of_model = minglow.evaluate(flow, images.held_out, 17)
print(f"{'':16} {'mean':>8}   differs between images by (standard deviation)")
for name, bits in by_image.items():
    print(f"{name:16} {bits.mean():+8.4f}   {bits.std():.2f}")
print(f"{'sum':16} {sum(ledger.values()):+8.4f}\n{'evaluate':16} {of_model:+8.4f}")
assert np.isclose(sum(ledger.values()), of_model, atol=1e-5)
assert np.allclose(sum(by_image.values()), minglow.bits_per_dim(flow.log_prob(x), 64, 17), atol=1e-4)
agree = np.corrcoef(by_image["coupling"], sum(by_image.values()))[0, 1]
print(f"\ncorrelation between the couplings' entry and the whole cost of an image: {agree:.2f}")

# %%
colors = dict(zip(["cells: log2 17", "base", "actnorm", "1×1 convolution", "coupling", "split prior"],
                   ["0.6", orange, blue, sky, green, red]))
figure, axis = plt.subplots(figsize=(8, 3.6))
level_now = 0.0
for place, (name, bits) in enumerate(ledger.items()):
    axis.bar(place, bits, bottom=level_now, color=colors[name], width=0.6)
    axis.text(place, level_now + max(bits, 0) + 0.1, f"{bits:+.2f}".replace("-", "−"), ha="center")
    level_now += bits
    axis.plot([place + 0.3, place + 0.7], [level_now, level_now], color="0.4", linewidth=0.8)
axis.bar(place + 1, level_now, color="0.2", width=0.6)
axis.text(place + 1, level_now + 0.1, f"{level_now:.2f}", ha="center", fontsize=9, fontweight="bold")
axis.axhline(np.log2(17), color="0.6", linestyle=":", linewidth=1)
axis.set_xticks(range(place + 2), [*ledger, "bits/dim"])
axis.set(ylabel="bits per dimension", title="from guessing to 2.19 bits, means of 297 held-out digits",
         ylim=(0, 1.12 * (ledger["cells: log2 17"] + max(0, ledger["base"]) + 0.1)));

# %%
figure, axes = plt.subplots(2, 1, figsize=(8.5, 4.2), sharex=True, height_ratios=(1.4, 1))
places = np.arange(1, len(entries) + 1)
for name in list(colors)[2:]:
    mine = np.array([name == its for _, its, _ in entries])
    axes[0].bar(places[mine], np.array([bits.mean() for *_, bits in entries])[mine], color=colors[name], label=name)
axes[0].set(ylabel="bits per dimension", title="each layer's own entry: below 0 it saves")
axes[0].legend(ncols=2, loc="lower right", fontsize=8)
running = np.log2(17) + ledger["base"] + np.cumsum([bits.mean() for *_, bits in entries])
axes[1].step(places, running, where="post", color="0.2")
axes[1].set(xlabel="layer, from data to latents", ylabel="bits per dimension", title="running sum, from cells and base on")
first_of_2 = next(k for k, (level, *_) in enumerate(entries) if level == 2) + 0.5
for axis in axes:
    axis.axvline(first_of_2, color="0.6", linestyle=":")
axes[1].annotate("level 2 begins", (first_of_2 + 0.5, running[0] - 0.3), fontsize=8);

# %% [markdown]
# *What to see:* cells and base together cost 6.3 bits, and the layers have to bring that down. A layer saves by
# *stretching*: where data fill a small part of their cube, volume has to grow until they fill the latents' unit width.
# The very first actnorm saves 1.5 bits at one stroke, since it scales pixels to about unit width. After it, actnorms and
# 1×1 convolutions save and couplings cost: their scale is a sigmoid, below 1, and can only shrink. That does not make
# them useless. Actnorms and 1×1 convolutions treat all images alike: their entries differ by 0.00 between images. The
# couplings shrink some images less than others, and these tend to be the ones that the model finds cheap. Only the sum
# counts.

# %% [markdown]
# ## When likelihood misleads
#
# Is an image that the model finds cheap a good digit? Ask it about images that are no digits at all.
# [minglow/inference.py](../minglow/inference.py), `anomaly_scores`, gives three scores: the bits $b(x)$; how far they are off the mean $\bar b$ of
# usual images, on either side (typicality; Nalisnick et al. 2019, section 3),
#
# $$
# s_{\text{typ}}(x) = \big|\, b(x) - \bar b \,\big| ,
# \tag{8.12}
# $$
#
# and the bits beyond those that a general compressor needs, where $|\mathrm{zlib}(x)|$ is its file's length in bits (Serrà et
# al. 2020, equation 2),
#
# $$
# s_{\text{comp}}(x) = b(x) - \frac{|\mathrm{zlib}(x)|}{D} .
# \tag{8.13}
# $$

# %%
def vertical_bars():
    """Bars two pixels wide, at 5 places and in 9 shades."""
    bars = np.zeros((45, 8, 8, 1), np.uint8)
    for number, (place, shade) in enumerate((place, shade) for place in range(1, 6) for shade in range(8, 17)):
        bars[number, :, place:place + 2] = shade
    return bars


blank = np.zeros((40, 8, 8, 1), np.uint8)
blank[20:] = 1
families = {
    "held-out digits": images.held_out,
    "cold samples, T = 0.4": minglow.quantize(flow.sample(150, rng=0, temperature=0.4), 17),
    "vertical bars": vertical_bars(),
    "blank pages, 0 or 1": blank,
    "mirrored digits": images.held_out[:150, :, ::-1],
    "shuffled pixels": rng.permuted(images.held_out[:150].reshape(150, 64), axis=1).reshape(150, 8, 8, 1),
    "negatives": 16 - images.held_out[:150],
    "noise": rng.integers(0, 17, (150, 8, 8, 1)).astype(np.uint8),
}
usual = images.train[:150]
scores = {name: anomaly_scores(flow, pictures, 17, usual, rng=0) for name, pictures in families.items()}

# %%
# checks (8.12) and (8.13): one family's scores, written out
noises = np.random.default_rng(0)                    # anomaly_scores draws its noise in this order
b = minglow.bits_per_dim(flow.log_prob(minglow.dequantize(blank, 17, noises)), 64, 17)
b_usual = minglow.bits_per_dim(flow.log_prob(minglow.dequantize(usual, 17, noises)), 64, 17).mean()
of_blank = scores["blank pages, 0 or 1"]
assert np.allclose(of_blank["bits"], b) and np.allclose(of_blank["typicality"], abs(b - b_usual), atol=1e-5)
file_lengths = [8 * len(zlib.compress(picture.tobytes(), 9)) for picture in blank]
assert np.allclose(of_blank["complexity"], b - np.array(file_lengths) / 64)

print("share of pairs in which the image is stranger than a held-out digit")
print(f"{'':22} {'mean bits':>9}   {'by bits':>8} {'typicality':>10} {'complexity':>10}")
for name, found in list(scores.items())[1:]:
    shares = [(found[score][:, None] > scores["held-out digits"][score]).mean() for score in found]
    print(f"{name:22} {found['bits'].mean():9.2f}   " + " ".join(f"{share:9.2f}" for share in shares))

# %%
figure, axis = plt.subplots(figsize=(7.5, 3.6))
for place, (name, found) in enumerate(scores.items()):
    axis.plot(found["bits"], place + rng.uniform(-0.25, 0.25, len(found["bits"])), ".", markersize=3, color=blue if place == 0 else red, alpha=0.5)
    inset = axis.inset_axes((1.02, place - 0.42, 0.1, 0.84), transform=axis.get_yaxis_transform())
    inset.imshow(families[name][len(families[name]) // 2, ..., 0], cmap=plots.GRAYS, vmin=0, vmax=16)
    inset.set(xticks=[], yticks=[])
    inset.spines[:].set_visible(True)
axis.axvline(scores["held-out digits"]["bits"].mean(), color=blue, linestyle=":")
axis.axvline(np.log2(17), color="0.5", linestyle=":")
axis.text(np.log2(17) * 1.02, -0.6, "guessing", fontsize=8, color="0.4", va="center")
axis.set_xscale("log")
axis.set_xticks([1.5, 2, 3, 4, 6, 8, 12, 16, 20], [1.5, 2, 3, 4, 6, 8, 12, 16, 20])
axis.xaxis.set_minor_locator(plt.NullLocator())
axis.set_yticks(range(len(scores)), scores)
axis.set(xlabel="bits per dimension (log scale)", ylim=(len(scores) - 0.5, -0.9));

# %% [markdown]
# *What to see:* the model knows noise, negatives and shuffled pixels for what they are, at more bits than guessing costs. But
# cold samples, many bars and empty pages are cheaper than most digits: their shares by bits lie below one half. A low $b(x)$ says
# *simple in the eyes of the model*, not *typical*: a typical digit is less probable than the blur at $T = 0$, as in 64
# dimensions a typical normal vector is less probable than the origin. Complexity finds bars and pages, which zlib
# knows to be simple; no score finds the cold samples, whose bits are well within the range of digits. (Nalisnick
# et al. apply typicality to whole batches, whose mean is sharper. On color photographs they found whole data
# sets cheaper than the one trained on.)

# %% [markdown]
# **Exercise 8.5: the cheapest image** (3 points). The cheapest of all 1,797 digits costs about 1.44 bits per dimension. Find an
# image, integers from 0 to 16, dtype `uint8`, shape (8, 8, 1), that costs less than 1.42, and call it
# `cheapest`. Any search will do: change one pixel at a time and keep what helps, or shrink the latents of
# cheap digits. Use the same noise for all candidates, or its luck will choose for you: `mean_bits` does.


# %%
def mean_bits(pictures, draws, seed=0):
    """Bits per dimension of integer images (N, 8, 8, 1), over so many draws of noise, the same for all, (N,)."""
    noise = np.random.default_rng(seed).random((draws, 8, 8, 1), dtype=np.float32)
    x = ((pictures[:, None] + noise) / 17 - 0.5).reshape(-1, 8, 8, 1)
    return minglow.bits_per_dim(flow.log_prob(x), 64, 17).reshape(len(pictures), draws).mean(axis=1)


every = np.concatenate([images.train, images.held_out])
candidates = every[np.argsort(mean_bits(every, 1))[:20]]
again = mean_bits(candidates, 50)
candidates = candidates[np.argsort(again)]
plots.image_sheet(candidates[:16], 16, 17, f"the cheapest digits, from {again.min():.2f} bits per dimension")

# %% solution="cheapest"
### BEGIN SOLUTION
few = np.repeat(candidates[:6], 10, axis=0)          # each under ten draws of noise
z = flow.latents(minglow.dequantize(few, 17, rng=0))
shrunk = np.concatenate([flow.from_latents(np.float32(share) * z) for share in (0.6, 0.7, 0.8)])
shrunk = minglow.quantize(shrunk, 17)
cheapest = shrunk[mean_bits(shrunk, 20).argmin()]
### END SOLUTION

# %% test="cheapest" points=3
assert cheapest.shape == (8, 8, 1) and cheapest.dtype == np.uint8, "an image (8, 8, 1) of uint8"
assert cheapest.max() <= 16, "gray values go from 0 to 16"
paid = mean_bits(cheapest[None], 200, seed=99)[0]    # noise that no search has seen
assert paid < 1.42, f"it costs {paid:.3f} bits per dimension; below 1.42, please"

# %% [markdown]
# Draw yours: `plots.image_sheet(cheapest[None], 1, 17)`. If the search began with the row above, it will look much
# the same: of all digits the model finds plain upright strokes cheapest, the dullest that there are.

# %% [markdown]
# ## To take away
#
# - A flow is trained by one number, and then samples, interpolates, edits attributes and scores: all of these are
#   $f$, arithmetic on latents, and $f^{-1}$.
# - Temperature trades diversity for likelihood; low ones, and middles of lines, lie nearer to the origin than
#   typical latents do.
# - Bits per dimension are a ledger: cells and base cost, layers that stretch save, and it adds up exactly.
# - Cheap is not the same as good, nor typical: likelihood loves what is simple.
#
# Next: [9. Memory](09_memory.ipynb).
