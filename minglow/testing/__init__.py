"""Property tests for bijections: minglow's layers and your own.

    from minglow.testing import check_layer, parametrize_with_checks

    check_layer(MyLayer(4))                       # raises PropertyFailed with the likely cause

    @parametrize_with_checks([MyLayer(4), MyLayer(2)])
    def test_my_layer(layer, check):
        check(layer)

parametrize_with_checks needs pytest, and minglow.testing.strategies needs Hypothesis.
"""

from minglow.testing.checks import (
    check_backends,
    check_cache,
    check_initialize,
    check_inverse,
    check_log_det,
)
from minglow.testing.examples import examples, perturbed
from minglow.testing.explain import PropertyFailed
from minglow.testing.gradients import check_backward
from minglow.testing.kit import check_layer, layer_checks, parametrize_with_checks
from minglow.testing.numerical import (
    NotSmooth,
    directional_derivative,
    numerical_jacobian,
    taylor_slope,
)
from minglow.testing.purity import check_purity, check_samples
from minglow.testing.returns import check_returns

__all__ = [
    "NotSmooth", "PropertyFailed", "check_backends", "check_backward", "check_cache",
    "check_initialize", "check_inverse", "check_layer", "check_log_det", "check_purity",
    "check_returns", "check_samples", "directional_derivative", "examples", "layer_checks",
    "numerical_jacobian", "parametrize_with_checks", "perturbed", "taylor_slope",
]
