"""The kernels in vectorized NumPy: the implementation that defines what each of them computes.

Arrays are created with `*_like` and methods, never with `np.zeros(shape)`, so that the same functions
run on CuPy's arrays.

Shapes: an image is (B, h, w, C); N is B * h * w, a row for each pixel; P is h * w.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = [
    "adam", "adamax", "couple", "couple_backward", "couple_inverse", "gather", "move_towards", "scatter",
    "shift_scale", "shift_scale_backward", "shift_scale_relu", "shift_scale_relu_backward"]
Arrays = tuple[np.ndarray, ...]


def gather(x: np.ndarray, size: int) -> np.ndarray:
    """Every pixel's size x size neighborhood as a row: (B, h, w, C) -> (N, size*size*C).

        patches[b, i, j][di, dj, c] = x[b, i + di - r, j + dj - r, c]        r = size // 2

    Outside the image x is 0.
    """
    batch, height, width, channels = x.shape
    patches = np.zeros_like(x, shape=(batch, height, width, size, size, channels))
    for di, dj, here, there in _taps(height, width, size):
        patches[here + (di, dj)] = x[there]
    return patches.reshape(-1, size * size * channels)


def scatter(patches: np.ndarray, size: int, height: int, width: int) -> np.ndarray:
    """The transpose of `gather`: add every neighborhood back where it came from.

        x[b, i + di - r, j + dj - r, c] += patches[b, i, j][di, dj, c]
    """
    patches = patches.reshape(-1, height, width, size, size, patches.shape[1] // size**2)
    x = np.zeros_like(patches, shape=(*patches.shape[:3], patches.shape[-1]))
    for di, dj, here, there in _taps(height, width, size):
        x[there] += patches[here + (di, dj)]
    return x


def _taps(height: int, width: int, size: int) -> Iterator[tuple[Any, ...]]:
    """For each tap, the pixels whose neighbor at that tap is inside the image, and those neighbors."""
    for di in range(size):
        for dj in range(size):
            i, j, every = di - size // 2, dj - size // 2, slice(None)
            here = every, slice(max(0, -i), height - max(0, i)), slice(max(0, -j), width - max(0, j))
            there = every, slice(max(0, i), height - max(0, -i)), slice(max(0, j), width - max(0, -j))
            yield di, dj, here, there


def shift_scale(x: np.ndarray, shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """y = (x + shift) * scale for each channel; x: (N, C), shift and scale: (C,)."""
    return (x + shift) * scale


def shift_scale_backward(dy: np.ndarray, y: np.ndarray, scale: np.ndarray) -> Arrays:
    """dx = dy * scale;  dshift = sum_n dx;  dlog_scale = sum_n dy * y.   (N, C), (C,), (C,)

    Since dy/dlog_scale = (x + shift) * scale = y, these need the output and not the input.
    """
    dx = dy * scale
    return dx, dx.sum(axis=0), np.einsum("nc,nc->c", dy, y)


def shift_scale_relu(x: np.ndarray, shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """y = max(0, (x + shift) * scale); x: (N, C), shift and scale: (C,)."""
    return np.maximum((x + shift) * scale, 0)


def shift_scale_relu_backward(dy: np.ndarray, y: np.ndarray, scale: np.ndarray) -> Arrays:
    """As shift_scale_backward, with dy where y > 0 and 0 elsewhere."""
    return shift_scale_backward(dy * (y > 0), y, scale)


def couple(x: np.ndarray, shift: np.ndarray, scale: np.ndarray, log_scale: np.ndarray) -> Arrays:
    """y = [x1, (x2 + shift) * scale] with [x1, x2] = x;  log_det_b = sum log_scale_b.

    x, y: (B, P, C1 + C2); shift, scale, log_scale: (B, P, C2); log_det: (B,).
    """
    y, changing = x.copy(), shift.shape[2]
    y[:, :, -changing:] += shift
    y[:, :, -changing:] *= scale
    return y, log_scale.sum(axis=(1, 2))


def couple_inverse(y: np.ndarray, shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """x = [y1, y2 / scale - shift] with [y1, y2] = y; shapes as for `couple`."""
    x, changing = y.copy(), shift.shape[2]
    x[:, :, -changing:] /= scale
    x[:, :, -changing:] -= shift
    return x


def couple_backward(dy: np.ndarray, y: np.ndarray, scale: np.ndarray, dlog_scale_ds: np.ndarray,
                    dlog_det: np.ndarray) -> Arrays:
    """The gradients of `couple` with respect to x and to h = [shift, s], where log_scale depends on s.

        dx = [dy1, dshift]             dshift = dy2 * scale                 [dy1, dy2] = dy
        dh = [dshift, ds]              ds = (dy2 * y2 + dlog_det_b) * dlog_scale_ds

    dy, y, dx: (B, P, C1 + C2); scale, dlog_scale_ds: (B, P, C2); dh: (B, P, 2 C2); dlog_det: (B,).
    """
    changing = scale.shape[2]
    dy2, y2 = dy[:, :, -changing:], y[:, :, -changing:]
    dshift, ds = dy2 * scale, (dy2 * y2 + dlog_det[:, None, None]) * dlog_scale_ds
    return (np.concatenate([dy[:, :, :-changing], dshift], axis=2), np.concatenate([dshift, ds], axis=2))


def adam(value: np.ndarray, grad: np.ndarray, mean: np.ndarray, square: np.ndarray,
         step_size: float, beta1: float, beta2: float, epsilon: float) -> None:
    """One Adam update in place; all (P,). `step_size` and `epsilon` include the bias corrections.

        mean = beta1 mean + (1 - beta1) grad         square = beta2 square + (1 - beta2) grad^2
        value -= step_size * mean / (sqrt(square) + epsilon)
    """
    mean += (1 - beta1) * (grad - mean)
    square += (1 - beta2) * (grad * grad - square)
    value -= step_size * mean / (np.sqrt(square) + epsilon)


def adamax(value: np.ndarray, grad: np.ndarray, mean: np.ndarray, largest: np.ndarray,
           step_size: float, beta1: float, beta2: float, epsilon: float) -> None:
    """One Adamax update in place; all (P,). `step_size` includes the bias correction.

        mean = beta1 mean + (1 - beta1) grad         largest = max(beta2 largest, |grad|)
        value -= step_size * mean / (largest + epsilon)
    """
    mean += (1 - beta1) * (grad - mean)
    np.maximum(beta2 * largest, np.abs(grad), out=largest)
    value -= step_size * mean / (largest + epsilon)


def move_towards(average: np.ndarray, value: np.ndarray, weight: float) -> None:
    """average = average + weight * (value - average), in place; both (P,)."""
    average += weight * (value - average)
