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
# # 1. Change of variables
#
# **You will be able to** carry a density through an invertible map, in one dimension and in many; say why
# $|\det J|$ is a change of area; add up the log-determinants of a composition; write the exact
# $\log p(x)$ of a flow, sample from it, and say what training by likelihood minimizes.
#
# **You need** derivatives and integrals, the normal density, the product of matrices, the determinant of a
# $2 \times 2$ matrix. Notebook 0 says what all this is good for. About 80 minutes with the exercises; it
# runs in seconds.

# %%
from itertools import pairwise
from math import erf

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from matplotlib.animation import FuncAnimation
from matplotlib.path import Path

import minglow
from minglow import plots
from minglow.data import two_moons
from minglow.testing import check_layer, numerical_jacobian, perturbed
from minglow.training import Adam

plots.style()
rng = np.random.default_rng(0)
SHADES = plt.get_cmap("viridis", 20)                 # for densities, in 20 steps

# %% [markdown]
# ## One dimension: probability is area
#
# Let $x$ be a number that we observe, the **data**, and $z$ a number with a density that we know, the **latent**;
# here the standard normal, $p_z(z) = e^{-z^2/2} / \sqrt{2\pi}$. An increasing map $f$ ties them: $z = f(x)$. Which
# density $p_x$ does $x$ have?
#
# When $x$ lies between $a$ and $b$, then $z$ lies between $f(a)$ and $f(b)$, and the other way round. These are
# two names of one event, so they have one probability. The probability of an interval is the area under the
# density:
#
# $$
# \int_a^b p_x(x)\,\mathrm{d}x \;=\; \int_{f(a)}^{f(b)} p_z(z)\,\mathrm{d}z .
# \tag{1.1}
# $$
#
# Our example is $f(x) = x - 0.4 \sin 2x$, whose slope $f'(x) = 1 - 0.8 \cos 2x$ is positive everywhere.


# %%
def f(x):
    """An increasing map, from data x to latent z."""
    return x - 0.4 * np.sin(2 * x)


def slope_of_f(x):
    return 1 - 0.8 * np.cos(2 * x)


def p_z(z):
    """The density of the standard normal."""
    return np.exp(-z**2 / 2) / np.sqrt(2 * np.pi)


@np.vectorize
def below(z):
    """The probability that a standard normal number is less than z: the area to the left of z."""
    return (1 + erf(z / np.sqrt(2))) / 2


# %%
# checks (1.1): draw z, solve f(x) = z for x, and count how often x falls into each interval
edges = np.linspace(-3, 3, 13)
area = np.diff(below(f(edges)))                      # the right-hand side of (1.1), for 12 intervals
fine = np.linspace(-8, 8, 100_001)
z = rng.standard_normal(200_000)
x = np.interp(z, f(fine), fine)                      # f has no inverse in closed form: look it up in a table
assert np.allclose(f(x), z, atol=1e-6)
share = np.histogram(x, edges)[0] / len(x)
print("area of each bar   ", area.round(3))
print("share of the draws ", share.round(3))
assert np.all(np.abs(share - area) < 5 * np.sqrt(area / len(x)))

# %%
figure, axes = plt.subplot_mosaic([["z", "f"], [".", "x"]], figsize=(7.5, 5.2),
                                  width_ratios=[1, 2], height_ratios=[1.6, 1])
colors = plt.get_cmap("viridis")(np.linspace(0, 0.95, len(area)))
line = np.linspace(-3, 3, 301)
axes["f"].plot(line, f(line), color="k")
for edge in edges:
    axes["f"].plot([edge, edge, -3.2], [-3.2, f(edge), f(edge)], color="0.8", linewidth=0.7, zorder=0)
wide, high = np.diff(edges), np.diff(f(edges))       # the widths of the bars, along x and along z
axes["x"].bar(edges[:-1], area / wide, wide, align="edge", color=colors, edgecolor="w", linewidth=0.5)
axes["z"].barh(f(edges[:-1]), area / high, high, align="edge", color=colors, edgecolor="w", linewidth=0.5)
axes["z"].plot(p_z(line), line, color=plots.COLORS[1])
axes["z"].invert_xaxis()
axes["f"].set(title="the map $z = f(x)$", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2))
axes["z"].set(ylabel="latent z", xlabel="$p_z$ (per unit of z)", ylim=(-3.2, 3.2))
axes["x"].set(xlabel="data x", ylabel="$p_x$ (per unit of x)", xlim=(-3.2, 3.2));

# %% [markdown]
# *What to see:* follow one color from the bottom up to the curve and over to the left. A bar keeps its area. Where
# $f$ is steep, the bar becomes longer along $z$, and so it must have been denser along $x$: the two humps at the
# bottom stand where the curve is steep. The vermilion curve is $p_z$ itself.
#
# ## The density itself
#
# Make the interval narrow, from $x$ to $x + \mathrm{d}x$. Its image is $|f'(x)|\,\mathrm{d}x$ long. By (1.1),
# $p_x(x)\,\mathrm{d}x = p_z(f(x))\,|f'(x)|\,\mathrm{d}x$. Divide by $\mathrm{d}x$:
#
# $$
# p_x(x) = p_z(f(x))\,|f'(x)| .
# \tag{1.2}
# $$
#
# The absolute value is there for decreasing maps. They turn the interval round, so that the slope is negative, and a
# length has no sign.


# %%
# checks (1.2): the slope of the probability below x, by differences; for f, and for -f, which decreases
def p_x(x):
    return p_z(f(x)) * np.abs(slope_of_f(x))


step = 1e-5
by_differences = (below(f(line + step)) - below(f(line - step))) / (2 * step)
decreasing = (1 - below(-f(line + step)) - (1 - below(-f(line - step)))) / (2 * step)  # P(z >= -f(x))
assert np.allclose(p_x(line), by_differences, atol=1e-8)
assert np.allclose(p_x(line), decreasing, atol=1e-8)
print("total area under p_x:", np.trapezoid(p_x(fine), fine).round(9))
assert np.isclose(np.trapezoid(p_x(fine), fine), 1)

figure, axis = plt.subplots(figsize=(5.5, 2.6))
axis.hist(x, bins=100, range=(-3, 3), density=True, color="0.85", label="200,000 draws of x")
axis.plot(line, p_x(line), label="$p_z(f(x))\\,|f'(x)|$")
axis.plot(line, p_z(f(line)), linestyle=":", label="$p_z(f(x))$ alone")
axis.set(xlabel="x", ylabel="density", ylim=(0, 0.56))
axis.legend(loc="upper center", ncols=3, fontsize=8);

# %% [markdown]
# *What to see:* the formula's curve runs along the histogram. Without the factor $|f'(x)|$ the dotted curve has its
# peak where in truth there is a valley, and the area under it is not 1.

# %% [markdown]
# **Exercise 1.1: the log-normal density** (2 points). Let $z$ be standard normal and $x = e^z$. Write
# `log_normal(x)`, the density of $x$ for an array of positive numbers. (Which map is $f$, from $x$ to $z$? What is
# its slope?) You may use `p_z`.

# %% solution="log-normal"
def log_normal(x):
    """The density of x = exp(z) for standard normal z; x is an array of positive numbers."""
    ### BEGIN SOLUTION
    return p_z(np.log(x)) / x
    ### END SOLUTION


# %% test="log-normal" points=2
positive = np.geomspace(1e-4, 1e4, 20_001)
found_area = np.trapezoid(log_normal(positive), positive)
assert np.isclose(found_area, 1, atol=1e-3), f"the area under a density is 1, not {found_area:.3f}: is there a slope?"
for low, high_end in (0.2, 0.5), (0.5, 1.0), (1.0, 4.0):
    points_between = np.linspace(low, high_end, 2001)
    probability = below(np.log(high_end)) - below(np.log(low))
    assert np.isclose(np.trapezoid(log_normal(points_between), points_between), probability, atol=1e-5), (
        f"P({low} < x < {high_end}) should be {probability:.4f}")

# %% [markdown]
# ## Two dimensions: areas under a linear map
#
# In the plane intervals become little squares, and lengths become areas. Begin with a linear map, $z = W x$, with
# a matrix $W$ of 2 rows and 2 columns. It takes the unit square to the parallelogram whose sides are the two columns
# of $W$. Its area is
#
# $$
# \operatorname{area}\big(W\,[0, 1]^2\big) = |\det W| = |W_{11} W_{22} - W_{12} W_{21}| .
# \tag{1.3}
# $$
#
# (For positive entries and $W_{11} W_{22} > W_{12} W_{21}$: put the parallelogram into a rectangle of sides
# $W_{11} + W_{12}$ and $W_{21} + W_{22}$, and take away the four triangles and the two little rectangles of sides $W_{12}$ and $W_{21}$ at its rim.)
# A linear map treats every place alike, so *any* figure's area is multiplied by the same $|\det W|$.


# %%
# checks (1.3): by counting the points of a fine lattice that lie inside, and by the shoelace formula
def polygon_area(corners):
    """The area of a polygon, (n, 2), from its corners alone (the shoelace formula)."""
    x1, x2 = corners.T
    return abs(x1 @ np.roll(x2, -1) - x2 @ np.roll(x1, -1)) / 2


square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
turn = np.deg2rad(25)
matrices = {
    "rotation": np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]),
    "shear": np.array([[1, 0.8], [0, 1]]),
    "reflection and stretch": np.array([[0.3, 1.4], [1.2, 0.4]]),
}
lattice = np.stack(np.meshgrid(*2 * [np.linspace(-3, 3, 1201)]), axis=-1).reshape(-1, 2)  # 0.005 apart
for name, W in matrices.items():
    corners = square @ W.T
    counted = Path(corners).contains_points(lattice).sum() * 0.005**2
    print(f"{name:23} |det W| {abs(np.linalg.det(W)):.4f}  counted {counted:.3f}  shoelace {polygon_area(corners):.4f}")
    assert np.isclose(counted, abs(np.linalg.det(W)), atol=0.02)
    assert np.isclose(polygon_area(corners), abs(W[0, 0] * W[1, 1] - W[0, 1] * W[1, 0]))

# %%
figure, axes = plt.subplots(1, 3, figsize=(8.5, 2.9))
for axis, (name, W) in zip(axes, matrices.items()):
    axis.fill(*square.T, color="0.85")
    axis.fill(*(square @ W.T).T, color=plots.COLORS[0], alpha=0.35)
    for column, color in zip(W.T, plots.COLORS[1:]):
        axis.annotate("", column, (0, 0), arrowprops={"arrowstyle": "->", "color": color, "linewidth": 2})
    axis.set(title=f"{name}\n$\\det W$ = {np.linalg.det(W):.2f}", xlim=(-0.6, 2.1), ylim=(-0.2, 1.9),
             aspect="equal", xlabel="first coordinate")
axes[0].set_ylabel("second coordinate");

# %% [markdown]
# *What to see:* gray is the unit square, blue its image, the arrows are the columns of $W$ (vermilion the first, green
# the second). A rotation and a shear keep the area. In the last picture the arrows have changed sides, like
# a glove turned inside out: the determinant is negative, and the area is its size.

# %% [markdown]
# **Exercise 1.2: predict, then run** (2 points). Let $W = \begin{pmatrix} 3 & 1 \\ 1 & 2 \end{pmatrix}$, and let $x$ be
# uniform on the disc of radius 2 around 0. What area has the image of the disc under $z = W x$? What is the density
# of $z$ at $z = 0$? Put them into `image_area` and `image_density`.

# %% solution="disc"
### BEGIN SOLUTION
image_area = 5 * 4 * np.pi
image_density = 1 / image_area
### END SOLUTION

# %% test="disc" points=2
angle = np.linspace(0, 2 * np.pi, 20_001)[:-1]
ellipse = 2 * np.column_stack([np.cos(angle), np.sin(angle)]) @ np.array([[3, 1], [1, 2]]).T
assert np.isclose(image_area, polygon_area(ellipse), rtol=1e-3), "every figure's area is multiplied by |det W|"
assert np.isclose(image_density * polygon_area(ellipse), 1, rtol=1e-3), "density times area is 1 when it is uniform"

# %% [markdown]
# ## A smooth map is linear, seen from close by
#
# Now let $f$ be any smooth invertible map, $z = f(x)$, of $D$ numbers to $D$ numbers. Close to a point $x$ it is almost linear:
# a small step $\delta$ away from $x$ moves $z$ by $J\,\delta$, with the **Jacobian**, the matrix of all slopes,
#
# $$
# J_{ij}(x) = \frac{\partial f_i}{\partial x_j}(x), \qquad
# f(x + \delta) = f(x) + J(x)\,\delta + O(|\delta|^2) .
# \tag{1.4}
# $$
#
# The map to play with is made of two **bends**. A bend keeps the first coordinate, and moves and
# stretches the second, by amounts that depend on the first; between the bends the coordinates change places.


# %%
def bend(x):
    """Keep x_1; stretch x_2 by exp(0.5 sin 1.5 x_1), and shift it by 0.5 cos 1.5 x_1; x is (n, 2)."""
    stretch, shift = np.exp(0.5 * np.sin(1.5 * x[:, 0])), 0.5 * np.cos(1.5 * x[:, 0])
    return np.column_stack([x[:, 0], x[:, 1] * stretch + shift])


def warp(x):
    """Bend, let the coordinates change places, bend again."""
    return bend(bend(x)[:, ::-1])


def bend_jacobian(x):
    """The Jacobian of `bend` at one point, by hand."""
    stretch, slope = np.exp(0.5 * np.sin(1.5 * x[0])), 0.75 * np.cos(1.5 * x[0])
    return np.array([[1, 0], [x[1] * stretch * slope - 0.75 * np.sin(1.5 * x[0]), stretch]])


# %%
# checks (1.4): what is left over shrinks like the square of the step; and the slopes by hand, by differences
point, direction = np.array([0.4, -0.3]), np.array([0.6, 0.8])
lengths = np.array([0.1, 0.05, 0.025, 0.0125])
J = numerical_jacobian(warp, point)                  # moves each coordinate a little, see minglow/testing
moves = point + lengths[:, None] * direction
rest = np.linalg.norm(warp(moves) - warp(point[None]) - (moves - point) @ J.T, axis=1)
order = np.polyfit(np.log(lengths), np.log(rest), 1)[0]
print(f"the rest shrinks like the step to the power {order:.2f}")
assert abs(order - 2) < 0.1
assert np.allclose(numerical_jacobian(bend, point), bend_jacobian(point), atol=1e-8)

# %% [markdown]
# So a small square, of side $h$, becomes almost a parallelogram, of area $|\det J|\,h^2$. In the limit:
#
# $$
# \lim_{h \to 0} \frac{\operatorname{area}\big(f(\text{square of side } h \text{ around } x)\big)}{h^2} = |\det J(x)| .
# \tag{1.5}
# $$


# %%
# checks (1.5): the area of the true, curved image, for ever smaller squares
def square_around(point, side, points=50):
    """The rim of a square, (4 * points, 2), counter-clockwise."""
    t = np.linspace(-0.5, 0.5, points, endpoint=False)
    rim = [[t, 0 * t - 0.5], [0 * t + 0.5, t], [-t, 0 * t + 0.5], [0 * t - 0.5, -t]]
    return point + side * np.concatenate([np.column_stack(part) for part in rim])


sides = np.array([0.8, 0.4, 0.2, 0.1])
areas = np.array([polygon_area(warp(square_around(point, side, 2000))) for side in sides])
errors = np.abs(areas / sides**2 - abs(np.linalg.det(J)))
order = np.polyfit(np.log(sides), np.log(errors), 1)[0]
print(f"|det J| = {abs(np.linalg.det(J)):.4f}")
for side, ratio in zip(sides, areas / sides**2):
    print(f"square of side {side}: area of the image / area of the square = {ratio:.4f}")
assert errors[-1] < 0.01
assert order > 1.5                                   # it converges, and fast

# %%
middles = np.linspace(-1.2, 1.2, 7)                  # of 49 squares, 0.4 wide
centers = np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2)
jacobians = np.array([numerical_jacobian(warp, center) for center in centers])
dets = np.abs(np.linalg.det(jacobians))
colors = plt.get_cmap("viridis")(dets / dets.max())

figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.4))
for center, jacobian, color in zip(centers, jacobians, colors):
    rim = square_around(center, 0.4)
    axes[0].fill(*rim.T, color=color)
    axes[1].fill(*warp(rim).T, color=color)
    parallelogram = warp(center[None]) + (square_around(center, 0.4)[::50] - center) @ jacobian.T
    axes[1].fill(*parallelogram.T, fill=False, edgecolor=plots.COLORS[1], linewidth=0.9)
for axis, function in zip(axes, (lambda x: x, warp)):
    plots.draw_grid(axis, function, limit=1.4, lines=8, dtype=np.float64)
    for drawn in axis.lines:
        drawn.set(color="w", linewidth=0.8)
scale = plt.cm.ScalarMappable(plt.Normalize(0, dets.max()), "viridis")
figure.colorbar(scale, ax=axes, label="$|\\det J|$: area after / before", shrink=0.8)
axes[0].set(title="squares of data x", xlabel="$x_1$", ylabel="$x_2$")
axes[1].set(title="their images, and $J$'s parallelograms", xlabel="$z_1$", ylabel="$z_2$");

# %% [markdown]
# *What to see:* yellow squares become large, dark ones small. The outlines in vermilion are what $J$, taken in
# the middle of each square, makes of it: a parallelogram that fits the true image the better, the less the map
# bends there.
#
# ## The density in many dimensions
#
# The same event has the same probability: $p_x(x)$ times the area of a small square is $p_z(f(x))$ times the area of its
# image. Divide by the area of the square:
#
# $$
# p_x(x) = p_z(f(x))\;|\det J(x)| .
# \tag{1.6}
# $$
#
# In $D$ dimensions squares are cubes and areas are volumes; the formula stays (Dinh et al. 2017, RealNVP,
# equation 2). The latents are now $D$ independent standard normals, $z \sim \mathcal{N}(0, I)$, with $p_z(z) =
# (2\pi)^{-D/2}\, e^{-|z|^2/2}$.
#
# To test it we need draws of $x$. Draw $z$, and go backwards: **sampling is the inverse map**. Each bend is
# undone in closed form, since the coordinate that decides was left alone.


# %%
def unbend(z):
    """The inverse of `bend`."""
    stretch, shift = np.exp(0.5 * np.sin(1.5 * z[:, 0])), 0.5 * np.cos(1.5 * z[:, 0])
    return np.column_stack([z[:, 0], (z[:, 1] - shift) / stretch])


def unwarp(z):
    """The inverse of `warp`: the last is undone first."""
    return unbend(unbend(z)[:, ::-1])


def warped_log_prob(x):
    """(1.6), its logarithm; by bend_jacobian, a bend's determinant is its stretch."""
    h = bend(x)
    z = warp(x)
    log_det = 0.5 * np.sin(1.5 * x[:, 0]) + 0.5 * np.sin(1.5 * h[:, 1])
    return -0.5 * (z**2).sum(axis=1) - np.log(2 * np.pi) + log_det


# %%
# checks (1.6): draws of x, counted in 36 boxes; and the determinant, by differences
draws = unwarp(rng.standard_normal((300_000, 2)))
for row in draws[:20]:
    brute_force = np.linalg.slogdet(numerical_jacobian(warp, row))[1]
    log_p_z = np.log(p_z(warp(row[None]))).sum()
    assert np.isclose(warped_log_prob(row[None])[0], log_p_z + brute_force, atol=1e-6)

grid, density, total = plots.density_on_grid(warped_log_prob, limit=3, cells=120, dtype=np.float64)
boxes = density.reshape(6, 20, 6, 20).sum(axis=(1, 3)) * (6 / 120) ** 2  # probability of 1 x 1 boxes
counts = np.histogram2d(draws[:, 1], draws[:, 0], bins=6, range=[[-3, 3], [-3, 3]])[0]
deviation = np.abs(counts - len(draws) * boxes) / np.sqrt(len(draws) * boxes + 1)
print(f"largest deviation in 36 boxes: {deviation.max():.1f} standard deviations")
assert deviation.max() < 5

figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.2), sharey=True)
drawn = axes[0].pcolormesh(grid, grid, density, cmap=SHADES)
axes[1].hist2d(*draws.T, bins=40, range=[[-3, 3], [-3, 3]], density=True, vmax=density.max(), cmap=SHADES)
figure.colorbar(drawn, ax=axes, label="density (per unit of area)", shrink=0.9)
axes[0].set(title="the density, by (1.6)", aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
axes[1].set(title="300,000 draws, $x = f^{-1}(z)$", aspect="equal", xlabel="$x_1$");

# %% [markdown]
# *What to see:* one picture is computed by $f$ ($x \to z$: a density), the other by its inverse ($z \to x$: samples).
# They agree. This is what makes a **flow**: a map that runs in both directions, with a known determinant.
#
# ## Composition: logarithms add up
#
# One simple map is not enough for faces or digits. Put $K$ of them in a row: $h_0 = x$, $h_k = f_k(h_{k-1})$, $z = h_K$,
# and let $J_k$ be the Jacobian of $f_k$, taken at $h_{k-1}$. The chain rule multiplies them, the last one to the left:
#
# $$
# J(x) = J_K(h_{K-1}) \cdots J_2(h_1)\; J_1(h_0) .
# \tag{1.7}
# $$
#
# The determinant of a product is the product of the determinants (a square is enlarged once by each map), and the
# logarithm makes a sum of it:
#
# $$
# \log|\det J(x)| = \sum_{k=1}^{K} \log|\det J_k(h_{k-1})| .
# \tag{1.8}
# $$

# %%
# checks (1.7) and (1.8): the warp's three maps, each by hand, against the whole, by differences
swap = np.array([[0.0, 1], [1, 0]])
for row in draws[:20]:
    h1 = bend(row[None])[0]
    h2 = swap @ h1
    product = bend_jacobian(h2) @ swap @ bend_jacobian(row)
    whole = numerical_jacobian(warp, row)
    parts = [np.linalg.slogdet(part)[1] for part in (bend_jacobian(row), swap, bend_jacobian(h2))]
    assert np.allclose(product, whole, atol=1e-6)
    assert np.isclose(sum(parts), np.linalg.slogdet(whole)[1], atol=1e-6)
print("the last point's log-determinants:", " + ".join(f"{part:.3f}" for part in parts), f"= {sum(parts):.3f}")

# %% [markdown]
# Take the logarithm of (1.6) and put (1.8) in. This is the formula that everything in this course serves (Kingma &
# Dhariwal 2018, equation 7):
#
# $$
# \log p(x) = \log p_z(z) + \sum_{k=1}^{K} \log|\det J_k(h_{k-1})| .
# \tag{1.9}
# $$
#
# A determinant of a $D \times D$ matrix costs about $D^3$ operations, too many for an image. Notebooks 2 to 6 build
# layers whose $\log|\det J_k|$ is a short sum. In minglow `layer.forward(x)` returns it along with the output, one
# number for each sample of the batch. `Chain` adds them up, and `Flow` adds $\log p_z$
# ([minglow/chain.py](../minglow/chain.py), [minglow/flow.py](../minglow/flow.py)).

# %%
# checks (1.9): a small flow of the library, against the dense Jacobian of its whole map, by differences
small = perturbed(minglow.glow(shape=(4,), flow_steps=3, hidden=8, dtype=np.float64, rng=0))  # off its start
batch = rng.standard_normal((10, 4))
h, log_p = batch, 0.0
for layer in small.bijection.layers:
    h, log_det, _ = layer.forward(h)
    log_p = log_p + log_det                          # log_det: (10,), one for each sample
log_p = log_p + np.log(p_z(h)).sum(axis=1)
assert np.allclose(log_p, small.log_prob(batch))
for row, value in zip(batch, log_p):
    z_row = small.latents(row[None])[0]
    dense = np.linalg.slogdet(numerical_jacobian(small.latents, row))[1]
    assert np.isclose(value, -0.5 * z_row @ z_row - 2 * np.log(2 * np.pi) + dense, atol=1e-6)
print(f"{len(small.bijection.layers)} layers; log p of the first samples:", log_p[:4].round(3))

# %% [markdown]
# The inverse map, from $z$ back to $x$, undoes the change of volume. Its Jacobian is the inverse matrix, and its
# log-determinant has the other sign:
#
# $$
# J_{f^{-1}}(z) = J(x)^{-1}, \qquad \log|\det J_{f^{-1}}(z)| = -\log|\det J(x)| .
# \tag{1.10}
# $$
#
# So nothing new has to be computed for the direction of sampling.

# %%
# checks (1.10): Jacobians of both directions, by differences
for row in batch:
    there = numerical_jacobian(small.latents, row)
    back = numerical_jacobian(small.from_latents, small.latents(row[None])[0])
    assert np.allclose(back, np.linalg.inv(there), atol=1e-5)
    assert np.isclose(np.linalg.slogdet(back)[1], -np.linalg.slogdet(there)[1], atol=1e-5)
print(f"there {np.linalg.slogdet(there)[1]:.6f}, and back {np.linalg.slogdet(back)[1]:.6f}")

# %% [markdown]
# **Exercise 1.3: predict, then run** (1 point). Four maps of the plane in a row: a rotation by 30 degrees; the first
# coordinate times 2 and the second times 3; the coordinates change places; both are divided by 2. What is the
# log-determinant of the whole, in nats? Put it into `predicted_log_det`.

# %% solution="composition"
### BEGIN SOLUTION
predicted_log_det = np.log(2 * 3 / 2**2)
### END SOLUTION

# %% test="composition" points=1
cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
whole_map = (np.eye(2) / 2) @ np.array([[0, 1], [1, 0]]) @ np.diag([2, 3]) @ np.array([[cos, -sin], [sin, cos]])
assert np.isclose(predicted_log_det, np.linalg.slogdet(whole_map)[1], atol=0.01), (
    "multiply |det| of the four: 1, 2 times 3, 1, and 1/2 for each of the two coordinates; then take log")

# %% [markdown]
# **Exercise 1.4: write a layer** (2 points). `Fan` keeps $x_1$ and multiplies $x_2$ by $e^{a \sin x_1}$, with one
# parameter $a$. Write `forward` and `inverse`; `backward` is given, notebook 7 is about it. `forward` returns
# $y$, of shape (B, 2), the log-determinant of each of the $B$ samples, of shape (B,), and `x`, which is the cache that
# `backward` needs. `inverse` returns $x$ twice: the result and, again, the cache. The library's kit checks it all.

# %% solution="fan"
class Fan(minglow.Bijection):
    """y_1 = x_1, y_2 = x_2 exp(a sin x_1), with a = self.params["a"][0].

    forward(self, x) returns y (B, 2), log_det (B,) and the cache x
    inverse(self, y) returns x (B, 2), and x again, as the cache
    """

    def __init__(self, a=0.5):
        super().__init__()
        self.add_param("a", np.array([a]))

    def backward(self, dy, dlog_det, cache):
        a, x = self.params["a"][0], cache
        stretch = np.exp(a * np.sin(x[:, 0]))
        dlog_stretch = dy[:, 1] * x[:, 1] * stretch + dlog_det
        self.grads["a"] += (dlog_stretch * np.sin(x[:, 0])).sum()
        return np.column_stack([dy[:, 0] + dlog_stretch * a * np.cos(x[:, 0]), dy[:, 1] * stretch])

    ### BEGIN SOLUTION
    def forward(self, x):
        log_det = self.params["a"][0] * np.sin(x[:, 0])
        return np.column_stack([x[:, 0], x[:, 1] * np.exp(log_det)]), log_det, x

    def inverse(self, y):
        x = np.column_stack([y[:, 0], y[:, 1] * np.exp(-self.params["a"][0] * np.sin(y[:, 0]))])
        return x, x
    ### END SOLUTION


# %% test="fan" points=2
for a in 0.5, -1.3:
    fan = Fan(a)
    fan_points = np.random.default_rng(1).standard_normal((6, 2))
    fan_y, fan_log_det, _ = fan.forward(fan_points)
    assert np.shape(fan_log_det) == (6,), f"one log-determinant for each of 6 samples, got {np.shape(fan_log_det)}"
    assert np.allclose(fan_y[:, 1] / fan_points[:, 1], np.exp(a * np.sin(fan_points[:, 0]))), "y_2 = x_2 exp(a sin x_1)"
    check_layer(fan, fan_points)

# %% [markdown]
# ## Learning: the likelihood
#
# Give the map parameters $\theta$, and look for those under which the data that we have, $x_1, \dots, x_N$, are most
# probable. The loss is the mean **negative log-likelihood**, in nats:
#
# $$
# \mathrm{NLL}(\theta) = -\frac{1}{N} \sum_{n=1}^{N} \log p_\theta(x_n) .
# \tag{1.11}
# $$
#
# What does that minimize? If the data come from a density $p^*$, the mean converges to $E_{x \sim p^*}[-\log
# p_\theta(x)]$. Add and subtract $\log p^*(x)$:
#
# $$
# E_{x \sim p^*}\big[-\log p_\theta(x)\big]
# = \underbrace{E_{x \sim p^*}\big[-\log p^*(x)\big]}_{\text{entropy } H(p^*)}
# + \underbrace{E_{x \sim p^*}\Big[\log \frac{p^*(x)}{p_\theta(x)}\Big]}_{\mathrm{KL}(p^* \,\|\, p_\theta) \;\ge\; 0} .
# \tag{1.12}
# $$
#
# The entropy does not depend on $\theta$. So the NLL is, up to a constant, the **Kullback-Leibler divergence** from
# the data's density to the model's. It is 0 where the two agree, and positive otherwise (by Jensen's inequality, notebook 0).

# %%
# checks (1.11) and (1.12): standard normal data; the flow z = (x - m) / s has p_x = N(m, s^2), whose KL has a closed form
data = np.random.default_rng(1).standard_normal((100_000, 1))
layer = minglow.ActNorm(1, dtype=np.float64)         # z = (x + shift) exp(log_scale)
model = minglow.Flow(minglow.Chain(layer), minglow.StandardNormal((1,)))
entropy = 0.5 * np.log(2 * np.pi * np.e)
shifts, nlls = np.linspace(-1.5, 1.5, 31), {}
for s in 0.8, 1.0, 1.5:
    for m in shifts:
        layer.params["shift"][...], layer.params["log_scale"][...] = -m, -np.log(s)
        log_p = model.log_prob(data)
        nll = model.nll_backward(data).nll
        assert np.isclose(nll, -log_p.sum() / len(data))
        kl = np.log(s) + (1 + m**2) / (2 * s**2) - 0.5
        assert kl >= 0 and abs(nll - (entropy + kl)) < 5 * log_p.std() / np.sqrt(len(data))
        nlls.setdefault(s, []).append(nll)

figure, axis = plt.subplots(figsize=(5.5, 2.9))
for s, values in nlls.items():
    axis.plot(shifts, values, label=f"s = {s}")
axis.axhline(entropy, color="0.5", linestyle=":", label="entropy of the data")
axis.set(xlabel="the model's mean m", ylabel="NLL in nats")
axis.legend();

# %% [markdown]
# *What to see:* no model gets below the dotted line. The curve of $s = 1$ touches it at $m = 0$, where model and data
# agree; what lies between a curve and the line is the KL divergence.
#
# ## A flow learns a curve: one dimension
#
# Back to the first picture: one number $x$, an increasing map $f$, and the density $p_z(f(x))\,f'(x)$. Now $f$ is
# learned from data. A **spline** is a curve through a few points, its *knots* (Durkan et al. 2019, section 3.1).
# Between two knots it is a quotient of two quadratic polynomials that increases. Outside of all knots it is the straight line
# $f(x) = x$. The parameters are the distances of the knots along $x$ and along $z$, and the derivatives at the knots. Every
# choice of them gives an increasing map, whose derivative and inverse have formulas
# ([minglow/layers/spline.py](../minglow/layers/spline.py)).
#
# The flow has two layers. `Standardization` subtracts the mean of the data and divides by their standard deviation.
# `Spline` has 16 pieces. `minglow.train` standardizes, then makes the NLL (1.11) small: at each of 600 steps it moves
# the parameters against the gradient of the NLL of 256 data.

# %%
humps, rng_humps = np.array([-2.0, 0.5, 2.2]), np.random.default_rng(3)
which = rng_humps.choice(3, size=5000, p=[0.45, 0.2, 0.35])
sizes = np.array([0.6, 0.3, 0.5])[which]
x_humps = humps[which] + sizes * rng_humps.standard_normal(5000)  # three humps
curve = minglow.Spline(channels=1, bins=16, dtype=np.float64)
one_number = minglow.Flow(minglow.Chain(minglow.Standardization(1), curve), minglow.StandardNormal((1,)))
minglow.train(one_number, x_humps[:, None], steps=600, learning_rate=0.05, ema_decay=0.98)
print(f"{curve.params['raw'].size} parameters; NLL {-one_number.log_prob(x_humps[:, None]).mean():.3f} nats, "
      f"of a normal with the mean and the deviation of the data {np.log(x_humps.std()) + entropy:.3f}")


# %%
# checks (1.2), for the learned map: f' by differences, and the total area
def learned(x):
    """The learned map f, from data x to latent z; x is (n,)."""
    return one_number.latents(x[:, None])[:, 0]


fine = np.linspace(-12, 12, 24_001)
density = np.exp(one_number.log_prob(fine[:, None]))
slope = (learned(fine + 1e-6) - learned(fine - 1e-6)) / 2e-6
assert np.allclose(density, p_z(learned(fine)) * slope, atol=1e-6)
print(f"total area: {np.trapezoid(density, fine):.6f}")
assert np.isclose(np.trapezoid(density, fine), 1, atol=1e-4)

line = np.linspace(-4.5, 4.5, 601)
figure, axes = plt.subplots(2, 1, figsize=(5.5, 4.6), sharex=True, height_ratios=[1, 1.3])
axes[0].hist(x_humps, bins=90, range=(-4.5, 4.5), density=True, color="0.85", label="5000 data")
axes[0].plot(line, np.exp(one_number.log_prob(line[:, None])), label="$p_z(f(x))\\,f'(x)$, learned")
axes[0].set(ylabel="density", ylim=(0, 0.4))
axes[0].legend(loc="upper center", ncols=2)
axes[1].plot(line, learned(line), color="k")
for edge in np.linspace(-2.5, 2.5, 11):              # equal steps along z, and where they come from
    start = one_number.from_latents(np.array([[edge]]))[0, 0]
    axes[1].plot([start, start, -4.6], [-3.4, edge, edge], color="0.8", linewidth=0.7, zorder=0)
axes[1].set(xlabel="data x", ylabel="latent z", xlim=(-4.6, 4.6), ylim=(-3.4, 3.4), title="the learned map $z = f(x)$");

# %% [markdown]
# *What to see:* $f$ is steep under each hump and flat between them. The gray lines are equally far apart along $z$. Along
# $x$ they are close together where there are many data. This is the first picture again, but here the map was found by
# maximum likelihood. The corners of the density are at knots, where the derivative $f'$ bends.
#
# ## A flow learns two moons
#
# What `minglow.train` does in a loop is written out here.
#
# Now all of it at work, on points $x = (x_1, x_2)$ in the shape of two half moons. The map has $K = 8$ steps. Each is what
# Glow calls a **flow step**, three layers: *actnorm* (shift and scale each coordinate, notebook 4), an *invertible 1×1
# convolution* (a linear map $W$ as above, notebook 5), and an *affine coupling* (a bend whose stretch and shift are
# learned, notebook 3). The layers before the first step are set once, by data, and not trained: they make
# the two coordinates uncorrelated, with mean 0 and variance 1. The last layer of the list, `Flatten`, does nothing to vectors. Training goes down the gradient of (1.11), which `nll_backward` adds to `flow.flat.grad` (notebook 7), with 256 new points at each step; `Adam` chooses
# each parameter's step size. The learning rate falls to 0, so that the last steps are small.

# %%
flow = minglow.glow(shape=(2,), flow_steps=8, hidden=64, dtype=np.float64, rng=2)
flow.initialize(two_moons(1000, rng=0))              # where the actnorms start, see notebook 4
optimizer, history = Adam(flow.flat), []
for step in range(1000):
    flow.flat.grad[...] = 0
    nll = flow.nll_backward(two_moons(256, rng=step)).nll
    optimizer.step(learning_rate=5e-3 * (1 - step / 1000))
    history.append(nll)
layers = flow.bijection.layers
starts = [k for k, layer in enumerate(layers) if isinstance(layer, minglow.ActNorm)]  # where flow steps begin
ends = [0, *starts[1:], len(layers)]                 # what comes before the first step is counted with it
flow_steps = [layers[k:end] for k, end in pairwise(ends)]
moons = two_moons(1000, rng=12345).astype(np.float64)
names = [type(layer).__name__ for layer in layers]
print(*names[:starts[0]], names[starts[0]:starts[1]], f"{len(flow_steps)} times, then", names[-1])
print(f"NLL of points it has not seen: {-flow.log_prob(moons).mean():.2f} nats")

# %%
figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), width_ratios=[1, 1.3])
axes[0].scatter(*moons.T, s=2, antialiased=False)
axes[0].set(title="data", aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
axes[1].plot(history, color="0.8", linewidth=0.8, label="each batch", antialiased=False)
axes[1].plot(np.arange(25, 976), np.convolve(history, np.ones(50) / 50, "valid"), label="mean of 50")
axes[1].set(xlabel="training step", ylabel="NLL in nats", title="learning")
axes[1].legend();


# %% [markdown]
# ### From data to noise, step by step
#
# Follow a straight grid and the data through the trained steps, one after the other. The upper moon is drawn blue,
# the lower one vermilion; the flow knows nothing of these colors.


# %%
def through(x, steps):
    """x after the first so many flow steps."""
    for step in flow_steps[:steps]:
        for layer in step:
            x, _ = layer.forward_only(x)
    return x


def by_moon(x):
    """A color for each point: that of the half circle that is nearer."""
    t = np.linspace(0, np.pi, 60)
    upper = np.column_stack([np.cos(t) - 0.5, np.sin(t) - 0.25])
    gaps = [np.linalg.norm(x[:, None] - arc, axis=2).min(axis=1) for arc in (upper, -upper)]
    return np.where(gaps[0] < gaps[1], *plots.COLORS[:2])


def draw_state(axis, function, points, colors, limit, title):
    """The grid on [-limit, limit]^2 and some points, under a map."""
    plots.draw_grid(axis, function, limit, lines=9, dtype=np.float64)
    for drawn in axis.lines:
        drawn.set(color="0.75", linewidth=0.6, antialiased=False)
    axis.scatter(*function(points).T, s=0.8, c=colors, zorder=3, antialiased=False)
    axis.set(title=title, xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), xticks=(-2, 0, 2), yticks=(-2, 0, 2))


# %%
shown, figure = moons[:500], plt.figure(figsize=(8.0, 3.6))
axes = figure.subplots(2, 5, sharex=True, sharey=True)
for steps, axis in enumerate(axes.flat[:9]):
    title = "data x" if steps == 0 else f"after step {steps}" + ": z" * (steps == 8)
    draw_state(axis, lambda x, steps=steps: through(x, steps), shown, by_moon(shown), 1.6, title)
axes[1, 4].scatter(*rng.standard_normal((500, 2)).T, s=1.5, color="0.4", antialiased=False)
axes[1, 4].set(title="compare: noise", aspect="equal");

# %% [markdown]
# *What to see:* every step turns, stretches and bends the plane; no place is covered twice, since each step is
# invertible. Little by little the two moons are pulled out of each other, straightened and spread, until
# together they lie like normal noise, one on either side.
#
# ### From noise to data: sampling
#
# Sampling starts with noise and takes the same steps backwards, each by its inverse, the last one first.


# %%
def back(z, steps):
    """z after so many inverse steps, the last flow step first."""
    for step in flow_steps[::-1][:steps]:
        for layer in step[::-1]:
            z = layer.inverse_only(z)
    return z


noise = rng.standard_normal((400, 2))
assert np.allclose(back(noise, 8), flow.from_latents(noise))
colors, figure = by_moon(back(noise, 8)), plt.figure(figsize=(8.0, 3.6))  # where it will land
axes = figure.subplots(2, 5, sharex=True, sharey=True)
for steps, axis in enumerate(axes.flat[:9]):
    title = "noise z" if steps == 0 else f"step {9 - steps} undone" + ": x" * (steps == 8)
    draw_state(axis, lambda z, steps=steps: back(z, steps), noise, colors, 2.4, title)
axes[1, 4].scatter(*moons[:500].T, s=1.5, color="0.4", antialiased=False)
axes[1, 4].set(title="compare: data", aspect="equal");

# %% [markdown]
# *What to see:* the same walk, backwards. Each dot has the color of the moon on which it will land: the noise
# was divided between the moons before the first step.

# %%
movie, axis = plt.subplots(figsize=(3.4, 3.4))
stages = np.array([back(noise, steps) for steps in range(9)])
dots = axis.scatter(*stages[0, :200].T, s=4, c=colors[:200], antialiased=False)
axis.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))


def show(frame):
    """Frame 2 k is the state after k inverse steps; odd frames lie half way between."""
    dots.set_offsets((stages[frame // 2, :200] + stages[(frame + 1) // 2, :200]) / 2)
    axis.set_title(f"{frame // 2} of 8 steps undone")
    return (dots,)


animation = FuncAnimation(movie, show, frames=17)
plt.close(movie)
plt.rcParams["savefig.dpi"] = 60
page = plots.animation_html(animation, "200 normal latents move, step by step, onto two moons")
plt.rcParams["savefig.dpi"] = "figure"
HTML(page)

# %% [markdown]
# *What to see:* each dot is one draw, and keeps its identity on the way. The flow invents nothing between noise and
# data; it moves every point along a path that can be walked in both directions.
#
# ### The ledger of one density
#
# (1.9) is a sum of nine numbers. Here it is for three points: one on a moon, one in the gap between the moons, and
# one outside of both.

# %%
chosen = {"on a moon": [-0.5, 0.75], "in the gap": [0.0, 0.1], "outside": [1.0, 0.6]}
h = np.array(list(chosen.values()))
ledger = []
for step in flow_steps:
    log_det = 0.0
    for layer in step:
        h, part = layer.forward_only(h)
        log_det = log_det + part
    ledger.append(log_det)
ledger = np.array([*ledger, np.log(p_z(h)).sum(axis=1)])
assert np.allclose(ledger.sum(axis=0), flow.log_prob(np.array(list(chosen.values()))))

figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), sharey=True)
for axis, name, entries in zip(axes, chosen, ledger.T):
    axis.bar(range(1, 9), entries[:8], color=plots.COLORS[0])
    axis.bar(9, entries[8], color=plots.COLORS[1])
    axis.bar(10, entries.sum(), color=plots.COLORS[2])
    axis.axhline(0, color="k", linewidth=0.6)
    axis.set_xticks(range(1, 11), [*map(str, range(1, 9)), "log\n$p_z$", "sum"])
    axis.set(title=f"{name}: log p(x) = {entries.sum():.2f}", xlabel="log-determinant of step 1 to 8")
axes[0].set_ylabel("nats");

# %% [markdown]
# *What to see:* blue are the log-determinants of the steps, vermilion is $\log p_z(z)$, green their sum, the exact
# $\log p(x)$. A positive bar says that the step stretches the neighborhood of this point: it makes room
# for many data in a part of latent space.
#
# ### The density, and the whole of it
#
# However the map has been trained, the total probability is 1, by the same change of variables that led us here:
#
# $$
# \int p_x(x)\,\mathrm{d}x = \int p_z(f(x))\,|\det J(x)|\,\mathrm{d}x = \int p_z(z)\,\mathrm{d}z = 1 .
# \tag{1.13}
# $$

# %%
# checks (1.13): the trained flow and an untrained one, summed over a grid that is wide and fine enough
grid, density, total = plots.density_on_grid(flow.log_prob, limit=3, cells=160, dtype=np.float64)
untrained = minglow.glow(shape=(2,), flow_steps=2, hidden=64, dtype=np.float64, rng=0)
untrained.initialize(moons)
untrained_total = plots.density_on_grid(perturbed(untrained, size=0.1).log_prob, 6, 160, dtype=np.float64)[2]
print(f"integral of the trained flow's density: {total:.6f}, of an untrained one's: {untrained_total:.6f}")
assert abs(total - 1) < 1e-3 and abs(untrained_total - 1) < 1e-3

samples = flow.sample(700, rng=7)
figure, axes = plt.subplots(2, 2, figsize=(6.6, 4.2), sharex=True, sharey=True)
axes[0, 0].scatter(*moons[:700].T, s=2, color="0.4", antialiased=False)
axes[0, 1].scatter(*samples.T, s=2, antialiased=False)
pictures = density, np.log(np.maximum(density, 1e-30))
for axis, picture, low, label in zip(axes[1], pictures, (0, -8), ("p(x), per unit of area", "log p(x), nats")):
    figure.colorbar(axis.pcolormesh(grid, grid, picture, vmin=low, cmap=SHADES), ax=axis, label=label)
for axis, title in zip(axes.flat, ("data", "samples of the flow", "its density", "its log-density, from -8 up")):
    axis.set(title=title, xlim=(-2.1, 2.1), ylim=(-1.5, 1.5), aspect="equal")
for axis in axes[1]:
    axis.set_xlabel("$x_1$")
for axis in axes[:, 0]:
    axis.set_ylabel("$x_2$");

# %% [markdown]
# *What to see:* samples and density both look like the data. The logarithm shows what the density hides: a smooth map
# can stretch one cloud of noise, but not tear it, so a bridge is left between the moons. Because of (1.13) a flow cannot
# raise its likelihood by being large everywhere. What it gives to the data it has to take from elsewhere.

# %% [markdown]
# **Exercise 1.5: a flow in a few lines** (2 points). Write `log_prob(x, layers)`: the $\log p(x)$ of each
# sample, of shape (B,), in nats, for a flow that is given as a list of bijections. The latents are standard normal in
# all $D$ dimensions; use `layer.forward(h)`, which returns `(y, log_det, cache)`, and neither `Chain` nor `Flow`.

# %% solution="log-prob"
def log_prob(x, layers):
    """log p(x_b), (B,), for x (B, D) and bijections in the order from data to latent."""
    ### BEGIN SOLUTION
    total = np.zeros(len(x))
    for layer in layers:
        x, log_det, _ = layer.forward(x)
        total += log_det
    return total - 0.5 * (x**2).sum(axis=1) - 0.5 * x.shape[1] * np.log(2 * np.pi)
    ### END SOLUTION


# %% test="log-prob" points=2
for D, steps in (2, 2), (4, 3), (6, 1):
    tested = perturbed(minglow.glow(shape=(D,), flow_steps=steps, hidden=8, dtype=np.float64, rng=D), D)
    tested_x = np.random.default_rng(D).standard_normal((5, D))
    kept_x = tested_x.copy()
    found = log_prob(tested_x, list(tested.bijection.layers))
    assert np.shape(found) == (5,), f"one number for each of the 5 samples, got {np.shape(found)}"
    assert np.array_equal(tested_x, kept_x), "x was written to"
    assert np.allclose(found, tested.log_prob(tested_x)), (
        "off by a constant: the normal's factor? otherwise: is each layer given the output of the one before?")
assert np.allclose(log_prob(moons[:50], list(layers)), flow.log_prob(moons[:50]))

# %% [markdown]
# ## To take away
#
# - An event keeps its probability under an invertible map, and so $p_x(x) = p_z(f(x))\,|\det J(x)|$: the
#   determinant says by how much a small volume grows.
# - Composition multiplies determinants and adds their logarithms: $\log p(x) = \log p_z(z) + \sum_k \log|\det J_k|$.
# - Densities are computed from data to latent, samples are drawn from latent to data, with one and the same map.
# - Maximum likelihood minimizes $\mathrm{KL}(p^* \| p_\theta)$ up to the entropy of the data.
#
# Next: [2. NICE](02_nice.ipynb).
