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
# # 6. Multi-scale
#
# **You will be able to** say what squeeze and split do to shapes, cost and log-determinant; write a split's
# learned prior as a layer, so that all latents stay $\mathcal N(0, I)$; read from a trained model which
# level holds what; add up $\log p(x)$ level by level.
#
# **You need** notebooks 0 (bits per dimension), 3 (couplings), 4 (actnorm) and 5 (the 1×1 convolution); the
# density of a normal distribution. About 50 minutes with the exercises; it runs in seconds.

# %%
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

import minglow
from minglow import plots
from minglow.data import digits
from minglow.inference import latent_views, resample
from minglow.models.glow import split_prior
from minglow.testing import check_layer, numerical_jacobian, perturbed

plots.style()
rng = np.random.default_rng(0)
images = digits()                                    # 8 x 8 pixels, 17 gray levels
flow = minglow.load("models/digits.npz")             # 2 levels of 12 steps
x = minglow.dequantize(images.held_out, images.bins, rng=0)

# %% [markdown]
# ## Squeeze: pixels become channels
#
# A coupling needs channels to halve, and a gray image has one. RealNVP (Dinh et al. 2017, section 3.6)
# makes some by **squeezing**, which notebook 3 has shown in passing: every $2 \times 2$ block of pixels
# becomes one pixel with four times the channels. An image of $h \times w$ pixels with $C$ channels turns into
# one of $\frac h2 \times \frac w2$ with $4C$. With $c = 0 \dots C - 1$ for the channel, and $d_i, d_j \in \{0, 1\}$ for the place within the
# block,
#
# $$
# y_{i,\,j,\,4c + 2 d_i + d_j} = x_{2i + d_i,\; 2j + d_j,\; c} .
# \tag{6.1}
# $$

# %%
# checks (6.1): number by number
squeeze = minglow.Squeeze()
image = rng.standard_normal((1, 4, 6, 3))
y = squeeze.forward(image)[0]
for i, j, c, di, dj in np.ndindex(2, 3, 3, 2, 2):
    assert y[0, i, j, 4 * c + 2 * di + dj] == image[0, 2 * i + di, 2 * j + dj, c]
print(image.shape, "->", y.shape)

# %%
numbered = np.arange(1.0, 17).reshape(1, 4, 4, 1)
squeezed = squeeze.forward(numbered)[0]
parts = [numbered[0, :, :, 0]] + [squeezed[0, :, :, channel] for channel in range(4)]
names = ["x: 4 × 4, 1 channel"] + [f"channel {channel}" for channel in range(4)]
figure, axes = plt.subplots(1, 5, figsize=(8.5, 2.2), width_ratios=[2, 1, 1, 1, 1])
for axis, part, name in zip(axes, parts, names):
    for (i, j), number in np.ndenumerate(part):
        place = int(number) - 1                       # color by the place within the block
        color = plots.COLORS[2 * (place // 4 % 2) + place % 2]
        axis.add_patch(Rectangle((j, i), 1, 1, facecolor=color, alpha=0.45, edgecolor="0.3"))
        axis.text(j + 0.5, i + 0.5, int(number), ha="center", va="center")
    axis.set(xlim=(0, len(part)), ylim=(len(part), 0), xticks=[], yticks=[], title=name, aspect="equal")

# %% [markdown]
# *What to see:* each channel is the image at half the resolution, begun at another corner of the blocks.
# Neighbors in $x$ are now channels of one pixel, so that a 1×1 convolution and a coupling can mix them.
#
# Numbers move and none changes. So the Jacobian is a permutation matrix $P$, a single 1 in each row and
# column, and
#
# $$
# J = P, \qquad \log|\det J| = 0 .
# \tag{6.2}
# $$

# %%
# checks (6.2): the Jacobian by differences
P = numerical_jacobian(squeeze.forward, numbered[0] / 16)
assert np.allclose(P.sum(axis=0), 1) and np.allclose(P.sum(axis=1), 1) and np.allclose(P, P.round(), atol=1e-9)
assert np.isclose(np.linalg.slogdet(P)[1], 0, atol=1e-9) and squeeze.forward(numbered)[1] == 0
figure, axis = plt.subplots(figsize=(3.6, 3))
plots.draw_matrix(axis, P, "the Jacobian of squeeze, 4 × 4 × 1")
axis.set(xlabel="number in x", ylabel="number in y");

# %% [markdown]
# *What to see:* one 1 in every row and every column. The first four rows are the four channels of the first
# block: pixels 0, 1, 4 and 5 of the image.

# %% [markdown]
# **Exercise 6.1: write squeeze and its inverse** (2 points). Write `my_squeeze(x)`, $(B, h, w, C) \to (B,
# h/2, w/2, 4C)$ by (6.1), and below it a second function, its inverse, `my_unsqueeze(y)`, $(B, h, w, 4C) \to
# (B, 2h, 2w, C)$. Loops over $d_i$ and $d_j$ are fine; so are
# `reshape` and `transpose`.


# %% solution="squeeze"
def my_squeeze(x):
    """(B, h, w, C) -> (B, h/2, w/2, 4C), as (6.1)."""
    ### BEGIN SOLUTION
    B, h, w, C = x.shape
    y = np.empty((B, h // 2, w // 2, 4 * C), x.dtype)
    for di in range(2):
        for dj in range(2):
            y[..., 2 * di + dj::4] = x[:, di::2, dj::2]
    return y


def my_unsqueeze(y):
    """(B, h, w, 4C) -> (B, 2h, 2w, C): the inverse of my_squeeze."""
    B, h, w, C = y.shape
    x = np.empty((B, 2 * h, 2 * w, C // 4), y.dtype)
    for di in range(2):
        for dj in range(2):
            x[:, di::2, dj::2] = y[..., 2 * di + dj::4]
    return x
    ### END SOLUTION


# %% test="squeeze" points=2
for shape in (1, 2, 2, 1), (3, 4, 6, 2), (2, 6, 2, 3):
    pictures = np.random.default_rng(0).standard_normal(shape)
    expected = minglow.Squeeze().forward(pictures)[0]
    assert my_squeeze(pictures).shape == expected.shape, f"expected {expected.shape}, got {my_squeeze(pictures).shape}"
    assert np.array_equal(my_squeeze(pictures), expected), "right shape, other order: compare with (6.1)"
    assert np.array_equal(my_unsqueeze(expected), pictures), "the inverse has to bring every number back"

# %% [markdown]
# ## Split: half of the channels leave
#
# After $K$ flow steps Glow **splits** (Kingma & Dhariwal 2018, section 3 and Figure 2b): one half of the
# channels, $b$, is done and becomes latents; the other half, $a$, goes on to the next level, where it is
# squeezed again. With $f_{\text{steps}}$ for squeeze and steps, and $f_{\text{inner}}$ for all levels
# further on,
#
# $$
# (a,\, b) = f_{\text{steps}}(x), \qquad z = \big[\, b,\; f_{\text{inner}}(a) \,\big] .
# \tag{6.3}
# $$
#
# Nothing is thrown away: $z$ has as many numbers as $x$, and going back means computing $a$ from its
# latents, joining it with $b$, and undoing the steps. From $(a, b)$ to $z$ the Jacobian is block diagonal
# but for the order of the numbers, with the identity for $b$ and $J_{\text{inner}}$ for $a$.
# Log-determinants of maps in a row add up:
#
# $$
# \log|\det J| = \log|\det J_{\text{steps}}| + \log|\det J_{\text{inner}}| .
# \tag{6.4}
# $$
#
# So a level is a bijection like any other, with another level inside it. In
# [minglow/layers/level.py](../minglow/layers/level.py) that is the class `Level(steps, inner, shape)`.

# %%
# checks (6.3) and (6.4): a small flow of two levels, its parameters moved off their start
level = perturbed(minglow.glow((4, 4, 1), levels=2, flow_steps=1, hidden=3, rng=0, dtype=np.float64).bijection, rng=1)
small = rng.standard_normal((3, 4, 4, 1))
h, steps_log_det, _ = level.steps.forward(small)      # (3, 2, 2, 4)
a, b = h[..., :2], h[..., 2:]
z_inner, inner_log_det, _ = level.inner.forward(a)
z, log_det, _ = level.forward(small)
assert np.allclose(z, np.concatenate([b.reshape(3, -1), z_inner], axis=1))
for sample in range(3):
    J = numerical_jacobian(level.forward, small[sample])
    assert J.shape == (16, 16)
    assert np.isclose(np.linalg.slogdet(J)[1], steps_log_det[sample] + inner_log_det[sample], atol=1e-6)
assert np.allclose(level.inverse(z)[0], small)
check_layer(level, small)                             # all promises of the contract
print("log_det of the steps", steps_log_det.round(3), "+ of the inner level", inner_log_det.round(3))

# %% [markdown]
# ### Shapes
#
# Let $D = h\,w\,C$ be the count of numbers in an image, and let $D_l$ of them leave at level $l$, of $L$
# levels. Squeeze keeps them all, every split lets half of what is there leave, and the last level lets all
# leave:
#
# $$
# D_l = \frac{D}{2^{\,l}} \quad (l < L), \qquad D_L = \frac{D}{2^{\,L-1}} .
# \tag{6.5}
# $$

# %%
# checks (6.5): for the digits, and for CIFAR-10 with 3 levels
flows = {"digits, L = 2": flow, "CIFAR-10, L = 3": minglow.glow((32, 32, 3), levels=3, flow_steps=1, hidden=2, rng=0)}
for name, candidate in flows.items():
    D = candidate.base.shape[0]
    views = latent_views(candidate, np.zeros((1, D), np.float32))
    print(name, {level_name: view.shape[1:] for level_name, view in views.items()})
    sizes, L = [view.size for view in views.values()], len(views)
    assert sizes == [D // 2**l for l in range(1, L)] + [D // 2 ** (L - 1)] and sum(sizes) == D


# %%
def arrow(axis, start, end):
    axis.annotate("", end, start, arrowprops={"arrowstyle": "->"})


def draw_levels(axis, shape, levels, title):
    """What enters a level, its squeezed form, what leaves: a box's height is its share of the numbers."""
    (h, w, C), top = shape, 0.0
    height = 1.0
    for l in range(1, levels + 1):
        h2, w2, C4, last = h // 2, w // 2, 4 * C, l == levels
        leaving = C4 if last else C4 // 2
        part = height * leaving / C4
        for left, tall, text, color in [
                (0.0, height, f"{h} × {w} × {C}", "0.9"),
                (1.7, height, f"{h2} × {w2} × {C4}\nK steps", plots.COLORS[5]),
                (3.4, part, f"{h2} × {w2} × {leaving}\n= {h2 * w2 * leaving} latents", plots.COLORS[4])]:
            axis.add_patch(Rectangle((left, top - tall), 1.1, tall, facecolor=color, alpha=0.6, edgecolor="0.3"))
            axis.text(left + 0.55, top - tall / 2, text, ha="center", va="center", fontsize=7)
        for begin, word, at in (1.1, "squeeze", height / 2), (2.8, "all" if last else "split", part / 2):
            arrow(axis, (begin, top - at), (begin + 0.6, top - at))
            axis.text(begin + 0.28, top - at + 0.02, word, ha="center", va="bottom", fontsize=7)
        axis.text(-0.1, top - height / 2, f"level {l}", ha="right", va="center")
        if not last:                                  # the other half goes on to the next level
            down = np.array([0.75 * height, 0.75 * height, height + 0.06, height + 0.06])
            axis.plot([2.8, 3.1, 3.1, 0.55], top - down, color="0.3")
            arrow(axis, (0.55, top - height - 0.05), (0.55, top - height - 0.12))
        top, height, h, w, C = top - height - 0.12, height / 2, h2, w2, C4 // 2
    axis.set(xlim=(-0.75, 4.6), ylim=(top, 0.1), title=title)
    axis.axis("off")


figure, axes = plt.subplots(1, 2, figsize=(9, 4))
draw_levels(axes[0], (8, 8, 1), 2, "the digits: L = 2, K = 12")
draw_levels(axes[1], (32, 32, 3), 3, "CIFAR-10 in the paper: L = 3, K = 32")

# %% [markdown]
# *What to see:* the height of a box stands for how many numbers it holds. From level to level that number
# halves, height and width of the image halve, and the channels double. Half of all latents have seen one
# level only.

# %% [markdown]
# **Exercise 6.2: predict, then run** (1 point). Glow for ImageNet at $64 \times 64 \times 3$ has $L = 4$
# levels. Which shapes do the latents of levels 1, 2, 3 and 4 have? Put a list of four tuples $(h, w, C)$
# into `shapes`.

# %% solution="shapes"
### BEGIN SOLUTION
shapes = [(32, 32, 6), (16, 16, 12), (8, 8, 24), (4, 4, 96)]
### END SOLUTION

# %% test="shapes" points=1
imagenet = minglow.glow((64, 64, 3), levels=4, flow_steps=1, hidden=1, rng=0)
expected = [view.shape[1:] for view in latent_views(imagenet, np.zeros((1, 64 * 64 * 3), np.float32)).values()]
assert len(shapes) == 4, f"one shape for each of the 4 levels, got {len(shapes)}"
for number, (found, right) in enumerate(zip(shapes, expected), start=1):
    assert tuple(found) == right, f"level {number}: squeeze makes 4 C channels, of which half leave (all in the last)"

# %% [markdown]
# ### What the split saves
#
# Without splits the channels would grow fourfold at each level. Count $M$, the multiplications of one flow
# step, per image, with $h \times w$ pixels and $C$ channels *after* the squeeze. The 1×1 convolution has $C^2$
# weights. The coupling's net has a 3×3 convolution from $C/2$ to $H$ channels ($H$: its width), a 1×1 from
# $H$ to $H$, and a 3×3 from $H$ to $C$. Each weight is used once for each pixel:
#
# $$
# M = h\,w \left( C^2 + \tfrac{9}{2}\, C\, H + H^2 + 9\, H\, C \right) .
# \tag{6.6}
# $$


# %%
# checks (6.6): the weights that the library really has
def multiplications(h, w, C, H):
    """Of one flow step, per image, and of its weights."""
    weights = C**2 + 9 * C * H // 2 + H**2 + 9 * H * C
    return h * w * weights, weights


for h, w, C, H in (2, 2, 4, 3), (4, 2, 12, 8), (8, 8, 48, 16):
    one_step = minglow.glow((2 * h, 2 * w, C // 4), levels=1, flow_steps=1, hidden=H, rng=0)
    weights = sum(part.params["weight"].size for _, part in one_step.walk() if "weight" in part.params)
    assert multiplications(h, w, C, H) == (h * w * weights, weights)

figure, axes = plt.subplots(1, 2, figsize=(8.5, 3))
for axis, (size, L, name) in zip(axes, [(32, 3, "CIFAR-10"), (256, 6, "256 × 256 faces")]):
    numbers = np.arange(1, L + 1)
    for offset, grows, label in (-0.2, 4, "without"), (0.2, 2, "with splits"):
        costs = [multiplications(size // 2**l, size // 2**l, 12 * grows ** (l - 1), 512)[0] for l in range(1, L + 1)]
        axis.bar(numbers + offset, costs, width=0.38, label=f"{label}: {sum(costs):.1e} in all")
    axis.set(yscale="log", xlabel="level", ylabel="multiplications in a step", xticks=numbers,
             title=f"{name}, H = 512, one image")
    axis.set_ylim(top=axis.get_ylim()[1] * 20)
    axis.legend(fontsize=8)

# %% [markdown]
# *What to see:* with splits every level is cheaper than the one before, and the first costs most. Without
# them CIFAR-10's three levels cost a little more, but six levels twice as much: cost rises again where the
# 1×1 convolution's $C^2$, with 12,288 channels in the end, outgrows the coupling's net. RealNVP names a
# second reason: latents that leave early meet the loss after few layers, so their gradients reach the first
# layers on a short way.

# %% [markdown]
# ## The learned prior of a split
#
# If $b$ leaves as plain $\mathcal N(0, I)$, the steps before have to remove all that $a$ could tell about
# $b$. Glow's code lets the model use it: $b$ is normal, with a mean $\mu(a)$ and a standard deviation
# $\sigma(a)$ that one convolution computes from $a$. Now comes a trick that keeps everything else as it is.
# A normal variable minus its mean, over its deviation, is standard normal:
#
# $$
# \varepsilon = \frac{b - \mu(a)}{\sigma(a)} .
# \tag{6.7}
# $$
#
# That is an affine coupling, in which $a$ passes and $b$ changes: in minglow's form $(b + \text{shift})
# \odot \text{scale}$, with the shift $-\mu(a)$, the scale $1/\sigma(a)$ and the log-determinant $-\sum \log
# \sigma(a)$. Put it at the end of the steps, let $\varepsilon$ leave in $b$'s place, and the base
# distribution is $\mathcal N(0, I)$ for all latents. The densities agree, sums running over all numbers of
# $b$:
#
# $$
# \log \mathcal N\big(b;\, \mu(a), \sigma(a)^2\big) = \log \mathcal N(\varepsilon;\, 0, I) - \sum \log \sigma(a) .
# \tag{6.8}
# $$

# %%
# checks (6.7) and (6.8): the library's layer against normal densities, written out
prior = perturbed(split_prior(4, np.float64), rng=2, size=0.15)  # of 4 channels: 2 are a, 2 are b
h = rng.standard_normal((5, 3, 2, 4))
a, b = h[..., :2], h[..., 2:]
minus_mu, minus_log_sigma = np.split(prior.net.forward(a)[0], 2, axis=-1)
mu, sigma = -minus_mu, np.exp(-minus_log_sigma)
out, prior_log_det, _ = prior.forward(h)
epsilon = out[..., 2:]
assert np.allclose(out[..., :2], a) and np.allclose(epsilon, (b - mu) / sigma)
assert np.allclose(prior_log_det, -np.log(sigma).sum(axis=(1, 2, 3)))
density = np.exp(-0.5 * ((b - mu) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))  # of each number
standard = minglow.StandardNormal((3, 2, 2)).log_prob(epsilon)
assert np.allclose(np.log(density).sum(axis=(1, 2, 3)), standard + prior_log_det)
J = numerical_jacobian(prior.forward, h[0])
assert np.isclose(np.linalg.slogdet(J)[1], prior_log_det[0], atol=1e-6)
print("log N(b; mu, sigma^2):", (standard + prior_log_det).round(3))

# %% [markdown]
# Its net starts at zero, so that $\mu = 0$ and $\sigma = 1$; see `split_prior` in
# [minglow/models/glow.py](../minglow/models/glow.py). The latents of the *last* level have nothing left to be
# conditioned on; [minglow/bases/top_prior.py](../minglow/bases/top_prior.py) can learn a mean and a scale for each of
# their channels, and for each class.

# %% [markdown]
# **Exercise 6.3: the density of what leaves** (2 points). Write `split_log_density(b, mu, log_sigma)`,
# which returns $\log \mathcal N(b; \mu, \sigma^2)$ of each sample, $(B,)$, for arrays $(B, h, w, C)$. Do
# not compute the density and then its logarithm: the density may be too small for a float.

# %% solution="split-density"
def split_log_density(b, mu, log_sigma):
    """log N(b; mu, exp(log_sigma)^2) of each sample, (B,), in nats; all arrays (B, h, w, C)."""
    ### BEGIN SOLUTION
    epsilon = (b - mu) * np.exp(-log_sigma)
    each = -0.5 * epsilon**2 - log_sigma - 0.5 * np.log(2 * np.pi)
    return each.sum(axis=(1, 2, 3))
    ### END SOLUTION


# %% test="split-density" points=2
for seed, size in (0, 0.1), (1, 0.3):
    layer = perturbed(split_prior(6, np.float64), rng=seed, size=size)
    h_test = np.random.default_rng(seed).standard_normal((4, 2, 5, 6))
    raw_shift, raw = np.split(layer.net.forward(h_test[..., :3])[0], 2, axis=-1)
    z_test, volume, _ = layer.forward(h_test)
    expected = minglow.StandardNormal((2, 5, 3)).log_prob(z_test[..., 3:]) + volume
    found = split_log_density(h_test[..., 3:], -raw_shift, -raw)
    assert np.shape(found) == (4,), f"one number for each sample, got shape {np.shape(found)}"
    assert np.allclose(found, expected), f"expected {expected.round(3)}, got {np.round(found, 3)}"
far = split_log_density(np.full((1, 1, 1, 1), 1e3), np.zeros((1, 1, 1, 1)), np.zeros((1, 1, 1, 1)))
assert np.isclose(far[0], -0.5e6 - 0.5 * np.log(2 * np.pi)), "exp(-500,000) is 0 in floats: never take its logarithm"

# %% [markdown]
# ## Which level holds what
#
# Take held-out digits, compute their latents, and draw those of one level anew from $\mathcal N(0, I)$,
# keeping the other's: `resample` in [minglow/inference.py](../minglow/inference.py).

# %%
shown = x[:12]
lines = [shown]
for name in "level 1", "level 2":
    lines += [resample(flow, shown, [name], rng=seed) for seed in range(3)]
labels = ["held out"] + 3 * ["new level 1"] + 3 * ["new level 2"]
plots.image_sheet(minglow.quantize(np.concatenate(lines), images.bins), 12, images.bins,
                  "the latents of one level drawn anew, three times each", labels)

# %%
figure, axes = plt.subplots(2, 6, figsize=(8.5, 3))
for row, name in zip(axes, ("level 1", "level 2")):
    for axis, digit in zip(row, x):
        drawn = resample(flow, np.repeat(digit[None], 200, axis=0), [name], rng=0)
        spread = axis.imshow(images.bins * drawn.std(axis=0)[..., 0], vmin=0, vmax=6)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(f"{name}\ndrawn anew")
figure.colorbar(spread, ax=axes, label="standard deviation (gray levels)")
figure.suptitle("how much each pixel of the first six digits varies over 200 draws", fontsize=10);

# %% [markdown]
# *What to see:* with new level-1 latents the digit stays what it is, and only the gray of its strokes
# changes a little. With new level-2 latents it becomes another one, or what the model takes for one. No one
# told the model so: both levels have 32 latents, but level 2's have been through twice the steps and have
# seen more of the image at once.
#
# Interpolation shows the same. Walk from one digit to another in the latents of one level only, or of both.

# %%
start, end = flow.latents(x[3:4]), flow.latents(x[7:8])
lines = []
for walking in ["level 1"], ["level 2"], ["level 1", "level 2"]:
    z = np.repeat(start, 11, axis=0)
    views, targets = latent_views(flow, z), latent_views(flow, end)
    share = np.linspace(0, 1, 11, dtype=np.float32)[:, None, None, None]
    for name in walking:
        views[name][...] += share * (targets[name] - views[name])  # a view: z itself is written
    lines.append(flow.from_latents(z))
assert np.allclose(lines[2][-1], x[7], atol=1e-3)
plots.image_sheet(minglow.quantize(np.concatenate(lines), images.bins), 11, images.bins,
                  "walks through the latents of ...", ["level 1", "level 2", "both"])

# %% [markdown]
# *What to see:* the middle and the last row do nearly the same: the walk happens in level 2.

# %% [markdown]
# ### "The flow does not reconstruct"
#
# This is reported as a bug now and then (rosinality/glow-pytorch, issues 7 and 45, for instance). A flow is
# a bijection, so it must reconstruct, up to rounding. In these threads the latents of the early levels were
# dropped: the last level's $z$ alone was kept, and the way back put zeros or fresh noise in place of the
# rest.

# %%
z = flow.latents(shown)
dropped = {"held out": shown, "all latents": flow.from_latents(z)}
for name in "level 1", "level 2":
    incomplete = z.copy()
    latent_views(flow, incomplete)[name][...] = 0
    dropped[f"without {name}"] = flow.from_latents(incomplete)
dropped["level 1 from noise"] = resample(flow, shown, ["level 1"], rng=0)
for name, back in dropped.items():
    print(f"{name:18} mean error {images.bins * np.abs(back - shown).mean():.5f} gray levels")
assert np.abs(dropped["all latents"] - shown).max() < 1e-4 < np.abs(dropped["without level 1"] - shown).max()
plots.image_sheet(minglow.quantize(np.concatenate(list(dropped.values())), images.bins), 12, images.bins,
                  "reconstructions", list(dropped))

# %% [markdown]
# *What to see:* with all 64 latents the error is rounding. Without level 1's 32 it is not, though digits of
# this size show it little; photographs lose their texture. minglow's latents are one vector $(B, D)$ of all
# levels, so that none can be forgotten; `latent_views` shows it level by level.

# %% [markdown]
# ## log p(x), level by level
#
# Write $z_l$ for the latents that leave at level $l$ (behind the learned prior), and $\ell_l$ for the
# log-determinant of what level $l$ does: squeeze, steps, prior. By (6.4), applied level after level, and
# because $\log \mathcal N(z; 0, I)$ is a sum over the numbers of $z$,
#
# $$
# \log p(x) = \sum_{l=1}^{L} \big( \log \mathcal N(z_l;\, 0, I) + \ell_l \big) .
# \tag{6.9}
# $$

# %%
# checks (6.9): the trained flow, taken apart by hand, against its log_prob
levels_of_flow = flow.bijection
*steps, prior = levels_of_flow.steps.layers           # squeeze and 12 steps, and the split's prior
h, steps_log_det = minglow.Chain(*steps).forward_only(x)
with_epsilon, prior_log_det = prior.forward_only(h)
a, epsilon = with_epsilon[..., :2], with_epsilon[..., 2:]
z_2, log_det_2 = levels_of_flow.inner.forward_only(a)


def log_normal(z):
    """log N(z; 0, I) of each sample, written out."""
    return (-0.5 * z.astype(np.float64) ** 2 - 0.5 * np.log(2 * np.pi)).reshape(len(z), -1).sum(axis=1)


terms = {"log-determinant of level 1's steps": steps_log_det,
         "latents of level 1, with their prior": log_normal(epsilon) + prior_log_det,
         "log-determinant of level 2's steps": log_det_2, "latents of level 2": log_normal(z_2)}
assert np.allclose(sum(terms.values()), flow.log_prob(x), atol=1e-2)

ledger = {"the cells: log2 17": np.log2(17)} | {name: -term.mean() / 64 / np.log(2) for name, term in terms.items()}
ends = np.cumsum(list(ledger.values()))
figure, axis = plt.subplots(figsize=(7, 2.6))
axis.barh([*ledger, "bits per dimension"], [*ledger.values(), ends[-1]], left=[*(ends - list(ledger.values())), 0],
          color=["0.6", *[plots.COLORS[0]] * 2, *[plots.COLORS[1]] * 2, plots.COLORS[2]])
for row, (value, end) in enumerate(zip([*ledger.values(), ends[-1]], [*ends, ends[-1]])):
    axis.text(max(end, end - value) + 0.05, row, f"{value:+.2f}" if row < 5 else f"{value:.2f}", va="center")
axis.invert_yaxis()
axis.set(xlabel="bits per dimension, running sum (held-out digits)", xlim=(0, 5));

# %% [markdown]
# *What to see:* in bits per dimension (0.1) the sum begins with $\log_2 17$, what the 17 gray levels cost a
# model that knows nothing. A log-determinant above 0 (the flow spreads the data out) takes bits away, latents
# bring them back. What is left is the model's 2.19. Single bars have no meaning of their own: let level 1's
# steps end by multiplying $a$ by 2, and level 2 begin by dividing it by 2, and two bars change while the sum
# stays.
#
# What does the learned prior know? Hand it the $a$ of *another* digit, and see what $b$ costs then.

# %%
b = h[..., 2:]
stranger = np.concatenate([np.roll(a, 1, axis=0), b], axis=-1)
wrong_epsilon, wrong_log_det = prior.forward_only(stranger)
own = terms["latents of level 1, with their prior"].mean()
others = (log_normal(wrong_epsilon[..., 2:]) + wrong_log_det).mean()
print(f"log p(b | a), mean: {own:.1f} nats with its own a, {others:.1f} with that of the digit before")
assert own > others

# %% [markdown]
# A few nats for 32 numbers: the prior helps, but the steps before it have left little for $a$ to tell.

# %% [markdown]
# ### Temperature is one multiplication
#
# Samples look cleaner if the noise is smaller than the model says (Kingma & Dhariwal 2018, section 6). With
# the latents drawn as $T\varepsilon$, $\varepsilon \sim \mathcal N(0, I)$, a **temperature** $T < 1$ does
# it at all levels at once. At a split the way back through (6.7) gives
#
# $$
# b = \mu(a) + T\, \sigma(a)\, \varepsilon ,
# \tag{6.10}
# $$
#
# which, given $a$, is normal with $T$ times the learned deviation and the learned mean. (Notebook 8 looks at
# what is gained and lost by it.)

# %%
# checks (6.10): the prior's inverse, and a whole sample
noise = flow.base.sample(12, rng=4)                   # (12, 64), N(0, I)
epsilon_here = noise[:, :32].reshape(12, 4, 4, 2)
a_here = flow.bijection.inner.inverse_only(noise[:, 32:])
minus_mu, minus_log_sigma = np.split(prior.net.forward(a_here)[0], 2, axis=-1)
mu_here, sigma_here = -minus_mu, np.exp(-minus_log_sigma)
T = np.float32(0.7)
b_here = prior.inverse_only(np.concatenate([a_here, T * epsilon_here], axis=-1))[..., 2:]
assert np.allclose(b_here, mu_here + T * sigma_here * epsilon_here, atol=1e-5)

lines = []
for T in 0.0, 0.5, 0.7, 1.0:
    lines.append(flow.sample(12, rng=4, temperature=T))
    assert np.allclose(lines[-1], flow.from_latents(np.float32(T) * noise), atol=1e-4)
plots.image_sheet(minglow.quantize(np.concatenate(lines), images.bins), 12, images.bins,
                  "one noise, four temperatures", [f"T = {T}" for T in (0.0, 0.5, 0.7, 1.0)])

# %% [markdown]
# *What to see:* at $T = 0$ all samples are the image of $z = 0$. With each row down, every column goes
# further on its own way from there.

# %% [markdown]
# ## One latent, moved
#
# How far does one latent reach? Column $i$ of the Jacobian of the *inverse*, $\partial x / \partial z_i$,
# says how each pixel moves when $z_i$ does. As a picture it has the size of the image. Here for one digit,
# in float64 (a copy of the model, `perturbed` by noise of size 0), for latents of channel 0 at four places of either
# level.

# %%
exact = perturbed(flow.bijection, size=0.0, dtype=np.float64)
z_digit = exact.forward_only(x[:1].astype(np.float64))[0][0]  # (64,)
columns = numerical_jacobian(exact.inverse_only, z_digit).T.reshape(64, 8, 8)  # of each latent
assert np.isclose(np.linalg.slogdet(columns.reshape(64, 64))[1], -exact.forward_only(x[:1].astype(np.float64))[1][0])

figure, axes = plt.subplots(2, 4, figsize=(8.5, 4))
where = {"level 1": [0, 6, 20, 30], "level 2": [32, 40, 48, 56]}
for row, (name, indices) in zip(axes, where.items()):
    for axis, index in zip(row, indices):
        number = index if index < 32 else index - 32
        i, j = (number // 8, number // 2 % 4) if index < 32 else (number // 16, number // 8 % 2)
        side = 4 if index < 32 else 2
        limit = np.abs(columns[indices]).max()
        drawn = axis.imshow(columns[index], cmap=plots.SIGNED, vmin=-limit, vmax=limit)
        block = 8 / side
        axis.add_patch(Rectangle((j * block - 0.5, i * block - 0.5), block, block, fill=False, edgecolor="0.2"))
        axis.set(xticks=[], yticks=[], title=f"{name}, row {i}, column {j}")
    figure.colorbar(drawn, ax=row, label="dx / dz")

# %% [markdown]
# *What to see:* the frame is the block of pixels that the latent's place stands for, $2 \times 2$ at level
# 1 and $4 \times 4$ at level 2. A latent of level 1 moves pixels in and near its frame. One of level 2
# moves strokes all over the image, and several times as far (the color bars differ). Both reach beyond their
# frames, since the couplings' 3×3 convolutions look at a pixel's neighbors in every step.

# %% [markdown]
# **Exercise 6.4: a column of the Jacobian** (2 points). Write `pixel_column(inverse, z, i)`, which returns
# $\partial x / \partial z_i$ at $z$, an array of the shape of one image, by a central difference: $(x(z + s
# e_i) - x(z - s e_i)) / 2s$ with $s = 10^{-4}$, where $e_i$ is 1 at place $i$ and 0 elsewhere. `inverse`
# takes latents $(B, D)$ and returns images $(B, h, w, C)$. Do not use `numerical_jacobian`, and do not
# write to `z`.

# %% solution="pixel-column"
def pixel_column(inverse, z, i):
    """d x / d z_i at the latents z, (D,), of one image: (h, w, C)."""
    ### BEGIN SOLUTION
    step = np.zeros(len(z))
    step[i] = 1e-4
    return ((inverse((z + step)[None]) - inverse((z - step)[None])) / 2e-4)[0]
    ### END SOLUTION


# %% test="pixel-column" points=2
small_level = perturbed(minglow.glow((4, 4, 1), levels=2, flow_steps=2, hidden=3, rng=2, dtype=np.float64).bijection, rng=3)
z_small = np.random.default_rng(6).standard_normal(16)
of_small = numerical_jacobian(small_level.inverse_only, z_small).T.reshape(16, 4, 4)
for inverse, point, every in (exact.inverse_only, z_digit, columns), (small_level.inverse_only, z_small, of_small):
    before = point.copy()
    for i in 0, 5, len(point) - 1:
        found, expected = pixel_column(inverse, point, i), every[i][..., None]
        assert np.shape(found) == expected.shape, f"expected {expected.shape}, got {np.shape(found)}"
        assert np.allclose(found, expected, atol=1e-4 * np.abs(expected).max()), f"latent {i}: the slope is off"
    assert np.array_equal(point, before), "z was written to"

# %% [markdown]
# ## To take away
#
# - Squeeze trades resolution for channels, a permutation with log-determinant 0; split lets half of the
#   channels leave, and changes no number. A level is a bijection with a level inside.
# - The learned prior of a split is one more affine coupling, so all latents are $\mathcal N(0, I)$ and
#   temperature is one multiplication.
# - In the digits model level 2 says which digit, level 1 the gray of its strokes. Drop either, and the flow
#   does not reconstruct.
# - $\log p(x)$ is a sum over levels of latents and log-determinants.
#
# Next: [7. Backward by hand](07_backward_by_hand.ipynb).
