"""How many threads the matrix products use. Floor 1.

The products are the linear algebra library's (BLAS). Numba's kernels are serial, and so never compete
with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from reprlib import repr as shortened
from types import TracebackType
from typing import Any

from threadpoolctl import ThreadpoolController

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
             "VECLIB_MAXIMUM_THREADS")
MOST = 4096


class threads:
    """Use n threads for matrix products: `minglow.threads(1)`.

    It holds from then on; `with minglow.threads(1): ...` holds until the end of the block.
    Otherwise large flows take every core, and small ones, whose products end before a second thread
    has its share of the numbers, take one; a variable such as OMP_NUM_THREADS decides for both.
    Raises ValueError unless n is a whole number from 1 to MOST.
    """

    chosen: int | None = None  # by the last one that holds

    def __init__(self, n: int) -> None:
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MOST:
            raise ValueError(f"expected a number of threads from 1 to {MOST}, got {shortened(n)}")
        self.before = threads.chosen, [library.num_threads for library in libraries()]
        threads.chosen = n
        for library in libraries():
            library.set_num_threads(n)

    def __enter__(self) -> threads:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        threads.chosen, numbers = self.before
        for library, number in zip(libraries(), numbers):
            library.set_num_threads(number)


@contextmanager
def for_products_of(multiplications: int) -> Iterator[None]:
    """Within the block, one thread if a flow's largest product has few multiplications.

    The cores of a machine hand a product's halves to each other at the end of each, which takes
    longer than the product itself where it is small, and far longer where another process has
    taken one of them.
    """
    if multiplications >= SMALL or threads.chosen or any(map(os.environ.get, VARIABLES)):
        yield
        return
    numbers = [library.num_threads for library in libraries()]
    for library in libraries():
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, number in zip(libraries(), numbers):
            library.set_num_threads(number)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


SMALL = 2**25


@cache
def libraries() -> list[Any]:
    """The linear algebra libraries that are loaded when this is first called: NumPy's is."""
    return ThreadpoolController().select(user_api="blas").lib_controllers
