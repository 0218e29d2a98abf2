"""Move arrays and modules to a GPU and back.

CuPy's arrays implement NumPy's functions, so that the same layers run on the host and on a device. GPU
work is asynchronous; reading a value blocks until it is ready. Therefore only `to_device` and `to_host`
move data, an operation on arrays of both sides raises, and a training step reads one value
(training/loop.py). Layers skip checks of values on a device (`on_host`); that one read finds the same
faults. CuPy is imported on first use.
"""

from typing import Any, TypeVar

import numpy as np

from minglow.bijection import Module
from minglow.params import FlatParams

T = TypeVar("T")


def cupy() -> Any:
    """The CuPy module. Raises ImportError if the library, a driver or a GPU is missing."""
    try:
        import cupy as library  # noqa: PLC0415  takes a second, and is optional
    except ImportError as error:
        raise ImportError("expected CuPy for the backend cupy (pip install 'minglow[gpu-cuda12x]', or "
                          f"'minglow[gpu-cuda13x]' for a driver of CUDA 13): {error}") from None
    runtime = library.cuda.runtime
    try:
        runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        missing = "a GPU" if "NoDevice" in str(error) else "a recent enough NVIDIA driver"
        raise ImportError(f"expected {missing} for the backend cupy: {error}") from None
    return library


def select(number: int) -> None:
    """Use one of this machine's GPUs from now on: process `number` of several, GPUs in turn."""
    cuda = cupy().cuda
    cuda.Device(number % cuda.runtime.getDeviceCount()).use()


def on_host(value: Any) -> bool:
    """Whether a number or an array is on the host, so that reading it does not block."""
    return not hasattr(value, "__cuda_array_interface__")


def to_device(thing: T) -> T:
    """An array's copy on the GPU; or the same flow, layer or dequantizer with its parameters moved.

    Move a flow before training: an optimizer keeps the vectors that it was built with. Raises
    ImportError.
    """
    return _move(thing, cupy().asarray)


def to_host(thing: T) -> T:
    """The reverse of `to_device`, which blocks until the values are ready; a host array stays itself."""
    return _move(thing, _fetch)


def to_device_of(array: Any, other: Any) -> Any:
    """A host array where `other` is: unchanged, or its copy on the device."""
    return np.asarray(array, like=other)


def all_finite(array: Any) -> bool:
    """Whether no entry is NaN or inf; blocks on a device."""
    return bool(to_host(np.isfinite(array).all()))


def _fetch(array: Any) -> Any:
    return array if on_host(array) else array.get()


def _move(thing: Any, move: Any) -> Any:
    if not isinstance(thing, Module):
        return move(thing)
    for _, module in thing.walk():
        for arrays in module.params, module.grads, module.constants:
            arrays.update({name: move(array) for name, array in arrays.items()})
    for _, module in thing.walk():
        if isinstance(getattr(module, "flat", None), FlatParams):
            module.flat = FlatParams(module)  # type: ignore[attr-defined]
    return thing
