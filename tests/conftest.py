import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import minglow

settings.register_profile("minglow", deadline=None, max_examples=20,
                          suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("minglow"), max_examples=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "minglow"))


@pytest.fixture(scope="session", autouse=True)
def compiled():
    """Compile the kernels once, before any test is timed by Hypothesis."""
    for dtype in (np.float32, np.float64):
        flow = minglow.glow((4, 4, 1), levels=2, flow_steps=1, hidden=4, dtype=dtype, rng=0)
        flow.nll_backward(np.zeros((2, 4, 4, 1), dtype))
