"""A stand-in for CuPy that runs on the CPU and is as strict as a GPU.

Its arrays implement NumPy's functions by CuPy's rules (`ndarray.__array_ufunc__` and
`__array_function__` there), and only functions that CuPy has:

- a host array among device arrays raises, as an argument, an index or an assigned value;
- implicit conversion, comparison and iteration raise: `if`, float() and numpy.asarray(), which would
  block on a GPU. Only `get()` moves values to the host; it counts its calls.

`installed()` replaces CuPy, so that `use("cupy")` and `minglow.to_device` find the stand-in.
"""

import contextlib
import sys
import types

import numpy as np

# The functions of CuPy 14 that minglow calls, by NumPy module; test_device.py compares them with CuPy.
FUNCTIONS = {
    "numpy": {
        "arange", "argsort", "asarray", "broadcast_to", "clip", "concatenate", "cumsum", "diag",
        "einsum", "empty_like", "full_like", "max", "mean", "ones_like", "stack", "take_along_axis",
        "tril", "triu", "where", "zeros_like",
    },
    "numpy.linalg": {"eigh", "inv", "slogdet"},
}
UFUNCS = {
    "absolute", "add", "arctanh", "bitwise_and", "cosh", "divide", "equal", "exp", "expm1", "greater",
    "greater_equal", "isfinite", "less", "less_equal", "log", "log1p", "matmul", "maximum", "minimum",
    "multiply", "negative", "not_equal", "power", "sign", "sqrt", "square", "subtract", "tanh",
}
SCALARS = bool, int, float, np.generic


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array on the device; only this module uses `_data`, which holds the values."""

    reads = 0  # number of copies to the host
    __cuda_array_interface__ = None  # marks a device array

    def __init__(self, data):
        self._data = data

    shape = property(lambda self: self._data.shape)
    dtype = property(lambda self: self._data.dtype)
    ndim = property(lambda self: self._data.ndim)
    size = property(lambda self: self._data.size)
    nbytes = property(lambda self: self._data.nbytes)
    T = property(lambda self: DeviceArray(self._data.T))

    def get(self):
        """A copy on the host; blocks on a GPU."""
        DeviceArray.reads += 1
        return self._data.copy()

    def __len__(self):
        return len(self._data)

    def _refuse(self, *_, **__):
        raise TypeError("implicit conversion of a device array: use minglow.to_host")

    __bool__ = __float__ = __int__ = __index__ = __array__ = __iter__ = item = tolist = _refuse

    def __getitem__(self, index):
        return DeviceArray(np.asarray(self._data[inner_index(index)]))

    def __setitem__(self, index, value):
        self._data[inner_index(index)] = inner(value)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if method != "__call__" or ufunc.__name__ not in UFUNCS or kwargs:
            return NotImplemented
        data = [inner(value) for value in inputs]
        if out is not None:
            ufunc(*data, out=tuple(inner(array) for array in out))
            return out[0]
        return DeviceArray(np.asarray(ufunc(*data)))

    def __array_function__(self, function, kinds, args, kwargs):
        if function.__name__ not in FUNCTIONS.get(function.__module__, ()):
            return NotImplemented
        if function is np.asarray:  # the only function that accepts a host array
            return asarray(*args, **kwargs)
        return outer(function(*inner(args), **inner(kwargs)))

    def __deepcopy__(self, memo):
        return DeviceArray(self._data.copy())


def method(name):
    """A method of NumPy's arrays, for DeviceArray."""
    def call(self, *args, **kwargs):
        return outer(getattr(self._data, name)(*inner(args), **inner(kwargs)))
    return call


for _name in ("all", "any", "argmax", "astype", "copy", "max", "mean", "min", "reshape", "std", "sum",
              "transpose"):
    setattr(DeviceArray, _name, method(_name))


def inner(value):
    """Unwrap device arrays, also in lists, tuples and dicts. Raises TypeError for a host array."""
    if isinstance(value, DeviceArray):
        return value._data
    if isinstance(value, np.ndarray):
        raise TypeError(f"unsupported type {type(value)}: a host array among device arrays")
    if isinstance(value, (list, tuple)):
        return type(value)(map(inner, value))
    if isinstance(value, dict):
        return {key: inner(item) for key, item in value.items()}
    return value


def inner_index(index):
    """`inner` for an index."""
    return tuple(map(inner, index)) if isinstance(index, tuple) else inner(index)


def outer(value):
    """Wrap NumPy's results as device arrays, also scalars."""
    if isinstance(value, tuple):
        return tuple(map(outer, value))
    return DeviceArray(np.asarray(value))


def asarray(value, dtype=None):
    """Copy a host array to the device."""
    if isinstance(value, DeviceArray):
        return value if dtype is None else value.astype(dtype)
    return DeviceArray(np.array(value, dtype))


class CUDARuntimeError(RuntimeError):
    """Stands in for CuPy's exception."""


@contextlib.contextmanager
def installed(devices=1, failure=None):
    """Replace CuPy by the stand-in with `devices` GPUs, or with a `failure` to count them."""
    def count():
        if failure:
            raise CUDARuntimeError(failure)
        return devices

    used = []
    cuda = types.SimpleNamespace(
        Device=lambda number: types.SimpleNamespace(use=lambda: used.append(number)),
        runtime=types.SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError))
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = types.SimpleNamespace(asarray=asarray, cuda=cuda, used=used,
                                                ndarray=DeviceArray)
    try:
        yield sys.modules["cupy"]
    finally:
        if before is None:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = before
