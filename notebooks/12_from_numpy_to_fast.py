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
# # 12. From NumPy to fast
#
# **You will be able to** count the arithmetic and the bytes of an operation; say from the two whether it is bound by
# the processor or by memory (the roofline); predict the time of a training step part by part; say why loops are
# compiled, why convolutions become matrix products, and what remains when the fast part is fast (Amdahl).
#
# **You need** notebooks 4 (actnorm) and 7 (backward by hand), matrix products. No knowledge of processors.
# About 60 minutes with the exercises; it runs in seconds. All times are measured where the notebook runs: yours will
# differ, and the text does not depend on their exact values.

# %%
import time

import matplotlib.pyplot as plt
import numba
import numpy as np

import minglow
from minglow import kernels, plots
from minglow.arrays.shapes import rows
from minglow.kernels import loops, reference
from minglow.nets import Conv, TransposedConv
from minglow.training import Adam

plots.style()
rng = np.random.default_rng(0)
minglow.threads(1)                                   # one core for all that follows; more of them at the end


def seconds(function, *arguments, repeats=5):
    """The fastest of some calls: what disturbs a measurement only makes it longer."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times)


# %% [markdown]
# ## One kernel, four times
#
# Between two convolutions of a coupling's net stand actnorm and a ReLU. A *kernel*, a small function in which a program
# spends much of its time, does both for $N$ pixels ($N = B\,h\,w$ for $B$ images of $h \times w$) with $C$ channels:
#
# $$
# y_{nc} = \max\big(0,\; (x_{nc} + \texttt{shift}_c)\, \texttt{scale}_c\big), \qquad n = 1 \dots N, \quad c = 1 \dots C .
# \tag{12.1}
# $$
#
# First in Python alone, with lists of numbers. Second, as plain loops over arrays:
# [minglow/kernels/loops.py](../minglow/kernels/loops.py). Third, in vectorized NumPy:
# [minglow/kernels/reference.py](../minglow/kernels/reference.py). Fourth, the loops again, the same text, compiled
# to machine code by Numba: minglow's default.

# %%
def python_lists(x, shift, scale):
    """(12.1) for lists of lists of numbers."""
    y = []
    for pixel in x:
        y.append([max((pixel[c] + shift[c]) * scale[c], 0.0) for c in range(len(pixel))])
    return y


with minglow.use("numba"):
    compiled = kernels.shift_scale_relu
texts = {"Python lists": python_lists, "loops over arrays": loops.shift_scale_relu,
         "NumPy": reference.shift_scale_relu, "loops, compiled": compiled}

# %%
# checks (12.1): all four, beside the formula written out for one number after the other
x, shift, scale = rng.standard_normal((50, 3)), rng.standard_normal(3), np.exp(rng.standard_normal(3))
expected = np.zeros((50, 3))
for n in range(50):
    for c in range(3):
        u = (x[n, c] + shift[c]) * scale[c]
        expected[n, c] = u if u > 0 else 0
for name, text in texts.items():
    arguments = (x.tolist(), shift.tolist(), scale.tolist()) if text is python_lists else (x, shift, scale)
    difference = np.abs(np.array(text(*arguments)) - expected).max()
    print(f"{name:18} largest difference {difference:.0e}")
    assert difference <= 1e-12

# %%
counts = 4 ** np.arange(1, 8)                        # rows of 64 channels
figure, axis = plt.subplots(figsize=(6, 3.4))
for name, text in texts.items():
    slow = name in {"Python lists", "loops over arrays"}
    took, numbers = [], []
    for n in counts[:4] if slow else counts:
        x, shift, scale = (rng.standard_normal(shape).astype(np.float32) for shape in ((n, 64), 64, 64))
        arguments = (x.tolist(), shift.tolist(), scale.tolist()) if text is python_lists else (x, shift, scale)
        took.append(seconds(text, *arguments, repeats=3 if slow else 9))
        numbers.append(n * 64)
    axis.loglog(numbers, 1e6 * np.array(took), "o-", markersize=4, label=name)
axis.set(xlabel="numbers in x, float32", ylabel="microseconds", title="actnorm and ReLU, the same function in four texts")
axis.legend();

# %% [markdown]
# *What to see:* two bundles of lines. The upper texts pay for every number: Python looks at types, looks up
# operators, makes an object for each result. (Loops over *arrays* are the slowest of all: every `x[n, c]` becomes a
# NumPy object of its own.) The lower two pay per call at first, and then for the numbers alone. Compiled loops need no
# more text than slow ones: they are the ones that a debugger steps through.

# %% [markdown]
# **Exercise 12.1: a kernel in loops** (2 points). Write `squeeze_loops(x)`, which computes `minglow.Squeeze().forward(x)[0]`:
# $y_{b,i,j,\,4c+2d+e} = x_{b,\,2i+d,\,2j+e,\,c}$ for $d, e \in \{0, 1\}$, from $(B, h, w, C)$ to $(B, h/2, w/2, 4C)$, in plain loops,
# one number at a time. The test compiles it, too: stay with `np.empty`, `range` and indices.

# %% solution="squeeze-loops"
def squeeze_loops(x):
    """(B, h, w, C) -> (B, h/2, w/2, 4C), as minglow.Squeeze."""
    ### BEGIN SOLUTION
    batch, height, width, channels = x.shape
    y = np.empty((batch, height // 2, width // 2, 4 * channels), x.dtype)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                for c in range(channels):
                    y[b, i // 2, j // 2, 4 * c + 2 * (i % 2) + j % 2] = x[b, i, j, c]
    return y
    ### END SOLUTION


# %% test="squeeze-loops" points=2
for shape in (1, 2, 2, 1), (2, 4, 6, 3), (3, 6, 2, 2):
    image = np.random.default_rng(sum(shape)).standard_normal(shape)
    expected, found = minglow.Squeeze().forward(image)[0], squeeze_loops(image)
    assert np.shape(found) == expected.shape, f"expected the shape {expected.shape}, got {np.shape(found)}"
    assert np.array_equal(found, expected), f"the numbers stand in another order for {shape}"
assert np.array_equal(numba.njit(squeeze_loops)(image), expected), "compiled, it gives something else"


# %% [markdown]
# ## Counting bytes: why one pass beats three
#
# NumPy's text of (12.1) is three operations, each a *pass*: it reads an array of $n$ numbers from memory and writes
# another one. With $b$ bytes a number (4 for float32), $p$ passes move
#
# $$
# Q = 2\,p\,n\,b \quad \text{bytes} .
# \tag{12.2}
# $$
#
# The compiled loop reads $x$ once and writes $y$ once: $p = 1$; what lies between stays in the processor's
# registers, the few numbers that it has at hand. That is called *fusing*. We can let the arrays count for themselves: a class of arrays that notes
# the bytes that NumPy's functions read and write, and the operations they make (`Counting`), and one that
# notes each single number that a loop touches (`Touched`).

# %%
tally = {"bytes": 0, "operations": 0, "in products": 0}


class Counting(np.ndarray):
    """An array that notes what NumPy's element-wise functions and matrix products do with it."""

    def __array_ufunc__(self, function, method, *inputs, out=(), **options):
        plain = [np.asarray(value) if np.ndim(value) else value for value in inputs]
        if out:
            options["out"] = tuple(np.asarray(array) for array in out)
        result = getattr(function, method)(*plain, **options)
        arrays = [*(value for value in plain if np.ndim(value)), np.asarray(result)]
        product = function is np.matmul
        work = 2 * plain[0].shape[-1] * result.size if product else max(array.size for array in arrays)
        tally["bytes"] += sum(array.nbytes for array in arrays)
        tally["in products" if product else "operations"] += work
        return out[0] if out else result.view(Counting) if isinstance(result, np.ndarray) else result

    def __array_function__(self, *call):
        result = super().__array_function__(*call)   # joins and the like: what they return counts on
        return result.view(Counting) if isinstance(result, np.ndarray) else result


class Touched(np.ndarray):
    """An array that notes every number that is read from it or written to it."""

    bytes = 0

    def __getitem__(self, index):
        Touched.bytes += self.itemsize
        return super().__getitem__(index)

    def __setitem__(self, index, value):
        Touched.bytes += self.itemsize
        super().__setitem__(index, value)


def counted(function, *arguments):
    """What `function` does with its first argument and all that is made from it."""
    tally.update(dict.fromkeys(tally, 0))
    function(arguments[0].view(Counting), *arguments[1:])
    return dict(tally)


# %%
# checks (12.2): three passes and one pass, counted while the two texts run
x, shift, scale = (rng.standard_normal(shape).astype(np.float32) for shape in ((100, 16), 16, 16))
n, b = x.size, x.itemsize
three = counted(reference.shift_scale_relu, x, shift, scale)["bytes"] - shift.nbytes - scale.nbytes
loops.shift_scale_relu(x.view(Touched), shift, scale)
print(f"bytes a number: NumPy {three / n:.0f}, fused {Touched.bytes / n:.0f}")
assert three == 2 * 3 * n * b and Touched.bytes == 2 * 1 * n * b

for numbers in 2**15, 2**22:
    x, shift, scale = (rng.standard_normal(shape).astype(np.float32) for shape in ((numbers // 512, 512), 512, 512))
    y = np.empty_like(x)
    copy, fused, passes = (seconds(*call, repeats=15) / numbers * 1e9 for call in (
        (np.copyto, y, x), (compiled, x, shift, scale), (reference.shift_scale_relu, x, shift, scale)))
    print(f"{numbers:8} numbers, ns each: copy {copy:.2f}, fused {fused:.2f}, three passes {passes:.2f}")

# %% [markdown]
# *What to see:* 24 bytes a number against 8. A copy, which computes nothing, is the yardstick: it moves the same 8
# bytes. How near the fused kernel comes to it shows how little the arithmetic costs. A number of a large array costs more
# than one of a small array, since the small one lies in the processor's own memory, its *caches*. Bytes explain a factor
# of three; where NumPy loses more, its passes by themselves are slower than a copy, too.

# %% [markdown]
# ## Arithmetic intensity
#
# Let $F$ be the number of floating-point operations (FLOP: additions, multiplications, comparisons) and $Q$ the bytes
# that must move. Their ratio is the *arithmetic intensity*,
#
# $$
# I = \frac{F}{Q} \quad \text{FLOP per byte} .
# \tag{12.3}
# $$
#
# (12.1) makes 3 operations a number: 3/24 in three passes, 3/8 fused. A matrix product of $m \times k$ by $k \times n$
# makes $k$ multiplications and $k$ additions for each of its $m\,n$ results:
#
# $$
# F = 2\,m\,k\,n .
# \tag{12.4}
# $$
#
# It has to read two matrices and write one, at least. For square matrices of $n \times n$ in float32, $Q = 3 \cdot 4\,n^2$, and
#
# $$
# I = \frac{2 n^3}{12\, n^2} = \frac{n}{6} .
# \tag{12.5}
# $$
#
# The larger the product, the more it computes with each byte. That is why a matrix product wins.

# %%
# checks (12.3) and (12.4) and (12.5): by loops that count as they multiply, and by the counting arrays
m, k, n = 3, 4, 5
A, B = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
product, operations = np.zeros((m, n)), 0
for i in range(m):
    for j in range(n):
        for l in range(k):
            product[i, j] += A[i, l] * B[l, j]
            operations += 2                          # one multiplication, one addition
assert np.allclose(product, A @ B, atol=1e-6)
assert operations == 2 * m * k * n == counted(np.matmul, A, B)["in products"]

x, shift, scale = (rng.standard_normal(shape).astype(np.float32) for shape in ((4096, 1), 1, 1))
kernel = counted(reference.shift_scale_relu, x, shift, scale)
assert np.isclose(kernel["operations"] / kernel["bytes"], 3 / 24, rtol=1e-3)
for n in 6, 60, 600:
    square = np.ones((n, n), np.float32)
    there = counted(np.matmul, square, square)
    print(f"{n} x {n}: {there['in products'] / there['bytes']:.0f} FLOP per byte")
    assert np.isclose(there["in products"] / there["bytes"], n / 6)


# %% [markdown]
# ## A convolution as a matrix product
#
# A convolution of $3 \times 3$ taps takes, for every pixel, a weighted sum over 9 pixels and all their channels. Lay
# these $9\,C_\text{in}$ numbers of each pixel out as a row (*gather*), and the weights $W$, of shape $(C_\text{out}, 3, 3, C_\text{in})$, as
# rows of $9\,C_\text{in}$, too. Then all sums are one product:
#
# $$
# \underbrace{Y}_{N \times C_\text{out}} = \underbrace{\operatorname{gather}(x)}_{N \times 9 C_\text{in}}\; W^{\top} .
# \tag{12.6}
# $$
#
# It is the class `Conv` in [minglow/nets/conv.py](../minglow/nets/conv.py). Below, the same in seven loops.

# %%
def conv_loops(x, W):
    """A 3 x 3 convolution with zeros outside the image; x: (B, h, w, C_in), W: (C_out, 3, 3, C_in)."""
    batch, height, width, _ = x.shape
    y = np.zeros((batch, height, width, len(W)))
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                for di in range(3):
                    for dj in range(3):
                        if 0 <= i + di - 1 < height and 0 <= j + dj - 1 < width:
                            for o in range(len(W)):
                                for c in range(x.shape[3]):
                                    y[b, i, j, o] += W[o, di, dj, c] * x[b, i + di - 1, j + dj - 1, c]
    return y


# %%
# checks (12.6): seven loops, the product written out, the library
conv = Conv(2, 5, std=1.0, rng=0, dtype=np.float64)
W, x = conv.params["weight"], rng.standard_normal((2, 4, 3, 2))
by_loops = conv_loops(x, W)
by_product = (reference.gather(x, 3) @ W.reshape(5, -1).T).reshape(2, 4, 3, 5)
print("patches:", reference.gather(x, 3).shape, " largest difference:", np.abs(by_loops - by_product).max())
assert np.allclose(by_loops, by_product, atol=1e-12) and np.allclose(by_loops, conv.forward(x)[0], atol=1e-12)

# %% [markdown]
# ### Patches on the narrower side
#
# The price is memory: rows of $9\,C_\text{in}$ numbers where $x$ has $C_\text{in}$. A coupling's net goes from few channels to many and
# back to few; on its way back, with $C_\text{in}$ = 64, patches would be nine copies of the widest array of all. There
# is a second way to write the same sums: multiply first, which gives each pixel $9\,C_\text{out}$ numbers, one set for every
# neighbor that it is to be sent to; then send and add them (*scatter*). So whichever side is narrow, the numbers to be laid
# out need be no more than
#
# $$
# 9\,N \min(C_\text{in},\, C_\text{out}) .
# \tag{12.7}
# $$
#
# The second way is `TransposedConv`. With the taps in reverse order it is the same map.

# %%
# checks (12.7): the same map both ways, and the sizes of what each lays out
for channels_in, channels_out in (2, 64), (64, 4):
    gathering = Conv(channels_in, channels_out, std=0.1, rng=0, dtype=np.float64)
    scattering = TransposedConv(channels_in, channels_out, dtype=np.float64)
    reverse = gathering.params["weight"][:, ::-1, ::-1, :]       # (C_out, 3, 3, C_in), taps reversed
    scattering.params["weight"][...] = reverse.transpose(3, 1, 2, 0)
    x = rng.standard_normal((64, 4, 4, channels_in))
    assert np.allclose(gathering.forward(x)[0], scattering.forward(x)[0], atol=1e-12)
    laid_out = {"Conv": gathering.forward(x)[1].size,
                "TransposedConv": (rows(x) @ scattering.params["weight"].reshape(channels_in, -1)).size}
    assert min(laid_out.values()) == 9 * 64 * 16 * min(channels_in, channels_out)
    times = {"Conv": seconds(gathering.forward, x), "TransposedConv": seconds(scattering.forward, x)}
    for name, numbers in laid_out.items():
        print(f"{channels_in:2} to {channels_out:2} channels, {name:14} lays out {numbers:6} numbers: {1e3 * times[name]:.2f} ms")

# %% [markdown]
# *What to see:* the same result by as many multiplications, and sixteen or more times as many numbers laid out on the wide side. So
# minglow's nets begin with `Conv` and end in `TransposedConv`.

# %% [markdown]
# **Exercise 12.2: the arithmetic of a convolution** (2 points). Write `conv_flops(batch, height, width, size, channels_in,
# channels_out)`: the operations of all matrix products of one training step of `Conv` with `size` × `size` taps, that is
# `forward`, and in `backward` the gradient by the weights and that by the input. Taps outside the image count
# as well: they are multiplied by 0. By (12.4) and (12.6) it is one line.

# %% solution="conv-flops"
def conv_flops(batch, height, width, size, channels_in, channels_out):
    """Operations of the matrix products of Conv.forward and Conv.backward."""
    ### BEGIN SOLUTION
    return 3 * 2 * (batch * height * width) * (size * size * channels_in) * channels_out
    ### END SOLUTION


# %% test="conv-flops" points=2
def step_of(conv):
    """A function that runs the convolution forwards and backwards."""
    def step(x):
        y, cache = conv.forward(x)
        conv.backward(y, cache)
    return step


for case in (1, 1, 1, 1, 1, 1), (2, 3, 4, 3, 2, 5), (3, 2, 5, 5, 4, 1):
    *image, size, channels_in, channels_out = case
    tested = Conv(channels_in, channels_out, size, rng=0, dtype=np.float64)
    with minglow.use("numpy"):
        there = counted(step_of(tested), np.ones((*image, channels_in)))["in products"]
    assert conv_flops(*case) == there, f"conv_flops{case} should be {there}, got {conv_flops(*case)}"

# %% [markdown]
# ## The roofline
#
# Two numbers describe a processor well enough to say what bounds a piece of work: its *peak* $P$, the operations a
# second it can make, and the *bandwidth* $\beta$, the bytes a second it can move. If it computes and moves at the same time,
# work of $F$ operations and $Q$ bytes takes as long as the slower of the two:
#
# $$
# T = \max\Big( \frac{F}{P},\; \frac{Q}{\beta} \Big) .
# \tag{12.8}
# $$
#
# So the rate $F / T$ that can be reached depends on the work by its intensity $I$ alone (Williams, Waterman & Patterson 2009):
#
# $$
# \text{rate}(I) = \min\big( P,\; I\,\beta \big) .
# \tag{12.9}
# $$
#
# Drawn over $I$, it is a slanted line that meets a flat one: a *roof*. They meet at the *ridge* $I = P/\beta$. Work to the left is
# bound by memory, to the right by arithmetic.
#
# Is a maximum right, where work has to be read before it can be computed with? Let us simulate a machine that cuts the
# work into blocks, and fetches a block while it computes with the one before.

# %%
# checks (12.8) and (12.9): a machine that moves one block while it computes with another, clock by clock
def simulated(operations, moved, peak, bandwidth, blocks):
    """Seconds of a machine with one unit that computes and one that moves, block after block."""
    arrived = computed = 0.0
    for _ in range(blocks):
        arrived += moved / blocks / bandwidth                     # blocks arrive one after another,
        computed = max(arrived, computed) + operations / blocks / peak   # and wait for the unit to be free
    return computed


for intensity in 0.1, 1.0, 9.9, 10.1, 100.0:
    operations, moved, peak, bandwidth = intensity * 1e9, 1e9, 1e11, 1e10    # the ridge is at 10
    formula = max(operations / peak, moved / bandwidth)
    gaps = [simulated(operations, moved, peak, bandwidth, blocks) / formula - 1 for blocks in (10, 1000)]
    assert 0 <= gaps[1] <= 1 / 1000 + 1e-9 and gaps[1] < gaps[0] <= 1 / 10 + 1e-9
    rate = operations / simulated(operations, moved, peak, bandwidth, 100_000)
    assert np.isclose(rate, min(peak, intensity * bandwidth), rtol=2e-5)
    print(f"I = {intensity:5}: {rate / 1e9:6.2f} GFLOP/s, the roof {min(peak, intensity * bandwidth) / 1e9:6.2f}")

# %% [markdown]
# *What to see:* with a thousand blocks the simulated machine is within a thousandth of the formula: only the first block
# has to be waited for. A real machine has more such units, and caches; the roof is a bound, not a forecast.
#
# ### This machine's roof
#
# The peak: a product of large matrices in float32. The bandwidth: a copy, which reads and writes; of large arrays for the
# machine's memory, and of small ones for the processor's cache, which is a roof of its own. One core, as all that
# follows: minglow's own default for models as small as ours.

# %%
large = rng.standard_normal((512, 512), np.float32)
peak = 2 * 512**3 / seconds(np.matmul, large, large, repeats=60)


def copy_rate(numbers, repeats):
    """Bytes a second that a copy of float32 numbers reads and writes."""
    source, target = np.ones(numbers, np.float32), np.zeros(numbers, np.float32)
    return 2 * source.nbytes / seconds(np.copyto, target, source, repeats=repeats)


memory, cache = copy_rate(2**23, 20), copy_rate(2**15, 300)
print(f"peak {peak / 1e9:.0f} GFLOP/s; copies from memory {memory / 1e9:.0f} GB/s, within the cache {cache / 1e9:.0f} GB/s")
print(f"ridges at {peak / memory:.0f} and {peak / cache:.1f} FLOP per byte")

# %% [markdown]
# **Exercise 12.3: predict the bound** (2 points). Take a machine with a peak of 200 GFLOP/s and 20 GB/s from memory. Which of
# these, in float32, with arrays that lie in memory, are bound by `"memory"`, and which by `"compute"`? Fill the dictionary in.
#
# - `kernel`: (12.1) fused, over $4096 \times 512$ numbers
# - `wide`: a product of $4096 \times 512$ by $512 \times 512$
# - `mixing`: a product of $4096 \times 4$ by $4 \times 4$: an invertible 1×1 convolution of four channels
# - `square`: a product of $96 \times 96$ by $96 \times 96$

# %% solution="bounds"
bounds = {}
### BEGIN SOLUTION
# The ridge is at 200/20 = 10 FLOP per byte; the intensities are 3/8, 120, 1, and 96/6 = 16.
bounds = {"kernel": "memory", "wide": "compute", "mixing": "memory", "square": "compute"}
### END SOLUTION

# %% test="bounds" points=2
shapes = {"wide": (4096, 512, 512), "mixing": (4096, 4, 4), "square": (96, 96, 96)}
work = {name: (2 * m * k * n, 4 * (m * k + k * n + m * n)) for name, (m, k, n) in shapes.items()}
work["kernel"] = 3 * 4096 * 512, 2 * 4 * 4096 * 512
assert set(bounds) == set(work), f"expected an answer for each of {', '.join(work)}"
for name, (operations, moved) in work.items():
    there = "compute" if operations / 200e9 > moved / 20e9 else "memory"
    assert bounds[name] == there, f"{name}: {operations / moved:.2f} FLOP per byte, the ridge is at {200 / 20:.0f}"


# %% [markdown]
# ## A training step, counted
#
# The course's model: digits of $8 \times 8$ pixels, $L = 2$ levels, $K = 8$ steps a level, nets 64 channels wide, $B = 64$ images, float32. The
# next cell counts, by hand, what its parts do in one step, forwards and backwards. A product forwards needs two
# backwards (by the weights, by the input), each of as many operations. Level 1 works on $4 \times 4$ pixels of 4 channels,
# level 2 on $2 \times 2$ of 8.

# %%
LEVELS, STEPS, WIDTH, BATCH = ((16, 4), (4, 8)), 8, 64, 64       # (pixels, channels) of each level


def products(n, channels, width=WIDTH):
    """(m, k, n) of the products forwards in one flow step, for n pixels."""
    half = channels // 2
    return {"3×3 in": (n, 9 * half, width), "1×1 hidden": (n, width, width), "3×3 out": (n, width, 9 * channels),
            "1×1 mixing": (n, channels, channels)}


def kernel_counts(n, channels, width=WIDTH):
    """(operations, numbers moved) of the kernels of one flow step, for n pixels; sums: forwards + backwards."""
    half = channels // 2
    wide, narrow = 2 * n * width, 2 * n * channels   # two actnorm-ReLUs; actnorm and the net's last scaling
    taps = 9 * n * (half + channels)                 # of the net's two convolutions
    return {
        "actnorm, ReLU": (3 * wide + 5 * wide, 2 * wide + 3 * wide),
        "gather, scatter": (taps, 2 * (taps + taps // 9)),
        "shift, scale": (2 * narrow + 4 * narrow, 2 * narrow + 3 * narrow),
        "couple": (3 * n * half + 4 * n * half, 7 * n * half + 10 * n * half),
    }


def count_step(levels=LEVELS, steps=STEPS, batch=BATCH, width=WIDTH):
    """{part: (operations, bytes)} of one training step in float32."""
    parts = {}
    for pixels, channels in levels:
        n = batch * pixels
        for name, (m, k, j) in products(n, channels, width).items():
            operations, moved = parts.get(name, (0, 0))
            parts[name] = operations + 3 * steps * 2 * m * k * j, moved + 3 * steps * 4 * (m * k + k * j + m * j)
        for name, (made, numbers) in kernel_counts(n, channels, width).items():
            operations, moved = parts.get(name, (0, 0))
            parts[name] = operations + steps * made, moved + 4 * steps * numbers
    return parts


flow = minglow.glow((8, 8, 1), levels=2, flow_steps=STEPS, hidden=WIDTH, rng=0)
images = rng.uniform(-0.5, 0.5, (BATCH, 8, 8, 1)).astype(np.float32)
flow.initialize(images)
size = flow.flat.value.size                          # all parameters
parts = count_step() | {"Adam": (11 * size, 4 * 7 * size)}       # 7: four vectors read, three written

# %% [markdown]
# Is the count right? Let the library count: the images as a `Counting` array go through the flow, forwards and backwards,
# and every matrix product on their way is noted (the kernels' counts are read off their loops, and not checked
# here). One thing is missing in our table: the learned prior where half of the channels
# leave level 1, a convolution from 2 to 4 channels.

# %%
with minglow.use("numpy"):
    noted = counted(flow.nll_backward, images)["in products"]
split_prior = 3 * 2 * (BATCH * 16) * 18 * 4
by_hand = sum(parts[name][0] for name in products(1, 4)) + split_prior
print(f"operations in products: by hand {by_hand:,}, noted while the library ran {noted:,}")
assert by_hand == noted

# %% [markdown]
# Now time each part by itself, with the library's own kernels and products at the shapes of both levels, and put it
# under the roof.

# %%
def calls_of_a_step(n, channels):
    """{part: functions that one flow step calls, both ways}, for n pixels."""
    def numbers(*shape):
        return rng.standard_normal(shape, np.float32)

    half, calls = channels // 2, {}
    for name, (m, k, j) in products(n, channels).items():
        a, w, dy = numbers(m, k), numbers(k, j), numbers(m, j)
        calls[name] = [(np.matmul, a, w), (np.matmul, a.T, dy), (np.matmul, dy, w.T)]
    wide, narrow, ones = numbers(n, WIDTH), numbers(n, channels), np.ones(WIDTH, np.float32)
    image, joined = (numbers(BATCH, n // BATCH, 1, half), numbers(BATCH, n // BATCH, 1, channels))
    flat, part = joined[:, :, 0], np.exp(image[:, :, 0])
    calls["actnorm, ReLU"] = 2 * [(kernels.shift_scale_relu, wide, ones, ones), (kernels.shift_scale_relu_backward, wide, wide, ones)]
    calls["gather, scatter"] = [call for each in (image, joined) for call in (
        (kernels.gather, each, 3), (kernels.scatter, numbers(n, 9 * each.shape[3]), 3, n // BATCH, 1))]
    one = ones[:channels]
    calls["shift, scale"] = 2 * [(kernels.shift_scale, narrow, one, one), (kernels.shift_scale_backward, narrow, narrow, one)]
    calls["couple"] = [(kernels.couple, flat, part, part, part), (kernels.couple_backward, flat, flat, part, part, ones[:BATCH])]
    return calls


optimizer = Adam(flow.flat)
flow.nll_backward(images)
optimizer.step(learning_rate=1e-3)                            # everything is compiled now
measured = dict.fromkeys(parts, 0.0)
for pixels, channels in LEVELS:
    for name, calls in calls_of_a_step(BATCH * pixels, channels).items():
        measured[name] += STEPS * sum(seconds(*call, repeats=30) for call in calls)
measured["Adam"] = seconds(lambda: optimizer.step(learning_rate=1e-3), repeats=20)
start = time.process_time()                          # a step is long: count this process's own time alone,
for _ in range(30):                                  # without that of other programs which interrupt it
    flow.nll_backward(images)
whole = (time.process_time() - start) / 30 + measured["Adam"]

# %%
PRODUCTS = "3×3 in", "1×1 hidden", "3×3 out", "1×1 mixing"
intensities = np.logspace(-1.7, 2.3, 200)
figure, axis = plt.subplots(figsize=(7, 4.2))
for bandwidth, label, line in (memory, "roof, data in memory", "-"), (cache, "roof, data in the cache", "--"):
    axis.loglog(intensities, np.minimum(peak, intensities * bandwidth) / 1e9, line, color="0.4", label=label)
for name, (operations, moved) in parts.items():
    place = operations / moved, operations / measured[name] / 1e9
    axis.loglog(*place, "o", color=plots.COLORS[0 if name in PRODUCTS else 1])
    x_by, y_by = {"3×3 in": (-22, -13), "3×3 out": (-8, -16), "1×1 hidden": (8, -4), "couple": (-36, 4), "actnorm, ReLU": (-10, 7)}.get(name, (6, -9))
    axis.annotate(name, place, textcoords="offset points", xytext=(x_by, y_by), fontsize=8)
axis.set(xlabel="arithmetic intensity, FLOP per byte", ylabel="GFLOP a second",
         title="one training step's parts on this machine (blue: products)")
axis.legend(loc="lower right");

# %% [markdown]
# *What to see:* everything drawn in vermilion, the kernels and Adam, has less than one operation a byte and lies under the slanted part: there, fewer bytes
# help, faster arithmetic does not. The convolutions' products lie to the right, under the flat part. The product of a 1×1 mixing is a product in name
# only: with 4 or 8 channels it makes little more than one operation a byte. The model is small: its arrays fit into the cache, so that the dashed roof
# is the one that counts, and a point may lie above the solid line.

# %%
names = list(parts)
at_the_roof = {name: max(operations / peak, moved / cache) for name, (operations, moved) in parts.items()}
rest = max(0.0, whole - sum(measured.values()))
figure, axis = plt.subplots(figsize=(7, 3.2))
height = np.arange(len(names) + 1)
axis.barh(height[:-1] - 0.2, [1e3 * at_the_roof[name] for name in names], height=0.4, label="at the roof, (12.8)", color="0.7")
axis.barh(height + 0.2, [*(1e3 * measured[name] for name in names), 1e3 * rest], height=0.4, label="measured")
axis.set_yticks(height, [*names, "everything else"])
axis.invert_yaxis()
axis.set(xlabel="milliseconds of one training step", title="predicted and measured")
axis.legend()
print(f"the roof {1e3 * sum(at_the_roof.values()):.1f} ms, the parts {1e3 * sum(measured.values()):.1f} ms, the whole step {1e3 * whole:.1f} ms")

# %% [markdown]
# *What to see:* a roofline says how fast each part could be at best, with no measurement of the part itself. Where a
# measured bar is much longer, something else than arithmetic or bytes bounds it: calls that are over in a few microseconds, sums that depend on
# the one before. "Everything else" is Python between the parts, and NumPy's small calls (sigmoids, slices): at this size no
# small part. [docs/performance.md](../docs/performance.md) has the figures that minglow publishes, at this size and at
# the paper's, where products are nine tenths.

# %% [markdown]
# ## What Amdahl leaves
#
# A part takes the share $p$ of the time. Make it $s$ times as fast, leave the rest as it is, and the whole gets faster by
# (Amdahl 1967)
#
# $$
# S(p, s) = \frac{1}{(1 - p) + p / s} .
# \tag{12.10}
# $$
#
# However fast the part becomes, the rest remains:
#
# $$
# \lim_{s \to \infty} S(p, s) = \frac{1}{1 - p} .
# \tag{12.11}
# $$

# %%
# checks (12.10) and (12.11): a list of tasks, some of which are made faster
for _ in range(100):
    tasks = rng.exponential(size=20)                 # seconds
    improved = rng.random(20) < 0.5
    s = 1 + rng.exponential(5)
    share = tasks[improved].sum() / tasks.sum()
    faster = np.where(improved, tasks / s, tasks)
    assert np.isclose(tasks.sum() / faster.sum(), 1 / ((1 - share) + share / s))
    without = sum(task for task, is_faster in zip(tasks, improved) if not is_faster)
    assert np.isclose(tasks.sum() / without, 1 / (1 - share))
    assert np.isclose(1 / ((1 - share) + share / 1e12), 1 / (1 - share))

figure, axis = plt.subplots(figsize=(6, 3.2))
speeds = np.logspace(0, 3, 200)
here = min(0.95, sum(measured[name] for name in PRODUCTS) / whole)
for share, label in (0.29, "0.29: course size, published"), (0.89, "0.89: paper size, published"), (here, f"{here:.2f}: course size, here"):
    (line,) = axis.semilogx(speeds, 1 / (1 - share + share / speeds), "--" if share == here else "-", label=f"p = {label}")
    axis.axhline(1 / (1 - share), color=line.get_color(), linestyle=":", linewidth=0.8)
axis.set(xlabel="how many times faster the products become, s", ylabel="the whole step, times faster", ylim=(0, None))
axis.legend();

# %% [markdown]
# *What to see:* each curve bends towards its dotted limit, the sooner the smaller $p$ is. The share measured here need not be
# the published one, since it depends on the machine and on what else runs there. By the published share, a machine that multiplies a thousand
# times faster would not even halve the time of a step at course size: that is why minglow's work at this size went into kernels and into fewer calls.

# %% [markdown]
# **Exercise 12.4: the limit** (1 point). By [docs/performance.md](../docs/performance.md), products take the share 0.29 of a training step at
# course size and 0.89 at paper size. By which factor would each step be faster if products took no time at all? Give two
# numbers, course size first.

# %% solution="limits"
### BEGIN SOLUTION
limits = 1 / (1 - 0.29), 1 / (1 - 0.89)
### END SOLUTION

# %% test="limits" points=1
for share, given in zip((29, 89), limits, strict=True):
    hundredths = 100 * ["product"]
    hundredths[share:] = (100 - share) * ["rest"]
    assert np.isclose(given, 100 / hundredths.count("rest"), rtol=0.02), f"what is left of 100 parts, if {share} of them vanish?"

# %% [markdown]
# ## Threads
#
# A second core helps only where there is enough for it to do: handing the work over has a cost of its own. NumPy's
# products can use several threads; minglow's kernels use one. `minglow.threads(n)` says how many; left alone, large
# flows take every core and small ones one.

# %%
print("product of n x n     n:", *(f"{n:>8}" for n in (32, 128, 512)))
for count in 1, 2:
    with minglow.threads(count):
        took = [seconds(np.matmul, *2 * [large[:n, :n].copy()], repeats=20) for n in (32, 128, 512)]
    print(f"microseconds, {count} threads:", *(f"{1e6 * value:8.1f}" for value in took))

# %% [markdown]
# *What to see:* compare within a column. The small product gains nothing; the large one up to a factor of two, if a second core is
# idle. If another program runs on it, two threads can be far slower than one, since each product waits for the later
# half: [docs/performance.md](../docs/performance.md), "With a busy core".
#
# ## The price of compiling
#
# Numba compiles a function when it is first called with each combination of types. That costs once what
# thousands of calls cost. minglow's kernels are kept on disk, in the user's folder for caches, so that the next process
# only loads them.

# %%
fresh = numba.njit(loops.shift_scale_relu, error_model="numpy")  # no cache on disk: compiled here
x32 = rng.standard_normal((1024, 64), np.float32)
for dtype in np.float32, np.float64:
    arguments = x32.astype(dtype), np.ones(64, dtype), np.ones(64, dtype)
    first = seconds(fresh, *arguments, repeats=1)
    again, by_numpy = seconds(fresh, *arguments, repeats=20), seconds(reference.shift_scale_relu, *arguments, repeats=20)
    gain = by_numpy - again
    pays = f"pays after {first / gain:,.0f} calls" if gain > 0 else "does not pay here"
    print(f"{np.dtype(dtype)}: first call {1e3 * first:4.0f} ms, then {1e6 * again:3.0f} us, NumPy {1e6 * by_numpy:3.0f} us: {pays}")
assert len(fresh.signatures) == 2                    # one machine code for each combination of types

# %% [markdown]
# *What to see:* the second type costs its own compilation. A training run calls each kernel tens of thousands of times a minute, so it pays soon;
# for a single call it never would, and `minglow.use("numpy")` compiles nothing.
#
# ## On a GPU: calculated, not measured
#
# Nothing below was measured. A roof can be drawn from a datasheet: NVIDIA's for the H100 SXM gives 67 TFLOP/s for float32
# (without tensor cores) and 3.35 TB/s from memory (*NVIDIA H100 Tensor Core GPU*, datasheet). The ridge is at $67 / 3.35 = 20$ FLOP per byte. Our
# counts hold for any machine; only the roof changes. For the paper's size: images of $32 \times 32 \times 3$, $L = 3$, $K = 32$, width 512, here with $B = 16$.

# %%
gpu_peak, gpu_memory = 67e12, 3.35e12                # the datasheet's figures
paper = count_step(levels=((256, 12), (64, 24), (16, 48)), steps=32, batch=16, width=512)
figure, axis = plt.subplots(figsize=(7, 4))
axis.loglog(intensities, np.minimum(gpu_peak, intensities * gpu_memory) / 1e12, color="0.4", label="H100 SXM, float32, by its datasheet")
axis.loglog(intensities, np.minimum(peak, intensities * memory) / 1e12, color="0.7", label="one core here, measured")
for size, counts_of, marker, tilt in ("course size", parts, "o", -35), ("paper size", paper, "s", 35):
    for name, (operations, moved) in counts_of.items():
        intensity = operations / moved
        axis.loglog(intensity, min(gpu_peak, intensity * gpu_memory) / 1e12, marker, markersize=5,
                    color=plots.COLORS[0 if name in PRODUCTS else 1], label=size if name == "3×3 in" else None)
        if name in PRODUCTS:
            axis.annotate(name, (intensity, min(gpu_peak, intensity * gpu_memory) / 1e12), textcoords="offset points",
                          xytext=(3, tilt / 6), fontsize=7, rotation=tilt, va="bottom" if tilt > 0 else "top",
                          rotation_mode="anchor")
axis.axvline(gpu_peak / gpu_memory, color="0.8", linestyle=":")
axis.set(xlabel="arithmetic intensity, FLOP per byte", ylabel="TFLOP a second, at most", ylim=(None, 600),
         title="calculated, not measured (blue: products)")
axis.legend(loc="lower right");

# %%
for size, counts_of in ("course size", parts), ("paper size", paper):
    times = {name: max(operations / gpu_peak, moved / gpu_memory) for name, (operations, moved) in counts_of.items()}
    by_memory = [name for name, (operations, moved) in counts_of.items() if operations / moved < gpu_peak / gpu_memory]
    print(f"{size}, calculated: {1e3 * sum(times.values()):.3f} ms at the roof, of it in parts that memory bounds "
          f"{sum(times[name] for name in by_memory) / sum(times.values()):.0%}:")
    print("   ", "; ".join(by_memory))
    assert (set(by_memory) == set(parts)) == (size == "course size")

# %% [markdown]
# *What to see:* the ridge lies further right than the CPU's, so that more parts are bound by memory: at course size every one, the products
# too. At paper size the wide products are bound by arithmetic; the kernels between them, which are a tenth of a step on a CPU, are worth
# fusing all the more. The roof leaves out what it costs to start each kernel: at course size, thousands of
# calls would share a calculated time of a fraction of a millisecond, so that starting them would decide.
#
# ## To take away
#
# - Count operations and bytes first; their ratio and two numbers of the machine say what bounds a piece of work, and how fast it can be.
# - Kernels are bound by bytes: fuse passes. Convolutions are cast as matrix products, with patches on the
#   narrower side, since products do many operations with each byte.
# - Compiled loops are fast *and* the text that a debugger steps through; compiling costs once.
# - Amdahl: what you do not speed up decides in the end. Measure the whole step.
#
# Next: [13. Dequantization](13_dequantization.ipynb).
