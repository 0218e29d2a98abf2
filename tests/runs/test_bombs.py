"""Every file of bombs.py gets one clear line, and takes little memory."""

import pytest
from bombs import BOMBS, take


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_bomb_gets_one_line_and_little_memory(name):
    taken = take(BOMBS[name])
    assert taken.status == 1
    assert ": error: .../files" in taken.error and taken.error.count("\n") == 1, taken.error
    assert taken.megabytes < 100
