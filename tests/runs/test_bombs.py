"""Every file of bombs.py: one clear line, and little memory."""

import pytest
from bombs import BOMBS, take


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_bomb_is_told_in_one_line_and_takes_little(name):
    taken = take(BOMBS[name])
    assert taken.status == 1
    assert ": error: .../files" in taken.said and taken.said.count("\n") == 1, taken.said
    assert taken.megabytes < 100
