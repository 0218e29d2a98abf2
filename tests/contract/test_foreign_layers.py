"""The property-test kit on layers of another style: right ones pass, and mistakes are explained."""

import numpy as np
import pytest
from foreign_layers import LAYERS
from foreign_mistakes import MISTAKES

from minglow.testing import PropertyFailed, check_layer


@pytest.mark.parametrize("name", LAYERS)
def test_right_layers_pass(name):
    for seed in range(10):
        check_layer(LAYERS[name](), rng=seed)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.layer}, {mistake.wrong}")
def test_a_mistake_is_found_and_explained(mistake):
    layer = mistake.build()()
    with np.errstate(all="ignore"), pytest.raises((PropertyFailed, ValueError)) as caught:
        check_layer(layer)
    message = str(caught.value)
    assert "\n" not in message
    assert mistake.explained_by(message), message


def test_there_are_many_mistakes_in_each_layer():
    counts = [sum(mistake.layer == name for mistake in MISTAKES) for name in LAYERS]
    assert min(counts) >= 16 and sum(counts) >= 48
