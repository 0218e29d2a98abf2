"""Reshapes and checks that layers share. Each reshape returns a view where NumPy can."""

from math import prod

import numpy as np

from minglow.arrays.device import on_host
from minglow.bijection import Module, Rng

DTYPES = np.dtype(np.float32), np.dtype(np.float64)  # in this machine's byte order


def pixels(x: np.ndarray) -> int:
    """The number of pixels of one sample: h * w of an image, 1 of a vector."""
    return prod(x.shape[1:-1])


def rows(x: np.ndarray) -> np.ndarray:
    """(B, ..., C) as (B * pixels, C): each channel vector is a row."""
    return x.reshape(-1, x.shape[-1])


def split(x: np.ndarray, first: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Split the channels into the first `first` of them, by default half, and the rest, as views."""
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


def check_batch(layer: Module, x: np.ndarray, channels: int | None = None) -> None:
    """Raise ValueError unless x is a non-empty (B, ..., channels) array of float32 or float64."""
    if not hasattr(x, "ndim") or x.ndim < 2 or channels not in (None, x.shape[-1]):
        found = getattr(x, "shape", f"a {type(x).__name__}")
        raise ValueError(f"{layer} expected an array of shape (B, ..., {channels or 'C'}), got {found}")
    if 0 in x.shape:
        raise ValueError(f"{layer} expected at least one sample, got an empty array {x.shape}")
    if x.dtype not in DTYPES:
        hint = "; minglow.dequantize turns integer images into floats" * (x.dtype.kind in "iu")
        raise ValueError(f"{layer} expected float32 or float64, got {x.dtype}{hint}")


def check_side(layer: Module, x: np.ndarray, parameter: np.ndarray) -> None:
    """Raise ValueError unless x and the parameter are both on the host or both on the device."""
    if on_host(x) != on_host(parameter):
        side, other = ("host", "to_device") if on_host(x) else ("device", "to_host")
        raise ValueError(f"{layer} expected an array where its parameters are, got one on the {side}: "
                         f"minglow.{other} moves arrays and modules")


def check_input(layer: Module, x: np.ndarray, channels: int | None = None) -> None:
    """Raise ValueError unless check_batch accepts x, and its dtype and side are the parameters'."""
    check_batch(layer, x, channels)
    for parameter in layer.params.values():
        if parameter.dtype != x.dtype:
            raise ValueError(f"{layer} expected {parameter.dtype}, as its parameters are, got {x.dtype}")
        check_side(layer, x, parameter)
    for constant in layer.constants.values():
        check_side(layer, x, constant)


def check_images(layer: Module, x: np.ndarray, channels: int | None = None,
                 divisible_by: tuple[int, int, int] = (1, 1, 1)) -> None:
    """Raise ValueError unless x is (B, h, w, channels) with h, w and channels divisible by these."""
    check_input(layer, x, channels)
    height, width, last = divisible_by
    if x.ndim != 4 or x.shape[1] % height or x.shape[2] % width or x.shape[3] % last:
        where = "" if divisible_by == (1, 1, 1) else f" with (h, w, C) divisible by {divisible_by}"
        raise ValueError(f"{layer} expected images (B, h, w, {channels or 'C'}){where}, got {x.shape}")


def check_samples(layer: Module, x: np.ndarray, shape: tuple[int, ...] | None) -> None:
    """Raise ValueError unless check_batch accepts x, and x is (B, *shape) if there is a shape."""
    check_batch(layer, x)
    if shape is not None and x.shape[1:] != shape:
        expected = ", ".join(map(str, ("B", *shape)))
        raise ValueError(f"{layer} expected an array of shape ({expected}), got {x.shape}")


def check_dlog_det(layer: Module, dlog_det: np.ndarray, dy: np.ndarray) -> None:
    """Raise ValueError unless dlog_det holds one number for each sample of dy."""
    if getattr(dlog_det, "shape", ()) != (len(dy),):
        raise ValueError(f"{layer} expected dlog_det of shape ({len(dy)},), got {np.shape(dlog_det)}")


def check_dtype(dtype: type) -> None:
    """Raise ValueError unless parameters can have this dtype."""
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"expected dtype np.float32 or np.float64, got {dtype}")


def check_even_channels(layer: object, channels: int) -> None:
    """Raise ValueError unless the channels can be halved."""
    if channels % 2 or channels < 2:
        raise ValueError(f"{layer} expected an even number of channels to halve, got {channels}")


def normal_weights(shape: tuple[int, ...], std: float, rng: Rng, dtype: type) -> np.ndarray:
    """Weights from N(0, std^2); for std = 0 zeros of one sign, which are the same bytes every time."""
    if std == 0:
        return np.zeros(shape, dtype)
    return (std * np.random.default_rng(rng).standard_normal(shape)).astype(dtype)
