"""The hot loops, and the choice of who runs them.

Floor 1. Two texts, four backends:

    "numpy"  reference.py, vectorised NumPy
    "loops"  loops.py as it stands: slow, for stepping through in a debugger
    "numba"  loops.py compiled by Numba when first called, cached on disk (the default)
    "cupy"   reference.py again, on a GPU: CuPy's arrays answer NumPy's functions (device.py)

Layers call `kernels.couple(...)` and the like through this module, never through names
imported from it, so that `use` changes the kernels of every layer at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from minglow import device
from minglow.kernels import loops, reference
from minglow.memory import keep_freed_memory

NAMES = (
    "gather", "scatter", "shift_scale", "shift_scale_backward", "shift_scale_relu",
    "shift_scale_relu_backward", "couple", "couple_inverse", "couple_backward", "adam", "adamax",
    "move_towards",
)
HOST = "numpy", "loops", "numba"  # those that run on the CPU
BACKENDS = (*HOST, "cupy")


class use:
    """Choose who runs the kernels: "numpy", "loops", "numba" or, on a GPU, "cupy".

    `minglow.use("loops")` holds from then on; `with minglow.use("loops"): ...` holds until the
    end of the block. Raises ValueError for another name, ImportError where Numba is missing, or, for
    "cupy", CuPy, a driver or a GPU. `minglow.to_device` moves flows and arrays to the GPU.
    """

    def __init__(self, backend: str) -> None:
        self.before = current()
        _bind(backend)

    def __enter__(self) -> use:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        _bind(self.before)


def current() -> str:
    """The backend in use."""
    return _backend or _default()


def _default() -> str:
    disabled = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
    return "numba" if find_spec("numba") and not disabled else "numpy"


def _bind(backend: str) -> None:
    global _backend  # noqa: PLW0603  the one choice that the whole process shares
    if backend not in BACKENDS:
        raise ValueError(f"expected a backend among {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "cupy":
        device.cupy()  # says what is missing
    if _backend is None:
        keep_freed_memory()
    for name in NAMES:
        if backend == "numba":
            globals()[name] = _compiled(name)
        else:
            globals()[name] = getattr(loops if backend == "loops" else reference, name)
    _backend = backend


def _compiled(name: str) -> Callable[..., Any]:
    """loops.<name>, to be compiled when first called with each combination of types."""
    if name not in _dispatchers:
        import numba  # noqa: PLC0415  here, since it takes longer to import than all of minglow

        config: Any = numba.config
        function, chosen = getattr(loops, name), config.CACHE_DIR
        config.CACHE_DIR = chosen or str(_cache_folder())
        try:
            _dispatchers[name] = numba.njit(function, cache=True, error_model="numpy")
        except RuntimeError:  # no folder that its cache could be written to
            _dispatchers[name] = numba.njit(function, error_model="numpy")
        finally:
            config.CACHE_DIR = chosen
    return _dispatchers[name]


def _cache_folder() -> Path:
    """The user's folder for caches.

    Numba's own choice is beside the source, where an uninstalled package would leave files behind
    that Python takes for a package. NUMBA_CACHE_DIR comes first.
    """
    parent = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
    return Path(os.path.expanduser(parent)) / "minglow"


_backend: str | None = None
_dispatchers: dict[str, Callable[..., Any]] = {}


def __getattr__(name: str) -> Any:
    """Bind the default backend when a kernel is first asked for, not on import."""
    if name not in NAMES or _backend is not None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _bind(_default())
    return globals()[name]
