"""All checks of a layer: in one call, as a list, or as parametrized tests."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from minglow.bijection import Bijection
from minglow.testing.checks import (
    check_backends,
    check_cache,
    check_initialize,
    check_inverse,
    check_log_det,
)
from minglow.testing.gradients import check_backward
from minglow.testing.purity import check_purity, check_samples
from minglow.testing.returns import check_returns

Check = Callable[[Bijection], None]
CHECKS = (
    check_returns, check_purity, check_inverse, check_log_det, check_backward, check_cache,
    check_initialize, check_samples, check_backends,
)


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

        @parametrize_with_checks([MyLayer(4)])
        def test_my_layer(layer, check):
            check(layer)

    expected_failed_checks: from a layer to {name of a property: reason}; those tests must fail.
    """
    import pytest  # noqa: PLC0415  the other checks run without pytest

    cases = []
    for layer in layers:
        expected = expected_failed_checks(layer) if expected_failed_checks else {}
        for name, check in layer_checks(x):
            marks = [pytest.mark.xfail(reason=expected[name], strict=True)] if name in expected else []
            cases.append(pytest.param(layer, check, id=f"{type(layer).__name__}-{name}", marks=marks))
    return pytest.mark.parametrize(("layer", "check"), cases)
