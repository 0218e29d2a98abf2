"""A bijection's inverse and log-determinant, by round trips and by Jacobians."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np

from minglow.bijection import Bijection
from minglow.testing.examples import Seed, examples, finite_forward, nearby
from minglow.testing.explain import PropertyFailed, describe, explain_inverse, explain_log_det
from minglow.testing.numerical import STEPS, NotSmooth, numerical_log_det

__tracebackhide__ = True  # pytest shows the line that called a check, not the check's own lines


def check_inverse(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """inverse(forward(x)) = x, and forward(inverse(y)) = y for y between outputs of forward.

    Within 1e-10 in float64 and 1e-4 in float32, relative to the largest value or to 1, or within a
    hundred times the change of the result when its argument is rounded once more: in an ill-conditioned
    map rounding errors grow.
    """
    for dtype, tolerance in (np.float64, 1e-10), (np.float32, 1e-4):
        for candidate, batch in examples(layer, x, rng, dtype):
            y = finite_forward(candidate, batch)[0]
            if y.dtype != batch.dtype:
                raise PropertyFailed("y of x's dtype", describe(batch), y.dtype, batch.dtype,
                                     "A value of another precision took part.")
            back = candidate.inverse(y)[0]
            name = "inverse(forward(x)) = x"
            if back.shape != batch.shape or back.dtype != batch.dtype:
                raise PropertyFailed(name, describe(batch), (back.dtype, back.shape),
                                     (batch.dtype, batch.shape))
            allowed = tolerance * largest(batch) + 100 * rounding(candidate.inverse_only, y)
            _check_equal(name, batch, back, allowed, partial(_explain_inverse, candidate, batch, back))
            between = (y + y[::-1]) / 2  # an output of forward, if the set of outputs is convex
            x_between = candidate.inverse(between)[0]
            allowed = tolerance * largest(between) + 100 * rounding(
                lambda x: candidate.forward_only(x)[0], x_between)  # noqa: B023  called in this iteration
            _check_equal("forward(inverse(y)) = y", between, candidate.forward(x_between)[0], allowed,
                         partial(_remark, batch.dtype))


def largest(value: np.ndarray) -> float:
    """The largest absolute value, or 1."""
    return max(1.0, float(np.max(np.abs(value), initial=0)))


def rounded(x: np.ndarray, dtype: type | np.dtype) -> np.ndarray:
    """x, each entry moved up or down at random by the rounding of a dtype."""
    signs = np.random.default_rng(0).choice(np.array([-1, 1], x.dtype), x.shape)
    return x * (1 + signs * x.dtype.type(np.finfo(dtype).eps))


def rounding(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> float:
    """The largest change of f(x) when every entry of x is rounded once more, up or down at random."""
    change = np.max(np.abs(f(rounded(x, x.dtype)) - f(x)), initial=0)
    return float(change) if np.isfinite(change) else 0.0


def _check_equal(name: str, original: np.ndarray, back: np.ndarray, allowed: float,
                 explain: Callable[[], str]) -> None:
    """Raise PropertyFailed unless a round trip leads back within the allowed error."""
    error = np.nan_to_num(np.abs(back - original), nan=np.inf)
    if error.max() > allowed:
        worst = np.unravel_index(np.argmax(error), original.shape)
        where = f"sample {worst[0]}, index {tuple(map(int, worst[1:]))}, {describe(original)}"
        raise PropertyFailed(name, where, back[worst], original[worst], explain())


def _remark(dtype: np.dtype) -> str:
    return "In float64 it holds." if dtype == np.float32 else ""  # float64 is checked first


def _explain_inverse(layer: Bijection, x: np.ndarray, back: np.ndarray) -> str:
    if x.dtype != np.float64:
        return _remark(x.dtype)
    log_det_holds: bool | None
    try:
        log_det_holds = _compare_log_det(layer, x) or None
    except PropertyFailed:
        log_det_holds = False
    with suppress(ValueError, ArithmeticError):  # of the layer, at points that it does not accept
        return explain_inverse(layer, x, back, log_det_holds)
    return ""


def check_log_det(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """log_det, of shape (B,) and x's dtype, is log|det| of each sample's Jacobian.

    The Jacobian comes from finite differences in float64; the tolerance is the bound on their error, or
    1e-9. A sample with a ReLU's kink within a step is left out. Where that leaves none, the batch is
    moved a little; the check fails if none is left there.
    """
    for candidate, batch in examples(layer, x, rng):
        if not _compare_log_det(candidate, batch):
            _compare_log_det(candidate, nearby(batch), required=True)


def _compare_log_det(layer: Bijection, x: np.ndarray, required: bool = False) -> bool:
    """Compare log_det with the Jacobians of one batch; return False if no sample is smooth.

    Raises PropertyFailed unless they agree, and if no sample is smooth but one is required.
    """
    _, log_det, _ = finite_forward(layer, x)
    compared, expected, tolerance = [], [], []
    for index, sample in enumerate(x):
        with suppress(NotSmooth):
            value, error = numerical_log_det(layer.forward, sample)
            compared.append(index)
            expected.append(value)
            tolerance.append(1e-9 + error)
    name, found = "log_det = log|det dy/dx|", log_det[compared]
    if required and not compared:
        raise PropertyFailed(
            name, describe(x), f"{len(x)} of {len(x)} samples with a kink or a jump within a step of "
            f"{min(STEPS):g}", "a derivative to compare with",
            "Nothing was compared: pass a batch x without kinks, if forward is continuous.")
    if not np.all(np.abs(found - expected) <= tolerance):
        correct = np.array(expected)
        raise PropertyFailed(name, describe(x), found, correct,
                             explain_log_det(layer, x[compared], found, correct))
    return bool(compared)
