"""What every bijection and every net must keep, as functions of one case.

At Glow's start the last convolution is 0: most gradients are 0 and log_det ignores the net. So
parameters are moved first (`moved`), or the checks would say nothing.
"""

import numpy as np
from hypothesis import assume

from minglow import InvConv1x1

STEP = 3e-5  # of differences: their rounding grows as it shrinks, the ReLU's kinks met as it grows


def moved(module, rng, size=0.2):
    """Move every parameter of a module away from its start; return the module."""
    for _, part in module.walk():
        for value in part.params.values():
            noise = size * rng.standard_normal(value.shape)
            if isinstance(part, InvConv1x1):  # a rotation, which must not come near singular
                noise = value @ noise / (2 * len(value) ** 0.5)
            value[...] = value + noise
    return module


def clear(module):
    for _, part in module.walk():
        for grad in part.grads.values():
            grad[...] = 0


def gradients(module):
    return {
        f"{path}.{name}": grad.copy()
        for path, part in module.walk()
        for name, grad in part.grads.items()
    }


def leaves(cache):
    """Every array in a cache, in order."""
    if isinstance(cache, np.ndarray):
        return [cache]
    if isinstance(cache, (list, tuple)):
        return [array for part in cache for array in leaves(part)]
    return []


def slope(f):
    """f'(0) of a scalar or array function, by central differences of two step sizes.

    Richardson's combination of the two has an error of order STEP^4. They disagree where a
    ReLU's kink lies between them: such a case has no derivative that differences could show, and
    is left out.
    """
    wide = (f(STEP) - f(-STEP)) / (2 * STEP)
    narrow = (f(STEP / 2) - f(-STEP / 2)) / STEP
    assume(np.allclose(wide, narrow, rtol=1e-5, atol=1e-7 * (1 + np.max(np.abs(wide)))))
    return (4 * narrow - wide) / 3


def brute_force_jacobian(layer, x):
    """(D, D) of one sample x, from D pairs of differences."""
    columns = []
    for i in range(x.size):
        unit = np.zeros(x.size)
        unit[i] = 1
        unit = unit.reshape(x.shape)
        columns.append(slope(lambda t, unit=unit: layer.forward((x + t * unit)[None])[0].ravel()))
    return np.stack(columns, axis=1)


def check_inverse(layer, x, tolerance):
    y = layer.forward(x)[0]
    assert y.dtype == x.dtype
    np.testing.assert_allclose(layer.inverse(y)[0], x, rtol=0, atol=tolerance)
    z = np.random.default_rng(0).standard_normal(y.shape).astype(y.dtype)
    np.testing.assert_allclose(layer.forward(layer.inverse(z)[0])[0], z, rtol=0, atol=tolerance)


def check_log_det(layer, x):
    log_det = layer.forward(x)[1]
    assert log_det.shape == (len(x),) and log_det.dtype == x.dtype
    for b in range(len(x)):
        expected = np.linalg.slogdet(brute_force_jacobian(layer, x[b]))[1]
        np.testing.assert_allclose(log_det[b], expected, rtol=1e-9, atol=1e-9)


def check_slope(gradient, f, rng):
    """<gradient, v> against the slope of f along a unit vector v; f takes a displacement.

    v is half random, half along the gradient: a random direction alone is now and then orthogonal
    to it, and then says nothing of its length. The tolerance is relative to that length, with no
    more absolute room than the differences' own rounding.
    """
    v = rng.standard_normal(gradient.shape)
    v *= np.copysign(1 / np.linalg.norm(v), np.sum(v * gradient))
    v += gradient / max(np.linalg.norm(gradient), 1e-300)
    v /= np.linalg.norm(v)
    expected, found = slope(lambda t: f(t * v)), np.sum(gradient * v)
    tolerance = 1e-6 * max(np.linalg.norm(gradient), abs(expected)) + 1e-9 * (1 + abs(f(0 * v)))
    assert abs(found - expected) <= tolerance, f"slope: found {found}, expected {expected}"


def check_backward(module, x, rng, bijection=True):
    """backward against slopes of <dy, y> + <dlog_det, log_det>, by x and by every parameter."""
    dy, dlog_det = rng.standard_normal(module.forward(x)[0].shape), rng.standard_normal(len(x))

    def loss(x):
        y, log_det = module.forward(x)[:2] if bijection else (module.forward(x)[0], 0)
        return np.sum(dy * y) + np.sum(dlog_det * log_det)

    def backward():
        cache = module.forward(x)[-1]
        return module.backward(dy, dlog_det, cache) if bijection else module.backward(dy, cache)

    clear(module)
    dx = backward()
    assert dx.shape == x.shape and dx.dtype == x.dtype
    check_slope(dx, lambda step: loss(x + step), rng)
    once = gradients(module)
    for _, part in module.walk():
        for name, value in part.params.items():
            start = value.copy()

            def f(step, value=value, start=start):
                value[...] = start + step
                result = loss(x)
                value[...] = start
                return result

            check_slope(part.grads[name], f, rng)
    backward()
    for name, twice in gradients(module).items():
        np.testing.assert_allclose(twice, 2 * once[name], rtol=1e-9, atol=1e-12,
                                   err_msg=f"{name}: gradients must accumulate")


def check_cache(layer, x, rng, tolerance):
    """The cache from inverse gives the gradients that the cache from forward gives."""
    y, _, cache = layer.forward(x)
    other = layer.inverse(y)[1]
    dy = rng.standard_normal(y.shape).astype(x.dtype)
    dlog_det = rng.standard_normal(len(x)).astype(x.dtype)
    clear(layer)
    dx, grads = layer.backward(dy, dlog_det, cache), gradients(layer)
    clear(layer)
    other_dx, other_grads = layer.backward(dy, dlog_det, other), gradients(layer)
    np.testing.assert_allclose(other_dx, dx, rtol=tolerance, atol=tolerance * np.abs(dx).max())
    for name, grad in grads.items():
        np.testing.assert_allclose(other_grads[name], grad, rtol=tolerance,
                                   atol=tolerance * np.abs(grad).max(initial=1e-3), err_msg=name)


def check_purity(layer, x, rng):
    """Nothing that comes in is written to, forward changes no parameter, and repeats itself."""
    values = [value for _, part in layer.walk() for value in part.params.values()]
    before = [value.copy() for value in values]
    frozen = x.copy()
    frozen.flags.writeable = False
    y, log_det, cache = layer.forward(frozen)
    kept = [array.copy() for array in leaves(cache)]
    dy = rng.standard_normal(y.shape).astype(x.dtype)
    dlog_det = rng.standard_normal(len(x)).astype(x.dtype)
    for array in (y, dy, dlog_det):
        array.flags.writeable = False
    layer.inverse(y)
    layer.backward(dy, dlog_det, cache)
    for array, copy in zip(leaves(cache), kept):
        np.testing.assert_array_equal(array, copy)
    again = layer.forward(x)
    np.testing.assert_array_equal(again[0], y)
    np.testing.assert_array_equal(again[1], log_det)
    for value, copy in zip(values, before):
        np.testing.assert_array_equal(value, copy)
