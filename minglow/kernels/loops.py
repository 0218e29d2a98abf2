"""The kernels as plain loops: a debugger can step through them, and Numba compiles them.

They have the names, arguments, results and docstrings of the functions in reference.py. Sums are
accumulated in double precision.
"""

from math import sqrt

import numpy as np


def gather(x, size):
    batch, height, width, channels = x.shape
    pad, run = size // 2, size * channels  # run: a pixel's neighbors in one image row, contiguous
    padded = np.zeros((height + 2 * pad, (width + 2 * pad) * channels), x.dtype)  # one image
    patches = np.empty((batch, height, width, size, run), x.dtype)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                pixel = padded[pad + i, (pad + j) * channels:]
                for c in range(channels):
                    pixel[c] = x[b, i, j, c]
        for i in range(height):
            for j in range(width):
                for di in range(size):
                    here, there = patches[b, i, j, di], padded[i + di, j * channels:]
                    for k in range(run):
                        here[k] = there[k]
    return patches.reshape(batch * height * width, size * run)


def scatter(patches, size, height, width):
    pad, run = size // 2, patches.shape[1] // size
    channels, batch = run // size, patches.shape[0] // (height * width)
    runs = patches.reshape(batch, height, width, size, run)
    padded = np.empty((height + 2 * pad, (width + 2 * pad) * channels), patches.dtype)
    x = np.empty((batch, height, width * channels), patches.dtype)
    for b in range(batch):
        padded[:] = 0
        for i in range(height):
            for j in range(width):
                for di in range(size):
                    here, there = runs[b, i, j, di], padded[i + di, j * channels:]
                    for k in range(run):
                        there[k] += here[k]
        for i in range(height):
            inside, line = padded[pad + i, pad * channels:], x[b, i]
            for k in range(width * channels):
                line[k] = inside[k]
    return x.reshape(batch, height, width, channels)


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


def couple(x, shift, scale, log_scale):
    y, log_det = np.empty(x.shape, x.dtype), np.empty(x.shape[0], x.dtype)
    changing = shift.shape[2]
    identity = x.shape[2] - changing
    for b in range(x.shape[0]):
        total = 0.0
        for p in range(x.shape[1]):
            for c in range(identity):
                y[b, p, c] = x[b, p, c]
            for c in range(changing):
                y[b, p, identity + c] = (x[b, p, identity + c] + shift[b, p, c]) * scale[b, p, c]
                total += log_scale[b, p, c]
        log_det[b] = total
    return y, log_det


def couple_inverse(y, shift, scale):
    x = np.empty(y.shape, y.dtype)
    changing = shift.shape[2]
    identity = y.shape[2] - changing
    for b in range(y.shape[0]):
        for p in range(y.shape[1]):
            for c in range(identity):
                x[b, p, c] = y[b, p, c]
            for c in range(changing):
                x[b, p, identity + c] = y[b, p, identity + c] / scale[b, p, c] - shift[b, p, c]
    return x


def couple_backward(dy, y, scale, dlog_scale_ds, dlog_det):
    changing = scale.shape[2]
    identity = y.shape[2] - changing
    dx = np.empty(dy.shape, dy.dtype)
    dh = np.empty((dy.shape[0], dy.shape[1], 2 * changing), dy.dtype)
    for b in range(dy.shape[0]):
        for p in range(dy.shape[1]):
            for c in range(identity):
                dx[b, p, c] = dy[b, p, c]
            for c in range(changing):
                dy2, y2 = dy[b, p, identity + c], y[b, p, identity + c]
                dx[b, p, identity + c] = dy2 * scale[b, p, c]
                dh[b, p, c] = dx[b, p, identity + c]
                dh[b, p, changing + c] = (dy2 * y2 + dlog_det[b]) * dlog_scale_ds[b, p, c]
    return dx, dh


def adam(value, grad, mean, square, step_size, beta1, beta2, epsilon):
    for i in range(len(value)):
        mean[i] += (1.0 - beta1) * (grad[i] - mean[i])
        square[i] += (1.0 - beta2) * (grad[i] * grad[i] - square[i])
        value[i] -= step_size * mean[i] / (sqrt(square[i]) + epsilon)


def adamax(value, grad, mean, largest, step_size, beta1, beta2, epsilon):
    for i in range(len(value)):
        mean[i] += (1.0 - beta1) * (grad[i] - mean[i])
        largest[i] = max(beta2 * largest[i], abs(grad[i]))
        value[i] -= step_size * mean[i] / (largest[i] + epsilon)


def move_towards(average, value, weight):
    for i in range(len(value)):
        average[i] += weight * (value[i] - average[i])
