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
# # 2. NICE: additive couplings
#
# **You will be able to** build a map that is inverted without inverting anything inside it; see why its
# Jacobian is triangular and its log-determinant 0; say how many couplings mix everything with everything;
# say what a map that keeps volume cannot do, and how one diagonal scaling mends that; write a coupling layer
# that passes all of minglow's checks.
#
# **You need** notebook 1 (change of variables), the determinant of a triangular matrix and of a
# product. About 45 minutes with the exercises; it runs in seconds.

# %%
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import PolyCollection

import minglow
from minglow import plots
from minglow.arrays.shapes import halves, join, zero_log_det
from minglow.bijection import Bijection, Net
from minglow.data import two_moons
from minglow.nets import mlp
from minglow.testing import check_layer, numerical_jacobian, perturbed
from minglow.training import Adam

plots.style()
rng = np.random.default_rng(0)

# %% [markdown]
# ## A map whose inverse is free
#
# A flow $f$ takes data $x$ to latents $z$. It has to be inverted to draw samples, and the determinant of its
# Jacobian is needed for densities. For a general neural network on $D$ numbers neither is to be had: no
# inverse may exist, and the determinant of a $D \times D$ matrix costs about $D^3$ operations.
#
# NICE (Dinh, Krueger & Bengio 2015, section 3.2) cuts $x$ into two halves, $x_1$ and $x_2$. The first
# passes unchanged. The second is moved by an amount that only the first decides. With any function $m$,
#
# $$
# y_1 = x_1, \qquad y_2 = x_2 + m(x_1).
# \tag{2.1}
# $$
#
# That is an **additive coupling**, and $m$ is its **conditioner**, mostly a neural net. Whoever holds $y$ holds $x_1$ as well,
# since $y_1 = x_1$. So $m(x_1)$ can be computed again, and subtracted:
#
# $$
# x_1 = y_1, \qquad x_2 = y_2 - m(y_1).
# \tag{2.2}
# $$
#
# The inverse evaluates $m$ forwards. Nobody asks for an inverse of $m$, and $m$ need not have one.

# %%
# checks (2.1) and (2.2): the library's layer, whose conditioner is a perceptron (dense layers), written out
layer = minglow.AdditiveCoupling(mlp(4, 16, 4, rng=0))  # D = 8: 4 numbers pass, 16 hidden units, 4 are moved
layer = perturbed(layer, rng=1, dtype=np.float64)        # off its start, at which m is 0: nothing moves
x = rng.standard_normal((5, 8))                      # a batch of B = 5 samples
y, log_det, cache = layer.forward(x)
m = layer.net.forward(x[:, :4])[0]
assert np.array_equal(y[:, :4], x[:, :4]) and np.array_equal(y[:, 4:], x[:, 4:] + m)

back = y.copy()
back[:, 4:] -= layer.net.forward(y[:, :4])[0]
assert np.array_equal(layer.inverse(y)[0], back)
print(f"largest error of the round trip: {np.abs(back - x).max():.1e}")
assert np.allclose(back, x, atol=1e-12)

# %% [markdown]
# To see it, take $D = 2$ and a conditioner with a formula, $m(u) = a \sin(b u + c)$. It is certainly not
# invertible: every value is reached again and again.


# %%
class Wave(Net):
    """m(u) = height * sin(pace * u + phase), number by number; nothing to learn."""

    def __init__(self, height, pace, phase=0.0):
        super().__init__()
        self.height, self.pace, self.phase = height, pace, phase

    def forward(self, x):
        return self.height * np.sin(self.pace * x + self.phase), x

    def backward(self, dy, cache):
        return dy * self.height * self.pace * np.cos(self.pace * cache + self.phase)


wavy = minglow.AdditiveCoupling(Wave(0.8, 3.0))
figure, axes = plt.subplots(1, 3, figsize=(9, 3.1))
u = np.linspace(-2, 2, 200)
axes[0].plot(u, wavy.net.forward(u)[0], color=plots.COLORS[2])
axes[0].set(xlabel="$u$", ylabel="$m(u)$", title="the conditioner: not invertible")
plots.draw_grid(axes[1], lambda points: wavy.forward(points)[0])
axes[1].set(xlabel="$y_1$", ylabel="$y_2$", title="a straight grid after the coupling")
plots.draw_grid(axes[2], lambda points: wavy.inverse(wavy.forward(points)[0])[0])
axes[2].set(xlabel="$x_1$", ylabel="$x_2$", title="and after its inverse");

# %% [markdown]
# *What to see:* every vertical line (blue) stays where it is and slides along itself, by the height of the
# green curve there. Sliding is undone by sliding back.

# %% [markdown]
# **Exercise 2.1: predict, then run** (1 point). $D = 2$, $m(u) = u^2$, and the coupling has returned $y =
# (3, 11)$. Which $x$ went in? Put the two numbers into `recovered`.

# %% solution="recovered"
### BEGIN SOLUTION
recovered = (3, 11 - 3**2)
### END SOLUTION

# %% test="recovered" points=1
class Square(Net):
    def forward(self, x):
        return x**2, x


went_in = minglow.AdditiveCoupling(Square()).inverse(np.array([[3.0, 11.0]]))[0][0]
assert np.shape(recovered) == (2,), "recovered: two numbers, x_1 and x_2"
assert np.allclose(recovered, went_in), "the first number tells what was added to the second"

# %% [markdown]
# ## The Jacobian is triangular
#
# By (2.1) $y_1$ depends on $x_1$ alone, by the identity; $y_2$ depends on $x_2$ by the identity, and on $x_1$ through
# $m$. So the Jacobian, in blocks of $D/2$ rows and columns, is
#
# $$
# J = \frac{\partial y}{\partial x} = \begin{pmatrix} I & 0 \\ \partial m / \partial x_1 & I \end{pmatrix}.
# \tag{2.3}
# $$
#
# It has zeros above its diagonal, and a triangular determinant is the product of the diagonal: all ones,
# whatever $m$ is. Therefore
#
# $$
# \log|\det J| = 0.
# \tag{2.4}
# $$
#
# The hard part of $J$, the derivative of a neural net, stands where the determinant does not look.

# %%
# checks (2.3): the dense Jacobian by differences, its lower left block by differences of the net alone
J = numerical_jacobian(layer.forward, x[0])
dm = numerical_jacobian(layer.net.forward, x[0, :4])
expected = np.block([[np.eye(4), np.zeros((4, 4))], [dm, np.eye(4)]])
assert np.allclose(J, expected, atol=1e-8)

figure, axis = plt.subplots(figsize=(4.2, 3.3))
plots.draw_matrix(axis, J, "$J$ of one additive coupling, D = 8")
axis.set(xlabel="number in x", ylabel="number in y");

# %%
# checks (2.4): random conditioners, sizes and images, against slogdet of the dense Jacobian
worst = 0.0
for trial in range(100):
    half = int(rng.integers(1, 4))
    net = mlp(half, 8, half, rng=trial)
    coupling = perturbed(minglow.AdditiveCoupling(net), rng=trial, size=0.5, dtype=np.float64)
    sample = rng.standard_normal((*rng.integers(1, 3, 2), 2 * half))  # an image h x w x C, halves of C
    brute_force = np.linalg.slogdet(numerical_jacobian(coupling.forward, sample))[1]
    worst = max(worst, abs(brute_force - coupling.forward(sample[None])[1][0]))
print(f"100 random couplings, largest |log|det J|| by brute force: {worst:.1e}")
assert worst < 1e-6

# %% [markdown]
# *What to see:* ones on the diagonal, nothing to the right of it, and one busy block that may hold anything.
#
# The library's `forward` is (2.1) and (2.4): [minglow/layers/coupling.py](../minglow/layers/coupling.py), class
# `AdditiveCoupling`. Images are halved along their **channels**, the numbers of one pixel (such as red, green and blue);
# $m$ is then a convolutional net, which computes each pixel from a small window around it.

# %% [markdown]
# **Exercise 2.2: write an additive coupling** (3 points). The conditioner is $m(x_1) = g \odot \tanh(x_1)$
# ($\odot$: number by number) with a learned number $g_c$ for each channel of $x_1$. Write the three methods `forward`, `inverse` and `backward`. For a loss $L$,
# `backward` is handed $\bar y = \partial L / \partial y$ as `dy`; it adds $\partial L / \partial g$ to `self.grads["gain"]` in
# place (`+=`) and returns $\partial L / \partial x$. ($\tanh' = 1 - \tanh^2$. `halves` and `join` split and join channels,
# `zero_log_det(x)` is $B$ zeros. Inputs may be vectors $(B, C)$ or images $(B, h, w, C)$: sum over everything but the channels.
# The cache has to be one that `inverse` can make, too.)

# %% solution="tanh-coupling"
class TanhCoupling(Bijection):
    """y1 = x1, y2 = x2 + gain * tanh(x1).

    forward(self, x) returns y, log_det (B,), cache
    inverse(self, y) returns x, cache, the one that forward(x) would have made
    backward(self, dy, dlog_det, cache) adds to self.grads["gain"] and returns dx
    """

    def __init__(self, channels, dtype=np.float32):
        super().__init__()
        self.add_param("gain", np.ones(channels // 2, dtype))

    ### BEGIN SOLUTION
    def forward(self, x):
        x1, x2 = halves(x)
        return join(x1, x2 + self.params["gain"] * np.tanh(x1)), zero_log_det(x), x1

    def inverse(self, y):
        y1, y2 = halves(y)
        return join(y1, y2 - self.params["gain"] * np.tanh(y1)), y1

    def backward(self, dy, dlog_det, cache):
        dy1, dy2 = halves(dy)
        t = np.tanh(cache)
        self.grads["gain"] += (dy2 * t).reshape(-1, t.shape[-1]).sum(axis=0)
        return join(dy1 + dy2 * self.params["gain"] * (1 - t * t), dy2)
    ### END SOLUTION


# %% test="tanh-coupling" points=3
tanh_layer = TanhCoupling(4, np.float64)
tanh_layer.params["gain"][...] = 0.5, -2.0
tested = tanh_layer.forward(np.array([[1.0, 2.0, 3.0, 4.0]]))[0]
assert np.allclose(tested, [[1, 2, 3 + 0.5 * np.tanh(1), 4 - 2 * np.tanh(2)]]), f"forward gave {tested}"
check_layer(TanhCoupling(4))                         # inverse, log_det, gradients, caches: it says what is broken
check_layer(perturbed(TanhCoupling(2)), np.random.default_rng(3).standard_normal((3, 2, 3, 2)))

# %% [markdown]
# ## Chains: dense, and still of determinant 1
#
# One coupling changes one half. So a flow is a chain of couplings with a **swap** of the halves between
# them, which lets the next coupling change what the last one left. By the chain rule the Jacobian of a chain $f
# = f_K \circ \dots \circ f_1$ is the product of the Jacobians $J_k$ of its $K$ layers, each taken at the point where its layer stands:
#
# $$
# J = J_K \cdots J_2\, J_1.
# \tag{2.5}
# $$
#
# Determinants multiply, so log-determinants add, $K$ times 0 (a swap is a permutation matrix, of determinant $\pm 1$):
#
# $$
# \log|\det J| = \sum_{k=1}^{K} \log|\det J_k| = 0.
# \tag{2.6}
# $$


# %%
def chain_of(couplings, swaps=None, size=8):
    """Additive couplings with a swap after the first, second, ... or only after those in `swaps`.

    A last swap, where one is needed, puts the halves back in order.
    """
    swaps = range(1, couplings) if swaps is None else swaps
    layers = []
    for k in range(1, couplings + 1):
        net = mlp(size // 2, 16, size // 2, rng=k)
        layers += [minglow.AdditiveCoupling(net)] + [minglow.Swap(size)] * (k in swaps)
    layers += [minglow.Swap(size)] * (len(set(swaps)) % 2)
    return perturbed(minglow.Chain(*layers), rng=2, size=0.3, dtype=np.float64)


# %%
# checks (2.5) and (2.6): four couplings, three swaps and one at the end
chain = chain_of(4)
product, h = np.eye(8), x[:1]
for part in chain.layers:
    product = numerical_jacobian(part.forward, h[0]) @ product
    h = part.forward(h)[0]
J_chain = numerical_jacobian(chain.forward, x[0])
assert np.allclose(product, J_chain, atol=1e-6)
sign, brute_force = np.linalg.slogdet(J_chain)
print(f"log|det J| of the chain, by brute force: {brute_force:.1e}; the library says {chain.forward(x)[1][0]}")
assert abs(brute_force) < 1e-6 and np.all(chain.forward(x)[1] == 0)

figure, axis = plt.subplots(figsize=(4.2, 3.3))
plots.draw_matrix(axis, J_chain, "$J$ of a chain of four couplings")
axis.set(xlabel="number in x", ylabel="number in y");

# %% [markdown]
# *What to see:* no triangle any more, no zeros, no diagonal of ones. No one would guess that the determinant of this
# matrix is 1; it is a product of triangles.

# %% [markdown]
# ### How many couplings mix everything?
#
# Where can $J$ be other than 0? Write a 1 where it can and a 0 where it cannot: its **pattern** $N$. Two kinds of
# coupling take turns: one that changes the second half and one that changes the first. With 1 for a block full of
# ones, their patterns are $N_{\text{second}} = \begin{pmatrix} I & 0 \\ 1 & I \end{pmatrix}$ and
# $N_{\text{first}} = \begin{pmatrix} I & 1 \\ 0 & I \end{pmatrix}$. Output $i$ can depend on
# input $j$ if some way leads from $j$ to $i$, so patterns multiply as matrices do, with "greater than 0" in place of the value:
#
# $$
# N = \big[\, N_K \cdots N_2\, N_1 > 0 \,\big].
# \tag{2.7}
# $$

# %%
# checks (2.7): products of patterns against the Jacobians of chains of 1 to 4 couplings, by differences
ones, zeros, eye = np.ones((4, 4), int), np.zeros((4, 4), int), np.eye(4, dtype=int)
changes_second = np.block([[eye, zeros], [ones, eye]])
changes_first = np.block([[eye, ones], [zeros, eye]])
pattern = np.eye(8, dtype=int)
figure, axes = plt.subplots(1, 4, figsize=(9, 2.5))
for couplings, axis in enumerate(axes, start=1):
    pattern = (changes_second if couplings % 2 else changes_first) @ pattern > 0
    found = np.abs(numerical_jacobian(chain_of(couplings).forward, x[0])) > 1e-9
    assert np.array_equal(found, pattern)
    axis.imshow(found, cmap=plots.GRAYS, vmin=0, vmax=1.3)
    axis.set(title=f"{couplings} coupling{'s' * (couplings > 1)}: {found.sum()} of 64", xlabel="number in x",
             xticks=range(8), yticks=range(8))
    axis.spines[:].set_visible(True)
axes[0].set_ylabel("number in y");

# %% [markdown]
# *What to see:* dark is "depends". After two couplings the numbers of the second half still do not feel each
# other; after three everything depends on everything. NICE says so in section 3.2, and takes four.

# %% [markdown]
# **Exercise 2.3: which swaps are needed?** (1 point). Four couplings have three gaps between them, after
# the first, the second and the third. Put into `swap_after` a smallest set of gaps, such as `{1}` or `{1, 2, 3}`, in which a swap
# has to stand for $J$ to be dense. (Two couplings without a swap between them are like one.)

# %% solution="needed-swaps"
### BEGIN SOLUTION
swap_after = {1, 2}
### END SOLUTION

# %% test="needed-swaps" points=1
assert isinstance(swap_after, set) and swap_after <= {1, 2, 3}, "a set of gaps from {1, 2, 3}"
dense = np.abs(numerical_jacobian(chain_of(4, swap_after).forward, x[0])) > 1e-9
assert dense.all(), f"with swaps after {swap_after}, {(~dense).sum()} of 64 places stay 0"
smaller = [set(swap_after) - {gap} for gap in swap_after]
for fewer in smaller:
    still = np.abs(numerical_jacobian(chain_of(4, fewer).forward, x[0])) > 1e-9
    assert not still.all(), f"{fewer or 'no swap'} would do"

# %% [markdown]
# ## Volume preservation, seen
#
# $|\det J|$ is the factor by which a map stretches a small volume around a point (notebook 1). Where it is 1
# everywhere, no region's volume changes, however bent the region may be. For a region $A$ of the plane
#
# $$
# \operatorname{area}(f(A)) = \int_A |\det J(x)|\, \mathrm{d}x = \operatorname{area}(A).
# \tag{2.8}
# $$
#
# We measure. Each cell of a grid becomes a polygon with 100 corners on each side, is mapped corner by
# corner, and its area is computed from the corners (the *shoelace formula*).


# %%
def outline(left, bottom, side, points=100):
    """The border of a square as a polygon, (4 * points, 2)."""
    t, o = np.arange(points) / points, np.zeros(points)
    corner = np.r_[np.c_[t, o], np.c_[o + 1, t], np.c_[1 - t, o + 1], np.c_[o, 1 - t]]
    return np.array([left, bottom]) + side * corner


def polygon_area(polygon):
    """The area inside, by the shoelace formula: 1/2 |sum_k (u_k v_k+1 - u_k+1 v_k)|."""
    u, v = polygon.T
    return abs((u * np.roll(v, -1) - np.roll(u, -1) * v).sum()) / 2


# %%
# checks (2.8): areas of 64 cells, before and after 1, 2 and 4 couplings
side = 0.5
cells = [outline(left, bottom, side) for left in np.arange(-2, 2, side) for bottom in np.arange(-2, 2, side)]
waves = [Wave(0.7, 2.2), Wave(0.6, 1.8, 1.0), Wave(-0.6, 1.5, 0.5), Wave(0.5, 2.0, 2.0)]
bent = minglow.Chain(*(part for wave in waves for part in (minglow.AdditiveCoupling(wave), minglow.Swap(2))))
figure, axes = plt.subplots(1, 4, figsize=(9, 2.7))
for axis, couplings in zip(axes, (0, 1, 2, 4)):
    start = minglow.Chain(*bent.layers[:2 * couplings])
    images = [start.forward(cell)[0] for cell in cells]
    areas = np.array([polygon_area(image) for image in images])
    assert np.allclose(areas, side**2, rtol=1e-3)
    shades = plt.get_cmap("viridis")(np.linspace(0, 1, len(cells)))
    axis.add_collection(PolyCollection(images, facecolors=shades, edgecolors="white", linewidths=0.6))
    axis.set(aspect="equal", title=f"{couplings} coupling{'s' * (couplings != 1)}\nareas {areas.min():.4f} to {areas.max():.4f}")
    axis.set(xlim=(-3.7, 3.7), ylim=(-3.7, 3.7), xlabel="first number")
axes[0].set_ylabel("second number");

# %% [markdown]
# *What to see:* the map bends the square into a rag, and every one of its 64 cells keeps its area of 0.25 (up
# to the 400 corners). Nothing is compressed and nothing diluted, like an incompressible fluid.

# %% [markdown]
# ## What such a map cannot do
#
# The change of variables, $p_x(x) = p_z(f(x))\, |\det J(x)|$, loses its second factor. The density of the data is the
# base density, looked up at another place. So its highest value is the base's, here that of the normal $N(0, I)$:
#
# $$
# \max_x p_x(x) = \max_z p_z(z) = (2\pi)^{-D/2}.
# \tag{2.9}
# $$
#
# Not only the maximum is fixed. The region where $p_x$ exceeds a threshold $c$ is mapped onto the region where $p_z$ does, and
# has its volume by (2.8). For $D = 2$ that is a disc of squared radius $-2\log(2\pi c)$:
#
# $$
# \operatorname{area}\{x : p_x(x) > c\} = \operatorname{area}\{z : p_z(z) > c\} = 2\pi \log\frac{1}{2\pi c}.
# \tag{2.10}
# $$

# %%
# checks (2.9) and (2.10): the density of the bent chain on a grid, areas by counting cells of the grid
base = minglow.StandardNormal((2,))
bent_flow = minglow.Flow(bent, base)
peak = bent.inverse(np.zeros((1, 2)))[0]             # where f(x) = 0
assert np.isclose(np.exp(bent_flow.log_prob(peak))[0], 1 / (2 * np.pi), rtol=1e-6)
edges, density_z, _ = plots.density_on_grid(base.log_prob, 6.0, 600, np.float64)
_, density_x, mass = plots.density_on_grid(bent_flow.log_prob, 6.0, 600, np.float64)
assert density_x.max() <= 1 / (2 * np.pi) * (1 + 1e-6) and np.isclose(mass, 1, atol=1e-4)
thresholds = np.linspace(0.002, 0.155, 60)
cell = (edges[1] - edges[0]) ** 2
counted = np.array([(density_x > c).sum() * cell for c in thresholds])
formula = 2 * np.pi * np.log(1 / (2 * np.pi * thresholds))
assert np.allclose(counted, formula, rtol=0.01, atol=0.02)

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 2.9))
for axis, density, name in zip(axes, (density_z, density_x), ("$p_z$, the base", "$p_x$, of the bent flow")):
    drawn = axis.pcolormesh(edges[::2], edges[::2], density[::2, ::2], vmin=0, vmax=0.16, rasterized=True)
    axis.set(aspect="equal", title=name, xlim=(-4, 4), ylim=(-4, 4), xlabel="first number")
axes[0].set_ylabel("second number")
figure.colorbar(drawn, ax=axes[1], label="density")
axes[2].plot(thresholds, counted, "o", markersize=3, label="$p_x$, counted")
axes[2].plot(thresholds, formula, color=plots.COLORS[1], label="$p_z$, formula (2.10)")
axes[2].set(xlabel="threshold c", ylabel="area where density > c")
axes[2].legend();

# %% [markdown]
# *What to see:* the flow may bend the hill, but each contour line encloses the same area as before. It cannot make the
# hill higher, nor smaller at any height.
#
# For training that is a wall. The mean negative log-likelihood (**NLL**) of any data $x^{(1)}, \dots, x^{(n)}$ is a mean of
# terms, none of which is below $-\log\max p_x$:
#
# $$
# -\frac{1}{n} \sum_{i=1}^{n} \log p_x(x^{(i)}) \;\ge\; \frac{D}{2} \log 2\pi .
# \tag{2.11}
# $$
#
# Data of small spread, whose true density is much higher, deserve a lower NLL, and cannot have it.

# %%
# checks (2.11): data of standard deviation sigma, against 200 random volume-preserving flows
print("sigma   wall   best of 200 flows   NLL of the true density")
for sigma in 1.0, 0.3, 0.1, 0.03:
    data = sigma * rng.standard_normal((500, 2))
    best = np.inf
    for _ in range(200):
        heights = rng.normal(0, 0.5, 3)
        random_layers = [minglow.AdditiveCoupling(Wave(a, 2.0, rng.normal())) for a in heights]
        random_flow = minglow.Flow(minglow.Chain(random_layers[0], minglow.Swap(2), *random_layers[1:]), base)
        best = min(best, -random_flow.log_prob(data).mean())
    wall = np.log(2 * np.pi)
    true_nll = -base.log_prob(data / sigma).mean() + 2 * np.log(sigma)
    print(f"{sigma:5}  {wall:.3f}        {best:.3f}            {true_nll:6.3f}")
    assert best >= wall

# %% [markdown]
# *What to see:* as the data shrink, the best flow comes close to the wall of $\log 2\pi = 1.838$ nats and stops there. The true density goes on, and below
# 0: it gains about $2 \log 10 = 4.6$ nats for each factor of 10.

# %% [markdown]
# ## The remedy: one diagonal scaling
#
# NICE (section 3.3) ends with a factor $e^{\lambda_c}$ for every channel $c = 1 \dots C$, learned through its logarithm $\lambda_c$
# (`log_scale`) so that it stays positive:
#
# $$
# y_c = e^{\lambda_c}\, x_c .
# \tag{2.12}
# $$
#
# Its Jacobian is diagonal. Of an image of $h \times w$ pixels, every channel's factor occurs $h\,w$ times (of a vector, once):
#
# $$
# \log|\det J| = h\,w \sum_{c=1}^{C} \lambda_c .
# \tag{2.13}
# $$

# %%
# checks (2.12) and (2.13): minglow.Scaling on vectors and images, its Jacobian by differences
for shape in (4,), (2, 3, 4), (1, 2, 4):
    scaling = minglow.Scaling(4, np.float64)
    scaling.params["log_scale"][...] = log_scale = rng.standard_normal(4)
    sample = rng.standard_normal(shape)
    scaled, found, _ = scaling.forward(sample[None])
    assert np.allclose(scaled[0], np.exp(log_scale) * sample)
    J_scaling = numerical_jacobian(scaling.forward, sample)
    assert np.allclose(J_scaling, np.diag(np.tile(np.exp(log_scale), sample.size // 4)), atol=1e-8)
    assert np.isclose(found[0], np.linalg.slogdet(J_scaling)[1]) and np.isclose(found[0], sample.size / 4 * log_scale.sum())
print("three shapes agree")

# %% [markdown]
# **Exercise 2.4: predict, then run** (1 point). A flow for images of $3 \times 2$ pixels with 4 channels: four additive
# couplings, a swap after each, then a `Scaling` with $\lambda = (0.1, -0.3, 0.5, 0.2)$. What is its
# log-determinant, in nats? Put it into `predicted_log_det`.

# %% solution="predicted-log-det"
### BEGIN SOLUTION
predicted_log_det = 6 * 0.5
### END SOLUTION

# %% test="predicted-log-det" points=1
scaling = minglow.Scaling(4, np.float64)
scaling.params["log_scale"][...] = 0.1, -0.3, 0.5, 0.2
image_chain = minglow.Chain(*chain_of(4, size=4).layers, scaling)
measured = image_chain.forward(np.zeros((1, 3, 2, 4)))[1][0]
assert np.isclose(predicted_log_det, measured), "which layers change volume, and at how many pixels?"

# %% [markdown]
# **Exercise 2.5: the scaling's gradients** (2 points). Derive, from (2.12) and (2.13), the derivatives of a loss $L$ by
# the layer's input and by $\lambda$. You are handed $\bar y = \partial L / \partial y$ (`dy`, of shape $(B, h, w, C)$), $\bar\ell_b =
# \partial L / \partial\,\texttt{log\_det}_b$ (`dlog_det`, of shape $(B,)$), and the output `y`. ($\lambda_c$ reaches
# $L$ in two ways: through every $y_{bij,c}$, and through every sample's log-determinant.)

# %% solution="scaling-gradients"
def scaling_gradients(log_scale, dy, dlog_det, y):
    """Return dL/dx, (B, h, w, C), and dL/dlog_scale, (C,)."""
    ### BEGIN SOLUTION
    dx = dy * np.exp(log_scale)
    pixels = y.shape[1] * y.shape[2]
    return dx, (dy * y).sum(axis=(0, 1, 2)) + dlog_det.sum() * pixels
    ### END SOLUTION


# %% test="scaling-gradients" points=2
graded = minglow.Scaling(3, np.float64)
graded.params["log_scale"][...] = 0.4, -0.7, 0.1
test_rng = np.random.default_rng(5)
test_y, _, test_cache = graded.forward(test_rng.standard_normal((4, 2, 3, 3)))
test_dy, test_dlog_det = test_rng.standard_normal(test_y.shape), test_rng.standard_normal(4)
expected_dx = graded.backward(test_dy, test_dlog_det, test_cache)
expected_dlog_scale = graded.grads["log_scale"]
found_dx, found_dlog_scale = scaling_gradients(graded.params["log_scale"], test_dy, test_dlog_det, test_y)
assert np.allclose(found_dx, expected_dx), "dx: y_c = exp(lambda_c) x_c, so dL/dx_c = ?"
assert np.shape(found_dlog_scale) == (3,), f"one number for each channel, got {np.shape(found_dlog_scale)}"
without = (test_dy * test_y).sum(axis=(0, 1, 2))
assert not np.allclose(found_dlog_scale, without), "the way through log_det is missing"
assert not np.allclose(found_dlog_scale, without + test_dlog_det.sum()), "(2.13) counts every pixel"
assert np.allclose(found_dlog_scale, expected_dlog_scale)

# %% [markdown]
# With the scaling, the hill's height can be learned; for a vector of $D$ numbers:
#
# $$
# \max_x p_x(x) = e^{\lambda_1 + \dots + \lambda_D}\, \max_z p_z(z).
# \tag{2.14}
# $$
#
# It is one number for the whole space, though. All hills become higher and narrower together; where (2.10)
# had one curve, there is one curve for each value of $\sum \lambda$. Data with one sharp and one flat
# hill ask for factors that depend on the place: that is notebook 3.

# %%
# checks (2.14): at the peak, and nowhere above it
sharpening = minglow.Scaling(2, np.float64)
sharpening.params["log_scale"][...] = 0.9, 0.4
sharp_flow = minglow.Flow(minglow.Chain(*bent.layers, sharpening), base)
expected_peak = np.exp(1.3) / (2 * np.pi)
assert np.isclose(np.exp(sharp_flow.log_prob(peak))[0], expected_peak, rtol=1e-6)
_, sharp_density, mass = plots.density_on_grid(sharp_flow.log_prob, 6.0, 600, np.float64)
assert sharp_density.max() <= expected_peak * (1 + 1e-6) and np.isclose(mass, 1, atol=1e-3)
print(f"the peak: {1 / (2 * np.pi):.3f} without scaling, {expected_peak:.3f} with it")

# %% [markdown]
# ## Which base: normal or logistic?
#
# NICE's other choice (section 3.4) is the standard **logistic** density in place of the normal. For one number $z$
#
# $$
# \log p(z) = -\log(1 + e^{z}) - \log(1 + e^{-z}),
# \tag{2.15}
# $$
#
# and a vector's log-density is the sum over its numbers. Its slope, which is what training feels, is bounded, where the
# normal's is $-z$:
#
# $$
# \frac{\mathrm{d} \log p(z)}{\mathrm{d} z} = -\tanh\frac{z}{2} .
# \tag{2.16}
# $$

# %%
# checks (2.15) and (2.16): a density (integral 1), the library's, and slopes by differences
logistic, normal = minglow.StandardLogistic((1,)), minglow.StandardNormal((1,))
z = np.linspace(-40, 40, 80001)
log_p = -np.logaddexp(0, z) - np.logaddexp(0, -z)    # log(1 + e^z) without overflow
assert np.allclose(logistic.log_prob(z[:, None]), log_p)
area, variance = np.trapezoid(np.exp(log_p), z), np.trapezoid(z**2 * np.exp(log_p), z)
print(f"integral {area:.6f}, variance {variance:.4f}, pi^2/3 = {np.pi**2 / 3:.4f}")
assert np.isclose(area, 1) and np.isclose(variance, np.pi**2 / 3)
slope = np.gradient(log_p, z)
assert np.allclose(slope[1:-1], -np.tanh(z / 2)[1:-1], atol=1e-6)
assert np.allclose(logistic.backward(np.ones(len(z)), z[:, None])[:, 0], -np.tanh(z / 2))

figure, axes = plt.subplots(1, 2, figsize=(8, 2.9))
shown = np.abs(z) < 7
for name, base_1d in ("normal", normal), ("logistic", logistic):
    axes[0].semilogy(z[shown], np.exp(base_1d.log_prob(z[shown, None])), label=name)
    axes[1].plot(z[shown], base_1d.backward(np.ones(shown.sum()), z[shown, None]), label=name)
axes[0].set(xlabel="z", ylabel="p(z)", title="density, on a logarithmic axis", ylim=(1e-8, 1))
axes[1].set(xlabel="z", ylabel="d log p / dz", title="slope: how hard an outlier pulls")
axes[0].legend();

# %% [markdown]
# *What to see:* the logistic has heavier tails: the cost $-\log p$ of a far point grows like $|z|$, where the normal's grows
# like $z^2 / 2$, and no point pulls harder than 1. With the scaling behind the couplings the wider variance of $\pi^2/3$ does not matter: $\lambda$ adapts.

# %% [markdown]
# ## A small NICE, trained
#
# `minglow.nice` ([minglow/models/nice.py](../minglow/models/nice.py)) is what this notebook has built: couplings, a reversal after each (which swaps
# halves, too), and a `Scaling` at the end. The data are two half circles with noise of 0.1, whose true density can be computed by
# averaging over the half circles. We train four flows: with and without the `Scaling`, under either base.


# %%
def moons_log_prob(x, angles=300):
    """The true log-density of two_moons: normals along two half circles, averaged."""
    angle = np.pi * (np.arange(angles) + 0.5) / angles
    upper = np.c_[np.cos(angle), np.sin(angle)] - (0.5, 0.25)
    lower = np.c_[1 - np.cos(angle), 0.5 - np.sin(angle)] - (0.5, 0.25)
    distance = sum((x[:, None, i].astype(float) - np.r_[upper, lower][:, i]) ** 2 for i in range(2))
    return np.log(np.exp(-distance / (2 * 0.1**2)).mean(axis=1) + 1e-300) - np.log(2 * np.pi * 0.1**2)


def train(flow, data, steps=800, rate=5e-3):
    """Adam on batches of 256, at a rate that falls to 0."""
    batches, optimizer = np.random.default_rng(0), Adam(flow.flat)
    for step in range(steps):
        flow.flat.grad[...] = 0
        flow.nll_backward(data[batches.integers(len(data), size=256)])
        optimizer.step(rate * (1 - step / steps))
    return flow


# %%
moons, held_out = two_moons(4000, rng=0), two_moons(4000, rng=1)
flows = {}
for kind in minglow.StandardNormal, minglow.StandardLogistic:
    whole = minglow.nice((2,), couplings=4, hidden=32, depth=2, base=kind, rng=0)
    parts = minglow.nice((2,), couplings=4, hidden=32, depth=2, base=kind, rng=0).bijection.layers
    assert isinstance(parts[-1], minglow.Scaling)
    flows[kind.__name__, "with"] = train(whole, moons)
    flows[kind.__name__, "without"] = train(minglow.Flow(minglow.Chain(*parts[:-1]), kind((2,))), moons)

print(f"{'':29}  NLL held out   wall")
for (name, scaled), flow in flows.items():
    wall = -flow.base.log_prob(np.zeros((1, 2), np.float32))[0]
    nll = -flow.log_prob(held_out).mean()
    print(f"{name:16} {scaled:7} Scaling   {nll:5.2f}       " + (f"{wall:5.2f}" if scaled == "without" else "    -"))
    assert scaled == "with" or nll >= wall           # (2.11)
print(f"{'the true density':34}   {-moons_log_prob(held_out).mean():5.2f}")

# %%
without, with_scaling = flows["StandardNormal", "without"], flows["StandardNormal", "with"]
figure, axes = plt.subplots(2, 3, figsize=(9, 5.4))
shown = "true density", moons_log_prob, None
for column, (name, log_prob, flow) in enumerate([
        shown, ("NICE without Scaling", without.log_prob, without), ("NICE", with_scaling.log_prob, with_scaling)]):
    edges, density, mass = plots.density_on_grid(log_prob, 2.2, 120)
    drawn = axes[0, column].pcolormesh(edges, edges, density, vmin=0, vmax=0.6, rasterized=True)
    axes[0, column].set(aspect="equal", title=f"{name}, peak {density.max():.2f}", xlabel="$x_1$", ylabel="$x_2$")
    latents = flow.latents(held_out[:1500]) if flow else np.random.default_rng(0).standard_normal((1500, 2))
    axes[1, column].plot(*latents.T, ".", markersize=2, alpha=0.5)
    for radius in 1, 2, 3:
        axes[1, column].add_patch(plt.Circle((0, 0), radius, fill=False, color="0.5", linewidth=0.7))
    axes[1, column].set(aspect="equal", xlim=(-4, 4), ylim=(-4, 4), xlabel="$z_1$", ylabel="$z_2$",
                        title="latents" if flow else "the base, N(0, I)")
figure.colorbar(drawn, ax=axes[0], label="density");

# %% [markdown]
# *What to see:* above, all on one color scale: without the `Scaling` the density stays pale, since no peak may exceed $1/(2\pi) = 0.16$. Below: its
# latents crowd in the middle and leave the base's disc empty, because
# the moons' small area has to stay small. With the `Scaling` they spread over the disc, and the NLL falls
# below the wall. The true density is still better: four narrow couplings of single numbers are a small model, and its two moons hang together by a thread (a map that is
# continuous, with a continuous inverse, cannot tear the base's one piece into two).

# %% [markdown]
# ## To take away
#
# - A coupling is inverted by computing its conditioner again; the conditioner may be anything.
# - Its Jacobian is triangular with a diagonal of ones: log-determinant 0, and products of such matrices
#   are dense and of determinant 1. Three couplings with swaps between them mix everything with everything.
# - A volume-preserving flow cannot change how high the density is, nor how much area lies above each height: its NLL
#   never passes $\frac{D}{2}\log 2\pi$ nats under a normal base. One `Scaling` learns the one missing number.
# - The logistic base pulls outliers by at most 1.
#
# Next: [3. RealNVP](03_realnvp.ipynb), where the scale depends on the place.
