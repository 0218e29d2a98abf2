"""Arrays and modules on a GPU, and back. Floor 1.

CuPy's arrays answer NumPy's own functions, so that the layers are the same on either side. What
differs: a device computes later than it is asked to, and whoever looks at a number waits for it. So

- nothing moves by itself: `to_device` and `to_host` are the only ways in and out, and an operation
  that is given arrays of both sides raises;
- a step of training looks once (train.py). Checks that would have to look at every layer are left
  out on a device (`on_host`); what they would have found is found at that one look.

CuPy is imported when it is first asked for, never before.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from minglow.bijection import Module
from minglow.params import FlatParams

T = TypeVar("T")


def cupy() -> Any:
    """CuPy, where it can compute. Raises ImportError that says what is missing."""
    try:
        import cupy as library  # noqa: PLC0415  takes a second, and is only there where it was asked for
    except ImportError as error:
        raise ImportError("expected CuPy for the backend cupy (pip install 'minglow[gpu-cuda12x]', or "
                          f"'minglow[gpu-cuda13x]' for a driver of CUDA 13): {error}") from None
    runtime = library.cuda.runtime
    try:
        runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        missing = "a GPU" if "NoDevice" in str(error) else "an NVIDIA GPU's driver, new enough,"
        raise ImportError(f"expected {missing} for the backend cupy: {error}") from None
    return library


def select(number: int) -> None:
    """Use a GPU of this machine from now on: for processes that share it, each its own, in turn."""
    cuda = cupy().cuda
    cuda.Device(number % cuda.runtime.getDeviceCount()).use()


def on_host(value: Any) -> bool:
    """Whether a number or an array is the host's, and can be looked at without waiting."""
    return not hasattr(value, "__cuda_array_interface__")


def to_device(thing: T) -> T:
    """An array's copy on the GPU; or a flow, a layer or a dequantizer itself, its parameters moved.

    Move before training: an optimizer keeps the vectors that it was made for. Raises ImportError
    where there is no CuPy, driver or GPU.
    """
    return _moved(thing, cupy().asarray)


def to_host(thing: T) -> T:
    """The reverse of `to_device`: waits until the device has computed what is asked for.

    What is on the host already is returned as it is.
    """
    return _moved(thing, _fetched)


def beside(array: Any, other: Any) -> Any:
    """A host's array where the other is: as it is, or its copy on the device."""
    return np.asarray(array, like=other)


def all_finite(array: Any) -> bool:
    """Whether no number is NaN or inf; waits for a device."""
    return bool(to_host(np.isfinite(array).all()))


def _fetched(array: Any) -> Any:
    return array if on_host(array) else array.get()


def _moved(thing: Any, move: Any) -> Any:
    if not isinstance(thing, Module):
        return move(thing)
    modules = [module for _, module in thing.walk()]
    for module in modules:
        for arrays in module.params, module.grads, module.constants:
            for name in arrays:
                arrays[name] = move(arrays[name])
    for module in modules:
        if isinstance(getattr(module, "flat", None), FlatParams):
            module.flat = FlatParams(module)  # type: ignore[attr-defined]
    return thing
