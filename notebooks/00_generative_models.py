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
# # 0. Generative models
#
# **You will be able to** say what an auto-encoder, a variational auto-encoder (VAE) and a flow each minimize, and what
# each can tell about $\log p(x)$: nothing, a lower bound, the number itself; read bits per dimension; say why
# the VAE's bound, the ELBO, is one, and when it is tight.
#
# **You need** probability densities, the mean and the normal distribution, a rough idea of what a neural network is.
# This is an overture: most of what is shown here is derived in later notebooks. About 25 minutes of reading, 20 more
# with the exercises; it runs in seconds.

# %%
from math import log

import matplotlib.pyplot as plt
import numpy as np

import minglow
from minglow import plots
from minglow.data import digits
from minglow.models.autoencoder import fit
from minglow.models.vae import VAE
from minglow.nets import Dense
from minglow.runs.loading import load_run
from minglow.testing import numerical_jacobian, perturbed

plots.style()
rng = np.random.default_rng(0)

# %% [markdown]
# ## What is a generative model?
#
# Our data are small pictures of handwritten digits: $8 \times 8$ pixels, each a whole number from 0 (paper) to 16 (ink), so
# 17 levels. Somewhere there is a distribution that they were drawn from. Nobody knows it; we have examples. A
# **generative model** is a distribution $p$ that is made to resemble it. Two questions can be put to it:
#
# 1. **Sampling**: draw a new $x$ from $p$.
# 2. **Density**: how probable is *this* $x$? What is $p(x)$?

# %%
images = digits()
print("to train on:", images.train.shape, " held out:", images.held_out.shape, " levels:", images.bins)
figure, axis = plt.subplots(figsize=(8, 1.4))
plots.draw_images(axis, images.held_out[:32], images.bins, 16, "digits that no model here is trained on")

# %% [markdown]
# ### Densities need real numbers
#
# An image becomes a point $x \in \mathbb{R}^D$, $D = 64$: each whole number gets a random fraction added and is scaled into
# $[-\tfrac12, \tfrac12]$. So every image has a small cube for itself, of side $1/17$ (`minglow.dequantize`;
# notebook 13 says why this is fair). The image's probability is about the density $p(x)$ times the cube's
# volume, $17^{-D}$.
#
# ### Bits per dimension
#
# A perfect code spends $-\log_2 P$ bits on an image of probability $P$. Divided by the number of pixels, that is the
# unit in which flows are compared. With $\log p$ in nats (logarithms to base $e$; $\ln 2$ nats are one bit) and $n$
# levels:
#
# $$
# \text{bits per dimension} = \frac{-\log p(x)}{D \ln 2} + \log_2 n .
# \tag{0.1}
# $$
#
# Less is better. Two models to warm up, which need no training to speak of: one that finds all images equally
# probable, and a **table**, which knows how often each of the 64 pixels has each of the 17 levels, and nothing
# about neighbors.

# %%
# checks (0.1): the table's code length, counted in bits image by image, against its density over the cubes
D, levels = 64, images.bins
counts = 1 + np.stack([(images.train == level).sum(axis=0) for level in range(levels)])  # (17, 8, 8, 1)
table = counts / counts.sum(axis=0)
chosen = np.take_along_axis(table, images.held_out[:, None].reshape(-1, 8, 8, 1).astype(int), axis=0)
code_length = -np.log2(chosen).reshape(-1, D).sum(axis=1)  # bits for each image
log_density = np.log(levels * chosen).reshape(-1, D).sum(axis=1)  # a pixel's cell is 1/17 wide: density 17 P
in_bits = -log_density / (D * log(2)) + np.log2(levels)
assert np.allclose(in_bits, code_length / D)
assert np.allclose(in_bits, minglow.bits_per_dim(log_density, D, levels))
bits = {"all alike": minglow.bits_per_dim(0.0, D, levels), "table": in_bits.mean()}
print({name: round(float(number), 2) for name, number in bits.items()})

# %% [markdown]
# A density of 1 on the whole cube, $\log p = 0$, costs $\log_2 17 = 4.09$ bits; the table saves two fifths of them.
#
# **Exercise 0.1: predict, then run** (1 point). A model is certain that the 32 pixels of the left half are 0, and finds
# all 17 levels equally probable in each of the other 32. How many bits per dimension does it need for an image whose left
# half is 0? Put the number into `predicted_bits`.

# %% solution="bits"
### BEGIN SOLUTION
predicted_bits = np.log2(17) / 2
### END SOLUTION

# %% test="bits" points=1
probability_log2 = 32 * np.log2(1) + 32 * np.log2(1 / 17)
assert np.isclose(predicted_bits, -probability_log2 / 64, atol=0.01), "what is certain costs nothing; divide by all 64"

# %% [markdown]
# ## Three machines


# %%
def box(axis, x, y, text, color, size=(1.6, 1.0), taper=0.0):
    """A box around (x, y); with a taper above 0 it narrows to the right, below 0 to the left."""
    w, h = size[0] / 2, size[1] / 2
    left, right = h * (1 + min(taper, 0)), h * (1 - max(taper, 0))
    axis.fill([x - w, x + w, x + w, x - w], [y - left, y - right, y + right, y + left],
              facecolor=color + "40", edgecolor=color, linewidth=1.5)
    axis.text(x, y, text, ha="center", va="center")


def arrow(axis, start, end, text="", style="->"):
    axis.annotate("", end, start, arrowprops={"arrowstyle": style, "linewidth": 1.3, "color": "0.2"})
    axis.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.15, text, ha="center", va="bottom", fontsize=8)


blue, red, green, purple = plots.COLORS[:4]


# %%
def draw_encoder_decoder(axis, name, variational):
    """x, encoder, code, decoder, y; of a VAE the code is drawn from a normal distribution."""
    axis.text(-1.2, 1.15, name, fontsize=10, fontweight="bold")
    box(axis, 0, 0, "x\n64 numbers", green, (1.7, 1.3))
    box(axis, 2.3, 0, "encoder", blue, taper=0.5, size=(1.5, 1.4))
    box(axis, 9.2, 0, "decoder", blue, taper=-0.5, size=(1.5, 1.4))
    box(axis, 11.5, 0, "y\n64 numbers", green, (1.7, 1.3))
    if variational:
        box(axis, 4.4, 0, "μ, σ", red, (1.0, 0.8))
        box(axis, 7.0, 0, "z = μ + σ ⊙ ε", red, (1.9, 0.7))
        box(axis, 7.0, 1.15, "ε ~ N(0, I)", purple, (1.5, 0.5))
        arrow(axis, (7.0, 0.9), (7.0, 0.35))
        ends = (0.85, 1.55), (3.05, 3.9), (4.9, 6.05), (7.95, 8.45), (9.95, 10.65)
    else:
        box(axis, 5.75, 0, "code z\n16 numbers", red, (1.5, 0.8))
        ends = (0.85, 1.55), (3.05, 5.0), (6.5, 8.45), (9.95, 10.65)
    for start, end in ends:
        arrow(axis, (start, 0), (end, 0))


figure, axes = plt.subplots(3, 1, figsize=(8, 5.6))
draw_encoder_decoder(axes[0], "auto-encoder: y should be x", False)
draw_encoder_decoder(axes[1], "VAE: y should be x, and z should look like N(0, I)", True)
axes[2].text(-1.2, 1.15, "flow: z should look like N(0, I)", fontsize=10, fontweight="bold")
box(axes[2], 0, 0, "x\n64 numbers", green, (1.7, 1.3))
box(axes[2], 5.75, 0, "$f$ and $f^{-1}$,\none invertible map", blue, (3.4, 1.3))
box(axes[2], 11.5, 0, "z\n64 numbers", red, (1.7, 1.3))
for x_from, x_to in ((0.85, 4.05), (7.45, 10.65)):
    arrow(axes[2], (x_from, 0.25), (x_to, 0.25), "density: $z = f(x)$" if x_from < 1 else "and $|\\det J|$")
    arrow(axes[2], (x_to, -0.35), (x_from, -0.35), "sampling: $x = f^{-1}(z)$" if x_from > 1 else "")
for axis in axes:
    axis.set(xlim=(-1.4, 12.5), ylim=(-0.8, 1.5))
    axis.axis("off")

# %% [markdown]
# *What to see:* the first two squeeze $x$ through a narrow place and have two nets, one for each direction. The flow
# has one map, used in both directions, and as many latents as pixels. Nothing is lost in it.
# ($\mathcal{N}(0, I)$: independent normal numbers of mean 0 and variance 1. $\odot$: product number by number.)
#
# ## The auto-encoder
#
# An encoder makes a **code** $z$ of 16 numbers, a decoder makes an image $y$ of it. For a batch of $B$ images, training
# minimizes the mean squared **reconstruction error** (Hinton & Salakhutdinov 2006):
#
# $$
# L_{\text{AE}} = \frac{1}{B D} \sum_{b=1}^{B} \sum_{i=1}^{D} (y_{bi} - x_{bi})^2 , \qquad
# y_b = \operatorname{decoder}(\operatorname{encoder}(x_b)) .
# \tag{0.2}
# $$

# %%
# checks (0.2): the library's loss, against the sum written out; and its slope by x, by differences
small = perturbed(minglow.autoencoder((2, 2, 1), latent=2, hidden=5, dtype=np.float64, rng=0))
batch, direction = rng.standard_normal((2, 3, 2, 2, 1))
y = small.from_latents(small.latents(batch))
loss, dx = small.loss_backward(batch)
assert np.isclose(loss, sum((y[b].ravel()[i] - batch[b].ravel()[i]) ** 2 for b in range(3) for i in range(4)) / 12)
ahead, behind = (small.loss_backward(batch + step * direction)[0] for step in (1e-6, -1e-6))
assert np.isclose((dx * direction).sum(), (ahead - behind) / 2e-6, rtol=1e-5)

auto_encoder = minglow.autoencoder((8, 8, 1), latent=16, rng=0)
losses = fit(auto_encoder, images, steps=800)
held_out = minglow.dequantize(images.held_out, levels, rng=0)  # real numbers in [-1/2, 1/2]
errors = ((auto_encoder.reconstruct(held_out) - held_out) ** 2).mean(axis=(1, 2, 3))
print(f"loss: {losses[0]:.3f} at the start, {np.mean(losses[-50:]):.4f} at the end, {errors.mean():.4f} held out")

# %% [markdown]
# What is $p(x)$? There is none: nothing in (0.2) is a probability. Can it draw? We may feed the decoder random codes,
# but nobody has said what codes look like. The next picture uses normal noise with the mean and the standard deviation of
# each of the 16 numbers, over the codes of true digits.

# %%
codes = auto_encoder.latents(held_out)
random_codes = codes.mean(axis=0) + codes.std(axis=0) * rng.standard_normal((200, 16))
decoded = minglow.quantize(auto_encoder.from_latents(random_codes), levels)
rebuilt = minglow.quantize(auto_encoder.reconstruct(held_out[:16]), levels)
plots.image_sheet(np.concatenate([images.held_out[:16], rebuilt, decoded[:32]]), 16, levels,
                  "auto-encoder", ["data", "rebuilt", "random codes", ""])

# %% [markdown]
# *What to see:* it rebuilds digits well that it has never met. From random codes it makes strokes and smears, and
# seldom a clear digit: codes of digits fill a small, crooked part of the space, and noise lands beside it.
#
# Is a small error at least a sign that an image is probable? Compare true digits with the smears of the second kind.

# %%
smears = minglow.dequantize(decoded, levels, rng=1)
smear_errors = ((auto_encoder.reconstruct(smears) - smears) ** 2).mean(axis=(1, 2, 3))
figure, axis = plt.subplots(figsize=(6, 2.4))
ranges = np.linspace(0, 0.03, 61)
axis.hist(errors, ranges, alpha=0.6, density=True, label="held-out digits")
axis.hist(smear_errors, ranges, alpha=0.6, density=True, label="decoded random codes")
axis.set(xlabel="reconstruction error, squared gray level (the whole range is 1)", ylabel="share per unit")
axis.legend();

# %% [markdown]
# *What to see:* the auto-encoder rebuilds its own smears better than digits. A reconstruction error says what fits
# through the narrow place, not what is probable.
#
# ## The variational auto-encoder
#
# A VAE begins with the density (Kingma & Welling 2014). First a latent $z \sim \mathcal{N}(0, I)$ is drawn, then $x$ from a
# distribution that depends on it, $p(x|z)$, here a normal one around the decoder's image with one standard
# deviation $\sigma_x$ for all pixels. So $x$ has the density
#
# $$
# p(x) = \int p(x|z)\, p(z)\, \mathrm{d}z .
# \tag{0.3}
# $$
#
# To sample, follow this definition. But the integral over 16 latents has no closed form, since the decoder is a net. To
# see what is done about it, take a model so small that we know everything: $x$ and $z$ are single numbers, the decoder is $y = w
# z$. Then $x = w z + \sigma_x \varepsilon$, with one more standard normal number $\varepsilon$, is normal with variance
# $w^2 + \sigma_x^2$.


# %%
# checks (0.3): the integral, on a grid, against the normal density that it has to be
def log_normal(x, mean, std):
    """The logarithm of the normal density."""
    return -0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)


w, sigma_x, x = 1.5, 0.8, 1.2                        # x: the one observation that we look at
z = np.linspace(-12, 12, 4001)
integral = np.trapezoid(np.exp(log_normal(x, w * z, sigma_x) + log_normal(z, 0, 1)), z)
log_p = log_normal(x, 0, np.sqrt(w**2 + sigma_x**2))
print(f"log of the integral {np.log(integral):.6f}, closed form {log_p:.6f}")
assert np.isclose(np.log(integral), log_p)

# %% [markdown]
# ### The bound
#
# Let $q(z)$ be *any* density of $z$, and $E_{z \sim q}$ the mean over draws $z$ from it. Multiply and divide (0.3) by
# $q(z)$: $p(x) = E_{z \sim q}[\,p(x|z)\,p(z)/q(z)\,]$. The logarithm
# is concave, so the logarithm of a mean is at least the mean of the logarithms (**Jensen's inequality**). What
# comes out is called the *evidence lower bound*:
#
# $$
# \log p(x) \;\ge\; \mathrm{ELBO}(x) = E_{z \sim q}\big[\log p(x|z)\big] - \mathrm{KL}\big(q(z) \,\|\, p(z)\big) ,
# \tag{0.4}
# $$
#
# where $\mathrm{KL}(q \| p) = E_{z \sim q}[\log q(z) - \log p(z)] \ge 0$ (Kullback and Leibler) is 0 where the two
# densities agree. By how much does the bound fall short? By another such term, the distance of $q$ from the **posterior**
# $p(z|x) = p(x|z)\,p(z)/p(x)$, which is what $z$ may have been, given $x$. (Put $p(x|z)\,p(z) = p(z|x)\,p(x)$ into the mean of
# $\log p(x|z) + \log p(z) - \log q(z)$, which (0.4) is, and $\log p(x)$ comes out of it.)
#
# $$
# \log p(x) - \mathrm{ELBO}(x) = \mathrm{KL}\big(q(z) \,\|\, p(z|x)\big) .
# \tag{0.5}
# $$
#
# A VAE's encoder gives $q$ for each $x$: a normal density, with a mean μ and a standard deviation σ for each latent.


# %%
# checks (0.4) and (0.5): by integrals on the grid, by the library's VAE, and the posterior in closed form
best = w * x / (w**2 + sigma_x**2), sigma_x / np.sqrt(w**2 + sigma_x**2)  # the posterior's mean and std


def kl_and_elbo(m, s):
    """KL(q || posterior) and the ELBO of the small model, for q = N(m, s^2), by sums over the grid of z."""
    log_q, log_x_given_z = log_normal(z, m, s), log_normal(x, w * z, sigma_x)
    kl, kl_to_p_z = (np.trapezoid(np.exp(log_q) * (log_q - log_normal(z, *other)), z) for other in (best, (0, 1)))
    return kl, np.trapezoid(np.exp(log_q) * log_x_given_z, z) - kl_to_p_z


encoder, decoder = Dense(1, 2, dtype=np.float64), Dense(1, 1, dtype=np.float64)
tiny = VAE(encoder, decoder, (1,), 1, log_sigma=np.log(sigma_x), dtype=np.float64)
decoder.params["weight"][...], encoder.params["weight"][...] = w, 0
observed = np.full((200_000, 1), x)
for m, s in (0.0, 1.0), (0.3, 0.4), (1.0, 0.2), best:
    kl, elbo = kl_and_elbo(m, s)
    encoder.params["bias"][...] = m, np.log(s)       # q: mean and log std, whatever x is
    draws = tiny.elbo(observed, rng=1)
    print(f"q = N({m:.2f}, {s:.2f}²): ELBO {elbo:.4f}, library {draws.mean():.4f}, log p {log_p:.4f}, KL {abs(kl):.4f}")
    assert elbo <= log_p + 1e-9 and np.isclose(log_p - elbo, kl, atol=1e-8)
    assert abs(draws.mean() - elbo) < 5 * draws.std() / np.sqrt(len(draws)) + 1e-9
assert np.isclose(kl_and_elbo(*best)[1], log_p)

# %% [markdown]
# *What to see:* every $q$ gives a bound, the better the nearer it is to the posterior; the last one *is* the posterior,
# and its bound is tight.
#
# **Exercise 0.2: the gap, predicted** (1 point). Some VAE has $\mathrm{ELBO} = -95$ nats for an image, and $\mathrm{KL}(q(z)
# \| p(z|x)) = 3$ nats. What is $\log p(x)$? Put it into `predicted_log_p`.

# %% solution="gap"
### BEGIN SOLUTION
predicted_log_p = -92
### END SOLUTION

# %% test="gap" points=1
assert predicted_log_p >= -95, "the ELBO is a lower bound: log p(x) is not below it"
assert np.isclose(predicted_log_p - -95, 3), "(0.5) says how far the bound lies below"

# %% [markdown]
# ### More draws, a tighter bound
#
# The nearness of $q$ can be made up for by averaging *before* the logarithm is taken, over $n$ draws $z_1, \dots, z_n$
# from $q$ ($n$ counts draws now, not levels; the importance-weighted bound: Burda et al. 2016, equation 8 and theorem 1):
#
# $$
# \log p(x) \;\ge\; E\Big[\log \frac{1}{n} \sum_{i=1}^{n} \frac{p(x|z_i)\,p(z_i)}{q(z_i)}\Big] ,
# \tag{0.6}
# $$
#
# which is the ELBO for $n = 1$, does not fall as $n$ grows, and has $\log p(x)$ as its limit.

# %%
# checks (0.6): of the small model, by the written-out mean and by the library, in steps up to the known log p
encoder.params["bias"][...] = 0.3, np.log(0.4)
numbers, means = [1, 3, 10, 30, 100], []
for n in numbers:
    found = tiny.log_prob_bound(observed[:20_000], rng=2, samples=n)
    zs = 0.3 + 0.4 * rng.standard_normal((20_000, n))
    log_weights = log_normal(x, w * zs, sigma_x) + log_normal(zs, 0, 1) - log_normal(zs, 0.3, 0.4)
    written_out = np.log(np.exp(log_weights).mean(axis=1))
    assert abs(found.mean() - written_out.mean()) < 5 * (found.std() + written_out.std()) / np.sqrt(20_000)
    means.append(found.mean())
    assert means[-1] < log_p + 5 * found.std() / np.sqrt(20_000)
assert np.all(np.diff(means) > 0) and log_p - means[-1] < 0.1 * (log_p - means[0])

figure, axis = plt.subplots(figsize=(5.5, 2.5))
axis.semilogx(numbers, means, "o-", label="the bound (0.6)")
axis.axhline(log_p, color="0.4", linestyle=":", label="log p(x)")
axis.set(xlabel="draws n", ylabel="nats", title="the small model, with a q that does not fit")
axis.legend();

# %% [markdown]
# **Exercise 0.3: the mean of tiny numbers** (2 points). For images the logarithms of the weights, $\log w_i = \log
# [\,p(x|z_i)\,p(z_i)/q(z_i)\,]$, are so far below zero that $e^{\log w_i}$ is 0 for a computer. Write
# `log_mean_exp(log_w)`, the logarithm of the mean of the weights, for a vector `log_w` (n,), which works nevertheless. (Take the
# largest out of the sum before the exponential.)

# %% solution="log-mean-exp"
def log_mean_exp(log_w):
    """log(1/n sum_i exp(log_w_i)), for a vector of n numbers however large or small."""
    ### BEGIN SOLUTION
    largest = log_w.max()
    return largest + np.log(np.exp(log_w - largest).mean())
    ### END SOLUTION


# %% test="log-mean-exp" points=2
for log_w in np.log([1.0, 2.0, 6.0]), np.array([-0.3]), np.linspace(-3, 3, 50):
    assert np.isclose(log_mean_exp(log_w), np.log(np.exp(log_w).mean())), "the mean, not the sum, of the weights"
    for offset in -2000.0, 2000.0:
        with np.errstate(all="ignore"):
            found = log_mean_exp(log_w + offset)
        assert np.isclose(found, offset + np.log(np.exp(log_w).mean())), f"log weights around {offset:.0f} gave {found}"

# %% [markdown]
# ### A VAE for digits
#
# Training maximizes the ELBO (0.4) over both nets and $\sigma_x$, with one draw of $z$ for each image
# ([minglow/models/vae.py](../minglow/models/vae.py)). An ELBO below $\log p$ is a number of bits *above* the true one.

# %%
variational = minglow.vae((8, 8, 1), latent=16, rng=0)
fit(variational, images, steps=800)
elbo = variational.elbo(held_out, rng=1, samples=10).astype(float)
bound = variational.log_prob_bound(held_out, rng=1, samples=100).astype(float)
bits["VAE, by the ELBO"] = minglow.bits_per_dim(elbo.mean(), D, levels)
bits["VAE, 100 draws"] = minglow.bits_per_dim(bound.mean(), D, levels)
print(f"bits per dimension: at most {bits['VAE, by the ELBO']:.2f} by the ELBO, at most "
      f"{bits['VAE, 100 draws']:.2f} by 100 draws; sigma_x = {np.exp(variational.params['log_sigma'][0]):.2f}")

# %% [markdown]
# The bound moves with the number of draws. How far it still is from $\log p(x)$ we cannot say.
#
# ## The flow
#
# A flow is an invertible map $f$ with a square Jacobian $J = \partial f / \partial x$, the matrix of all slopes. It needs no
# integral and no second net. The next notebook derives its density:
#
# $$
# \log p(x) = \log p_z(f(x)) + \log|\det J(x)| , \qquad p_z = \mathcal{N}(0, I) .
# \tag{0.7}
# $$
#
# Training maximizes its mean over the data; there is nothing to approximate.

# %%
# checks (0.7): a small flow of images, its 32 x 32 Jacobian by differences
little = perturbed(minglow.glow((4, 4, 2), levels=2, flow_steps=2, hidden=4, dtype=np.float64, rng=0))
pictures = rng.uniform(-0.5, 0.5, (3, 4, 4, 2))
for picture, log_prob in zip(pictures, little.log_prob(pictures)):
    latent = little.latents(picture[None])[0]
    J = numerical_jacobian(little.latents, picture)
    by_hand = log_normal(latent, 0, 1).sum() + np.linalg.slogdet(J)[1]
    print(f"library {log_prob:.6f}, Jacobian by differences {by_hand:.6f}")
    assert np.isclose(log_prob, by_hand, atol=1e-5)

# %% [markdown]
# [models/](models/) holds a Glow that `minglow train` has trained on the digits.

# %%
flow = minglow.load("models/digits.npz")
run = load_run("models/digits.npz").config
print(run.model.levels, "levels of", run.model.flow_steps, "flow steps, trained for", run.training.steps, "steps")
exact = flow.log_prob(held_out).astype(float)
bits["flow"] = minglow.bits_per_dim(exact.mean(), D, levels)
print(f"{bits['flow']:.2f} bits per dimension; there and back again, x changes by at most "
      f"{flow.reconstruction_error(held_out):.0e}")

# %% [markdown]
# This is the exact density of the points $x$. (For the whole numbers behind them it is a bound, because of the random
# fraction; that is so for all models here but the first two, and is the subject of notebook 13.)
#
# ## Side by side

# %%
latents = flow.latents(held_out[:16])
lines = {
    "data": images.held_out[:16],
    "auto-encoder": minglow.quantize(auto_encoder.reconstruct(held_out[:16]), levels),
    "VAE": minglow.quantize(variational.reconstruct(held_out[:16]), levels),
    "flow": minglow.quantize(flow.from_latents(latents), levels),
}
assert np.array_equal(lines["flow"], images.held_out[:16])
plots.image_sheet(np.concatenate(list(lines.values())), 16, levels, "reconstructions", list(lines))

# %%
lines = {
    "auto-encoder": decoded[:16],
    "VAE, means": minglow.quantize(variational.sample(16, rng=3), levels),
    "VAE, samples": minglow.quantize(variational.sample(16, rng=3, noise=True), levels),
    "flow": minglow.quantize(flow.sample(16, rng=3), levels),
    "flow, T = 0.8": minglow.quantize(flow.sample(16, rng=3, temperature=0.8), levels),
}
plots.image_sheet(np.concatenate(list(lines.values())), 16, levels, "new images", list(lines))

# %% [markdown]
# *What to see:* above, only the flow gives back each image exactly; it is invertible. Below, what a VAE draws from $p(x)$ is the
# third line, decoder means *with* the noise $\sigma_x$; the means alone, which are often shown, look better than its bits.
# In the last line the flow's latent noise is multiplied by $T = 0.8$ (the *temperature*), which gives likelier images
# and fewer kinds.

# %%
figure, axis = plt.subplots(figsize=(7, 2.6))
names = list(bits)
axis.barh(names, list(bits.values()), color=["0.7", "0.7", *2 * [plots.COLORS[1]], plots.COLORS[0]])
for name, number in bits.items():
    axis.text(number + 0.05, name, ("≤ " if "VAE" in name else "") + f"{number:.2f}", va="center")
axis.barh("auto-encoder", 0)
axis.text(0.05, "auto-encoder", "no density, no number", va="center", style="italic")
axis.invert_yaxis()
axis.set(xlabel="bits per dimension of held-out digits (less is better)", xlim=(0, 4.8));

# %% [markdown]
# *What to see:* of the three machines, the flow has an exact number, the VAE has two bounds, and the auto-encoder has
# nothing. The contest is not a fair one: the flow was trained for longer, and this VAE has one $\sigma_x$ for all pixels, so that it pays even where every image is blank;
# the table, which knows the blank pixels, beats it. What can be *said* about each model is the difference that
# stays.
#
# Last, the question on which the auto-encoder failed: what does the flow think of the smears?

# %%
figure, axis = plt.subplots(figsize=(6, 2.4))
ranges = np.linspace(1.2, 6, 61)
for name, pictures in ("held-out digits", held_out), ("decoded random codes", smears):
    each = minglow.bits_per_dim(flow.log_prob(pictures).astype(float), D, levels)
    axis.hist(each, ranges, alpha=0.6, density=True, label=f"{name}, mean {each.mean():.2f}")
average = np.round(images.train.mean(axis=0, keepdims=True)).astype(int)
of_average = minglow.bits_per_dim(float(flow.log_prob(minglow.dequantize(average, levels, rng=0))[0]), D, levels)
axis.axvline(of_average, color="k", linestyle=":", label=f"the mean of all digits, {of_average:.2f}")
axis.set(xlabel="the flow's bits per dimension", ylabel="share per unit")
axis.legend();

# %% [markdown]
# *What to see:* it finds most smears less probable than digits, and says so in one unit. A density is no judge of
# everything, though. The dotted line is the mean of all training digits, a gray blur: it is no digit, and yet denser
# than the average digit. The densest place need not be where the samples are.
#
# | | auto-encoder | VAE | flow |
# | --- | --- | --- | --- |
# | minimizes | reconstruction error | −ELBO | $-\log p(x)$ |
# | says of $\log p(x)$ | nothing | a lower bound | the number |
# | latents | few | few | as many as $x$ has numbers |
# | samples | none by right | decoder of $\mathcal{N}(0, I)$, with noise | $f^{-1}$ of $\mathcal{N}(0, I)$ |
# | reconstruction | approximate | approximate | exact |
# | the nets may be | any | any | invertible, with a cheap determinant |
#
# The last line is the price of the flow, and the subject of this course.

# %% [markdown]
# ## To take away
#
# - A generative model draws new $x$, and may say how probable a given one is. Reconstructing well is neither.
# - The ELBO lies below $\log p(x)$ by the KL divergence from $q$ to the posterior; more draws close the gap.
# - A flow gives $\log p(x)$ itself, and reconstructs exactly, because its map is invertible.
# - Bits per dimension measure all of them in one unit; guessing costs $\log_2$ of the number of levels.
#
# Next: [1. Change of variables](01_change_of_variables.ipynb).
