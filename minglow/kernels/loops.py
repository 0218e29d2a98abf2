"""The kernels as plain loops: what a debugger steps through, and what Numba compiles.

Floor 1; imports NumPy and math alone. Same names, arguments and results as reference.py,
whose docstrings hold the maths. Sums are held in double precision.
"""

from __future__ import annotations

from math import exp, log, sqrt

import numpy as np


def gather(x, size):
    batch, height, width, channels = x.shape
    patches = np.zeros((batch * height * width, size * size * channels), x.dtype)
    row = 0
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                for di in range(size):
                    for dj in range(size):
                        y, x_ = i + di - size // 2, j + dj - size // 2
                        if 0 <= y < height and 0 <= x_ < width:
                            column = (di * size + dj) * channels
                            for c in range(channels):
                                patches[row, column + c] = x[b, y, x_, c]
                row += 1
    return patches


def scatter(patches, size, height, width):
    channels = patches.shape[1] // (size * size)
    batch = patches.shape[0] // (height * width)
    x = np.zeros((batch, height, width, channels), patches.dtype)
    row = 0
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                for di in range(size):
                    for dj in range(size):
                        y, x_ = i + di - size // 2, j + dj - size // 2
                        if 0 <= y < height and 0 <= x_ < width:
                            column = (di * size + dj) * channels
                            for c in range(channels):
                                x[b, y, x_, c] += patches[row, column + c]
                row += 1
    return x


def shift_scale(x, shift, scale):
    y = np.empty_like(x)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[n, c] = (x[n, c] + shift[c]) * scale[c]
    return y


def shift_scale_backward(dy, y, scale):
    dx = np.empty_like(dy)
    dshift, dlog_scale = np.zeros(len(scale)), np.zeros(len(scale))
    for n in range(dy.shape[0]):
        for c in range(dy.shape[1]):
            dx[n, c] = dy[n, c] * scale[c]
            dshift[c] += dx[n, c]
            dlog_scale[c] += dy[n, c] * y[n, c]
    return dx, dshift.astype(dy.dtype), dlog_scale.astype(dy.dtype)


def shift_scale_relu(x, shift, scale):
    y = np.empty_like(x)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[n, c] = max((x[n, c] + shift[c]) * scale[c], x.dtype.type(0))
    return y


def shift_scale_relu_backward(dy, y, scale):
    dx = np.zeros_like(dy)
    dshift, dlog_scale = np.zeros(len(scale)), np.zeros(len(scale))
    for n in range(dy.shape[0]):
        for c in range(dy.shape[1]):
            passed = dy[n, c] if y[n, c] > 0 else dy.dtype.type(0)
            dx[n, c] = passed * scale[c]
            dshift[c] += dx[n, c]
            dlog_scale[c] += passed * y[n, c]
    return dx, dshift.astype(dy.dtype), dlog_scale.astype(dy.dtype)


def sigmoid_scale(raw, floor):
    log_scale, dlog_scale = np.empty(raw.shape, raw.dtype), np.empty(raw.shape, raw.dtype)
    for b in range(raw.shape[0]):
        for p in range(raw.shape[1]):
            for c in range(raw.shape[2]):
                e = exp(-abs(raw[b, p, c] + 2.0))  # at most 1: no overflow on either side
                s = (1.0 if raw[b, p, c] + 2.0 >= 0 else e) / (1.0 + e)
                scale = floor + (1.0 - floor) * s
                log_scale[b, p, c] = log(scale)
                dlog_scale[b, p, c] = (1.0 - floor) * e / ((1.0 + e) * (1.0 + e)) / scale
    return log_scale, dlog_scale


def couple(x, shift, log_scale):
    y, scale = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    log_det = np.empty(x.shape[0], x.dtype)
    for b in range(x.shape[0]):
        total = 0.0
        for p in range(x.shape[1]):
            for c in range(x.shape[2]):
                scale[b, p, c] = exp(log_scale[b, p, c])
                y[b, p, c] = (x[b, p, c] + shift[b, p, c]) * scale[b, p, c]
                total += log_scale[b, p, c]
        log_det[b] = total
    return y, scale, log_det


def couple_backward(dy, y, scale, dlog_scale, dlog_det):
    dx, draw = np.empty(dy.shape, dy.dtype), np.empty(dy.shape, dy.dtype)
    for b in range(dy.shape[0]):
        for p in range(dy.shape[1]):
            for c in range(dy.shape[2]):
                dx[b, p, c] = dy[b, p, c] * scale[b, p, c]
                draw[b, p, c] = (dy[b, p, c] * y[b, p, c] + dlog_det[b]) * dlog_scale[b, p, c]
    return dx, draw


def adam(value, grad, mean, square, rate, beta1, beta2, epsilon):
    for i in range(len(value)):
        mean[i] += (1.0 - beta1) * (grad[i] - mean[i])
        square[i] += (1.0 - beta2) * (grad[i] * grad[i] - square[i])
        value[i] -= rate * mean[i] / (sqrt(square[i]) + epsilon)


def adamax(value, grad, mean, largest, rate, beta1, beta2, epsilon):
    for i in range(len(value)):
        mean[i] += (1.0 - beta1) * (grad[i] - mean[i])
        largest[i] = max(beta2 * largest[i], abs(grad[i]))
        value[i] -= rate * mean[i] / (largest[i] + epsilon)
