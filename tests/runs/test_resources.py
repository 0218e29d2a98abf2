"""Threads, memory and repeated work: a step takes no more than it needs."""

import os
import platform
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import minglow as mg
from minglow.arrays import threads
from minglow.cli.main import main
from minglow.testing import perturbed
from minglow.training.optimizers import Adam

X = np.random.default_rng(0).uniform(-0.5, 0.5, (64, 8, 8, 1)).astype(np.float32)


def blas_threads():
    """The numbers of threads of NumPy's library; SciPy, say, may bring another later."""
    ours = {library.filepath for library in threads.libraries()}
    return {pool["num_threads"] for pool in threadpool_info() if pool["filepath"] in ours}


def test_threads_hold_for_a_block_or_from_then_on():
    before = blas_threads()
    with mg.threads(1):
        assert blas_threads() == {1}
        with mg.threads(2):
            assert blas_threads() == {2}
        assert blas_threads() == {1}
    assert blas_threads() == before
    choice = mg.threads(1)
    assert blas_threads() == {1}
    choice.__exit__(None, None, None)
    assert blas_threads() == before


def observed_threads(flow, call, monkeypatch):
    """The numbers of threads under which a flow's layers run."""
    met, layer = set(), flow.bijection.steps.layers[1]
    for name in "forward", "inverse":
        method = getattr(type(layer), name)
        monkeypatch.setattr(layer, name, lambda x, method=method: (
            met.add(*blas_threads()), method(layer, x))[1])
    call()
    return met


@pytest.mark.parametrize("use", [
    lambda flow, n: flow.log_prob(X[:n]), lambda flow, n: flow.sample(n, 0),
    lambda flow, n: flow.nll_backward(X[:n])])
def test_small_products_use_one_thread_unless_the_user_chooses(use, monkeypatch):
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads.threads, "chosen", None)
    flow = mg.glow((8, 8, 1), levels=2, flow_steps=1, hidden=64, rng=0)
    for library in threads.libraries():
        library.set_num_threads(2)
    before = blas_threads()
    assert observed_threads(flow, lambda: use(flow, 16), monkeypatch) == {1}
    assert blas_threads() == before
    monkeypatch.setattr(threads, "SMALL", 16 * 64 * flow.largest)
    assert observed_threads(flow, lambda: use(flow, 16), monkeypatch) == before
    assert observed_threads(flow, lambda: use(flow, 15), monkeypatch) == {1}
    with mg.threads(2):
        assert observed_threads(flow, lambda: use(flow, 1), monkeypatch) == {2}
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert observed_threads(flow, lambda: use(flow, 1), monkeypatch) == before


def test_threads_return_where_a_flow_raises(monkeypatch):
    monkeypatch.setattr(threads.threads, "chosen", None)
    before = blas_threads()
    flow = mg.glow((8, 8, 1), levels=2, flow_steps=1, hidden=4, rng=0)
    flow.flat.value[...] = np.inf
    with np.errstate(all="ignore"), pytest.raises((FloatingPointError, mg.SingularWeightError)):
        flow.nll_backward(X[:2])
    assert blas_threads() == before


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", None, True])
def test_a_number_of_threads_is_a_whole_one(n):
    with pytest.raises(ValueError, match="number of threads from 1 to 4096, got"):
        mg.threads(n)


def test_the_command_line_sets_threads(tmp_path):
    arguments = ["train", "--threads", "1", "--steps", "1", "-K", "1", "--hidden", "2",
                 "--batch-size", "2"]
    with mg.threads(2):
        assert main([*arguments, "--runs", str(tmp_path)]) == 0
        assert blas_threads() == {1}


# Prints how many pages the system had to clear while 20 arrays of 8 MiB came and went.
FAULTS = """
import resource
import numpy as np
from minglow import kernels
kernels.use("numpy")
def work():
    for _ in range(20):
        np.ones(2**21, np.float32)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no such setting")
def test_freed_memory_is_kept_unless_the_user_chooses():
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}

    def faults(**environment):
        environment = {**clean, **environment}
        return int(subprocess.run([sys.executable, "-c", FAULTS], env=environment, text=True,
                                  check=True, capture_output=True).stdout)

    assert faults() < 100
    # 4 KiB pages, or now and then 2 MiB ones
    assert faults(MALLOC_MMAP_THRESHOLD_="131072", MALLOC_TRIM_THRESHOLD_="131072") >= 60


# Prints the memory that a flow has added to the process, as a multiple of its parameters'.
BUILT = """
from pathlib import Path
import minglow
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
minglow.kernels.use("numpy")
minglow.glow((8, 8, 1), levels=1, flow_steps=1, hidden=4)
before = resident()
flow = minglow.glow((32, 32, 3), levels=3, flow_steps=3, hidden=512)
print((resident() - before) / flow.flat.value.nbytes)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no such setting")
def test_temporary_memory_of_building_a_flow_is_freed():
    """Parameters and gradients remain: 2. The arrays that they replace, and random numbers, do not."""
    shown = subprocess.run([sys.executable, "-c", BUILT], text=True, check=True, capture_output=True)
    assert 1 < float(shown.stdout) < 2.6


def deep(steps, **options):
    flow = mg.glow((8, 8, 1), levels=2, flow_steps=steps, hidden=16, rng=0, **options)
    return perturbed(flow, 0, 0.02)


def peak(call):
    """Bytes that NumPy's arrays take at most during a call, the second of two."""
    with mg.use("numpy"):  # whose arrays are all traced
        call()
        tracemalloc.start()
        call()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


@pytest.mark.parametrize("use", [
    lambda flow: flow.log_prob(X), lambda flow: flow.sample(64, 0), lambda flow: flow.latents(X),
    lambda flow: flow.reconstruction_error(X)])
def test_calls_without_gradients_store_no_cache(use):
    shallow, tall = deep(2), deep(8)
    assert peak(lambda: use(tall)) < 1.1 * peak(lambda: use(shallow))


def test_memory_of_a_step_grows_with_depth_unless_the_flow_is_reversible():
    def step(flow):
        return peak(lambda: flow.nll_backward(X))

    assert step(deep(8)) > 2.5 * step(deep(2))
    assert step(deep(8, reversible=True)) < 1.1 * step(deep(3, reversible=True))
    assert step(deep(8, reversible=True)) < 0.6 * step(deep(8))


@pytest.mark.parametrize("reversible", [False, True])
@pytest.mark.parametrize("permutation", [mg.InvConv1x1, mg.InvConv1x1LU])
def test_a_step_inverts_each_weight_once(reversible, permutation, monkeypatch):
    flow = deep(3, reversible=reversible, permutation=permutation)
    optimizer, counts = Adam(flow.flat), {"inv": 0, "slogdet": 0}

    def counting(name, function):
        def counted(matrix):
            counts[name] += 1
            return function(matrix)
        return counted

    for name in counts:
        monkeypatch.setattr(np.linalg, name, counting(name, getattr(np.linalg, name)))
    for _ in range(2):
        counts.update(inv=0, slogdet=0)
        flow.nll_backward(X)
        direct = permutation is mg.InvConv1x1
        recomputed = 2 * (3 - 2) if reversible else 0  # layers of both levels without caches
        assert counts == {"inv": 6 if direct else recomputed, "slogdet": 6 if direct else 0}
        optimizer.step(1e-2)


def test_a_weights_cached_inverse_follows_its_changes():
    layer, x = mg.InvConv1x1(4, 0, np.float64), np.ones((2, 3, 4))
    before = layer.forward(x), layer.inverse(x)
    np.testing.assert_array_equal(layer.forward(x)[1], before[0][1])
    layer.params["weight"][...] *= 2
    np.testing.assert_allclose(layer.forward(x)[1], before[0][1] + 3 * 4 * np.log(2), rtol=1e-12)
    np.testing.assert_allclose(layer.inverse(x)[0], before[1][0] / 2, rtol=1e-12)
    weight = perturbed(layer, size=0, dtype=np.float32).params["weight"]
    assert weight.dtype == np.float32
