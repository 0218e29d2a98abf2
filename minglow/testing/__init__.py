"""Property tests for bijections: minglow's own, and those of whoever writes a layer.

Floor 2. Importing it needs NumPy alone; Hypothesis (strategies.py) and pytest
(parametrize_with_checks) are imported when they are used.

    from minglow.testing import check_layer, parametrize_with_checks

    check_layer(MyLayer(4))                       # raises BrokenPromise that explains itself

    @parametrize_with_checks([MyLayer(4), MyLayer(2)])
    def test_my_layer(layer, check):
        check(layer)
"""

from minglow.testing.checks import (
    check_backends,
    check_cache,
    check_initialize,
    check_inverse,
    check_log_det,
)
from minglow.testing.examples import examples, moved
from minglow.testing.explain import BrokenPromise
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
    "BrokenPromise",
    "NotSmooth",
    "check_backends",
    "check_backward",
    "check_cache",
    "check_initialize",
    "check_inverse",
    "check_layer",
    "check_log_det",
    "check_purity",
    "check_returns",
    "check_samples",
    "directional_derivative",
    "examples",
    "layer_checks",
    "moved",
    "numerical_jacobian",
    "parametrize_with_checks",
    "taylor_slope",
]
