"""Kernels: the functions that take most of the time, and the choice of a backend for them.

Each kernel has two equivalent implementations, in reference.py and in loops.py. Four backends run them:

    "numpy"  reference.py, vectorized NumPy
    "loops"  loops.py in plain Python: slow, for stepping through in a debugger
    "numba"  loops.py, compiled by Numba at the first call and cached on disk (the default)
    "cupy"   reference.py on a GPU: CuPy's arrays accept NumPy's functions

Layers call `kernels.couple(...)` and import no kernel by name, so that `use` changes all layers at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minglow.arrays import device
from minglow.arrays.memory import keep_freed_memory
from minglow.kernels import loops, reference

if TYPE_CHECKING:  # where editors and type checkers find the kernels; at run time `use` binds them
    from minglow.kernels.reference import *  # noqa: F403

NAMES = tuple(reference.__all__)
for _name in NAMES:
    getattr(loops, _name).__doc__ = getattr(reference, _name).__doc__
HOST = "numpy", "loops", "numba"  # those that run on the CPU
BACKENDS = (*HOST, "cupy")


def use(backend: str) -> ExitStack:
    """Choose the backend of the kernels: "numpy", "loops", "numba" or, on a GPU, "cupy".

    `minglow.use("loops")` lasts until the next choice; `with minglow.use("loops"): ...` lasts until the
    end of the block. Raises ValueError for another name, and ImportError where Numba is missing, or, for
    "cupy", CuPy, a driver or a GPU. `minglow.to_device` moves flows and arrays to the GPU.
    """

    before, end_of_block = current_backend(), ExitStack()
    _bind(backend)
    end_of_block.callback(_bind, before)
    return end_of_block


def current_backend() -> str:
    """The name of the backend in use."""
    return _backend or _default()


def _default() -> str:
    disabled = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
    return "numba" if find_spec("numba") and not disabled else "numpy"


def _bind(backend: str) -> None:
    global _backend  # noqa: PLW0603  the choice for all of this process
    if backend not in BACKENDS:
        raise ValueError(f"expected a backend among {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "cupy":
        device.cupy()  # raises ImportError where something is missing
    if _backend is None:
        keep_freed_memory()
    source = loops if backend == "loops" else reference
    for name in NAMES:
        globals()[name] = _compiled(name) if backend == "numba" else getattr(source, name)
    _backend = backend


def _compiled(name: str) -> Callable[..., Any]:
    """loops.<name>, which Numba compiles at the first call with each combination of types."""
    if name not in _dispatchers:
        import numba  # noqa: PLC0415  takes longer to import than all of minglow

        config: Any = numba.config
        function, chosen = getattr(loops, name), config.CACHE_DIR
        config.CACHE_DIR = chosen or str(_cache_folder())
        try:
            _dispatchers[name] = numba.njit(function, cache=True, error_model="numpy")
        except RuntimeError:  # no folder is writable for its cache
            _dispatchers[name] = numba.njit(function, error_model="numpy")
        finally:
            config.CACHE_DIR = chosen
    return _dispatchers[name]


def _cache_folder() -> Path:
    """The folder for compiled kernels, among the user's caches; NUMBA_CACHE_DIR takes precedence.

    Numba's default is beside the source. Files left there after uninstalling would look like a package.
    """
    parent = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
    return Path(os.path.expanduser(parent)) / "minglow"


_backend: str | None = None
_dispatchers: dict[str, Callable[..., Any]] = {}


def __getattr__(name: str) -> Any:
    """Bind the default backend at the first access to a kernel, not on import."""
    if name not in NAMES or _backend is not None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _bind(_default())
    return globals()[name]
