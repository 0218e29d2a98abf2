"""How many threads the matrix products use. Floor 1.

The products are the linear algebra library's (BLAS), which takes every core unless OMP_NUM_THREADS
or a variable of its own says otherwise; Numba's kernels are serial, and so never compete with it.
"""

from __future__ import annotations

from types import TracebackType

from threadpoolctl import threadpool_limits


class threads:
    """Use n threads for matrix products: `minglow.threads(1)`.

    It holds from then on; `with minglow.threads(1): ...` holds until the end of the block. One
    thread is the better choice for small flows where other processes want the cores: threads wait
    for each other at the end of every product. Raises ValueError unless n is a whole number of at
    least 1.
    """

    def __init__(self, n: int) -> None:
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ValueError(f"expected a number of threads of at least 1, got {n!r}")
        self.limits = threadpool_limits(n, user_api="blas")

    def __enter__(self) -> threads:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.limits.restore_original_limits()
