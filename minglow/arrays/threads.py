"""The number of threads for matrix products, which BLAS computes. Numba's kernels are serial."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import repeat
from reprlib import repr as shortened
from typing import Any

from threadpoolctl import ThreadpoolController

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
             "VECLIB_MAXIMUM_THREADS")
MAX_THREADS = 4096
# Below this many multiplications, one thread is faster: two threads wait for each other at the end of
# every product, which takes longer than a small product. They wait far longer if another process uses
# one of their cores.
SMALL = 2**25


class threads:
    """Use n threads for matrix products: `minglow.threads(1)`.

    The setting lasts until the next one; `with minglow.threads(1): ...` restores the previous one at the
    end. By default large flows use all cores and small flows one, unless a variable such as
    OMP_NUM_THREADS sets the number. Raises ValueError unless n is a whole number from 1 to 4096.
    """

    chosen: int | None = None  # the setting in force

    def __init__(self, n: int) -> None:
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MAX_THREADS:
            raise ValueError(f"expected a number of threads from 1 to {MAX_THREADS}, got {shortened(n)}")
        self.previous = threads.chosen, _set_threads(repeat(n))
        threads.chosen = n

    def __enter__(self) -> threads:
        return self

    def __exit__(self, *error: object) -> None:
        threads.chosen, numbers = self.previous
        _set_threads(numbers)


@contextmanager
def threads_for_products(multiplications: int) -> Iterator[None]:
    """Within the block, use one thread if the largest product has fewer than SMALL multiplications."""
    if multiplications >= SMALL or threads.chosen or any(map(os.environ.get, VARIABLES)):
        yield
        return
    numbers = _set_threads(repeat(1))
    try:
        yield
    finally:
        _set_threads(numbers)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def libraries() -> list[Any]:
    """The linear algebra libraries that are loaded at the first call, among them NumPy's."""
    return ThreadpoolController().select(user_api="blas").lib_controllers


def _set_threads(numbers: Iterable[int]) -> list[int]:
    """Set the number of threads of each library; return the previous ones."""
    previous = [library.num_threads for library in libraries()]
    for library, number in zip(libraries(), numbers):
        library.set_num_threads(number)
    return previous
