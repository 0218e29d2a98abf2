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
# # 10. Property testing, and a museum of bugs
#
# **You will be able to** turn an example test into a property and let a machine look for a counterexample;
# say what a test at the zero start cannot see, and which tolerance a test needs; name the promises that
# every layer makes; write tests that tell a broken layer from a right one, and know what they miss.
#
# **You need** notebooks 3 (couplings), 4 (actnorm), 5 (1×1 convolution) and 7 (backward passes). About 75
# minutes with the exercises; it runs in seconds.

# %%
import math
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

import minglow
from minglow import plots
from minglow.arrays.shapes import constant_log_det, halves, join, pixels, rows, zero_log_det
from minglow.data import digits
from minglow.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Flatten,
    InvConv1x1,
    InvConv1x1LU,
    Level,
    Squeeze,
)
from minglow.layers.scale import sigmoid_scale
from minglow.nets import conv_net, mlp
from minglow.testing import (
    PropertyFailed,
    check_backward,
    check_inverse,
    check_layer,
    check_log_det,
    directional_derivative,
    layer_checks,
    numerical_jacobian,
    perturbed,
    strategies,
)

plots.style()
scratch = tempfile.TemporaryDirectory()
set_hypothesis_home_dir(scratch.name)               # what Hypothesis notes for itself does not stay
rng = np.random.default_rng(0)


# %% [markdown]
# ## From an example to a property
#
# Somebody writes the invertible 1×1 convolution of notebook 5, and forgets that every one of the $h\,w$
# pixels stretches the volume. Then they test it, with an example that can be worked out by hand: one pixel,
# a diagonal matrix.

# %%
class ForgetsThePixels(InvConv1x1):
    """The 1x1 convolution, but log_det is log|det W|, without h * w."""

    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, log_det / pixels(x), cache         # pixels(x) is h * w


def example_test(layer):
    """An example, worked out by hand: diag(2, 3) stretches the volume six times."""
    layer.params["weight"][...] = np.diag([2.0, 3.0])
    x = np.array([[[[1.0, 1.0]]]])                   # one image of 1 x 1 pixels with 2 channels
    y, log_det, _ = layer.forward(x)
    assert np.allclose(y, [[[[2, 3]]]]) and np.allclose(log_det, np.log(6))
    assert np.allclose(layer.inverse(y)[0], x)


example_test(InvConv1x1(2, rng=0, dtype=np.float64))
example_test(ForgetsThePixels(2, rng=0, dtype=np.float64))
print("both pass")


# %% [markdown]
# The example has $h\,w = 1$, where the fault makes no difference. A better example would have shown it; but
# whoever thinks of more pixels when testing has thought of them when writing.
#
# A **property** says what holds for *every* input. Write $f_\theta$ for a layer with parameters $\theta$, $x$ for a
# batch of any shape that it takes, and $J_b$ for the Jacobian of sample $b$. Every layer of a flow has to have
# these four:
#
# $$
# \forall \theta\ \forall x: \quad f_\theta^{-1}\big(f_\theta(x)\big) = x .
# \tag{10.1}
# $$
#
# $$
# \forall \theta\ \forall y: \quad f_\theta\big(f_\theta^{-1}(y)\big) = y .
# \tag{10.2}
# $$
#
# $$
# \forall \theta\ \forall x\ \forall b: \quad
# \texttt{log\_det}_b = \log |\det J_b|, \qquad J_b = \frac{\partial y_b}{\partial x_b} .
# \tag{10.3}
# $$
#
# The fourth is about `backward`, which turns the cotangents $\bar y$ and $\bar\ell$ of notebook 7 into $\bar x$. For
# all of them, and all directions $v$, it is the slope of the loss $\langle \bar y, y\rangle + \langle \bar\ell,
# \texttt{log\_det}\rangle$, where $\langle a, b \rangle$ is the sum of the products of the entries:
#
# $$
# \forall \theta, x, \bar y, \bar\ell, v: \quad \langle \bar x, v \rangle = \frac{\mathrm{d}}{\mathrm{d}t} \Big[
# \langle \bar y, f_\theta(x + t v)\rangle + \langle \bar\ell, \texttt{log\_det}(x + t v) \rangle \Big]_{t=0} .
# \tag{10.4}
# $$
#
# The same holds for every parameter in the place of $x$, and its gradient in the place of $\bar x$.
#
# Nobody can try all inputs. [Hypothesis](https://hypothesis.readthedocs.io) tries a hundred by default (here 60), drawn by
# **strategies**: descriptions of what an input may be. `minglow.testing.strategies` has some for shapes,
# batches, matrices and whole flows. First, the properties hold for layers that are right.

# %%
# checks (10.1) and (10.2): whole flows, 60 of them, of any shape, parameters and batch
quiet = settings(max_examples=60, database=None, deadline=None, derandomize=True, print_blob=False,
                 report_multiple_bugs=False, phases=[Phase.generate, Phase.shrink])


@quiet
@given(st.data())
def round_trips_hold(data):
    """Draw a shape, a flow of one to three steps for it, and a batch; go there and back."""
    shape = data.draw(strategies.shapes())
    flow = data.draw(strategies.flows(shape))
    x = data.draw(strategies.images(shape))
    assert np.allclose(flow.inverse(flow.forward(x)[0])[0], x, rtol=0, atol=1e-10)
    assert np.allclose(flow.forward(flow.inverse(x)[0])[0], x, rtol=0, atol=1e-10)  # any array is a y, too


round_trips_hold()                                   # silent: no counterexample


# %%
# checks (10.3) and (10.4): against the dense Jacobian, and against differences along a random direction
@quiet
@given(st.data(), strategies.seeds)
def derivatives_hold(data, seed):
    """A 1x1 convolution with any well-conditioned matrix, then a moved actnorm."""
    shape = data.draw(strategies.shapes(images=True, even_channels=False))
    mixing = InvConv1x1(shape[-1], rng=0, dtype=np.float64)
    mixing.params["weight"][...] = data.draw(strategies.well_conditioned(shape[-1]))
    layer = minglow.Chain(mixing, perturbed(ActNorm(shape[-1], np.float64), seed))
    x = data.draw(strategies.images(shape))
    y, log_det, cache = layer.forward(x)
    for b in range(len(x)):
        jacobian = numerical_jacobian(layer.forward, x[b])
        assert np.isclose(log_det[b], np.linalg.slogdet(jacobian)[1], atol=1e-7)
    noise = np.random.default_rng(seed)
    dy, dlog_det, v = (noise.standard_normal(a.shape) for a in (y, log_det, x))

    def loss(x):
        y, log_det, _ = layer.forward(x)
        return (dy * y).sum() + (dlog_det * log_det).sum()

    slope = directional_derivative(loss, x, v)
    assert np.isclose((layer.backward(dy, dlog_det, cache) * v).sum(), slope, rtol=1e-6, atol=1e-6)


derivatives_hold()


# %% [markdown]
# Now the broken layer. A test that fails raises an error; here it is caught, so that the notebook goes on. The
# settings make a run repeatable (`derandomize`), and keep no files (`database=None`).

# %%
def counterexample(test):
    """Run a property; what is left of Hypothesis's counterexample after shrinking, or None."""
    try:
        test()
    except AssertionError as error:
        return "\n".join([str(error), *getattr(error, "__notes__", [])])
    return None


tried = []


@quiet
@given(shape=strategies.shapes(images=True, even_channels=False), seed=strategies.seeds)
def log_det_is_right(shape, seed):
    """(10.3) for the layer that forgets its pixels."""
    layer = perturbed(ForgetsThePixels(shape[-1], rng=seed, dtype=np.float64), seed)
    x = np.random.default_rng(seed).standard_normal(shape)
    expected = np.linalg.slogdet(numerical_jacobian(layer.forward, x))[1]
    found = layer.forward(x[None])[1][0]
    tried.append((shape, bool(np.isclose(found, expected, atol=1e-7))))
    assert tried[-1][1], f"log_det {found:.4f}, expected {expected:.4f}"


print(counterexample(log_det_is_right))
print("tried:", *(f"{shape}{'' if passed else '!'}" for shape, passed in tried))

# %% [markdown]
# *What to see:* a `!` marks a shape that fails. Having found one, Hypothesis **shrinks** it: it tries smaller and simpler
# inputs for as long as they still fail. It ends with two pixels and one channel. Fewer pixels pass: so
# the counterexample says what is wrong, "it has to do with the number of pixels", where the first one that failed
# only says that something is.
#
# ### A second one: square images only
#
# This squeeze (notebook 6) puts the blocks back with height and width swapped. Here the numbers in the image are
# drawn by Hypothesis, too.

# %%
class SqueezeForSquares(Squeeze):
    """Takes the height for the width on the way back; the same for square images."""

    def inverse(self, y):
        batch, height, width, channels = y.shape
        blocks = y.reshape(batch, width, height, channels // 4, 2, 2)  # it should be height, width
        return blocks.transpose(0, 1, 4, 2, 5, 3).reshape(batch, 2 * height, 2 * width, channels // 4), None


# %%
@st.composite
def small_images(draw):
    """A strategy of our own: one image of even height and width, its numbers from -9 to 9."""
    height, width = draw(st.sampled_from([2, 4, 6])), draw(st.sampled_from([2, 4, 6]))
    numbers = draw(st.lists(st.integers(-9, 9), min_size=height * width, max_size=height * width))
    return np.array(numbers, float).reshape(1, height, width, 1)


attempts = []


@quiet
@given(small_images())
def squeeze_round_trip(x):
    """(10.1) for the squeeze."""
    layer = SqueezeForSquares()
    back = layer.inverse(layer.forward(x)[0])[0]
    attempts.append((x.copy(), back, np.array_equal(back, x)))
    assert attempts[-1][2], "the image has changed"


print(counterexample(squeeze_round_trip))

# %%
failed = [(number, x, back) for number, (x, back, passed) in enumerate(attempts, 1) if not passed]
figure, axes = plt.subplot_mosaic([["search"] * 2 + ["first", "first back"], ["search"] * 2 + ["last", "last back"]],
                                  figsize=(8.5, 3))
for passed, name in (True, "passes"), (False, "fails"):
    chosen = [(n, np.count_nonzero(x)) for n, (x, _, ok) in enumerate(attempts, 1) if ok == passed]
    axes["search"].plot(*zip(*chosen), "o", markersize=4, color=plots.COLORS[0 if passed else 1], label=name)
axes["search"].set(xlabel="attempt", ylabel="numbers in x that are not 0", title="searching, then shrinking")
axes["search"].legend()
for key, (number, x, back) in ("first", failed[0]), ("last", failed[-1]):
    for axis, drawn, title in (axes[key], x, f"x, attempt {number}"), (axes[key + " back"], back, "what comes back"):
        limit = np.abs(x).max()
        axis.imshow(drawn[0, :, :, 0], cmap=plots.SIGNED, vmin=-limit, vmax=limit)
        axis.set(title=title, xticks=[], yticks=[])
        axis.spines[:].set_visible(True)

# %% [markdown]
# *What to see:* on the left how an image of many numbers becomes one with a single number that is not 0. On the
# right the first failing image and the last (red above 0, blue below), and what the squeeze made of them: the last shows at a
# glance that a pixel has moved. A test of square images would have passed for ever.

# %% [markdown]
# ## How many examples?
#
# Suppose that a share $q$ of all inputs shows a fault. $n$ independent inputs all miss it with probability
# $(1 - q)^n$, so
#
# $$
# P(\text{found}) = 1 - (1 - q)^n .
# \tag{10.5}
# $$
#
# Take a real one. A coupling's scale $\operatorname{sigmoid}(\text{raw} + 2)$ without a floor can come arbitrarily
# close to 0, and what is multiplied by it and then added to a number of size 1 loses its digits in float32. If the net's
# output `raw` is normal with standard deviation 6, how often is $x$ not recovered within $10^{-4}$?

# %%
# checks (10.5): by simulation, with a fault whose frequency is measured on other draws
def round_trip_fails(count, floor=0.0):
    """For `count` random inputs: does y = x * scale + 1 lose x, in float32?"""
    x = rng.standard_normal(count).astype(np.float32)
    raw = (6 * rng.standard_normal(count)).astype(np.float32)
    scale = np.exp(sigmoid_scale(raw, floor)[0])
    return np.abs(((x * scale + 1) - 1) / scale - x) > 1e-4


q = round_trip_fails(400_000).mean()
numbers = np.array([1, 3, 10, 30, 100, 300])
shares = [round_trip_fails(2000 * n).reshape(2000, n).any(axis=1).mean() for n in numbers]
print(f"q = {q:.4f} without a floor; {round_trip_fails(400_000, 1e-3).mean():.4f} with minglow's floor of 0.001")
assert np.allclose(shares, 1 - (1 - q) ** numbers, atol=0.05)

figure, axis = plt.subplots(figsize=(7.5, 2.8))
many = np.geomspace(1, 1000)
for frequency, name in (q, f"q = {q:.3f}: the missing floor"), (0.01, "q = 0.01"), (0.001, "q = 0.001"):
    axis.semilogx(many, 1 - (1 - frequency) ** many, label=name)
axis.plot(numbers, shares, "o", color=plots.COLORS[0], label="2000 simulated\ntest runs each")
axis.set(xlabel="examples n in a test run", ylabel="P(found)", title="the chance to find a fault")
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5));

# %% [markdown]
# *What to see:* to be nearly sure takes about $3/q$ examples. Faults that depend on the shape show up at once; those
# at the far end of a parameter's range are rare under any gentle distribution. That is why Hypothesis does not draw
# evenly: zeros and repeated numbers come far more often than by chance.

# %%
drawn = []


@quiet
@given(strategies.images((2, 3, 2)))
def look(x):
    """No property: keep what is drawn."""
    drawn.append(x)


look()
for what, share in ("a 0", [np.any(x == 0) for x in drawn]), ("a number twice", [len(np.unique(x)) < x.size for x in drawn]):
    print(f"{np.mean(share):4.0%} of Hypothesis's batches contain {what}; of normal or uniform numbers practically none do")

# %% [markdown]
# **Exercise 10.1: predict, then run** (1 point). Write `examples_needed(q, p)`: the smallest $n$ with
# $1 - (1 - q)^n \ge p$. Guess first: how many for $q = 0.01$ and $p = 0.95$?

# %% solution="examples-needed"
def examples_needed(q, p):
    """How many examples find a fault of frequency q with probability p, at least; 0 < q < 1, 0 < p < 1."""
    ### BEGIN SOLUTION
    return math.ceil(math.log(1 - p) / math.log(1 - q))
    ### END SOLUTION


# %% test="examples-needed" points=1
for q_test, p_test in (0.01, 0.95), (0.3, 0.95), (0.05, 0.5), (0.001, 0.999), (0.7, 0.6):
    n_test = examples_needed(q_test, p_test)
    assert n_test == int(n_test) and n_test >= 1, f"a whole number of examples, not {n_test}"
    assert 1 - (1 - q_test) ** n_test >= p_test, f"{n_test} examples are too few for q {q_test}, p {p_test}"
    assert 1 - (1 - q_test) ** (n_test - 1) < p_test, f"{n_test} are too many for q {q_test}, p {p_test}"


# %% [markdown]
# ## What a test at the start cannot see
#
# Glow's couplings start as maps that ignore their nets: the last convolution is zero (notebook 3). At that point a
# coupling that leaves the net out of `log_det` looks right.

# %%
class ForgetsTheNet(AffineCoupling):
    """log_det as it is at the zero start, whatever the net says; backward agrees with that."""

    def forward(self, x):
        y, _, cache = super().forward(x)
        start = sigmoid_scale(np.zeros(1, x.dtype))[0]
        return y, constant_log_det(x, start * (x[0].size / 2)), cache

    def backward(self, dy, dlog_det, cache):
        return super().backward(dy, 0 * dlog_det, cache)


forgetful = ForgetsTheNet(conv_net(2, 6, 4, rng=0, dtype=np.float64))
x = rng.standard_normal((3, 2, 3, 4))
check_layer(forgetful, x)                            # with a batch of ours, parameters stay: every check passes
try:
    check_layer(perturbed(forgetful), x)                 # the same layer, its parameters moved by noise
except PropertyFailed as error:
    print(error)


# %% [markdown]
# And of its gradients, most are exactly zero there. A wrong gradient times zero is right.

# %%
def gradient_sizes(coupling):
    """The length of every parameter's gradient, for a random loss."""
    y, _, cache = coupling.forward(x)
    for _, part in coupling.walk():
        for grad in part.grads.values():
            grad[...] = 0
    noise = np.random.default_rng(1)
    coupling.backward(noise.standard_normal(y.shape), noise.standard_normal(len(y)), cache)
    return {f"{path.removeprefix('net.')}.{name}": np.linalg.norm(grad)
            for path, part in coupling.walk() for name, grad in part.grads.items()}


coupling = AffineCoupling(conv_net(2, 6, 4, rng=0, dtype=np.float64))
at_start, after_moving = gradient_sizes(coupling), gradient_sizes(perturbed(coupling))
figure, axis = plt.subplots(figsize=(7, 2.8))
places = np.arange(len(at_start))
axis.barh(places - 0.2, after_moving.values(), 0.4, label="parameters moved")
axis.barh(places + 0.2, at_start.values(), 0.4, label="at the zero start")
axis.set(yticks=places, yticklabels=at_start, xlabel="length of the gradient", ylabel="parameter (place in the net, name)",
         title="a coupling's net, from its input (top) to its output")
axis.invert_yaxis()
axis.legend()
print(f"at the start {sum(size == 0 for size in at_start.values())} of {len(at_start)} are exactly 0")

# %% [markdown]
# *What to see:* at the start only the last convolution and the shift behind it have gradients. `perturbed(layer)` returns
# a copy whose parameters are moved by noise: this is where to test. Actnorm and the 1×1 convolution start with
# a log-determinant of 0, which has no sign and no factor to get wrong: flowjax's wrong sign lived on because the "test case used a transform with `log_det=0`"
# ([flowjax #208](https://github.com/danielward27/flowjax/issues/208)).

# %% [markdown]
# ## Tolerances
#
# Two numbers that ought to be equal differ by rounding: $\varepsilon = 2.2 \cdot 10^{-16}$ in float64, $1.2 \cdot
# 10^{-7}$ in float32, relative to their size. A test needs a tolerance above the rounding and below every fault.
#
# ### Round trips: the condition number
#
# Inverting a matrix magnifies rounding by up to its condition number $\kappa(W)$, the largest singular value over
# the smallest (notebook 9, (9.7)). For $\hat x$, what comes back of $x$ through a 1×1 convolution of $C$ channels, a safe rule, with norms over all
# pixels, is
#
# $$
# \frac{\|\hat x - x\|}{\|x\|} \;\le\; C\, \kappa(W)\, \varepsilon .
# \tag{10.6}
# $$
#
# (A rule of thumb: for what can be proved see Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, chapter
# 14. The factor $C$ is a generous stand-in for the constants there.)

# %%
# checks (10.6): 600 matrices of known condition number, in both precisions
worst = 0.0
figure, axis = plt.subplots(figsize=(6, 3.2))
for index, dtype in enumerate((np.float32, np.float64)):
    epsilon = float(np.finfo(dtype).eps)
    conditions, errors = 10 ** rng.uniform(0, 4.5, 300), []
    for condition in conditions:
        left, right = (np.linalg.qr(rng.standard_normal((8, 8)))[0] for _ in range(2))
        layer = InvConv1x1(8, rng=0, dtype=dtype)
        layer.params["weight"][...] = left * np.geomspace(1, 1 / condition, 8) @ right
        x = rng.standard_normal((1, 4, 4, 8)).astype(dtype)
        back = layer.inverse(layer.forward(x)[0])[0]
        errors.append(np.linalg.norm(back - x) / np.linalg.norm(x))
    worst = max(worst, np.max(np.array(errors) / (8 * conditions * epsilon)))
    axis.loglog(conditions, errors, ".", markersize=3, color=plots.COLORS[index], label=dtype.__name__)
    axis.loglog([1, 10**4.5], [8 * epsilon, 8 * epsilon * 10**4.5], ":", color=plots.COLORS[index])
axis.set(xlabel="condition number of W", ylabel="relative error of the round trip",
         title="dotted: the rule (10.6), C = 8")
axis.legend()
print(f"the largest error is {worst:.2f} of what the rule allows")
assert worst < 1

# %% [markdown]
# *What to see:* a factor of about $5 \cdot 10^8$ lies between the precisions. An error of $10^{-6}$, as an epsilon in a
# divisor makes it, drowns in float32's rounding at $\kappa = 100$, and towers above float64's. So look for faults in
# **float64**, with a tolerance such as $10^{-10}$, and then run float32 with a wide one, to see that nothing
# overflows. The kit does both.
#
# ### Gradients: why |a − b| < 0.001 is not a test
#
# Here are all gradients of one batch of digits, for the trained model: the loss is in bits per dimension.

# %%
flow = minglow.load("models/digits.npz")
images = digits()
batch = minglow.dequantize(images.held_out[:64], images.bins, rng=0)
flow.flat.grad[...] = 0
flow.nll_backward(batch)
gradient = flow.flat.grad / (64 * np.log(2))         # of nats / (D ln 2), with D = 64 pixels
small = np.abs(gradient) < 1e-3
figure, axis = plt.subplots(figsize=(6, 2.8))
axis.hist(np.log10(np.abs(gradient[gradient != 0])), bins=80)
axis.axvline(-3, color=plots.COLORS[1], label="|a − b| < 0.001 takes 0 for all on its left")
axis.set(xlabel="log10 of a gradient's size (bits per dimension)", ylabel="parameters",
         title=f"{len(gradient)} gradients of a trained Glow")
axis.legend()
print(f"{small.mean():.1%} of them are below 0.001: a backward pass that returns 0 there would pass")
places = [place for place, _ in flow.flat.where.values()]
passing = sum(np.allclose(1.1 * gradient[place], gradient[place], rtol=0, atol=1e-3) for place in places)
print(f"{passing} of {len(places)} parameter arrays pass with a gradient that is 10% too long")

# %% [markdown]
# *What to see:* an absolute tolerance knows nothing of the size of what it compares. This is no
# invention: [InvertibleNetworks.jl #122](https://github.com/slimgroup/InvertibleNetworks.jl/issues/122) reports gradient tests so wide
# that "saying the gradient is zero would pass". A tolerance has to be **relative to the gradient's own length**, or
# there is none at all, as in the Taylor test of notebook 5: the remainder's order is 2 or it is not.
#
# ### One direction is enough, almost
#
# Comparing all $n$ slopes of a parameter with differences takes $2n$ calls of `forward`. Along one random direction $v$ it takes
# two. Can the direction miss a fault? Let $e$ be the error of a gradient, $v$ standard normal. Then $\langle e, v\rangle$ is
# normal with variance $\|e\|^2$, however many parameters there are, and a test with tolerance $\tau$ misses it
# with the probability that a normal number is near 0. The error function erf gives it: $P(|\xi| \le a) =
# \operatorname{erf}(a / \sqrt 2)$ for a standard normal $\xi$. So
#
# $$
# P\big(|\langle e, v \rangle| \le \tau\big) = \operatorname{erf}\!\Big(\frac{\tau}{\sqrt{2}\,\|e\|}\Big)
# \approx 0.8\, \frac{\tau}{\|e\|} .
# \tag{10.7}
# $$

# %%
# checks (10.7): by simulation, for an error in one entry of 300 and for one spread over all
ratios = np.geomspace(1e-3, 3, 25)
exact = np.array([math.erf(ratio / math.sqrt(2)) for ratio in ratios])
figure, axis = plt.subplots(figsize=(5.5, 3))
directions = rng.standard_normal((20_000, 300))
for name, error in ("one entry wrong", np.eye(300)[0]), ("all entries wrong", rng.standard_normal(300)):
    shadows = np.abs(directions @ error) / np.linalg.norm(error)
    missed = np.array([(shadows <= ratio).mean() for ratio in ratios])
    assert np.allclose(missed, exact, atol=0.015)
    axis.loglog(ratios, np.maximum(missed, 1e-5), "o", markersize=3, label=name)
del directions
axis.loglog(ratios, exact, "k:", label="(10.7)")
assert np.allclose(exact[ratios < 0.1], 0.8 * ratios[ratios < 0.1], rtol=0.01)
axis.set(xlabel="tolerance over size of the error", ylabel="P(missed)", title="one random direction")
axis.legend();

# %% [markdown]
# *What to see:* with a tolerance of a thousandth of the error one direction misses it about once in a thousand times, a
# single wrong entry among many no more often than a fault in all. Two directions both miss it about once in a million times. The kit goes
# half along the gradient itself, so that an error in its length (a factor 1.01) can never hide.

# %% [markdown]
# ## The promises
#
# minglow's kit has a check for every promise of [the contract](../docs/contract.md). Each moves parameters, tries shapes with
# $h \ne w$, and raises `PropertyFailed` (an `AssertionError`) that explains itself. Read them in
# [minglow/testing/checks.py](../minglow/testing/checks.py).

# %%
for name, check in layer_checks():
    print(f"{name:11} {check.func.__doc__.splitlines()[0]}")


# %%
class HalfTheGradient(ActNorm):
    """A gradient by the input that misses a factor."""

    def backward(self, dy, dlog_det, cache):
        return super().backward(dy, dlog_det, cache) / 2


for check, layer in ((check_log_det, ForgetsThePixels(4, rng=0)), (check_inverse, SqueezeForSquares()),
                     (check_backward, HalfTheGradient(4))):
    try:
        check(layer)
    except PropertyFailed as error:
        print(f"{type(layer).__name__}:\n    {error}\n")

# %% [markdown]
# ## The bug museum
#
# The bugs below are real where a thread is linked: somebody ran into them, or asked about them, in a public
# library. Each is shown as the smallest layer that has it. Links lead to the threads.
#
# ### Room A: volumes
#
# | exhibit | symptom | where | promise broken |
# | --- | --- | --- | --- |
# | `ForgetsThePixels` (above) | likelihoods of images of another size cannot be compared | [TensorFlow Probability #554](https://github.com/tensorflow/probability/issues/554), [#238](https://github.com/tensorflow/probability/issues/238) | log_det |
# | `WrongSign` | training makes densities worse, or the two directions disagree | [normflows #27](https://github.com/VincentStimper/normalizing-flows/issues/27), [flowjax #208](https://github.com/danielward27/flowjax/issues/208) | log_det |
# | `SumsTheBatch` | likelihoods depend on the batch size | [semi-supervised-pytorch #21](https://github.com/wohlert/semi-supervised-pytorch/issues/21); a single number in [rosinality #14](https://github.com/rosinality/glow-pytorch/issues/14) | log_det, samples |
# | `Levels255` | bits per dimension a little too good | 255 or 256: [rosinality #17](https://github.com/rosinality/glow-pytorch/issues/17); the constant: [#3](https://github.com/rosinality/glow-pytorch/issues/3), [#13](https://github.com/rosinality/glow-pytorch/issues/13) | log_det |

# %%
class WrongSign(ActNorm):
    """log_det of the inverse map."""

    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, -log_det, cache


class SumsTheBatch(ActNorm):
    """One log_det for all samples: their sum."""

    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, constant_log_det(x, log_det.sum()), cache


# %%
class Levels256(minglow.Bijection):
    """Gray values 0 .. 256 to [-1/2, 1/2]; its log_det is the constant in bits per dimension."""

    counted = 256

    def forward(self, x):
        return x / 256 - 0.5, constant_log_det(x, -x[0].size * np.log(self.counted)), None

    def inverse(self, y):
        return (y + 0.5) * 256, None

    def backward(self, dy, dlog_det, cache):
        return dy / 256


class Levels255(Levels256):
    """255 for 256: the largest value, taken for the number of values."""

    counted = 255


print(f"{np.log2(256) - np.log2(255):.4f} bits per dimension are won by miscounting")

# %% [markdown]
# **Exercise 10.2: a test of log-determinants** (2 points). Write `catches_log_det(layer)`: `True` if the layer breaks
# (10.3), `False` if it is right. The layer takes float64 images of any size with 4 channels, and comes as its constructor
# made it. Use `numerical_jacobian`, not the kit's checks. It is graded on broken layers *and* on right ones, so always
# saying `True` earns nothing. (What do the sections above say about shapes, batches, and the start?)

# %% solution="catches-log-det"
def catches_log_det(layer):
    """True if log_det is not log|det J| of each sample."""
    ### BEGIN SOLUTION
    noise = np.random.default_rng(1)
    layer = perturbed(layer, 1)
    for shape in (2, 1, 1, 4), (2, 2, 3, 4):
        x = noise.standard_normal(shape)
        log_det = layer.forward(x)[1]
        for b in range(len(x)):
            jacobian = numerical_jacobian(layer.forward, x[b])
            if not np.isclose(log_det[b], np.linalg.slogdet(jacobian)[1], atol=1e-6):
                return True
    return False
    ### END SOLUTION


# %% test="catches-log-det" points=2
class CountsTheRowsTwice(InvConv1x1):
    """h * h for h * w."""

    def forward(self, x):
        y, log_det, cache = super().forward(x)
        return y, log_det * x.shape[1] / x.shape[2], cache


for seed in range(3):
    sound = (InvConv1x1(4, rng=seed, dtype=np.float64), InvConv1x1LU(4, rng=seed, dtype=np.float64),
             ActNorm(4, np.float64), Levels256(), minglow.Chain(ActNorm(4, np.float64), InvConv1x1(4, seed, np.float64)))
    for layer in sound:
        assert not catches_log_det(layer), f"{type(layer).__name__} is right, and your test says it is broken"
    faulty = (ForgetsThePixels(4, rng=seed, dtype=np.float64), WrongSign(4, np.float64), SumsTheBatch(4, np.float64),
              Levels255(), CountsTheRowsTwice(4, rng=seed, dtype=np.float64))
    for layer in faulty:
        assert catches_log_det(layer), f"{type(layer).__name__} is broken, and your test does not see it"


# %% [markdown]
# ### Room B: round trips
#
# | exhibit | symptom | where | promise broken |
# | --- | --- | --- | --- |
# | `AddsAnEpsilon` | small errors that add up over the layers | adding to the matrix, as a remedy for "Input is not invertible", in [openai/glow #40](https://github.com/openai/glow/issues/40) | inverse |
# | `DropsTheSplit` | "the flow does not reconstruct" | [rosinality #45](https://github.com/rosinality/glow-pytorch/issues/45), [#7](https://github.com/rosinality/glow-pytorch/issues/7): split latents are drawn anew unless handed in | inverse |
# | `JoinsInAnotherOrder` | forward, then inverse, is another image | [pytorch-normalizing-flows #10](https://github.com/karpathy/pytorch-normalizing-flows/issues/10) | inverse |
# | `without_floor()` | inf or NaN in samples, after long training | [normflows #67](https://github.com/VincentStimper/normalizing-flows/issues/67), [SRFlow #2](https://github.com/andreas128/SRFlow/issues/2); "instability due to division by scale": [nflows #67](https://github.com/bayesiains/nflows/issues/67) | inverse, in float32 |
# | `SqueezeForSquares` (above) | other image sizes come back scrambled | made up for this notebook | inverse |

# %%
class AddsAnEpsilon(ActNorm):
    """Divides by scale + epsilon, so that it never divides by 0."""

    epsilon = 1e-6

    def inverse(self, y):
        return y / (np.exp(self.log_scale()) + self.epsilon) - self.params["shift"], y


class DropsTheSplit(Level):
    """What left early, b, is not given back: the inverse takes its most likely value, 0."""

    def inverse(self, y):
        y = y.copy()
        y[:, :math.prod(self.half)] = 0
        return super().inverse(y)

    def inverse_only(self, y):
        return self.inverse(y)[0]


# %%
class JoinsInAnotherOrder(AdditiveCoupling):
    """Takes every second channel, but puts the halves side by side; inverse does the same again."""

    def forward(self, x):
        h, cache = self.net.forward(x[..., ::2])
        return join(x[..., ::2], x[..., 1::2] + h), zero_log_det(x), cache

    def inverse(self, y):
        h, cache = self.net.forward(y[..., ::2])
        return join(y[..., ::2], y[..., 1::2] - h), cache

    def backward(self, dy, dlog_det, cache):
        dx = np.empty_like(dy)
        dx[..., ::2], dx[..., 1::2] = halves(super().backward(dy, dlog_det, cache))
        return dx


# %%
def with_floor(floor=1e-3, raw=0.0):
    """A coupling whose net says `raw`, then a shift by 1, as the next layer may make one."""
    coupling = AffineCoupling(mlp(2, 4, 4, rng=0), scale=lambda h: sigmoid_scale(h, floor))
    coupling.net.nets[-1].params["bias"][2:] = raw
    after = ActNorm(4)
    after.params["shift"][...] = 1
    return minglow.Chain(coupling, after)


def without_floor(raw=0.0):
    """The same with the official code's scale, sigmoid(raw + 2)."""
    return with_floor(0.0, raw)


# %% [markdown]
# The fault without a floor shows only where a net drives its scale far down. The kit moves parameters *a little*, and so passes
# it. A batch of your own keeps the parameters as they are, wherever you have put them. (A floor protects one layer. The inverses of many
# couplings multiply, and samples can explode in spite of it: notebook 9.)

# %%
x = np.random.default_rng(3).standard_normal((16, 4))
check_layer(without_floor())                         # silent: here it does no harm
check_inverse(with_floor(raw=-16.0), x)              # silent: the floor keeps the digits
try:
    check_inverse(without_floor(raw=-16.0), x)
except PropertyFailed as error:
    print(error)

# %% [markdown]
# **Exercise 10.3: a test of inverses** (2 points). Write `catches_inverse(layer)`: `True` if (10.1) fails by more than
# rounding explains. The layer takes float64 vectors of 4 channels, its parameters are already moved. Right ones have
# condition numbers up to $10^4$; the broken ones' epsilons are as small as $10^{-9}$. (Which of NumPy's default
# tolerances would pass them?)

# %% solution="catches-inverse"
def catches_inverse(layer):
    """True if inverse(forward(x)) is not x, within rounding."""
    ### BEGIN SOLUTION
    x = np.random.default_rng(0).standard_normal((10, 4))
    back = layer.inverse(layer.forward(x)[0])[0]
    return bool(np.abs(back - x).max() > 4 * 1e4 * np.finfo(np.float64).eps * 8)
    ### END SOLUTION


# %% test="catches-inverse" points=2
class TinyEpsilon(AddsAnEpsilon):
    """A thousand times smaller."""

    epsilon = 1e-9


for seed in range(5):
    noise = np.random.default_rng(seed)
    sound = ActNorm(4, np.float64), InvConv1x1(4, rng=seed, dtype=np.float64), AffineCoupling(mlp(2, 4, 4, seed, np.float64))
    steep = InvConv1x1(4, rng=seed, dtype=np.float64)
    steep.params["weight"] *= 10 ** np.linspace(0, -4, 4)                # a rotation times a diagonal: condition 10^4
    for layer in (*(perturbed(layer, seed) for layer in sound), steep):
        assert not catches_inverse(layer), f"{type(layer).__name__} is right, and your test says it is broken"
    swapped = JoinsInAnotherOrder(mlp(2, 4, 2, seed, np.float64))
    for layer in (*(perturbed(layer, seed) for layer in (AddsAnEpsilon(4, np.float64), TinyEpsilon(4, np.float64), swapped)),):
        assert catches_inverse(layer), f"{type(layer).__name__} is broken, and your test does not see it"


# %% [markdown]
# ### Room C: gradients
#
# Automatic differentiation writes these lines for most libraries. Whoever derives by hand, for memory or for speed,
# meets them.
#
# | exhibit | symptom | where | promise broken |
# | --- | --- | --- | --- |
# | `Untransposed` | nothing crashes; $W$ is led astray | no thread known; $W^{-1}$ for $W^{-\top}$, notebook 5 | backward |
# | `Overwrites` | right in a test of one pass, wrong as soon as a layer is met twice | no thread known | backward: grads accumulate |
# | `CachesItsInput` | wrong gradients with `reversible=True` only | no thread known | cache |

# %%
class Untransposed(InvConv1x1):
    """W^-1 for W^-T in the gradient of log|det W|."""

    def backward(self, dy, dlog_det, cache):
        inverse = np.linalg.inv(self.params["weight"])
        self.grads["weight"] += dlog_det.sum() * pixels(cache) * (inverse - inverse.T)
        return super().backward(dy, dlog_det, cache)


class Overwrites(ActNorm):
    """grads = gradient, where grads += gradient is promised."""

    def backward(self, dy, dlog_det, cache):
        for gradient in self.grads.values():
            gradient[...] = 0
        return super().backward(dy, dlog_det, cache)


class CachesItsInput(ActNorm):
    """The backward pass needs y, and the inverse caches x."""

    def inverse(self, y):
        x, _ = super().inverse(y)
        return x, x


# %% [markdown]
# **Exercise 10.4: a test of gradients** (3 points). Write `catches_gradient(layer)`: `True` if `backward` is wrong, by
# the input as in (10.4) or by any parameter. Layers come as constructed, in float64, take images of 4 channels, and are smooth. Errors of 1% have
# to be seen. (An array can be moved in place, `array[...] = start + step * v`, the loss computed, and moved back:
# that works for the input and for `layer.params` alike.)

# %% solution="catches-gradient"
def catches_gradient(layer):
    """True if dx, or a gradient in layer.grads, is not the slope of the loss."""
    ### BEGIN SOLUTION
    noise = np.random.default_rng(0)
    layer = perturbed(layer, 1)
    x = noise.standard_normal((2, 2, 3, 4))
    y, _, cache = layer.forward(x)
    dy, dlog_det = noise.standard_normal(y.shape), noise.standard_normal(len(x))
    dx = layer.backward(dy, dlog_det, cache)

    def loss():
        y, log_det, _ = layer.forward(x)
        return (dy * y).sum() + (dlog_det * log_det).sum()

    for array, gradient in [(x, dx), *((layer.params[name], layer.grads[name]) for name in layer.params)]:
        start, step, v = array.copy(), 1e-5, noise.standard_normal(array.shape)
        array[...] = start + step * v
        ahead = loss()
        array[...] = start - step * v
        behind = loss()
        array[...] = start
        tolerance = 1e-5 * np.linalg.norm(gradient) + 1e-8
        if abs((ahead - behind) / (2 * step) - (gradient * v).sum()) > tolerance:
            return True
    return False
    ### END SOLUTION


# %% test="catches-gradient" points=3
class OnePercent(InvConv1x1):
    """A parameter's gradient that is 1% too long."""

    def backward(self, dy, dlog_det, cache):
        dx = super().backward(dy, dlog_det, cache)
        self.grads["weight"] *= 1.01
        return dx


class NoGradient(ActNorm):
    """Gradients of the parameters are left at 0; the input's is right."""

    def backward(self, dy, dlog_det, cache):
        return dy * np.exp(self.log_scale())


for seed in range(3):
    for kind in InvConv1x1, InvConv1x1LU:
        assert not catches_gradient(kind(4, rng=seed, dtype=np.float64)), f"{kind.__name__} is right"
    assert not catches_gradient(ActNorm(4, np.float64)), "ActNorm is right"
    for kind in Untransposed, OnePercent:
        assert catches_gradient(kind(4, rng=seed, dtype=np.float64)), f"{kind.__name__}: {kind.__doc__}"
    for kind in HalfTheGradient, NoGradient:
        assert catches_gradient(kind(4, np.float64)), f"{kind.__name__}: {kind.__doc__}"


# %% [markdown]
# ### Room D: states
#
# | exhibit | symptom | where | promise broken |
# | --- | --- | --- | --- |
# | `StartsAgain` | a model that is loaded is worse than when it was saved | [rosinality #6](https://github.com/rosinality/glow-pytorch/issues/6), [nflows #4](https://github.com/bayesiains/nflows/issues/4), [normflows PR #2](https://github.com/VincentStimper/normalizing-flows/pull/2), [FrEIA PR #33](https://github.com/vislearn/FrEIA/pull/33) | purity |
# | `DividesByZero` | inf or NaN from the first step, where a channel is constant over the first batch | [FrEIA #121](https://github.com/vislearn/FrEIA/issues/121); a check for it: [PR #167](https://github.com/vislearn/FrEIA/pull/167) | initialize |
# | `LooksAtTheBatch` | an image's likelihood depends on the company it keeps | no thread known | samples, and four others |

# %%
class StartsAgain(ActNorm):
    """Initializes itself on the first batch; that it has done so is not among what is saved."""

    started = False                                  # a plain attribute: neither parameter nor constant

    def forward(self, x):
        if not self.started:
            self.started = True
            self.initialize(x)
        return super().forward(x)


class DividesByZero(ActNorm):
    """Takes a constant channel's deviation, 0, as a scale."""

    def initialize(self, x):
        with np.errstate(all="ignore"):
            self.params["shift"][...] = -rows(x).mean(axis=0)
            self.params["log_scale"][...] = -np.log(rows(x).std(axis=0))
            return self.forward(x)[0]


# %%
class LooksAtTheBatch(ActNorm):
    """Subtracts the mean of the batch."""

    def forward(self, x):
        y, unchanged, cache = super().forward(x)
        return y - rows(y).mean(axis=0), unchanged, cache


# %%
trained, loaded = StartsAgain(4, np.float64), StartsAgain(4, np.float64)
first, later = rng.standard_normal((8, 4)), 3 + 2 * rng.standard_normal((8, 4))
trained.forward(first)                               # the first batch of training sets its parameters
for name, value in trained.params.items():           # save and load: parameters are copied, `started` is not
    loaded.params[name][...] = value
before, after = trained.forward(later)[1][0], loaded.forward(later)[1][0]
print(f"log_det of one and the same sample: {before:.3f} before saving, {after:.3f} after loading")

# %% [markdown]
# **Exercise 10.5: a test of purity** (1 point). Write `catches_restart(layer)`: `True` if `forward` changes a parameter.
# The layer takes float64 vectors of 4 channels and has not been called. (Is it enough to call `forward` twice
# on the same batch and compare?)

# %% solution="catches-restart"
def catches_restart(layer):
    """True if forward changes the layer's parameters."""
    ### BEGIN SOLUTION
    before = {name: value.copy() for name, value in layer.params.items()}
    layer.forward(np.random.default_rng(0).standard_normal((8, 4)))
    return any(not np.array_equal(value, layer.params[name]) for name, value in before.items())
    ### END SOLUTION


# %% test="catches-restart" points=1
class StartsEveryTime(ActNorm):
    """Centers every batch that it meets."""

    def forward(self, x):
        self.params["shift"][...] = -rows(x).mean(axis=0)
        return super().forward(x)


for seed in range(3):
    started = ActNorm(4, np.float64)
    started.initialize(np.random.default_rng(seed).standard_normal((8, 4)))
    for layer in started, ActNorm(4, np.float64), InvConv1x1(4, rng=seed, dtype=np.float64):
        assert not catches_restart(layer), f"{type(layer).__name__} is right, and your test says it is broken"
    for kind in StartsAgain, StartsEveryTime:
        assert catches_restart(kind(4, np.float64)), f"{kind.__name__}: {kind.__doc__} Your test does not see it"


# %% [markdown]
# ### Room E: right, but not what was meant
#
# | exhibit | symptom | where | promise broken |
# | --- | --- | --- | --- |
# | `ScrambledSqueeze` | numbers that are not neighbors become one pixel | a squeeze by a bare reshape: [GlowIP #1](https://github.com/CACTuS-AI/GlowIP/issues/1) | none |

# %%
class ScrambledSqueeze(Squeeze):
    """Numbers in the order in which they lie in memory, cut into pixels of 4C channels."""

    def forward(self, x):
        y, unchanged, cache = super().forward(x)
        return x.reshape(y.shape), unchanged, cache

    def inverse(self, y):
        x, cache = super().inverse(y)
        return y.reshape(x.shape), cache

    def backward(self, dy, dlog_det, cache):
        return dy.reshape(super().backward(dy, dlog_det, cache).shape)


image = np.arange(16.0).reshape(1, 4, 4, 1)
check_layer(ScrambledSqueeze())                      # a bijection with log_det 0: every promise is kept
figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.5))
for axis, layer in zip(axes, (None, Squeeze(), ScrambledSqueeze())):
    owner = np.arange(4.0).reshape(1, 2, 2, 1) + np.zeros((1, 2, 2, 4))  # which output pixel a number lands in
    drawn = image if layer is None else layer.inverse(owner)[0]
    axis.imshow(drawn[0, :, :, 0], cmap="viridis")
    axis.set(xticks=range(4), yticks=range(4), xlabel="column",
             title=type(layer).__name__ if layer else "an image of 4 × 4 numbers")
axes[0].set_ylabel("row");

# %% [markdown]
# *What to see:* in the second and third picture, numbers of one color share an output pixel. The squeeze
# takes blocks of 2 × 2, neighbors; the scrambled one a line of four. Both are bijections, so no test of bijectivity can tell them apart; it takes a comparison with what was *meant*: a formula, a
# slow version with loops, another library. minglow's tests compare it with the formula in its docstring,
# $y_{b,i,j,4c+2d+e} = x_{b,2i+d,2j+e,c}$.

# %%
x = rng.standard_normal((2, 4, 6, 3))
for layer in Squeeze(), ScrambledSqueeze():
    y = layer.forward(x)[0]
    agrees = all(y[b, i, j, 4 * c + 2 * d + e] == x[b, 2 * i + d, 2 * j + e, c]
                 for b in range(2) for i in range(2) for j in range(3) for c in range(3) for d in range(2) for e in range(2))
    print(f"{type(layer).__name__:17} does what its docstring says: {agrees}")

# %% [markdown]
# ## Which check catches which
#
# All exhibits meet all checks of the kit; so do the right layers beside which they stand.


# %%
def level(kind):
    """A level whose steps are a squeeze and an actnorm, and after which half of the channels leave."""
    return kind(minglow.Chain(Squeeze(), ActNorm(8)), Flatten((1, 2, 4)), (1, 2, 8))


museum = [ForgetsThePixels(4, rng=0), WrongSign(4), SumsTheBatch(4), Levels255(),
          AddsAnEpsilon(4), level(DropsTheSplit), JoinsInAnotherOrder(mlp(2, 4, 2, rng=0)), without_floor(),
          SqueezeForSquares(), Untransposed(4, rng=0), Overwrites(4), CachesItsInput(4),
          StartsAgain(4), DividesByZero(4), LooksAtTheBatch(4), ForgetsTheNet(mlp(2, 4, 4, rng=0)), ScrambledSqueeze()]
right = [InvConv1x1(4, rng=0), ActNorm(4), Levels256(), level(Level), AdditiveCoupling(mlp(2, 4, 2, rng=0)),
         with_floor(), Squeeze(), AffineCoupling(mlp(2, 4, 4, rng=0))]


# %%
def verdicts(layer):
    """For every check: does it raise?"""
    found = []
    for _, check in layer_checks():
        try:
            check(layer)
            found.append(False)
        except PropertyFailed:
            found.append(True)
    return found


assert not np.any([verdicts(layer) for layer in right])  # no false alarm
caught = np.array([verdicts(layer) for layer in museum])
alone = {layer_checks()[column][0] for row, column in zip(*np.nonzero(caught)) if caught[row].sum() == 1}
assert {"inverse", "log_det", "backward", "cache", "initialize"} <= alone
print(f"{caught.any(axis=1).sum()} of {len(museum)} exhibits are caught, none of {len(right)} right layers")

# %%
names = [type(layer).__name__ for layer in museum]
names[names.index("Chain")] = "without_floor()"
checks = [name for name, _ in layer_checks()]
figure, axis = plt.subplots(figsize=(7, 5))
axis.imshow(np.where(caught, 0.75, 0.0), cmap=plots.SIGNED, vmin=-1, vmax=1, aspect="auto")
for row, column in zip(*np.nonzero(caught)):
    axis.text(column, row, "×", ha="center", va="center", color="white", fontsize=12)
axis.set(xticks=range(len(checks)), xticklabels=checks, yticks=range(len(names)), yticklabels=names,
         xlabel="check of the kit", ylabel="exhibit", title="× : the check raises PropertyFailed")
axis.tick_params(axis="x", rotation=30)
axis.set_xticks(np.arange(len(checks) - 1) + 0.5, minor=True)
axis.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
axis.grid(which="minor", color="0.85")
axis.tick_params(which="minor", length=0)
axis.spines[:].set_visible(True)

# %% [markdown]
# *What to see:* `inverse`, `log_det`, `backward`, `cache` and `initialize` are each the only check that catches some
# exhibit, so none can be left out. The layer that looks at its batch breaks five. `returns` (how many things come
# back), `precision` (float32 gives float64's results) and `backends` (minglow's compiled and uncompiled kernels agree)
# find nothing here.
# Two lines are empty. `without_floor()` is harmless where the kit looks, and `ScrambledSqueeze` breaks no promise. **A test that
# passes says: nothing was found here.**
#
# To test a layer of your own: `check_layer(MyLayer(4))`, the pytest decorator `parametrize_with_checks`, or `minglow check
# my_module:MyLayer` ([docs/testing.md](../docs/testing.md), which also says how the tests themselves were tested: by
# planting faults).

# %% [markdown]
# ## To take away
#
# - A property holds for every shape, batch and parameter. A machine looks for the counterexample, and shrinks it until it
#   explains itself.
# - Test away from the start, with $h \ne w$, with more than one sample, in float64, with tolerances relative to what is compared.
# - A test is worth what it catches: try it on a broken layer, and on a right one.
# - Kept promises do not make a layer the one that was meant. Compare it with a second, independent version.
#
# Next: [11. In the debugger](11_debugger.ipynb).
