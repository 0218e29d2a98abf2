"""Property tests for bijections: minglow's layers and your own.

    check_layer(MyLayer(4))                       # raises PropertyFailed with the likely cause

    @parametrize_with_checks([MyLayer(4), MyLayer(2)])
    def test_my_layer(layer, check):
        check(layer)

parametrize_with_checks needs pytest, and minglow.testing.strategies needs Hypothesis.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from minglow.bijection import Bijection
from minglow.testing.checks import check_backends, check_initialize, check_precision, check_returns
from minglow.testing.examples import check_type, examples, perturbed
from minglow.testing.explain import PropertyFailed
from minglow.testing.gradients import check_backward
from minglow.testing.invertibility import check_inverse, check_log_det
from minglow.testing.numerical import NotSmooth, directional_derivative, numerical_jacobian, taylor_slope
from minglow.testing.purity import check_cache, check_purity, check_samples
from minglow.testing.updates import check_updates

__all__ = [
    "NotSmooth", "PropertyFailed", "check_backends", "check_backward", "check_cache", "check_initialize",
    "check_inverse", "check_layer", "check_log_det", "check_precision", "check_purity", "check_returns",
    "check_samples", "check_updates", "directional_derivative", "examples", "layer_checks",
    "numerical_jacobian", "parametrize_with_checks", "perturbed", "taylor_slope"]
__tracebackhide__ = True  # pytest shows the line that called check_layer, not the check's own lines
# The first to fail is the one that check_layer reports: what explains most comes first.
CHECKS = (check_returns, check_purity, check_samples, check_updates, check_inverse, check_log_det,
          check_backward, check_cache, check_initialize, check_precision, check_backends)
Check = Callable[[Bijection], None]


def layer_checks(x: np.ndarray | None = None, rng: int = 0) -> list[tuple[str, Check]]:
    """(name of the property, function of a layer that raises PropertyFailed), for each property."""
    return [(check.__name__.removeprefix("check_"), partial(check, x=x, rng=rng)) for check in CHECKS]


def check_layer(layer: Bijection, x: np.ndarray | None = None, rng: int = 0) -> None:
    """Run every check in turn; raise the first PropertyFailed.

    Without x, several shapes are tried with perturbed parameters. With x, a batch that the layer
    accepts, the parameters stay as they are: pass perturbed(layer) if they are zero-initialized.
    """
    for _, check in layer_checks(x, rng):
        check(layer)


def parametrize_with_checks(
        layers: Iterable[Bijection], *, x: np.ndarray | None = None,
        expected_failed_checks: Callable[[Bijection], dict[str, str]] | None = None) -> Any:
    """A pytest decorator: the test runs once for every layer and every check.

    expected_failed_checks: from a layer to {name of a property: reason}; those tests must fail. Raises
    ValueError for a name that is none, and unless `layers` holds bijections.
    """
    import pytest  # noqa: PLC0415  the other checks run without pytest

    if not isinstance(layers, Iterable):
        raise ValueError(f"expected a list of layers, got {type(layers).__name__}")
    if expected_failed_checks is not None and not callable(expected_failed_checks):
        raise ValueError("expected expected_failed_checks to be a function of a layer, got "
                         f"{type(expected_failed_checks).__name__}")
    names = [name for name, _ in layer_checks()]
    cases = []
    for layer in layers:
        check_type(layer)
        expected = expected_failed_checks(layer) if expected_failed_checks else {}
        unknown = [name for name in expected if name not in names]
        if unknown:
            raise ValueError(f"expected names among {', '.join(names)}, got {unknown[0]!r}")
        for name, check in layer_checks(x):
            marks = [pytest.mark.xfail(reason=expected[name], strict=True)] if name in expected else []
            cases.append(pytest.param(layer, check, id=f"{type(layer).__name__}-{name}", marks=marks))
    return pytest.mark.parametrize(("layer", "check"), cases)
