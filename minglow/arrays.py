"""The few reshapes and checks that layers share.

Floor 1. Every reshape here returns a view where NumPy can.
"""

from __future__ import annotations

from math import prod

import numpy as np

from minglow.bijection import Module
from minglow.device import on_host

DTYPES = np.dtype(np.float32), np.dtype(np.float64)  # in this machine's byte order


def pixels(x: np.ndarray) -> int:
    """How many channel vectors one sample holds: h * w of an image, 1 of a vector."""
    return prod(x.shape[1:-1])


def rows(x: np.ndarray) -> np.ndarray:
    """(B, ..., C) as (B * pixels, C): every channel vector a row."""
    return x.reshape(-1, x.shape[-1])


def split(x: np.ndarray, first: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Part the channels into the first so many, by default half of them, and the rest, as views."""
    first = x.shape[-1] // 2 if first is None else first
    return x[..., :first], x[..., first:]


def halves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split the channels into a first and a second half, as views."""
    return split(x)


def join(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The inverse of `split`: concatenate along the channels."""
    return np.concatenate([first, second], axis=-1)


def constant_log_det(x: np.ndarray, value: np.ndarray | float) -> np.ndarray:
    """The log_det, shape (B,), of a map that changes the volume around every sample alike."""
    log_det = np.empty_like(x, shape=len(x))
    log_det[...] = value
    return log_det


def zero_log_det(x: np.ndarray) -> np.ndarray:
    """The log_det, shape (B,), of a map that preserves volume."""
    return constant_log_det(x, 0)


def check_input(layer: Module, x: np.ndarray, channels: int | None = None) -> None:
    """Raise ValueError unless x is a non-empty (B, ..., channels) array of the layer's own dtype."""
    check_array(layer, x, channels)
    for parameter in layer.params.values():
        if parameter.dtype != x.dtype:
            raise ValueError(f"{layer} expected {parameter.dtype}, as its parameters are, got {x.dtype}")
        check_side(layer, x, parameter)


def check_side(layer: Module, x: np.ndarray, parameter: np.ndarray) -> None:
    """Raise ValueError unless x is on the side of its parameters, host or device."""
    if on_host(x) != on_host(parameter):
        side, other = ("host", "to_device") if on_host(x) else ("device", "to_host")
        raise ValueError(f"{layer} expected an array where its parameters are, got one on the {side}: "
                         f"minglow.{other} moves either")


def check_array(layer: Module, x: np.ndarray, channels: int | None = None) -> None:
    """Raise ValueError unless x is a non-empty (B, ..., channels) array of float32 or float64."""
    last = "C" if channels is None else channels
    if not hasattr(x, "ndim"):
        kind = type(x).__name__
        raise ValueError(f"{layer} expected an array of shape (B, ..., {last}), got a {kind}")
    if x.ndim < 2 or (channels is not None and x.shape[-1] != channels):
        raise ValueError(f"{layer} expected an array of shape (B, ..., {last}), got {x.shape}")
    if 0 in x.shape:
        raise ValueError(f"{layer} expected at least one sample, got an empty array {x.shape}")
    if x.dtype not in DTYPES:
        raise ValueError(
            f"{layer} expected float32 or float64, got {x.dtype}"
            + ("; minglow.dequantize turns integer images into floats" * (x.dtype.kind in "iu"))
        )


def check_dlog_det(layer: Module, dlog_det: np.ndarray, dy: np.ndarray) -> None:
    """Raise ValueError unless dlog_det holds one number for each sample."""
    if getattr(dlog_det, "shape", ()) != (len(dy),):
        raise ValueError(f"{layer} expected dlog_det of shape ({len(dy)},), got {np.shape(dlog_det)}")


def check_dtype(dtype: type) -> None:
    """Raise ValueError unless the dtype is one that parameters can have."""
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"expected dtype np.float32 or np.float64, got {dtype}")


def check_even_channels(layer: object, channels: int) -> None:
    """Raise ValueError unless the channels can be halved."""
    if channels % 2 or channels < 2:
        raise ValueError(f"{layer} expected an even number of channels to halve, got {channels}")


def normal_weights(shape: tuple[int, ...], std: float, rng: int | np.random.Generator | None,
                   dtype: type) -> np.ndarray:
    """Numbers from N(0, std^2); for std = 0 zeros of one sign, which are the same bytes every time."""
    if std == 0:
        return np.zeros(shape, dtype)
    return (std * np.random.default_rng(rng).standard_normal(shape)).astype(dtype)
