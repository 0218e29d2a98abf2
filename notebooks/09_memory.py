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
# # 9. Memory for nothing: reversible backprop
#
# **You will be able to** say why training remembers every layer, and how much memory that takes; write a
# backward pass that remembers none, by inverting each layer on the way back; predict its memory and its
# extra time; say when rounding makes it wrong, and by which numbers one sees that coming; say why a flow with a
# good likelihood may draw samples of size $10^{10}$, and find the layer that does it.
#
# **You need** notebooks 5 (the 1×1 convolution, condition numbers) and 7 (backward by hand), singular values.
# About 75 minutes with the exercises; it runs in a minute.

# %%
import time
import tracemalloc
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np

import minglow
from minglow import plots
from minglow.layers.invconv import random_rotation
from minglow.nets import conv_net, mlp
from minglow.testing import numerical_jacobian, perturbed
from minglow.training.diagnosis import invertibility

plots.style()
rng = np.random.default_rng(0)

# %% [markdown]
# ## Why training remembers
#
# A flow is a chain of $K$ layers. Write $h_0 = x$ for the data, $h_k = f_k(h_{k-1})$ for what layer $k$
# returns, and $y = h_K$. (Below, a layer may stand for a whole flow step, which is actnorm, 1×1 convolution and
# coupling; then $K$ counts steps.) A loss $L$ is a number made of $y$ and of the log-determinants; $\bar a = \partial L /
# \partial a$, and $\bar\ell = \partial L / \partial \texttt{log\_det}$ of one sample. The chain rule goes from the
# last layer to the first. For one sample,
#
# $$
# \bar h_{k-1} = J_k^{\top}\, \bar h_k + \bar\ell \; \nabla \log|\det J_k| .
# \tag{9.1}
# $$
#
# Here $J_k = \partial f_k / \partial h_{k-1}$, and the gradient $\nabla$ by $h_{k-1}$, are taken at the point
# $h_{k-1}$: that is the whole difficulty. A layer on its way back has to know where it was on its way there. What it keeps for that is its **cache**, the third thing that `forward` returns.


# %%
def flow_steps(K, condition=1.0, gain=0.02, channels=8, hidden=16, seed=0):
    """The layers of K flow steps, float64, every 1x1 convolution of this condition number.

    gain: the size of the weights with which each coupling's net ends.
    """
    rng, layers = np.random.default_rng(seed), []
    for _ in range(K):
        mixing = minglow.InvConv1x1(channels, rng, np.float64)
        stretch = np.geomspace(condition ** 0.5, condition ** -0.5, channels)
        mixing.params["weight"][...] = (random_rotation(channels, rng) * stretch) @ random_rotation(channels, rng)
        net = conv_net(channels // 2, hidden, channels, rng, np.float64)
        last = net.nets[-2].params["weight"]             # zero at Glow's start: the net would say nothing
        last[...] = gain * rng.standard_normal(last.shape)
        layers += [minglow.ActNorm(channels, np.float64), mixing, minglow.AffineCoupling(net)]
    return layers


def cast(layers, dtype):
    """A copy of the layers, in another precision."""
    return list(perturbed(minglow.Chain(*layers), 0, 0.0, dtype).layers)


# %%
# checks (9.1): a coupling's backward pass, beside derivatives by differences
coupling = perturbed(minglow.AffineCoupling(mlp(2, 8, 4, rng, np.float64)), 1, size=0.5)
h = rng.standard_normal((1, 2, 2, 4))                    # one sample
y, log_det, cache = coupling.forward(h)
dy, dlog_det = rng.standard_normal(y.shape), rng.standard_normal(1)
J = numerical_jacobian(coupling.forward, h[0])
log_det_slope = numerical_jacobian(lambda points: coupling.forward(points)[1][:, None], h[0])[0]
by_differences = J.T @ dy.ravel() + dlog_det[0] * log_det_slope
assert np.allclose(coupling.backward(dy, dlog_det, cache).ravel(), by_differences, atol=1e-7)

elsewhere = coupling.forward(h + 1)[2]                   # the cache of another point
error = np.abs(coupling.backward(dy, dlog_det, elsewhere).ravel() - by_differences).max()
print(f"with the cache of another point the derivative is off by {error:.2f}")
assert error > 0.1

# %% [markdown]
# ## Counting bytes
#
# The forward pass makes the caches 1, 2, ..., $K$; the backward pass wants them in the order $K$, ..., 2, 1. The
# one that is made first is needed last, so at the turning point all $K$ are there. If every step's caches
# take $c$ bytes,
#
# $$
# M_{\text{Chain}}(K) = K\,c .
# \tag{9.2}
# $$
#
# The next cells count. A cache is made of tuples, lists and arrays, and some arrays are views of others or
# occur twice (what actnorm returns is what the 1×1 convolution remembers): such memory is counted once.


# %%
def arrays_of(thing):
    """All arrays in nested tuples and lists."""
    if isinstance(thing, np.ndarray):
        return [thing]
    return [array for part in thing for array in arrays_of(part)] if isinstance(thing, (tuple, list)) else []


def held_bytes(*things):
    """The bytes that these caches keep alive, memory that they share counted once."""
    owners = {}
    for array in arrays_of(things):
        owner = array
        while isinstance(owner.base, np.ndarray):        # of a view, count what it looks at
            owner = owner.base
        owners[id(owner)] = owner.nbytes
    return sum(owners.values())


# %%
# checks (9.2): bytes between the two passes, at five depths, in float32
x = rng.standard_normal((8, 4, 4, 8)).astype(np.float32) # 8 images of 4 x 4 pixels with 8 channels
depths, held, held_reversible = [1, 2, 4, 8, 16], [], []
for K in depths:
    layers = cast(flow_steps(K), np.float32)
    held.append(held_bytes(minglow.Chain(*layers).forward(x)[2]))
    held_reversible.append(held_bytes(minglow.ReversibleChain(*layers).forward(x)[2]))
step_bytes = held[0]
print("Chain:          ", held, "bytes")
print("ReversibleChain:", held_reversible, "bytes; x itself takes", x.nbytes)
assert held == [K * step_bytes for K in depths]
assert held_reversible == [x.nbytes] * len(depths)       # its output, nothing else

# %%
figure, axis = plt.subplots(figsize=(5.5, 3))
axis.plot(depths, np.array(held) / 1e6, "o-", label="Chain")
axis.plot(depths, np.array(held_reversible) / 1e6, "o-", label="ReversibleChain")
axis.set(xlabel="flow steps K", ylabel="held between the passes, MB", ylim=(-0.1, None))
axis.legend();

# %% [markdown]
# *What to see:* a straight line for the chain that keeps everything; beside it, one that keeps its output alone and
# lies flat. Glow on CIFAR-10 has 96 steps, each with nets of 512 channels: this line is what fills a
# GPU. The rest of the notebook is about the flat one.

# %% [markdown]
# **Exercise 9.1: predict, then run** (1 point). How many bytes do the two chains hold between the passes at
# $K = 48$, for a batch of *16* such images? One step's caches take `step_bytes` for 8 images, and those 8
# images take `x.nbytes`. Set `predicted_chain` and `predicted_reversible`.

# %% solution="predicted-bytes"
### BEGIN SOLUTION
predicted_chain = 48 * 2 * step_bytes
predicted_reversible = 2 * x.nbytes
### END SOLUTION

# %% test="predicted-bytes" points=1
deep, twice = cast(flow_steps(48), np.float32), np.concatenate([x, x])
for predicted, chain in (predicted_chain, minglow.Chain), (predicted_reversible, minglow.ReversibleChain):
    measured = held_bytes(chain(*deep).forward(twice)[2])
    assert predicted == measured, f"{chain.__name__} holds {measured} bytes: what grows with K, what with B?"

# %% [markdown]
# ## The layer's input, from its output
#
# A layer of a flow has an inverse. So nobody needs to remember $h_{k-1}$ who has $h_k$:
#
# $$
# h_{k-1} = f_k^{-1}(h_k) .
# \tag{9.3}
# $$
#
# This is Gomez et al. 2017, section 3 (the RevNet), whose layers were made invertible for this purpose; a flow's are
# anyway. One question is left. `backward` wants a cache, not $h_{k-1}$. minglow's layers settle it by a
# promise ([docs/contract.md](../docs/contract.md), "The cache comes from either direction"): `inverse` returns the
# same cache as `forward`,
#
# $$
# \operatorname{cache}\big(\texttt{inverse}(h_k)\big) = \operatorname{cache}\big(\texttt{forward}(h_{k-1})\big) .
# \tag{9.4}
# $$
#
# That costs nothing. A coupling's net sees the half that passes through unchanged, which is in $h_{k-1}$ and
# in $h_k$ alike; the net's caches are the same whichever way one goes. Actnorm's backward pass is
# written in terms of its output, the 1×1 convolution's in terms of its input: each has both, in either
# direction.

# %%
# checks (9.3) and (9.4): every layer's input and its cache, array by array
h = x.astype(np.float64)
for layer in flow_steps(3, condition=4, gain=0.1):
    y, _, cache = layer.forward(h)
    h_again, cache_again = layer.inverse(y)
    assert np.allclose(h_again, h, atol=1e-12)
    pairs = list(zip(arrays_of(cache), arrays_of(cache_again), strict=True))
    assert all(one.shape == other.shape and np.allclose(one, other, atol=1e-12) for one, other in pairs)
    print(f"{type(layer).__name__:15} arrays in its cache: {len(pairs)}, "
          f"equal to the last bit: {sum(np.array_equal(*pair) for pair in pairs)}")
    h = y

# %% [markdown]
# *What to see:* a coupling's nine arrays come back to the last bit, since its net sees the same numbers in either
# direction. The 1×1 convolution's input is computed anew, and rounded anew. More of that below.
#
# With (9.4), reversible backprop is three lines. From [minglow/chain.py](../minglow/chain.py), the loop of
# `ReversibleChain.backward`:
#
# ```python
# for layer in reversed(layers):
#     y, layer_cache = layer.inverse(y)
#     dy = layer.backward(dy, dlog_det, layer_cache)
# ```
#
# No layer knows whether it is used so: one derivation, two memory costs. Let us watch both passes,
# layer by layer, and count after each what is held.


# %%
def watched(layers, x, reversible):
    """Forward and backward, by hand; the bytes held after each layer's turn, and dx for dy = y, dlog_det = -1."""
    y, caches, held = x, [], []
    for layer in layers:
        y, _, cache = layer.forward(y)
        if not reversible:
            caches.append(cache)
        held.append(held_bytes(y, caches))
    dy, dlog_det = y, -np.ones_like(y, shape=len(y))
    for layer in reversed(layers):
        if reversible:
            y, cache = layer.inverse(y)
        else:
            cache = caches.pop()
        held.append(held_bytes(y, caches, cache))        # just before the layer's turn is over
        dy = layer.backward(dy, dlog_det, cache)
    return np.array(held), dy


layers = cast(flow_steps(8), np.float32)
figure, axis = plt.subplots(figsize=(8, 3))
turns = np.arange(1, 2 * len(layers) + 1)
for name, reversible in ("keep everything", False), ("keep the output, invert", True):
    held, dx = watched(layers, x, reversible)
    axis.step(turns, held / 1e3, where="mid", label=name)
    chain = (minglow.ReversibleChain if reversible else minglow.Chain)(*layers)
    y, log_det, cache = chain.forward(x)
    assert np.array_equal(chain.backward(y, -np.ones_like(log_det), cache), dx)   # the library's, bit by bit
axis.axvline(len(layers) + 0.5, color="0.6", linestyle=":")
axis.set(xlabel="layer's turn: forward 1 to 24, then backward", ylabel="held, kB",
         title="8 flow steps: actnorm, 1×1 convolution, coupling")
axis.legend();

# %% [markdown]
# *What to see:* one curve climbs to the dotted line, where the forward pass ends, and comes down again. The other
# stays on the ground, where it holds one batch of activations, and becomes a comb on the way back: a tooth for
# each coupling, whose cache exists for its own turn alone.

# %% [markdown]
# **Exercise 9.2: reversible backprop** (2 points). Write `reversible_backward(layers, y, dy, dlog_det)` for a
# list of layers, with nothing but `layer.inverse` and `layer.backward`. It returns `dx` **and** the
# recomputed `x`. It is graded by its equality with `Chain`, the parameters' gradients included.

# %% solution="reversible-backward"
def reversible_backward(layers, y, dy, dlog_det):
    """dx and x, for y = layers(x); adds to the layers' gradients. layers: a list, first layer first."""
    ### BEGIN SOLUTION
    for layer in reversed(layers):
        y, cache = layer.inverse(y)
        dy = layer.backward(dy, dlog_det, cache)
    return dy, y
    ### END SOLUTION


# %% test="reversible-backward" points=2
def gradients_of(layers):
    """All parameters' gradients of some layers, in one vector; sets them back to 0."""
    every = [grad for layer in layers for _, part in layer.walk() for grad in part.grads.values()]
    together = np.concatenate([grad.ravel() for grad in every])
    for grad in every:
        grad[...] = 0
    return together


for K_test in 1, 4:
    test_layers = flow_steps(K_test, condition=3, gain=0.05, seed=K_test)
    x_test = np.random.default_rng(K_test).standard_normal((3, 2, 4, 8))
    y_test, log_det_test, cache_test = minglow.Chain(*test_layers).forward(x_test)
    dy_test, dlog_det_test = np.cos(y_test), np.arange(1.0, 4)
    expected_dx = minglow.Chain(*test_layers).backward(dy_test, dlog_det_test, cache_test)
    expected_grads = gradients_of(test_layers)
    found_dx, found_x = reversible_backward(list(test_layers), y_test, dy_test, dlog_det_test)
    assert np.allclose(found_dx, expected_dx, atol=1e-9), "dx differs from Chain's"
    assert np.allclose(found_x, x_test, atol=1e-9), "the recomputed x is not x"
    assert np.allclose(gradients_of(test_layers), expected_grads, atol=1e-9), "a parameter's gradient differs"

# %% [markdown]
# ## The price: time
#
# Nearly all of a flow's time goes into the couplings' nets. Count a net's forward pass as 1. Its backward pass is
# about 2: every matrix product $Y = X W^{\top}$ brings two, for $\bar X$ and for $\bar W$. Inverting a coupling runs its
# net forward once more. So a step that keeps its caches costs 1 + 2, one that does not 1 + 1 + 2.
#
# `ReversibleChain(..., stored=n)` keeps the caches of its last $n$ layers. The backward pass begins with these, as
# soon as they are made, so they occupy memory for a moment only; and they need not be made again. With $m$
# of the $K$ steps kept, the nets run forward
#
# $$
# N(m) = K + (K - m) = 2K - m
# \tag{9.5}
# $$
#
# times and backward $K$ times, and the ratio of the two chains' times is about
#
# $$
# \frac{T_{\text{reversible}}}{T_{\text{Chain}}} \approx \frac{(2K - m) + 2K}{K + 2K} = \frac{4}{3} - \frac{m}{3K} .
# \tag{9.6}
# $$


# %%
class Counted(minglow.Net):
    """Another net, that counts how often it runs."""

    def __init__(self, net, runs):
        super().__init__()
        self.net, self.runs = net, runs
        self.children["net"] = net

    def forward(self, x):
        self.runs["forward"] += 1
        return self.net.forward(x)

    def backward(self, dy, cache):
        self.runs["backward"] += 1
        return self.net.backward(dy, cache)


# %%
# checks (9.5) and (9.6): by counting the nets' runs, a backward run as two forward ones
K, work = 8, {}
for m in None, 0, 2, 8:                                  # None: a Chain
    layers, runs = flow_steps(K), {"forward": 0, "backward": 0}
    for coupling in layers[2::3]:
        coupling.net = Counted(coupling.net, runs)       # one count for all of them
    chain = minglow.Chain(*layers) if m is None else minglow.ReversibleChain(*layers, stored=3 * m)
    y, log_det, cache = chain.forward(x.astype(np.float64))
    chain.backward(y, log_det, cache)
    print(f"{'Chain' if m is None else f'reversible, {m} kept':20} {runs}")
    assert runs == {"forward": K if m is None else 2 * K - m, "backward": K}
    work[m] = runs["forward"] + 2 * runs["backward"]
for m in 0, 2, 8:
    assert np.isclose(work[m] / work[None], 4 / 3 - m / (3 * K))

# %% [markdown]
# And by the clock? `minglow.glow(..., reversible=True)` builds a flow whose levels are such chains, two
# steps of each kept. `tracemalloc` is told by NumPy of every array, so it knows the highest amount of
# memory that a training step held at any time, all workspace included. Time is the processor's, which other
# programs disturb less than the clock's; the two kinds take turns.


# %%
def peak(flow, x):
    """The highest memory of a training step above what was there before, in bytes."""
    tracemalloc.start()
    flow.nll_backward(x)
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return highest


def fastest(flows, x, turns=8):
    """The fewest seconds of a training step of each flow."""
    times = []
    for _ in range(turns):
        times.append([])
        for flow in flows:
            start = time.process_time()
            flow.nll_backward(x)
            times[-1].append(time.process_time() - start)
    return np.min(times, axis=0)


# %%
pictures, depths, peaks, times = rng.standard_normal((8, 8, 8, 3)).astype(np.float32), [2, 4, 8, 16], [], []
for K in depths:
    flows = [minglow.glow((8, 8, 3), 2, K, 64, reversible=kind, rng=0) for kind in (False, True)]
    times.append(fastest(flows, pictures))
    with minglow.use("numpy"):                           # no compiled kernels: tracemalloc sees every array
        peaks.append([peak(flow, pictures) for flow in flows])
peaks, times = np.array(peaks), np.array(times)
assert peaks[-1, 1] < 1.1 * peaks[0, 1]                  # flat in depth
assert peaks[-1, 0] > 4 * peaks[0, 0]                    # and this is not

# %%
figure, axes = plt.subplots(1, 2, figsize=(8.5, 3))
for column, name in enumerate(("Chain", "reversible")):
    axes[0].plot(depths, peaks[:, column] / 1e6, "o-", label=name)
axes[1].plot(depths, times[:, 1] / times[:, 0], "o-", color=plots.COLORS[2], label="measured here")
axes[1].plot(depths, 4 / 3 - 2 / (3 * np.array(depths)), ":", color="0.4", label="(9.6) with m = 2")
axes[0].set(xlabel="steps K of each level", ylabel="peak of a training step, MB", ylim=(0, None))
axes[1].set(xlabel="steps K of each level", ylabel="time, reversible / Chain", ylim=(0, None))
for axis in axes:
    axis.legend()

# %% [markdown]
# *What to see:* on the left, memory that does not grow with depth. On the right, what it costs: between nothing and
# about a third, as (9.6) says, give or take what a clock on a busy machine is worth. "For nothing" was said
# of memory. [docs/performance.md](../docs/performance.md) has both curves at the paper's size, up to $K = 32$.
#
# Networks without inverses have another way: keep every $\sqrt{K}$-th activation and run forward again from there
# (Chen et al. 2016, "Training deep nets with sublinear memory cost"). It costs one more forward pass, too, and
# needs memory that grows like $\sqrt{K}$.

# %% [markdown]
# **Exercise 9.3: what fits into a gigabyte?** (2 points). Write `most_steps`, the largest $K$ whose training step fits
# into `budget` bytes by this model. Each step has `params` bytes of parameters, and training keeps four
# arrays of that size: values, gradients and Adam's two moments. One batch of activations takes `output` bytes, one
# step's caches `cache`. `Chain` holds the output and $K$ caches, `ReversibleChain` the output and, during
# the backward pass, one. (Try it with the sizes of the next cell. What fills the memory, with either?)

# %%
paper = perturbed(minglow.Chain(minglow.ActNorm(12), minglow.InvConv1x1(12, 0),
                            minglow.AffineCoupling(conv_net(6, 512, 12, 0))))   # Glow's width, CIFAR-10's first level
paper_x = rng.standard_normal((16, 16, 16, 12)).astype(np.float32)
sizes = {"params": sum(value.nbytes for _, part in paper.walk() for value in part.params.values()),
         "cache": held_bytes(paper.forward(paper_x)[2]), "output": paper_x.nbytes}
print({name: f"{size / 1e6:.2f} MB" for name, size in sizes.items()}, "for a batch of 16")


# %% solution="most-steps"
def most_steps(budget, params, cache, output, reversible):
    """The largest K that fits into `budget` bytes, an int; sizes in bytes."""
    ### BEGIN SOLUTION
    if reversible:
        return (budget - output - cache) // (4 * params)
    return (budget - output) // (4 * params + cache)
    ### END SOLUTION


# %% test="most-steps" points=2
def needed(K, params, cache, output, reversible):
    """Bytes of a training step with K flow steps."""
    return 4 * K * params + output + (cache if reversible else K * cache)


for test_sizes in sizes, {"params": 1000, "cache": 50_000, "output": 7000}, {"params": 10**7, "cache": 1, "output": 1}:
    for reversible in False, True:
        K_found = most_steps(10**9, **test_sizes, reversible=reversible)
        assert K_found == int(K_found), f"a whole number of steps, not {K_found}"
        assert needed(K_found, **test_sizes, reversible=reversible) <= 10**9, f"{K_found} steps do not fit"
        assert needed(K_found + 1, **test_sizes, reversible=reversible) > 10**9, f"{K_found + 1} fit, too"

# %% [markdown]
# ## The price: rounding
#
# In exact arithmetic (9.3) gives $h_{k-1}$ back. In floating point it gives something near it, and the
# gradients are then those of a point nearby. How near? Floats round relatively: the computed $\hat y$ of a
# layer is off by about $\varepsilon\,|y|$, where $\varepsilon = 1.2 \cdot 10^{-7}$ in float32 and $2.2 \cdot
# 10^{-16}$ in float64. What the inverse makes of that depends on the layer.
#
# **The 1×1 convolution.** Let $y = W x$, and let $\sigma_{\max}$ and $\sigma_{\min}$ be the largest and the smallest
# singular value of $W$. An error $\hat y - y$ comes back as $W^{-1}(\hat y - y)$, at most $1/\sigma_{\min}$ times
# as long, while $|y|$ is at most $\sigma_{\max} |x|$. So relative errors grow at most by the condition number
# $\kappa(W) = \sigma_{\max} / \sigma_{\min}$:
#
# $$
# \frac{|\hat x - x|}{|x|} \le \kappa(W)\, \frac{|\hat y - y|}{|y|} .
# \tag{9.7}
# $$

# %%
# checks (9.7): a thousand random cases, and the one in which it is an equality
for _ in range(1000):
    W = rng.standard_normal((5, 5))
    v, noise = rng.standard_normal(5), 1e-6 * rng.standard_normal(5)
    grown = np.linalg.norm(np.linalg.inv(W) @ noise) / np.linalg.norm(v)
    assert grown <= np.linalg.cond(W) * np.linalg.norm(noise) / np.linalg.norm(W @ v)
left, sigma, right = np.linalg.svd(W)                    # W = left diag(sigma) right
grown = np.linalg.norm(np.linalg.inv(W) @ left[:, -1]) / np.linalg.norm(right[0])
assert np.isclose(grown / (1 / np.linalg.norm(W @ right[0])), np.linalg.cond(W))


# %%
def round_trip(condition, dtype, trials=20):
    """The largest relative error of x -> y -> x through 1x1 convolutions of this condition number."""
    worst, rng = 0.0, np.random.default_rng(1)
    for _ in range(trials):
        mixing = cast(flow_steps(1, condition, seed=rng.integers(1000)), dtype)[1]
        x = rng.standard_normal((8, 4, 4, 8)).astype(dtype)
        back = mixing.inverse_only(mixing.forward_only(x)[0])
        worst = max(worst, float(np.linalg.norm(back - x) / np.linalg.norm(x)))
    return worst


figure, axis = plt.subplots(figsize=(6.5, 3.4))
for dtype, last, color in (np.float32, 3e6, plots.COLORS[0]), (np.float64, 1e15, plots.COLORS[1]):
    conditions, epsilon = np.geomspace(1, last, 9), np.finfo(dtype).eps
    errors = [round_trip(condition, dtype) for condition in conditions]
    axis.loglog(conditions, errors, "o", color=color, label=dtype.__name__)
    axis.loglog(conditions, epsilon * conditions, ":", color=color, label="$\\varepsilon\\,\\kappa$")
    axis.axvline(1 / epsilon, color=color, linewidth=0.8)
    assert max(np.array(errors) / (epsilon * conditions)) < 30
axis.set(xlabel="condition number of W", ylabel="relative error of the round trip")
axis.legend(ncols=2);

# %% [markdown]
# *What to see:* errors grow in proportion to the condition number, on parallel lines for the two precisions. At
# $\kappa = 1/\varepsilon$ (the vertical lines) the line meets an error of 1: not one digit of $x$ is left. So
# there the library stops, with an error that names the layer, instead of returning noise:

# %%
nearly_singular = cast(flow_steps(1, condition=1e8), np.float32)[1]
try:
    nearly_singular.inverse(x)
except minglow.SingularWeightError as error:
    print("SingularWeightError:", error)

# %% [markdown]
# **The coupling.** The half that changes is $y_2 = (x_2 + t) \odot s$, with shift $t$ and scale $s > 0$
# computed from the other half. An error of $y_2$ comes back divided by the scale:
#
# $$
# \hat x_2 - x_2 = (\hat y_2 - y_2) / s .
# \tag{9.8}
# $$
#
# Rounding $y_2$ itself does no harm, since a small $y_2$ is rounded in small units: $\varepsilon\,|y_2| / s =
# \varepsilon\,|x_2 + t|$. It is the next layers that do it. They mix channels, so that $y_2$ is added to numbers of
# size 1, and comes back with an error of size $\varepsilon$; divided by $s = 10^{-7}$ that is an error of 1.
#
# This is why minglow's `sigmoid_scale` has a **floor** ([minglow/layers/scale.py](../minglow/layers/scale.py),
# the default for images): $s = 10^{-3} + (1 - 10^{-3})\,\mathrm{sigmoid}(\mathrm{raw} + 2)$, where raw is what the net says. Glow's
# official code has no floor.


# %%
# checks (9.8): an error that is put into y2, in float64
class Says(minglow.Net):
    """A net whose output is the same for all inputs: shift 1, and this raw scale."""

    def __init__(self, raw):
        super().__init__()
        self.raw = raw

    def forward(self, x):
        return np.concatenate([np.ones_like(x), np.full_like(x, self.raw)], axis=-1), None


narrow = minglow.AffineCoupling(Says(-9.0))
h = rng.standard_normal((1, 4))
y, error = narrow.forward(h)[0], np.array([[0, 0, 1e-9, -3e-9]])
s = narrow.scales(h)[0, 0]
assert np.allclose((narrow.inverse(y + error)[0] - narrow.inverse(y)[0])[0, 2:], error[0, 2:] / s, rtol=1e-5)

# %%
raws, worst = np.linspace(-20, 0, 21), {}
h, rotation = rng.standard_normal((500, 4)).astype(np.float32), minglow.InvConv1x1(4, 0)
for floor in 0.0, 1e-3:
    for mixed in False, True:
        chains = [minglow.Chain(*[minglow.AffineCoupling(Says(raw), partial(minglow.sigmoid_scale, floor=floor)),
                                  rotation][:1 + mixed]) for raw in raws]
        worst[floor, mixed] = [np.abs(c.inverse_only(c.forward_only(h)[0]) - h).max() for c in chains]
assert max(worst[1e-3, True]) < 1e-2 < worst[0.0, True][0]

figure, axis = plt.subplots(figsize=(6.5, 3.2))
axis.semilogy(raws, worst[0.0, False], "o-", markersize=3, color=plots.COLORS[2], label="no floor, coupling alone")
axis.semilogy(raws, worst[0.0, True], "o-", markersize=3, color=plots.COLORS[1], label="no floor, then a rotation")
axis.semilogy(raws, worst[1e-3, True], "o-", markersize=3, color=plots.COLORS[0], label="floor, then a rotation")
axis.set(xlabel="raw, what the net says", ylabel="largest error, float32", title="x → coupling (→ rotation) → back")
axis.legend();

# %% [markdown]
# *What to see:* alone, the smallest scale is harmless (green). With a rotation behind it, errors grow as
# $1/s$ until nothing is right (vermilion); with the floor they stop at about a thousand roundings (blue).

# %% [markdown]
# ### Layer by layer
#
# Inverting a chain, each layer receives the errors of those behind it, sends them through its own inverse, and adds a
# little of its own. Let $\rho_k$ be the error that is added at $h_k$. To first order,
#
# $$
# \hat h_0 - h_0 \approx \sum_{k=1}^{K} J_1^{-1} J_2^{-1} \cdots J_k^{-1}\, \rho_k .
# \tag{9.9}
# $$
#
# An error made late meets many inverses. If each stretches it by some factor above 1, it grows
# exponentially with depth.

# %%
# checks (9.9): a known error at every layer, in float64, beside the Jacobians by differences
layers, sample = flow_steps(2, condition=3, gain=0.05), rng.standard_normal((1, 2, 2, 8))
states, jacobians = [sample], []
for layer in layers:
    jacobians.append(numerical_jacobian(layer.forward, states[-1][0]))
    states.append(layer.forward(states[-1])[0])
planted = [1e-7 * rng.standard_normal(sample.shape) for _ in layers]
h = states[-1]
for layer, rho in zip(reversed(layers), reversed(planted)):
    h = layer.inverse(h + rho)[0]
predicted, product = 0, np.eye(sample.size)
for jacobian, rho in zip(jacobians, planted):
    product = product @ np.linalg.inv(jacobian)          # J_1^-1 ... J_k^-1
    predicted = predicted + product @ rho.ravel()
found = (h - states[0]).ravel()
print(f"relative difference {np.linalg.norm(found - predicted) / np.linalg.norm(found):.1e}")
assert np.linalg.norm(found - predicted) < 1e-4 * np.linalg.norm(found)


# %%
def error_by_layer(layers, x):
    """The largest error of each recomputed h_k, k = 0 .. K, when a chain is inverted from its end."""
    states = [x]
    for layer in layers:
        states.append(layer.forward_only(states[-1])[0])
    h, errors = states[-1], [0.0]
    for layer, before in zip(reversed(layers), reversed(states[:-1])):
        h = layer.inverse_only(h)
        errors.append(float(np.abs(h - before).max()))
    return np.array(errors[::-1])


def settled(K, condition):
    """K flow steps, float32, whose actnorms have seen data; cast to float64 they compute the same function."""
    layers = flow_steps(K, condition)
    minglow.Chain(*layers).initialize(x.astype(np.float64))
    return cast(layers, np.float32)


figure, axis = plt.subplots(figsize=(7, 3.4))
for condition, color in (1, plots.COLORS[0]), (4, plots.COLORS[2]), (10, plots.COLORS[1]):
    for dtype, line in (np.float32, "-"), (np.float64, "--"):
        errors = error_by_layer(cast(settled(16, condition), dtype), x.astype(dtype))[:-1]
        axis.semilogy(range(len(errors)), errors, line, color=color,
                      label=f"$\\kappa$ = {condition}, {dtype.__name__}")
axis.set(xlabel="layer k (inverted from the right to the left)", ylabel="largest error of the recomputed $h_k$",
         title="16 flow steps")
axis.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.08));

# %% [markdown]
# *What to see:* read from right to left, as the backward pass goes. For rotations ($\kappa = 1$) errors add
# up slowly. With $\kappa = 10$ in every step they grow exponentially: a straight line on this axis. The dashed
# lines are the same lines, nine digits lower: precision moves them and does not change their slope.

# %% [markdown]
# **Exercise 9.4: how deep may it go?** (2 points). Write `safe_depth(layers, states, tolerance)`. `states` are the true
# $h_0 \dots h_K$ of $K$ single layers. Start at $h_K$, invert one layer after another, and return how many layers could be inverted
# before the largest error $\max|\hat h_k - h_k|$ exceeded `tolerance` ($K$ if it never did). A chain could
# store an exact activation there and go on from it.

# %% solution="safe-depth"
def safe_depth(layers, states, tolerance):
    """How many of the last layers can be inverted with errors of at most `tolerance`."""
    ### BEGIN SOLUTION
    h = states[-1]
    for count, (layer, before) in enumerate(zip(reversed(layers), reversed(states[:-1]))):
        h = layer.inverse(h)[0]
        if np.abs(h - before).max() > tolerance:
            return count
    return len(layers)
    ### END SOLUTION


# %% test="safe-depth" points=2
class Drifting(minglow.Bijection):
    """y = x + 1, whose inverse errs by `drift`."""

    def __init__(self, drift):
        super().__init__()
        self.drift = drift

    def inverse(self, y):
        return y - 1 + self.drift, None


for drift in 0.25, -0.25:
    drifting = [Drifting(drift)] * 10
    true_states = [np.full((1, 2), k, float) for k in range(11)]
    for tolerance, expected in (0.2, 0), (0.3, 1), (1.0, 4), (2.49, 9), (2.5, 10), (99, 10):
        depth = safe_depth(drifting, true_states, tolerance)
        assert depth == expected, f"errors grow by 0.25 a layer: {expected} layers stay within {tolerance}, not {depth}"
assert safe_depth([Drifting(9.0)] + [Drifting(0.0)] * 9, true_states, 1.0) == 9, "begin with the last layer"
for condition in 1, 10:
    test_layers, test_states = settled(16, condition), [x]
    for layer in test_layers:
        test_states.append(layer.forward(test_states[-1])[0])
    expected = np.nonzero(error_by_layer(test_layers, x)[::-1] > 1e-4)[0]
    assert safe_depth(test_layers, test_states, 1e-4) == (expected[0] - 1 if len(expected) else len(test_layers))

# %% [markdown]
# ## When do gradients go wrong?
#
# A gradient is computed at the recomputed activations, so it is off when they are. The reference is `Chain` in
# float64. Beside it: `Chain` in float32, which shows what float32 costs anyway, and `ReversibleChain` in both
# precisions, over depth, for well- and ill-conditioned weights.


# %%
def gradient(chain, x):
    """Of the loss sum(y^2) / 2 - sum(log_det): by x and by all parameters, in one vector."""
    parts = [part for _, part in chain.walk()]
    for part in parts:
        for grad in part.grads.values():
            grad[...] = 0
    y, log_det, cache = chain.forward(x)
    dx = chain.backward(y, -np.ones_like(log_det), cache)
    return np.concatenate([dx.ravel(), *(grad.ravel() for part in parts for grad in part.grads.values())])


depths, kinds = [1, 2, 4, 8, 16, 32], [(minglow.Chain, np.float32), (minglow.ReversibleChain, np.float32),
                                       (minglow.ReversibleChain, np.float64)]
errors = {condition: np.empty((len(depths), 3)) for condition in (1, 4, 10)}
for condition, table in errors.items():
    for row, K in enumerate(depths):
        layers = settled(K, condition)
        reference = gradient(minglow.Chain(*cast(layers, np.float64)), x.astype(np.float64))
        for column, (chain, dtype) in enumerate(kinds):
            found = gradient(chain(*cast(layers, dtype)), x.astype(dtype)).astype(np.float64)
            table[row, column] = np.linalg.norm(found - reference) / np.linalg.norm(reference)
assert errors[1][:, 1].max() < 1e-4 and errors[10][:, 2].max() < 1e-3 and errors[10][-1, 1] > 0.1

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3.4), sharey=True)
for axis, (condition, table) in zip(axes, errors.items()):
    for column, (chain, dtype) in enumerate(kinds):
        axis.loglog(depths, np.minimum(table[:, column], 10), "o-", markersize=4,
                    label=f"{chain.__name__}, {dtype.__name__}")
    axis.axhline(1, color="0.6", linestyle=":")
    axis.set(xlabel="flow steps K", title=f"$\\kappa$ = {condition} in every step", xticks=depths, ylim=(1e-17, 30))
    axis.set_xticks(depths, map(str, depths))
    axis.minorticks_off()
axes[0].set_ylabel("relative error of the gradient")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3);

# %% [markdown]
# *What to see:* for well-conditioned weights the two float32 curves lie together: reversing costs nothing that
# matters beside an ordinary rounding. With $\kappa = 4$ they part after some eight steps. With $\kappa = 10$
# the reversible one leaves the other within a few and reaches the dotted line, where a gradient is all error
# (it is cut off above 10). Nothing was raised there, no single matrix being close to singular: the errors are
# a product over layers. In float64 the same chain still has digits left.
#
# So look at the round trip before you trust it. The library's
# [minglow/training/diagnosis.py](../minglow/training/diagnosis.py), `invertibility`, reports the worst condition number, the
# smallest scale and the round trip's error, and `minglow info` prints them for a checkpoint. Here for the digits
# model, and beside it a twin with the same parameters, built to be reversible:

# %%
flow = minglow.load("models/digits.npz")
twin = replace(flow.config, reversible=True).build()     # glow(..., reversible=True)
twin.flat.value[...] = flow.flat.value
images = minglow.data.digits().held_out[:64]
pixels = minglow.dequantize(images, 17, rng=0)
for one in flow, twin:
    one.flat.grad[...] = 0
nll, twin_nll = (one.nll_backward(pixels).nll for one in (flow, twin))
off = np.linalg.norm(twin.flat.grad - flow.flat.grad) / np.linalg.norm(flow.flat.grad)
report = invertibility(flow, pixels)
print(f"nats {nll:.3f} and {twin_nll:.3f}; gradients differ by {off:.0e}, relatively")
print(f"worst condition number {report.condition:.1f}, smallest scale {report.scale:.3f}, "
      f"round trip {report.round_trip:.0e}; warning: {report.warning() or 'none'}")
assert np.isclose(nll, twin_nll, rtol=1e-5) and off < 1e-2

# %% [markdown]
# *What to see:* a trained Glow is far from where it breaks: likelihood and gradients agree, and the round trip is much
# smaller than a gray level ($1/17 = 0.06$). `minglow train --reversible` trains it so.

# %% [markdown]
# ## Exploding inverses
#
# All latents so far were images of data. A *sample* begins with a latent $z$ that may be far from all of these, and
# training does not determine the inverse there. Trained flows can draw samples that are larger than all
# data by many orders of magnitude (Behrmann et al. 2021, "Understanding and Mitigating Exploding Inverses in Invertible Neural
# Networks").
#
# **One coupling.** Its inverse is $x_1 = y_1$, $x_2 = y_2 / s - t$, with $s$ and $t$ computed from $y_1$. Let $s_{\min}$ be the smallest of
# the scales of a sample, or 1 if all are larger, and $|\cdot|$ the length of a vector. The vector $(y_1, y_2 / s)$ is at most
# $1/s_{\min}$ times as long as $y$, and so
#
# $$
# |x| \le \frac{|y|}{s_{\min}} + |t| .
# \tag{9.10}
# $$
#
# **K couplings.** Rotations and permutations between them keep lengths. Write $s_k$ and $t_k$ for the $s_{\min}$ and the $t$ of coupling $k$, on the way
# of one latent $z = h_K$ to its sample $x = h_0$. Insert (9.10) for $k = 1$ into itself for $k = 2$, and so on:
#
# $$
# |x| \le |z| \prod_{k=1}^{K} \frac{1}{s_k} + \sum_{k=1}^{K} |t_k| \prod_{j<k} \frac{1}{s_j} .
# \tag{9.11}
# $$
#
# The factors multiply. `sigmoid_scale` has $s_k \ge 10^{-3}$: for $K = 8$ couplings the first product is at most
# $10^{24}$. `tanh_scale` lies between $1/e$ and $e$: at most $e^8 \approx 3000$.


# %%
def halves_of_net(coupling, y):
    """The smallest scale of each sample, at most 1, and the length of its shift; (B,) and (B,)."""
    shift = np.split(coupling.net.forward(y[:, :y.shape[1] // 2])[0], 2, axis=1)[0]
    return np.minimum(coupling.scales(y).min(axis=(1, 2)), 1), np.linalg.norm(shift, axis=1)


def bound(chain, z):
    """The right-hand side of (9.11), for a batch of latents."""
    length = np.linalg.norm(z, axis=1)
    for layer, y, x in chain.trace_inverse(z):           # the last layer comes first
        if isinstance(layer, minglow.AffineCoupling):
            s_min, shift = halves_of_net(layer, y)
            limit = np.linalg.norm(y, axis=1) / s_min + shift
            assert np.all(np.linalg.norm(x, axis=1) <= limit * (1 + 1e-9))
            length = length / s_min + shift
    return length


# checks (9.10) and (9.11): couplings with random nets, rotations between them; and a case of equality
for seed in range(20):
    layers = []
    for _ in range(4):
        net = perturbed(mlp(2, 8, 4, seed, np.float64), seed, size=1.0)
        layers += [minglow.AffineCoupling(net), minglow.InvConv1x1(4, seed, np.float64)]
    z = np.random.default_rng(seed).standard_normal((50, 4))
    lengths = np.linalg.norm(minglow.Chain(*layers).inverse_only(z), axis=1)
    assert np.all(lengths <= bound(minglow.Chain(*layers), z) * (1 + 1e-9))
same = minglow.Chain(*[minglow.AffineCoupling(Says(-9.0))] * 4)  # four times the same scale; shift (1, 1)
z = np.array([[0.0, 0.0, -2.0, -2.0]])                   # y_1 = 0, and y_2 opposite to the shift
assert np.isclose(np.linalg.norm(same.inverse_only(z)), bound(same, z)[0])
print(f"four couplings of scale {same.layers[0].scales(z).min():.4f}: |z| = {np.linalg.norm(z):.1f}, |x| = {bound(same, z)[0]:.1e}")

# %% [markdown]
# ### What the likelihood sees of it
#
# Suppose that a fraction $q$ of all samples lies far from all data, and that the model is perfect otherwise. Where there are data, of density $p^*$,
# its density is then $p = (1 - q)\, p^*$, as densities integrate to 1. So its NLL is larger than the best possible by
#
# $$
# E_{x \sim p^*}\big[\log p^*(x) - \log p(x)\big] = -\log(1 - q) \approx q .
# \tag{9.12}
# $$
#
# One bad sample in a hundred costs 0.01 nats, no matter whether it lies at 10 or at $10^{10}$. The NLLs of two trainings with different
# seeds differ by more.

# %%
# checks (9.12): data from N(0, 1); a share q of the model lies around 10^10
sample, q = rng.standard_normal(100_000), 0.01
log_best = -sample**2 / 2 - np.log(2 * np.pi) / 2
with np.errstate(under="ignore"):
    far_part = np.exp(-(sample - 1e10) ** 2 / 2) / np.sqrt(2 * np.pi)
log_model = np.log((1 - q) * np.exp(log_best) + q * far_part)
print(f"the model's NLL is larger by {(log_best - log_model).mean():.6f} nats, -log(1 - q) = {-np.log(1 - q):.6f}")
assert np.isclose((log_best - log_model).mean(), -np.log(1 - q)) and abs(-np.log(1 - q) - q) < q**2

# %% [markdown]
# ### A trained flow, from latent to sample
#
# The data are a table of four columns, of which three depend on another. Two Glows of eight steps learn it.
# They differ in the scale of their couplings only.


# %%
def columns(n, seed):
    """A normal number; its sine with noise; a log-normal number; a product with noise. (n, 4)"""
    a, b, e, f = np.random.default_rng(seed).standard_normal((4, n))
    return np.stack([a, np.sin(2 * a) + 0.1 * e, np.exp(0.5 * b), a * b + 0.1 * f], axis=1).astype(np.float32)


table, held_out = columns(5000, 0), columns(5000, 1)
flows, warnings = {}, {}
for scale in "sigmoid", "tanh":
    flows[scale], warnings[scale] = minglow.glow((4,), flow_steps=8, scale=scale, rng=2), []
    minglow.train(flows[scale], table, steps=600, ema_decay=0.98, on_warning=warnings[scale].append)
nlls = {scale: -flow.log_prob(held_out).mean() for scale, flow in flows.items()}
latents = np.random.default_rng(2).standard_normal((20_000, 4)).astype(np.float32)
largest = {scale: np.abs(flow.bijection.inverse_only(latents)).max(axis=1) for scale, flow in flows.items()}
print("         NLL held out   round trip of data   samples beyond 100   largest sample")
for scale, flow in flows.items():
    print(f"{scale:8} {nlls[scale]:12.2f} {flow.reconstruction_error(held_out):20.0e} {np.mean(largest[scale] > 100):20.2%} "
          f"{largest[scale].max():16.1e}")
print(f"data: {len(held_out)} held out, the largest is {np.abs(held_out).max():.1f}")
assert abs(nlls["sigmoid"] - nlls["tanh"]) < 0.6
assert largest["sigmoid"].max() > 1e5 and largest["tanh"].max() < 200

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
for axis, (scale, flow) in zip(axes, flows.items()):
    sizes, couplings = [np.abs(latents).max(axis=1)], []
    for place, (layer, _, x) in enumerate(flow.bijection.trace_inverse(latents), start=1):
        sizes.append(np.abs(x).max(axis=1))
        couplings += [place] if isinstance(layer, minglow.AffineCoupling) else []
    sizes, worst = np.array(sizes), largest[scale].argmax()
    for percent in 50, 90, 99, 99.9:
        axis.semilogy(np.percentile(sizes, percent, axis=1), color="0.65", linewidth=0.9)
    axis.semilogy(sizes[:, worst], color=plots.COLORS[1], label="the largest sample")
    axis.semilogy(couplings, sizes[couplings, worst], "o", markersize=4, color=plots.COLORS[1], label="after a coupling")
    axis.axhline(np.abs(held_out).max(), color="k", linestyle=":", linewidth=0.9, label="the largest datum")
    axis.set(title=f"scale = {scale!r}: NLL {nlls[scale]:.2f}", xlabel="layers undone: left the latent, right the sample")
axes[0].set_ylabel("largest absolute value")
axes[1].legend()
axes[0].text(0.02, 0.96, "gray: 50, 90, 99, 99.9% of samples lie below", transform=axes[0].transAxes, color="0.4", va="top", fontsize=8);

# %% [markdown]
# *What to see:* both flows have about the same likelihood, and both give the data back. Under `sigmoid_scale` (left) several couplings
# magnify the largest sample, each up to 1000 times: one factor of (9.11) after another. A few samples in a thousand explode;
# the others are of the size of the data (gray). Under `tanh_scale` (right) the same latents lead to no explosion.
#
# The smallest scales lie where no data pass. Float64 does not help, because this is no rounding: the exact inverse is as large.

# %%
for scale, flow in flows.items():
    products = []
    for h in flow.latents(held_out), latents:
        product = np.zeros(len(h))
        for layer, y, _ in flow.bijection.trace_inverse(h):
            if isinstance(layer, minglow.AffineCoupling):
                product -= np.log10(halves_of_net(layer, y)[0])
        products.append(product.max())
    precise = perturbed(flow.bijection, 0, 0.0, np.float64).inverse_only(latents.astype(np.float64))
    print(f"{scale:8} largest product of the 1/s_k: 10^{products[0]:.1f} over data, 10^{products[1]:.1f} over samples; "
          f"largest sample in float64 {np.abs(precise).max():.0e}")
for scale, lines in warnings.items():
    print(f"\n{scale}:", *lines or ["no warning"])

# %% [markdown]
# The last lines are warnings of `minglow.train`. At its end it draws samples, compares them with the range of the data,
# and names the layer whose inverse magnifies most. (Without `on_warning` it calls Python's `warnings.warn`.) A sample at a few times the range
# is a tail that is a little too wide. A sample at $10^{10}$ times the range is an explosion. What to do:
#
# - Bound the scale on both sides. `scale="tanh"` is the default of `minglow.glow` for vectors, and of `minglow.realnvp`. A floor bounds each factor at
#   1000, which is too much for a product.
# - Train with smaller steps, or take fewer couplings.
# - Look at samples, not only at the likelihood. Samples that have become NaN or inf raise an error in `flow.sample`;
#   `flow.sample(n, on_bad="drop")` leaves them out. Samples that are finite and wrong stay.
#
# **Exercise 9.5: find the layer** (2 points). Write `worst_layer(flow, z)` for one latent `z`, (1, D). It returns the layer whose inverse
# magnifies most on the way from `z` to its sample: the one with the largest ratio of $\max_i |x_i|$ after its inverse to $\max_i |y_i|$ before it.
# Use `flow.bijection.trace_inverse(z)`, which yields `(layer, y, x)` for each layer, the last layer first. (The layer
# that returns the largest number need not be the one that has made it large.)

# %% solution="worst-layer"
def worst_layer(flow, z):
    """The layer whose inverse multiplies the largest absolute value by the largest factor; z is (1, D)."""
    ### BEGIN SOLUTION
    growths = [(np.abs(x).max() / np.abs(y).max(), layer) for layer, y, x in flow.bijection.trace_inverse(z)]
    return max(growths, key=lambda growth: growth[0])[1]
    ### END SOLUTION


# %% test="worst-layer" points=2
def stretch(scale, shift=0.0):
    """An actnorm, (x + shift) * scale."""
    layer = minglow.ActNorm(2, np.float64)
    layer.params["log_scale"][...], layer.params["shift"][...] = np.log(scale), shift
    return layer


def normal_flow(*layers):
    return minglow.Flow(minglow.Chain(*layers), minglow.StandardNormal((2,)))


class Narrow(minglow.Net):
    """Scales of 1/100 where its input is above 2, else scales of 1; no shift."""

    def forward(self, x):
        return np.concatenate([0 * x, np.where(x > 2, np.log(0.01), 0.0)], axis=-1), None


z = np.array([[0.5, -1.5]])
for growths in [0.5, 100, 2, 8], [9, 3, 0.1], [2, 2.5, 2, 2], [0.9, 0.5, 0.7]:
    tested = normal_flow(*[stretch(1 / growth) for growth in growths])
    expected = tested.bijection.layers[int(np.argmax(growths))]
    assert worst_layer(tested, z) is expected, f"factors from the first layer to the last: {growths}"
inner = minglow.Chain(stretch(1.0), stretch(0.01))
assert worst_layer(normal_flow(stretch(0.5), inner, stretch(0.2)), z) is inner.layers[1], "chains hold chains: use trace_inverse"
shifted = normal_flow(stretch(0.2), stretch(1.0, shift=-50.0))  # 1/s is 5 and 1; the shift takes 1.5 to about 50
assert worst_layer(shifted, z) is shifted.bijection.layers[1], "a shift magnifies, too: compare x with y"
here_or_there = normal_flow(minglow.AffineCoupling(Narrow(), minglow.exp_scale), stretch(0.2))
for first, expected in (0.1, 1), (0.9, 0):
    found = worst_layer(here_or_there, np.array([[first, first]]))
    assert found is here_or_there.bijection.layers[expected], "a coupling's scale depends on the sample"
graded_z = latents[largest["sigmoid"].argmax()][None]
visited = [(np.abs(x).max() / np.abs(y).max(), layer) for layer, y, x in flows["sigmoid"].bijection.trace_inverse(graded_z)]
assert worst_layer(flows["sigmoid"], graded_z.copy()) is visited[int(np.argmax([ratio for ratio, _ in visited]))][1]

# %% [markdown]
# ## To take away
#
# - The backward pass visits layers in the opposite order, so a chain that keeps caches keeps all of them: $K\,c$ bytes.
# - An invertible layer gives its input and its cache back from its output. Memory is then flat in depth, for one more
#   run of every net: at most a third more time.
# - The price besides time is rounding. Its errors grow with condition numbers and with $1/s$, and multiply from layer
#   to layer. A floor under scales and an error for singular weights guard the single layer; for the whole
#   chain, measure the round trip.
# - float64 does not change how errors grow. It starts nine digits lower.
# - The inverses of $K$ couplings multiply $1/s$. Away from the data nothing trains them, and the likelihood does not see
#   the few samples that explode. Bound the scales, and look at samples.
#
# Next: [10. Property testing](10_property_testing.ipynb).
