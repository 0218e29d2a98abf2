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
# # 5. The invertible 1×1 convolution
#
# **You will be able to** say why Glow learns a matrix where RealNVP permutes; derive
# $\log|\det J| = h\,w\,\log|\det W|$ and see it in a Jacobian built by brute force; derive
# $\mathrm{d}\log|\det W|/\mathrm{d}W = W^{-\top}$; say what an LU factorization buys.
#
# **You need** notebooks 1 (change of variables) and 3 (couplings), matrix products, the determinant of
# a triangular and of a block-diagonal matrix. About 45 minutes with the exercises; it runs in seconds.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np

import minglow
from minglow import plots
from minglow.layers.invconv import random_rotation
from minglow.layers.invconv_lu import lu_factors
from minglow.testing import check_layer, numerical_jacobian, taylor_slope

plots.style()
rng = np.random.default_rng(0)

# %% [markdown]
# ## From a permutation to any matrix
#
# A coupling changes one half of the channels and lets the other pass, so between two couplings the
# channels have to be mixed: otherwise one half would never change. NICE swaps the halves. A fixed random
# permutation, which Glow's experiments try as well, mixes more. A permutation of $C$ channels is a
# product with a **permutation matrix** $P$: a single 1 in each row and each column, 0 elsewhere.
#
# Glow asks (Kingma & Dhariwal 2018, section 3.2): why not learn the matrix? Every pixel has a vector of
# channels $x_{ij} \in \mathbb{R}^C$, and all pixels meet the same $C \times C$ matrix $W$:
#
# $$
# y_{ij} = W x_{ij}, \qquad i = 1 \dots h, \quad j = 1 \dots w.
# \tag{5.1}
# $$
#
# A **convolution** makes each output pixel from a small window of input pixels, with the same weights
# everywhere. Here the window is 1 pixel high and 1 pixel wide. $W$ starts as a random rotation, which, like a
# permutation, changes no lengths and no volumes.

# %%
# checks (5.1): the layer, pixel by pixel
layer = minglow.InvConv1x1(4, rng=0, dtype=np.float64)
W = layer.params["weight"]
W += 0.3 * rng.standard_normal(W.shape)              # off its start, so that it is no rotation any more
x = rng.standard_normal((5, 2, 3, 4))                # 5 images of h, w = 2, 3 with C = 4 channels
y, log_det, cache = layer.forward(x)
for b in range(5):
    for i in range(2):
        for j in range(3):
            assert np.allclose(y[b, i, j], W @ x[b, i, j])
print("x", x.shape, " y", y.shape, " log_det", log_det.shape)

# %%
permutation = np.eye(4)[[2, 0, 3, 1]]
figure, axes = plt.subplots(1, 3, figsize=(8, 2.4))
plots.draw_matrix(axes[0], permutation, "a permutation", 1)
plots.draw_matrix(axes[1], random_rotation(4, 0), "a random rotation: the start", 1)
plots.draw_matrix(axes[2], W, "any matrix: the layer above", 1)

# %% [markdown]
# *What to see:* each row says which channels one output channel is made of. A permutation takes one, a
# rotation takes some of each; rows of both have length 1. Of the third not even that is true.

# %% [markdown]
# ## The log-determinant, derived
#
# The map takes $h\,w\,C$ numbers to $h\,w\,C$ numbers, so its Jacobian $J$ is a square matrix of that size.
# Put the numbers in the order pixel by pixel: first all channels of pixel (1, 1), then all of (1, 2), and
# so on. By (5.1), outputs of one pixel depend on inputs of that pixel alone, by $\partial y_{ij} / \partial
# x_{ij} = W$. So $J$ is **block diagonal**: $h\,w$ times the block $W$ along the diagonal, zero elsewhere,
#
# $$
# J = I_{hw} \otimes W = \begin{pmatrix} W & & \\ & \ddots & \\ & & W \end{pmatrix}.
# \tag{5.2}
# $$
#
# ($I_{hw} \otimes W$, the *Kronecker product*, is just the name of that matrix.) The determinant of a
# block-diagonal matrix is the product of its blocks' determinants, $\det J = (\det W)^{hw}$, and the logarithm
# of a product is the sum of the logarithms:
#
# $$
# \log|\det J| = h\,w\,\log|\det W|.
# \tag{5.3}
# $$
#
# We do not have to believe it. The next cell computes the Jacobian of one small image *without* using any of
# this: it moves each of the $h\,w\,C = 24$ inputs a little and looks at what all outputs do.

# %%
# checks (5.2): the dense Jacobian, by differences
J = numerical_jacobian(layer.forward, x[0])          # of one image: 24 x 24
print("J", J.shape, " largest difference from I (x) W:", np.abs(J - np.kron(np.eye(6), W)).max())
assert np.allclose(J, np.kron(np.eye(6), W), atol=1e-7)

# %%
# checks (5.3): many random matrices and image sizes, against slogdet of the dense Jacobian
worst = 0.0
for trial in range(200):
    h, w, c = rng.integers(1, 4, 3)
    any_matrix = minglow.InvConv1x1(c, rng=trial, dtype=np.float64)
    any_matrix.params["weight"][...] = rng.standard_normal((c, c))
    image = rng.standard_normal((h, w, c))
    brute_force = np.linalg.slogdet(numerical_jacobian(any_matrix.forward, image))[1]
    formula = h * w * np.linalg.slogdet(any_matrix.params["weight"])[1]
    assert np.allclose(any_matrix.forward(image[None])[1], formula)
    worst = max(worst, abs(brute_force - formula))
print(f"200 random cases, largest difference {worst:.1e}")
assert worst < 1e-6

# %% [markdown]
# ### The order of the numbers does not matter
#
# Had we put the numbers channel by channel (all pixels of channel 1, then all of channel 2, ...), $J$ would
# not look block diagonal at all. Going from one order to the other is a permutation of the rows and the same
# permutation of the columns:
#
# $$
# J_{\text{channel by channel}} = P\,(I_{hw} \otimes W)\,P^{\top} = W \otimes I_{hw}, \qquad
# |\det P| = 1.
# \tag{5.4}
# $$

# %%
# checks (5.4)
order = np.arange(24).reshape(6, 4).T.ravel()        # where the number that comes k-th stood before
P = np.eye(24)[order]
by_channel = P @ J @ P.T
assert np.allclose(by_channel, np.kron(W, np.eye(6)), atol=1e-7)
assert np.isclose(abs(np.linalg.det(P)), 1)
assert np.isclose(np.linalg.slogdet(by_channel)[1], np.linalg.slogdet(J)[1])

figure, axes = plt.subplots(1, 2, figsize=(8, 3.6))
plots.draw_matrix(axes[0], J, "J, pixel by pixel: $I \\otimes W$")
plots.draw_matrix(axes[1], by_channel, "the same, channel by channel: $W \\otimes I$")
for axis in axes:
    axis.set(xlabel="number in x", ylabel="number in y")

# %% [markdown]
# *What to see:* on the left six copies of $W$ along the diagonal, one for each pixel; on the right each of
# the 16 entries of $W$ has become a little diagonal of six. The same numbers in another order, and the same
# determinant.
#
# The library's `forward` is (5.1) and (5.3), read it in
# [minglow/layers/invconv.py](../minglow/layers/invconv.py), class `InvConv1x1`: a product, and
# `pixels(x) * log_abs_det(weight)`.

# %% [markdown]
# **Exercise 5.1: predict, then run** (1 point). $W$ is $4 \times 4$ with $\det W = e^{-0.1}$, and the image
# has $8 \times 8$ pixels. What is the layer's log-determinant, in nats?

# %% solution="predicted-log-det"
### BEGIN SOLUTION
predicted_log_det = -0.1 * 64
### END SOLUTION

# %% test="predicted-log-det" points=1
shrinking = minglow.InvConv1x1(4, rng=0, dtype=np.float64)
shrinking.params["weight"] *= np.exp(-0.1 / 4)       # a rotation times a number: det = +-e^-0.1
measured = shrinking.forward(np.zeros((1, 8, 8, 4)))[1][0]
assert np.isclose(predicted_log_det, measured), f"det W counts once for each pixel: {measured:.2f}"

# %% [markdown]
# **Exercise 5.2: build the Jacobian yourself** (2 points). Write `dense_jacobian(W, h, w)`, which returns
# the $hwC \times hwC$ matrix of (5.2) without `np.kron`: a loop over the pixels that fills blocks.

# %% solution="dense-jacobian"
def dense_jacobian(W, h, w):
    """The Jacobian of the 1x1 convolution of an image of h x w pixels, pixel by pixel."""
    ### BEGIN SOLUTION
    c = len(W)
    jacobian = np.zeros((h * w * c, h * w * c))
    for pixel in range(h * w):
        jacobian[pixel * c:(pixel + 1) * c, pixel * c:(pixel + 1) * c] = W
    return jacobian
    ### END SOLUTION


# %% test="dense-jacobian" points=2
for c, h, w in (1, 1, 1), (3, 1, 2), (2, 3, 2), (4, 2, 3):
    mixing = minglow.InvConv1x1(c, rng=c, dtype=np.float64)
    mixing.params["weight"] += 0.1 * np.arange(c * c).reshape(c, c)  # not symmetric: W and its transpose differ
    found = dense_jacobian(mixing.params["weight"], h, w)
    expected = numerical_jacobian(mixing.forward, np.ones((h, w, c)))
    assert np.shape(found) == expected.shape, f"expected {expected.shape}, got {np.shape(found)}"
    assert np.allclose(found, expected, atol=1e-6), "is each block W itself, and pixel by pixel?"

# %% [markdown]
# ## The gradient of log|det W|
#
# Training needs the slope of the loss by every entry of $W$. The log-determinant (5.3) contributes
# $h\,w\; \partial \log|\det W| / \partial W_{kl}$. Expand the determinant along row $k$ (Laplace):
#
# $$
# \det W = \sum_{l} W_{kl}\, A_{kl},
# \tag{5.5}
# $$
#
# where the *cofactor* $A_{kl}$ is $(-1)^{k+l}$ times the determinant of $W$ without row $k$ and column $l$. No
# cofactor of row $k$ contains an entry of row $k$, so $\det W$ is linear in $W_{kl}$, and $\partial \det W
# / \partial W_{kl} = A_{kl}$. By Cramer's rule the inverse is made of the same cofactors, $(W^{-1})_{lk} =
# A_{kl} / \det W$. The chain rule for the logarithm, $\mathrm{d}\log|u| = \mathrm{d}u / u$, then says
#
# $$
# \frac{\partial \log|\det W|}{\partial W_{kl}} = \frac{A_{kl}}{\det W} = (W^{-1})_{lk},
# \qquad\text{that is}\qquad
# \frac{\partial \log|\det W|}{\partial W} = W^{-\top}.
# \tag{5.6}
# $$
#
# The two indices have changed places: hence the transpose, which is easily forgotten.


# %%
# checks (5.5)
def cofactor(W, k, l):
    """(-1)^(k+l) times the determinant of W without row k and column l."""
    return (-1) ** (k + l) * np.linalg.det(np.delete(np.delete(W, k, axis=0), l, axis=1))


A = np.array([[cofactor(W, k, l) for l in range(4)] for k in range(4)])
print("row by row:", (W * A).sum(axis=1).round(6), " det W:", np.linalg.det(W).round(6))
assert np.allclose((W * A).sum(axis=1), np.linalg.det(W))


# %%
# checks (5.6): by cofactors, by differences, and by the order of Taylor's remainder
def log_abs_det(W):
    """log|det W|, without ever computing det W, which may be too small for a float."""
    return np.linalg.slogdet(W)[1]


gradient = np.linalg.inv(W).T
assert np.allclose(gradient, A / np.linalg.det(W))
direction = rng.standard_normal(W.shape)
step = 1e-6
slope = (log_abs_det(W + step * direction) - log_abs_det(W - step * direction)) / (2 * step)
assert np.isclose(slope, (gradient * direction).sum(), rtol=1e-7)
for name, candidate in ("W^-T", gradient), ("W^-1, not transposed", gradient.T), ("0.9 W^-T", 0.9 * gradient):
    order = taylor_slope(log_abs_det, W, direction, (candidate * direction).sum())
    print(f"{name:21} remainder of order {order:.2f}")
    assert (abs(order - 2) < 0.1) == (name == "W^-T")

# %% [markdown]
# *What to see:* take a step of length $s$ along a direction. If the derivative is right, what Taylor's
# first-order formula misses shrinks like $s^2$; if it is wrong, like $s$, once $s$ is short enough. (A factor
# of 0.9 is a small mistake, and with these steps still on its way from 2 to 1.) An order of 2 is a sharp test:
# it hardly depends on a tolerance, and even a factor of 0.9 fails it.

# %% [markdown]
# ### The layer's backward pass
#
# Let $L$ be a loss, a number, and write $\bar a$ for $\partial L / \partial a$. `backward` is handed $\bar
# y$ (`dy`) and, for each image $b$, $\bar\ell_b = \partial L / \partial \texttt{log\_det}_b$ (`dlog_det`). By
# (5.1), $y_{bij,k} = \sum_l W_{kl}\, x_{bij,l}$: every $y_{bij,k}$ depends on $x_{bij,l}$ with slope $W_{kl}$, and
# on $W_{kl}$ with slope $x_{bij,l}$. The chain rule sums over all ways on which a quantity reaches $L$:
#
# $$
# \bar x_{bij} = W^{\top}\, \bar y_{bij},
# \tag{5.7}
# $$
#
# $$
# \bar W = \sum_{b,i,j} \bar y_{bij}\, x_{bij}^{\top} \;+\; \Big(\sum_b \bar\ell_b\Big)\, h\,w\, W^{-\top}.
# \tag{5.8}
# $$

# %%
# checks (5.7) and (5.8): the three lines of InvConv1x1.backward, written out and compared
dy, dlog_det = rng.standard_normal(y.shape), rng.standard_normal(5)
layer.grads["weight"][...] = 0
dx = layer.backward(dy, dlog_det, cache)
assert np.allclose(dx, np.einsum("kl,bijk->bijl", W, dy))
dW = np.einsum("bijk,bijl->kl", dy, x) + dlog_det.sum() * 2 * 3 * np.linalg.inv(W).T
assert np.allclose(layer.grads["weight"], dW)


def loss(W_moved):
    """<dy, y> + <dlog_det, log_det>: a loss whose derivatives by y and log_det are dy and dlog_det."""
    return (dy * (x @ W_moved.T)).sum() + (dlog_det * 6 * log_abs_det(W_moved)).sum()


order = taylor_slope(loss, W, direction, (dW * direction).sum())
print(f"Taylor's remainder has order {order:.2f}")
assert abs(order - 2) < 0.1
check_layer(layer)                                   # the library's own checks: silent when all hold

# %% [markdown]
# **Exercise 5.3: a test that can fail** (1 point). A colleague forgets the transpose in (5.6) and
# tests only at the start, where $W$ is a rotation $Q$. Does the mistake show there? Set `shows` to `True` or
# `False`. (What is $Q^{-\top}$ for a rotation? And $Q^{-1}$?)

# %% solution="rotation-shows"
### BEGIN SOLUTION
shows = True                                         # Q^-T is Q itself, and Q^-1 is Q^T
### END SOLUTION

# %% test="rotation-shows" points=1
Q = random_rotation(4, 1)
assert shows in (True, False), "True or False, please"
differ = not np.allclose(np.linalg.inv(Q).T, np.linalg.inv(Q))
assert shows == differ, "compare np.linalg.inv(Q).T with np.linalg.inv(Q)"

# %% [markdown]
# ## The LU form
#
# $\det$ and $W^{-1}$ cost about $C^3$ operations. Glow's section 3.2 offers a way around: keep $W$ as
# factors,
#
# $$
# W = P\, L\, U, \qquad
# L = \text{strictly lower} + I, \qquad
# U = \text{strictly upper} + \operatorname{diag}(s),
# \tag{5.9}
# $$
#
# fix $P$, a permutation, and the signs of $s$, and learn $\log|s|$ and what lies below $L$'s and above $U$'s
# diagonal. (Only here $L$ is a matrix; above it was the loss.) The determinant of a triangular matrix is the
# product of its diagonal, so $\det L = 1$ and $\det U = \prod_c s_c$. With $|\det P| = 1$,
#
# $$
# \log|\det W| = \sum_c \log|s_c| .
# \tag{5.10}
# $$

# %%
# checks (5.9) and (5.10)
order, lower, upper = lu_factors(W)                  # Gaussian elimination: W = lower[order] @ upper
assert np.allclose(lower[order] @ upper, W)
assert np.allclose(lower, np.tril(lower)) and np.allclose(np.diag(lower), 1)
assert np.allclose(upper, np.triu(upper))
assert np.isclose(np.log(np.abs(np.diag(upper))).sum(), log_abs_det(W))

lu_layer = minglow.InvConv1x1LU(4, rng=0, dtype=np.float64)
y_lu, log_det_lu, _ = lu_layer.forward(x)
permuted_lower, U = lu_layer.factors()
assert np.allclose(y_lu, x @ (permuted_lower @ U).T)
assert np.allclose(log_det_lu, 6 * lu_layer.params["log_s"].sum())

figure, axes = plt.subplots(1, 4, figsize=(8.5, 2.0))
for axis, matrix, name in zip(axes, (W, np.eye(4)[order], lower, upper), ("W =", "P times", "L times", "U")):
    plots.draw_matrix(axis, matrix, name)

# %% [markdown]
# *What to see:* $L$ has ones on its diagonal and nothing above it, $U$ nothing below. Learning keeps these
# places empty; $P$ is never changed.
#
# Does it pay? Compare the cost of a determinant and an inverse, which a training step needs once for each
# layer, with the product (5.1) over a batch, which both forms need.

# %%
sizes = [4, 12, 48, 96, 192, 384]


def seconds(function, *arguments):
    """The fastest of five calls."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times)


matrices = [random_rotation(c, c) for c in sizes]
costs = {
    "log|det W|": [seconds(np.linalg.slogdet, matrix) for matrix in matrices],
    "inverse of W": [seconds(np.linalg.inv, matrix) for matrix in matrices],
    "W x, 16 images of 8 x 8": [seconds(np.matmul, rng.standard_normal((16 * 64, c)), matrix)
                                for c, matrix in zip(sizes, matrices)],
}
figure, axis = plt.subplots(figsize=(5.5, 3.2))
for name, cost in costs.items():
    axis.loglog(sizes, 1e3 * np.array(cost), marker="o", label=name)
axis.loglog(sizes[3:], 5e-8 * np.array(sizes[3:], float) ** 3, color="0.6", linestyle=":", label="slope of $C^3$")
axis.set(xlabel="channels C", ylabel="milliseconds", title="one 1×1 convolution, float64, here")
axis.legend();

# %% [markdown]
# *What to see:* for the few channels of an image flow (12 to 48 in Glow on CIFAR-10) determinant and inverse
# cost no more than a few products, and the product itself is little beside the coupling's convolutions, which
# notebook 6 counts. So Glow's paper measured no large difference in time between the two forms. Only towards
# hundreds of channels does $C^3$ show.

# %% [markdown]
# **Exercise 5.4: the inverse by substitution** (2 points). With the factors at hand nobody needs $W^{-1}$:
# $y = P L U x$ is solved from the outside in. Write `solve_lower(L, v)`, which returns the $u$ with $L u =
# v$ for a lower triangular $L$ with ones on its diagonal, without `np.linalg`: row by row, from the top.

# %% solution="solve-lower"
def solve_lower(L, v):
    """The u with L u = v; L is (C, C), lower triangular with ones on its diagonal; v is (C,)."""
    ### BEGIN SOLUTION
    u = np.zeros(len(v))
    for row in range(len(v)):
        u[row] = v[row] - L[row, :row] @ u[:row]
    return u
    ### END SOLUTION


# %% test="solve-lower" points=2
for c in 1, 2, 5, 9:
    L_test = np.tril(np.random.default_rng(c).standard_normal((c, c)), -1) + np.eye(c)
    v_test = np.random.default_rng(c + 1).standard_normal(c)
    before = v_test.copy()
    assert np.allclose(L_test @ solve_lower(L_test, v_test), v_test), f"L u is not v, for C = {c}"
    assert np.array_equal(v_test, before), "v was written to"

# %% [markdown]
# ## What training makes of it
#
# The model in [models/](models/) is a Glow with 2 levels of 12 steps, trained on the digits by `minglow
# train`. Its matrices began as rotations, whose *singular values* (the factors by which a matrix stretches
# along its main directions; their product is $|\det W|$) are all 1. The *condition number*, the largest over the
# smallest, says how many times rounding errors can grow when the layer is inverted.

# %%
flow = minglow.load("models/digits.npz")
learned = [module.params["weight"] for _, module in flow.walk() if isinstance(module, minglow.InvConv1x1)]
spectra = [np.linalg.svd(weight, compute_uv=False) for weight in learned]

figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.2))
for number, values in enumerate(spectra):
    axes[0].plot(np.full(len(values), number + 1), values, "o", markersize=4,
                 color=plots.COLORS[0 if len(values) == len(spectra[0]) else 1])
axes[0].axhline(1, color="0.6", linestyle=":")
axes[0].set(xlabel="flow step (blue: level 1, vermilion: level 2)", ylabel="singular values", ylim=(0, None),
            title="at the start all lie on the dotted line")
conditions = [values.max() / values.min() for values in spectra]
axes[1].plot(range(1, len(conditions) + 1), conditions, "o-", markersize=4)
axes[1].set(xlabel="flow step", ylabel="condition number", ylim=(1, None), title="how much inversion can magnify")
print(f"{len(learned)} matrices, condition numbers {min(conditions):.1f} to {max(conditions):.1f}")

# %% [markdown]
# *What to see:* training stretches most directions and shrinks some, by small factors. Condition numbers
# stay far below $10^7$, where float32 would have no digit left: these layers can be inverted.
# `minglow info` prints the same numbers for a model of yours.

# %% [markdown]
# **Exercise 5.5: a volume ledger** (1 point). Sum up what all 1×1 convolutions of the trained flow contribute
# to the log-determinant of one image, in nats. Level 1 works on images of $4 \times 4$ pixels with 4
# channels (the $8 \times 8$ digits, squeezed), level 2 on $2 \times 2$ with 8. Put the number into `total`.

# %% solution="ledger"
### BEGIN SOLUTION
total = sum((16 if len(weight) == 4 else 4) * log_abs_det(weight) for weight in learned)
### END SOLUTION

# %% test="ledger" points=1
expected = 0.0
for weight in learned:
    pixels_there = 64 // len(weight) if len(weight) == 4 else 4
    expected += pixels_there * np.log(np.linalg.svd(weight, compute_uv=False)).sum()
assert np.isclose(total, expected, rtol=1e-3), f"expected {expected:.2f} nats, got {total:.2f}"

# %% [markdown]
# ## To take away
#
# - A 1×1 convolution is one matrix for all pixels; its Jacobian is $I_{hw} \otimes W$, and its log-determinant
#   counts $\log|\det W|$ once for each of the $h\,w$ pixels.
# - $\partial \log|\det W| / \partial W = W^{-\top}$, transposed, times $h\,w$ and the sum of the
#   cotangents.
# - LU makes the log-determinant a sum; with few channels it is a matter of taste.
#
# Next: [6. Multi-scale](06_multi_scale.ipynb).
