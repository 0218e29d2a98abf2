"""Both implementations of every kernel, all backends, and the choice of one."""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minglow
from minglow import kernels
from minglow.kernels import loops, reference

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 4)


def arguments(name, rng, b, h, w, c, dtype):
    """Arguments of a kernel, of the magnitude that flows use."""

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    def positive(*shape):
        return np.exp(normal(*shape))

    rows, pixels, joined, size = (b * h * w, c), (b, h * w, c), (b, h * w, 2 * c), 2 * (b % 3) + 1
    return {
        "gather": lambda: (normal(b, h, w, c), size),
        "scatter": lambda: (normal(b * h * w, size * size * c), size, h, w),
        "shift_scale": lambda: (normal(*rows), normal(c), positive(c)),
        "shift_scale_backward": lambda: (normal(*rows), normal(*rows), positive(c)),
        "shift_scale_relu": lambda: (normal(*rows), normal(c), positive(c)),
        "shift_scale_relu_backward": lambda: (normal(*rows), np.maximum(normal(*rows), 0), positive(c)),
        "couple": lambda: (normal(*joined), normal(*pixels), positive(*pixels), normal(*pixels)),
        "couple_inverse": lambda: (normal(*joined), normal(*pixels), positive(*pixels)),
        "couple_backward": lambda: (
            normal(*joined), normal(*joined), positive(*pixels), normal(*pixels), normal(b)),
        "adam": lambda: (normal(c), normal(c), normal(c), positive(c), 1e-2, 0.9, 0.99, 1e-8),
        "adamax": lambda: (normal(c), normal(c), normal(c), positive(c), 1e-2, 0.9, 0.99, 1e-8),
        "move_towards": lambda: (normal(c), normal(c), 0.01),
    }[name]()


def run(function, args):
    """Results of a kernel, and its arrays afterwards: some kernels write in place."""
    args = [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in args]
    results = function(*args)
    results = results if isinstance(results, tuple) else (results,)
    return [array for array in (*results, *args) if isinstance(array, np.ndarray)]


@pytest.mark.parametrize("name", kernels.NAMES)
@pytest.mark.parametrize("backend", ["loops", "numba"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@given(seed=seeds, b=sizes, h=sizes, w=sizes, c=sizes)
def test_every_backend_agrees_with_the_reference(name, backend, dtype, tolerance, seed, b, h, w, c):
    args = arguments(name, np.random.default_rng(seed), b, h, w, c, dtype)
    with minglow.use(backend):
        found = run(getattr(kernels, name), args)
    for array, expected in zip(found, run(getattr(reference, name), args)):
        assert array.dtype == expected.dtype == dtype
        scale = 1 + np.abs(expected).max(initial=0)  # 1, since log(scale) near 0 is rounded as 1 is
        np.testing.assert_allclose(array, expected, rtol=tolerance, atol=tolerance * scale)


def test_the_two_implementations_have_the_same_functions_and_arguments():
    def signatures(module):
        return {
            name: list(inspect.signature(function).parameters)
            for name, function in vars(module).items()
            if inspect.isfunction(function) and not name.startswith("_")
        }

    assert signatures(loops) == signatures(reference)
    assert set(kernels.NAMES) == set(signatures(loops))


def test_editors_find_the_same_functions():
    """The names imported for type checkers are those that `use` binds."""
    body = ast.parse(Path(kernels.__file__).read_text(encoding="utf-8")).body
    static = next(node for node in body if isinstance(node, ast.If))
    assert ast.unparse(static.test) == "TYPE_CHECKING"
    assert ast.unparse(static.body) == "from minglow.kernels.reference import *"
    found = {name for name, value in vars(reference).items() if inspect.isfunction(value)}
    assert {name for name in found if not name.startswith("_")} == set(kernels.NAMES)


def test_scatter_is_the_transpose_of_gather():
    rng = np.random.default_rng(0)
    x, patches = rng.standard_normal((2, 3, 4, 2)), rng.standard_normal((24, 18))
    left = np.sum(reference.gather(x, 3) * patches)
    right = np.sum(x * reference.scatter(patches, 3, 3, 4))
    np.testing.assert_allclose(left, right, rtol=1e-12)


def test_use_lasts_until_the_next_choice_or_the_end_of_a_block():
    before = kernels.current_backend()
    with minglow.use("numpy"):
        assert kernels.gather is reference.gather
        with minglow.use("loops"):
            assert kernels.gather is loops.gather
        assert kernels.gather is reference.gather
    assert kernels.current_backend() == before
    choice = minglow.use("loops")
    assert kernels.current_backend() == "loops"
    choice.__exit__(None, None, None)


def test_an_unknown_backend_is_named_and_changes_nothing():
    before = kernels.current_backend()
    with pytest.raises(ValueError, match="among numpy, loops, numba, cupy, got 'torch'"):
        minglow.use("torch")
    assert kernels.current_backend() == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_scale_without_a_floor_is_exact_where_the_sigmoid_underflows(dtype):
    s = np.array([-2000, -110, -100, -20, -2, 0, 3, 50], dtype)
    log_scale, dlog_scale_ds = minglow.sigmoid_scale(s, floor=0.0)
    t = s.astype(np.longdouble) + 2
    np.testing.assert_allclose(log_scale, -np.logaddexp(0, -t), rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(dlog_scale_ds, np.exp(-np.logaddexp(0, t)), rtol=20 * np.finfo(dtype).eps)
    assert log_scale.dtype == dlog_scale_ds.dtype == dtype


def test_sigmoid_scale_stays_above_its_floor_and_finite():
    s = np.array([[[-1e4, -100.0, -14, 0, 14, 1e4]]])
    log_scale, dlog_scale_ds = minglow.sigmoid_scale(s, 1e-3)
    scale = np.exp(log_scale)
    assert np.all(scale >= 1e-3 * (1 - 1e-12)) and np.all(scale <= 1)
    assert np.all(np.isfinite(dlog_scale_ds))
    np.testing.assert_allclose(scale[0, 0, 3], 1e-3 + 0.999 / (1 + np.exp(-2)), rtol=1e-14)


def test_with_the_floor_float32_is_inverted_at_every_scale():
    s = np.linspace(-40, 40, 801, dtype=np.float32)[None, :, None]
    log_scale, _ = minglow.sigmoid_scale(s)
    scale, shift = np.exp(log_scale), np.full_like(s, 0.25)
    x = np.full_like(s, 0.3, shape=(1, 801, 2))
    y, _ = reference.couple(x, shift, scale, log_scale)
    y = (y + 1) - 1  # rounded, as by the layers after it
    assert np.max(np.abs(reference.couple_inverse(y, shift, scale) - x)) <= 1e-4
    bare, _ = minglow.sigmoid_scale(s, floor=0.0)
    y, _ = reference.couple(x, shift, np.exp(bare), bare)
    assert np.max(np.abs(reference.couple_inverse((y + 1) - 1, shift, np.exp(bare)) - x)) > 0.1


def python(code, **environment):
    """Run code in a fresh interpreter; return what it printed."""
    environment = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=True, text=True,
                          capture_output=True).stdout.strip()


def test_importing_compiles_nothing_and_leaves_heavy_packages_alone():
    code = "import sys, minglow; print({'numba', 'matplotlib', 'tqdm', 'torch'} & set(sys.modules))"
    assert python(code) == "set()"


def test_without_the_compiler_numpy_is_the_default():
    code = "from minglow import kernels; print(kernels.current_backend())"
    assert python(code, NUMBA_DISABLE_JIT="1") == "numpy"


def test_compiled_kernels_need_no_folder_to_cache_in():
    """Numba refuses to cache where no folder is writable; the kernels are compiled nevertheless."""
    code = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "import numpy as np\nfrom minglow import kernels\n"
        "print(kernels.shift_scale(np.ones((1, 1)), np.ones(1), np.ones(1))[0, 0])"
    )
    assert python(code) == "2.0"
