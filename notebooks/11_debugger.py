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
# # 11. In the debugger
#
# **You will be able to** stop a flow inside any layer and any kernel, forwards and backwards; say what shape
# and value to expect there before you look; walk up and down the call stack to where a value was made; find the
# layer in which a NaN was born; catch a fault that reading alone does not show.
#
# **You need** notebooks 4 (actnorm), 5 (1×1 convolution) and 7 (backward by hand). No experience with
# debuggers. About 45 minutes with the exercises; it runs in seconds.

# %%
import ast
import inspect
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import minglow
from minglow import kernels, plots
from minglow.arrays.shapes import pixels, rows
from minglow.testing import check_layer

plots.style()

# %% [markdown]
# ## A program worth stopping
#
# In minglow nothing happens behind the scenes: each derivative is a line of Python, and a debugger can stand
# on it. This program makes one training step of the smallest Glow there is: one level, one flow step, three
# images of $4 \times 4$ pixels. It stands beside this notebook as [step_through.py](step_through.py); the
# cell writes it to a temporary folder, so that the notebook works on its own.

# %%
PROGRAM = '''"""One training step of the smallest Glow: python -m pdb notebooks/step_through.py [loops | numpy]"""

import sys

import numpy as np

import minglow
from minglow.testing import perturbed


def small_flow():
    """A perturbed flow of one step for images of 4 x 4 pixels, and three images."""
    images = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 4, 4, 1))
    flow = minglow.glow((4, 4, 1), levels=1, flow_steps=1, hidden=4, rng=0, dtype=np.float64)
    flow.initialize(images)
    return perturbed(flow), images


def training_step(flow, images):
    """The loss; its derivatives with respect to all parameters are then in flow.flat.grad."""
    flow.flat.grad[...] = 0
    return flow.nll_backward(images).nll


if __name__ == "__main__":
    minglow.use(sys.argv[1] if len(sys.argv) > 1 else "loops")
    print(f"{training_step(*small_flow()):.4f} nats")
'''
folder = tempfile.TemporaryDirectory()               # removed when the notebook ends
program = Path(folder.name) / "step_through.py"
program.write_text(PROGRAM, encoding="utf-8")
flow, images = runpy.run_path(str(program))["small_flow"]()
layers = flow.bijection.layers
print(*layers, sep=", ")

# %% [markdown]
# ## What to expect: the shapes
#
# Before you look into a variable, say what should be there. The layers here are five, in a `Chain`. The next
# cell runs them one by one, as [minglow/chain.py](../minglow/chain.py) does, and notes what comes out of each
# `forward`: the output, the log-determinant (one number for each image), and the *cache*, which is all that
# `backward` will know of this moment. $B$ images in a batch, $h$ rows and $w$ columns of pixels, $C$ channels.

# %%
def described(value):
    """The shapes inside a cache."""
    if isinstance(value, list):
        return f"[{len(value)} of the net's layers]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(described, value)) + ")"
    return str(value.shape) if isinstance(value, np.ndarray) else str(value)


outputs, total = [images], np.zeros(3)
print(f"{'layer':15} {'output':13} {'log_det':8} cache")
for layer in layers:
    y, log_det, cache = layer.forward(outputs[-1])
    outputs.append(y)
    total += log_det
    print(f"{type(layer).__name__:15} {y.shape!s:13} {log_det.shape!s:8} {described(cache)}")
z, all_log_det, _ = flow.bijection.forward(images)
assert np.allclose(outputs[-1], z) and np.allclose(total, all_log_det)

# %%
names = ["images", *(type(layer).__name__ for layer in layers)]
figure, axes = plt.subplots(1, 5, figsize=(9, 2.3))
for axis, array, name in zip(axes, outputs, names):
    picture = array[0, :, :, 0] if name == "images" else rows(array[:1])
    plots.draw_matrix(axis, picture, name, np.abs(outputs[1:-1]).max())
    axis.set(xlabel="column" if name == "images" else "channel", ylabel="row" if name == "images" else "pixel",
             xticks=range(4), yticks=range(len(picture)))

# %% [markdown]
# *What to see:* one image on its way. `Squeeze` only moves numbers: 16 pixels of 1 channel become 4 pixels of 4
# channels. `ActNorm` shifts and scales each column, `InvConv1x1` mixes the columns, `AffineCoupling` leaves the first
# two columns as they are. `Flatten`, not drawn, lays the rows behind each other.

# %% [markdown]
# **Exercise 11.1: predict a shape** (1 point). The coupling's net begins with a convolution of $3 \times 3$
# taps, `Conv.forward` in [minglow/nets/conv.py](../minglow/nets/conv.py). It sees the two channels that pass. You
# stop after its line `patches = kernels.gather(x, size)`. What does `p patches.shape` print? Give a tuple.

# %% solution="patches-shape"
### BEGIN SOLUTION
patches_shape = (3 * 2 * 2, 3 * 3 * 2)               # a row for each pixel, 9 taps of 2 channels
### END SOLUTION

# %% test="patches-shape" points=1
passing = outputs[3][..., :2]
seen_there = layers[3].net.nets[0].forward(passing)[1].shape
assert tuple(patches_shape) == seen_there, f"a row for each pixel of each image, a column for each tap and channel: {seen_there}"


# %% [markdown]
# ## Driving pdb
#
# Python's own debugger is called *pdb*. On a command line, in a clone of minglow, one writes
#
# ```sh
# python -m pdb notebooks/step_through.py
# ```
#
# and then types commands at its prompt `(Pdb)`. This notebook types them for you: `session` starts pdb, hands it
# the commands, and puts each one back where it was typed. The commands that matter:
#
# | command | short | what it does |
# | --- | --- | --- |
# | `break f` | `b` | stop whenever the function `f` is entered; `tbreak` stops once |
# | `continue` | `c` | run until the next stop |
# | `next`, `step` | `n`, `s` | run this line; `step` goes into what it calls |
# | `return` | `r` | run until this function returns |
# | `p value` | | print the value of any expression |
# | `args`, `list` | `a`, `l` | the arguments of this function; the text around this line |
# | `where`, `up`, `down` | `w`, `u`, `d` | the call stack; go to the caller, and back |
# | `quit` | `q` | leave |

# %%
def tidy(text):
    """A transcript without the folders of the machine that it was made on."""
    for place in Path(minglow.__file__).parents[1], Path(folder.name), Path(os.__file__).parent:
        text = text.replace(str(place) + os.sep, "")
    return text


def transcript(printed, commands):
    """What pdb printed, by command, and all of it with the commands where they were typed."""
    first, *answers = tidy(printed).split("(Pdb) ")
    answers = answers[:len(commands) - 1]            # what comes after quit is of no interest
    typed = "".join(f"(Pdb) {tidy(command)}\n{answer}" for command, answer in zip(commands, answers))
    print(first + typed + "(Pdb) quit")
    return {tidy(command): answer.strip() for command, answer in zip(commands, answers)}


def session(commands, *arguments, options=(), program=program):
    """Run a program under pdb, with these commands, a line each; return the answers."""
    commands = [line.strip() for line in commands.strip().splitlines()]
    call = [sys.executable, "-m", "pdb", *options, str(program), *arguments]
    done = subprocess.run(call, input="\n".join(commands) + "\n", capture_output=True, text=True,
                          env=os.environ | {"NO_COLOR": "1"}, check=False)
    return transcript(done.stdout, commands)


# %% [markdown]
# ## Forwards: into ActNorm and its kernel
#
# pdb begins on the program's first line. We stop once in `training_step`, where `minglow` has been imported;
# there, breakpoints can be set by name, and none of them meets the calls of `initialize` before. Then we go on
# to `ActNorm.forward`, and from there into the kernel that does the arithmetic:
#
# $$
# y_{bijc} = (x_{bijc} + \texttt{shift}_c) \cdot e^{\texttt{log\_scale}_c} .
# \tag{11.1}
# $$

# %%
seen = session("""
    tbreak training_step
    continue
    break minglow.ActNorm.forward
    break minglow.kernels.loops.shift_scale
    continue
    p x.shape
    continue
    p x.shape
    p shift.tolist()
    p scale.tolist()
    p x[0].tolist()
    where
    up
    p x.shape
    down
    return
    p y[0].tolist()
    quit
""")

# %%
# checks (11.1): the first pixel's channels, as pdb printed them, beside the layer's parameters and the formula
value = {name: np.array(ast.literal_eval(seen[f"p {name}.tolist()"])) for name in ("shift", "scale", "x[0]", "y[0]")}
assert np.allclose(value["y[0]"], (value["x[0]"] + value["shift"]) * value["scale"], atol=1e-12)
assert np.allclose(value["x[0]"], outputs[1][0, 0, 0]) and np.allclose(value["y[0]"], outputs[2][0, 0, 0])
assert np.allclose(value["scale"], np.exp(layers[1].params["log_scale"]))
print("the numbers in pdb are those that this notebook computes")

# %% [markdown]
# *What to see:* in the layer `x` has the shape (3, 2, 2, 4), in the kernel (12, 4): `rows` has made a row of each
# pixel. `where` shows the way there, the oldest call first: after pdb's own lines the program, `Flow.nll_backward`, `Chain.forward`,
# `ActNorm.forward`, the kernel. `up` goes to the caller, whose `x` is another one.
#
# ## The other layers, and where the cache is
#
# `return` runs a function to its end, and `__return__` is what it gives back. `tbreak` stops once, so that the list
# of breakpoints stays short.

# %%
seen = session("""
    tbreak training_step
    continue
    tbreak minglow.InvConv1x1.forward
    tbreak minglow.AffineCoupling.forward
    continue
    return
    p __return__[0].shape
    p __return__[1].tolist()
    continue
    return
    p [part.shape for part in __return__[2][1:]]
    up
    p type(layer).__name__, len(caches)
    p [type(kept).__name__ for kept in caches]
    quit
""")
W = layers[2].params["weight"]
in_pdb = ast.literal_eval(seen["p __return__[1].tolist()"])
assert np.allclose(in_pdb, 4 * np.linalg.slogdet(W)[1]), "h w log|det W|, the same for each image"

# %% [markdown]
# *What to see:* each layer returns `(y, log_det, cache)`. The coupling's cache ends in three arrays: its output `y`, the
# scale, and the slope of its log-scale. When the debugger stands in `Chain.forward`, the caches of the layers before
# are in `caches`, an ordinary list: `None` for `Squeeze`, which has nothing to remember, then actnorm's and the
# 1×1 convolution's array.

# %% [markdown]
# **Exercise 11.2: predict `dlog_det`** (1 point). `backward` goes through the layers from the last to the
# first. Each gets `dlog_det`, the loss's derivative by its own log-determinant, an array of $B$ numbers. The loss is
# the mean negative log-likelihood of $B$ = 5 images. What does `p dlog_det.tolist()` print in the *last* layer, and in
# the *first*? Give two lists.

# %% solution="dlog-det"
### BEGIN SOLUTION
in_the_last = [-0.2] * 5                             # -1/B: the loss has the mean of the log-determinants in it,
in_the_first = [-0.2] * 5                            # and all layers' log-determinants are added: the same slope
### END SOLUTION

# %% test="dlog-det" points=1
asked, met = (in_the_last, in_the_first), []
for watched in layers[-1], layers[0]:
    def noting(dy, dlog_det, cache, backward=watched.backward):
        met.append(dlog_det.tolist())
        return backward(dy, dlog_det, cache)
    watched.backward = noting
try:
    flow.nll_backward(np.random.default_rng(1).uniform(-0.5, 0.5, (5, 4, 4, 1)))
finally:
    del layers[-1].backward, layers[0].backward      # the class's own method is there again
for place, given, there in zip(("last", "first"), asked, met):
    assert np.shape(given) == (5,), f"{place} layer: a number for each of the 5 images"
    assert np.allclose(given, there), f"{place} layer: the loss is -1/B times a sum over images, and log-determinants add up"

# %% [markdown]
# ## Backwards
#
# Let $\ell_b$ be the flow's log-determinant for image $b$, $z_b$ its latents, $p$ the base density, and $L$ the loss
# (not the number of levels) that `nll_backward` returns:
#
# $$
# L = -\frac{1}{B} \sum_{b=1}^{B} \big( \log p(z_b) + \ell_b \big) .
# \tag{11.2}
# $$
#
# So the derivative by each log-determinant, $\bar\ell_b$, is known before anything has been computed:
#
# $$
# \bar\ell_b = \frac{\partial L}{\partial \ell_b} = -\frac{1}{B} .
# \tag{11.3}
# $$
#
# Since $\ell_b$ is the sum of what all layers contribute, every layer meets the same number.

# %%
seen = session("""
    tbreak training_step
    continue
    tbreak minglow.AffineCoupling.backward
    tbreak minglow.ActNorm.backward
    continue
    p dlog_det.tolist()
    p len(cache)
    continue
    p dlog_det.tolist()
    p dy.shape
    p cache.shape
    up
    p type(layer).__name__, [type(kept).__name__ for kept in cache]
    down
    return
    p dshift.tolist()
    p self.grads["shift"].tolist()
    quit
""")


# %%
# checks (11.2) and (11.3): the written-out sum; differences of it; and what pdb printed
def loss(log_det):
    """(11.2) for N(0, I), with the log-determinants free to move."""
    log_prob = -0.5 * (z**2).sum(axis=1) - 0.5 * z.shape[1] * np.log(2 * np.pi)
    return -sum(log_prob[b] + log_det[b] for b in range(3)) / 3


flow.flat.grad[...] = 0
nll = flow.nll_backward(images).nll
assert np.isclose(nll, loss(all_log_det), rtol=1e-12)
slopes = [(loss(all_log_det + step) - loss(all_log_det - step)) / 2e-4 for step in 1e-4 * np.eye(3)]
print("slopes of the loss:", np.round(slopes, 6), " in pdb:", seen["p dlog_det.tolist()"])
assert np.allclose(slopes, -1 / 3) and np.allclose(ast.literal_eval(seen["p dlog_det.tolist()"]), -1 / 3)
assert np.allclose(ast.literal_eval(seen['p self.grads["shift"].tolist()']), layers[1].grads["shift"])

# %% [markdown]
# *What to see:* $-1/B$ in the coupling and, after it, in actnorm. `cache` in `ActNorm.backward` is one array, in the frame
# above it the list of all: `Chain.backward` takes it apart, `zip(reversed(self.layers), reversed(cache))`. At the
# end `grads["shift"]` equals `dshift`, because the program set all gradients to 0 first; layers *add*.

# %%
def calls(function, *arguments):
    """(depth, start, end, file, name) of every call of minglow's functions, counted in calls and returns."""
    package, open_calls, done, clock = str(Path(minglow.__file__).parent), [], [], [0]

    def watch(frame, event, _):
        code = frame.f_code
        if event in {"call", "return"} and code.co_filename.startswith(package):
            clock[0] += 1
            if event == "call":
                open_calls.append((clock[0], Path(code.co_filename).stem, code.co_name))
            else:
                start, file, name = open_calls.pop()
                done.append((len(open_calls), start, clock[0], file, name))
        return watch

    before = sys.gettrace()
    sys.settrace(watch)                              # what a debugger uses, too
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return done


with minglow.use("loops"):
    chart = calls(flow.nll_backward, images)
color = dict.fromkeys(("actnorm", "invconv", "coupling", "squeeze", "level"), 0) | dict.fromkeys(("net", "conv", "dense"), 1) | {"loops": 2}
figure, axis = plt.subplots(figsize=(9, 3.3))
for depth, start, end, file, name in chart:
    if name in {"forward", "backward", "nll_backward"} or file == "loops":
        shade = plots.COLORS[color[file]] if file in color else "0.75"
        axis.barh(depth, end - start, left=start, height=0.85, color=shade, edgecolor="white", linewidth=0.5)
        if end - start > 11:
            axis.text((start + end) / 2, depth, file, ha="center", va="center", fontsize=6.5, color="white" if file in color else "black")
for label, number in ("layers", 0), ("nets", 1), ("kernels", 2):
    axis.barh(0, 0, color=plots.COLORS[number], label=label)
axis.invert_yaxis()
axis.legend(loc="lower center", ncols=3, bbox_to_anchor=(0.5, 1.0))
axis.set(xlabel="calls and returns since the start", ylabel="depth of the call stack");

# %% [markdown]
# *What to see:* one training step as the debugger meets it, from left to right: `where` prints the bars above one
# point, and the small calls between them, which are left out here. The gray bar on top is `Flow.nll_backward`, the
# two wide ones below it are `Chain.forward` and `Chain.backward`: on the way back the layers come in the reverse order. The
# green tips are the kernels.
#
# ## A line, but only sometimes: conditional breakpoints
#
# A loop that runs thousands of times is no place to stop every time. A condition after a comma is asked each
# time, in the frame where it would stop. The kernel's inner line is found by its text, not by its number, which would
# change with the next edit.

# %%
def line_of(function, text):
    """file:line of the one line of a function that has this text in it."""
    lines, first = inspect.getsourcelines(function)
    (index,) = [number for number, line in enumerate(lines) if text in line]
    return f"{inspect.getsourcefile(function)}:{first + index}"


inner_line = line_of(kernels.loops.shift_scale, "y[n, c] =")
seen = session(f"""
    tbreak {inner_line}, n == 3 and c == 2
    continue
    p n, c
    p (x[n, c] + shift[c]) * scale[c]
    next
    p float(y[3, 2])
    quit
""")
assert seen["p n, c"] == "(3, 2)"

# %% [markdown]
# *What to see:* `n` and `c` are 3 and 2 at the first stop. (This one is a call by `initialize`: nothing kept us from it
# this time.) Useful conditions in flows: `not np.isfinite(x).all()`, `len(x) != 64`, `self.path.endswith("7")`.
#
# ## The same in NumPy; and why not in Numba
#
# Each kernel has two equivalent implementations: loops, and vectorized NumPy in
# [minglow/kernels/reference.py](../minglow/kernels/reference.py). With `minglow.use("numpy")` the debugger steps into
# the second. Here fewer stops show more: each line is a whole array.

# %%
seen = session("""
    tbreak training_step
    continue
    tbreak minglow.kernels.reference.couple
    continue
    p x.shape, shift.shape
    next
    p changing
    return
    p __return__[1].tolist()
    quit
""", "numpy")
assert np.allclose(ast.literal_eval(seen["p __return__[1].tolist()"]), layers[3].forward(outputs[3])[1])

# %% [markdown]
# The third backend, the default, is the text of the loops compiled by Numba into machine code. Python calls it as it
# calls any function written in C: there is no frame, no line and no variable in which a debugger could
# stand. The next cell asks Python itself which functions of `minglow/kernels/` it enters in one training step.

# %%
for backend in "loops", "numpy", "numba":
    with minglow.use(backend):
        flow.nll_backward(images)                    # so that nothing is left to compile
        entered = {(file, name) for _, _, _, file, name in calls(flow.nll_backward, images) if file in {"loops", "reference"}}
        print(f"{backend:6} kernels.couple is a {type(kernels.couple).__name__:14} Python enters {len(entered)} kernels")
    assert bool(entered) == (backend != "numba")

# %% [markdown]
# *What to see:* none with Numba: `step` goes over a compiled kernel as if it were one line. Two ways out:
#
# - `minglow.use("loops")` or `minglow.use("numpy")` at the top of your program: a line of your own. All
#   backends agree to rounding (`minglow.testing.check_backends`), so a fault is in all or in one, and that is a
#   finding.
# - `NUMBA_DISABLE_JIT=1 python -m pdb program.py`: Numba then compiles nothing in this process, not even
#   functions of yours, and minglow takes NumPy by default.

# %%
switched_off = os.environ | {"NUMBA_DISABLE_JIT": "1"}
asked = "from minglow import kernels; print(kernels.current_backend()); kernels.use('numba'); print(type(kernels.couple).__name__)"
answer = subprocess.run([sys.executable, "-c", asked], env=switched_off, capture_output=True, text=True, check=True).stdout.split()
print("by default:", answer[0], "  and 'numba' gives a Python", answer[1])
assert answer == ["numpy", "function"]

# %% [markdown]
# ### In an editor
#
# A clone of minglow has [.vscode/launch.json](../.vscode/launch.json): in VS Code, with its Python
# extension, *Run and Debug* offers "Step through a flow step" in plain loops and in NumPy, and "The test
# file that is open". Click left of a line number for a breakpoint, right-click it for a condition. `justMyCode` is off
# there, since otherwise the debugger steps over packages that are installed, as minglow may be.
#
# ## After the crash: post-mortem
#
# A learning rate too high, and one parameter has run away. What happens is typical: the error comes from
# a place where nothing is wrong.

# %%
CRASH = """
import sys
import numpy as np
from step_through import small_flow

flow, images = small_flow()
flow.bijection.layers[1].params["log_scale"][0] = 800.0   # exp(800) is more than a float64 can hold
with np.errstate(over=sys.argv[1], invalid=sys.argv[1]):  # what NumPy does then: ignore, warn or raise
    flow.nll_backward(images)
"""
crash = Path(folder.name) / "crash.py"
crash.write_text(CRASH, encoding="utf-8")


def last_words(how):
    """The last line that the crashing program writes."""
    done = subprocess.run([sys.executable, str(crash), how], capture_output=True, text=True, check=False)
    return done.stderr.splitlines()[-1]


print(last_words("ignore"))

# %% [markdown]
# A crash leaves its frames behind, with all their variables: the exception's *traceback* holds them. Looking
# around there is called post-mortem. `python -m pdb -c continue program.py` runs a program and stays at
# the place of its crash; in a notebook, `%debug` in the next cell does, after any error; in a program of your own,
# `pdb.post_mortem(error.__traceback__)`.

# %%
seen = session("""
    p name, result
    up
    p np.isfinite(x).all(), np.isfinite(z).all(), np.isfinite(log_det).all()
    p [bool(np.isfinite(kept).all()) for kept in cache[1:3]]
    p str(self.bijection.layers[1]), self.bijection.layers[1].params["log_scale"][0]
    quit
""", "ignore", options=("-c", "continue"), program=crash)
assert seen["p [bool(np.isfinite(kept).all()) for kept in cache[1:3]]"] == "[False, False]"

# %% [markdown]
# *What to see:* the error was raised in `Flow._finite`, which looks at results. One frame up, the images are
# finite and the latents are not; and since a crash keeps the caches, they say where it began: actnorm's,
# the first that holds an array, is already spoilt, and its input was a finite image. Go through `cache` from its
# beginning, and the first entry that is not finite names the layer.
#
# Better than any post-mortem is to stop at the birth. NumPy can raise an error at the operation that overflows:

# %%
print(last_words("raise"))
seen = session("""
    p self.path
    p log_scale
    quit
""", "raise", options=("-c", "continue"), program=crash)
assert "bijection.1" in seen["p self.path"] and "800" in seen["p log_scale"]

# %% [markdown]
# *What to see:* the same flow, the same images, but now the arrow is on the line of the exponential, in the layer, with its
# argument at hand. `self.path` names the layer's place in the flow. `errstate` governs NumPy's own functions, as this
# exponential is one, and not machine code by Numba: to have the kernels watched, too, choose `minglow.use("numpy")`. Leave `under` out of such an `errstate`: a tiny
# number that becomes 0 does no harm here.

# %% [markdown]
# **Exercise 11.3: what reading does not show** (1 point). A colleague writes actnorm's backward anew. Every
# line is the formula of notebook 4. Nevertheless `dlog_scale` is wrong, and only that:

# %%
class Careless(minglow.ActNorm):
    """ActNorm with another backward."""

    def backward(self, dy, dlog_det, cache):
        y = cache
        scale = np.exp(self.log_scale())
        dx = dy
        dx *= scale
        dshift = rows(dx).sum(axis=0)
        dlog_scale = (rows(dy) * rows(y)).sum(axis=0) + dlog_det.sum() * pixels(y)
        self.grads["shift"] += dshift
        self.grads["log_scale"] += dlog_scale
        return dx


twins = Careless(4, np.float64), minglow.ActNorm(4, np.float64)
dy = np.random.default_rng(0).standard_normal((3, 2, 2, 4))
for twin in twins:
    twin.params["log_scale"][...] = layers[2].params["weight"][0]
    twin.dx = twin.backward(dy.copy(), np.full(3, -1 / 3), outputs[2])
print("dx        the same as the library's:", np.allclose(twins[0].dx, twins[1].dx))
for name in "shift", "log_scale":
    same = np.allclose(twins[0].grads[name], twins[1].grads[name])
    print(f"{name:9} the same as the library's: {same}")
    assert same == (name == "shift")

# %% [markdown]
# Step through it, on your command line or with `breakpoint()` as the first line of `backward`, and print all variables after
# each line. Put into `culprit` the name of the variable whose value changes although no line assigns to that name.

# %% solution="culprit"
### BEGIN SOLUTION
culprit = "dy"                                       # dx = dy is a second name for the same array; *= writes into it
### END SOLUTION

# %% test="culprit" points=1
arguments = {"dy": np.ones((2, 2, 2, 4)), "dlog_det": np.ones(2), "cache": np.full((2, 2, 2, 4), 3.0)}
before = {name: argument.copy() for name, argument in arguments.items()}
suspect = Careless(4, np.float64)
suspect.params["log_scale"][...] = 0.5
suspect.backward(**arguments)
changed = [name for name in arguments if not np.array_equal(arguments[name], before[name])]
assert culprit in changed, f"{culprit!r} is as it was: compare each argument before and after"

# %% [markdown]
# **Exercise 11.4: the repair** (2 points). Write `repaired_backward`, actnorm's backward again, which leaves what it is
# handed as it was.

# %% solution="repaired"
def repaired_backward(self, dy, dlog_det, cache):
    """ActNorm's backward: add to self.grads, and return dx."""
    ### BEGIN SOLUTION
    y = cache
    scale = np.exp(self.log_scale())
    dx = dy * scale
    self.grads["shift"] += rows(dx).sum(axis=0)
    self.grads["log_scale"] += (rows(dy) * rows(y)).sum(axis=0) + dlog_det.sum() * pixels(y)
    return dx
    ### END SOLUTION


# %% test="repaired" points=2
Repaired = type("Repaired", (minglow.ActNorm,), {"backward": repaired_backward})
assert repaired_backward(Repaired(2, np.float64), np.ones((1, 2)), np.ones(1), np.ones((1, 2))) is not None, "return dx"
check_layer(Repaired(4))

# %% [markdown]
# **Exercise 11.5: a debugger of your own** (2 points). Write `trace(flow, x)`: a list of (name, shape), one for
# each layer of `flow.bijection.layers`, in the order of the forward pass: the name of the layer's class, and the shape of
# its output. It should leave the flow as it was.

# %% solution="trace"
def trace(flow, x):
    """[(class name, shape of the output), ...] along the forward pass of a Chain."""
    ### BEGIN SOLUTION
    met = []
    for layer in flow.bijection.layers:
        x, _, _ = layer.forward(x)
        met.append((type(layer).__name__, x.shape))
    return met
    ### END SOLUTION


# %% test="trace" points=2
deeper = minglow.glow((4, 6, 2), levels=1, flow_steps=2, hidden=4, rng=0, dtype=np.float64)
vectors = minglow.glow((4,), flow_steps=3, hidden=4, rng=0, dtype=np.float64)
for tested, batch in (deeper, np.full((5, 4, 6, 2), 0.1)), (vectors, np.full((7, 4), 0.1)):
    weights = tested.flat.value.copy()
    steps = trace(tested, batch)
    assert steps, "an empty answer"
    classes = [type(layer).__name__ for layer in tested.bijection.layers]
    assert [name for name, _ in steps] == classes, f"one pair for each layer: {', '.join(classes)}"
    assert tuple(steps[-1][1]) == tested.latents(batch).shape, "the last output is the latents"
    assert np.array_equal(weights, tested.flat.value), "the flow has been changed"
    for (_, shape), following in zip(steps, tested.bijection.layers[1:]):
        following.forward(np.full(shape, 0.1))       # each output is an input that the next layer takes
assert tuple(trace(deeper, np.full((5, 4, 6, 2), 0.1))[0][1]) == (5, 2, 3, 8)

# %% [markdown]
# ## To take away
#
# - Say the shape and the value first, then look: a debugger answers questions, it does not ask them.
# - `break minglow.ActNorm.backward`, `where`, `up`: every derivative is a line with a caller, and the caches are an
#   ordinary list in `Chain`'s frame. `dlog_det` is $-1/B$ in every layer.
# - Compiled code has no lines to stand on: `minglow.use("loops")`, `minglow.use("numpy")`, or
#   `NUMBA_DISABLE_JIT=1`.
# - A NaN is found far from where it was born: the caches lead back to it, and `np.errstate(over="raise")` stops at
#   the line itself.
#
# Next: [12. From NumPy to fast](12_from_numpy_to_fast.ipynb).
