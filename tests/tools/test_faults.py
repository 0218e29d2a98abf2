"""The faults of faults.py can still be planted: each one's text stands in the file that it names."""

from pathlib import Path

import pytest
from faults import FAULTS

import minglow


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_can_be_planted(name):
    file, old, new = FAULTS[name]
    assert old in Path(minglow.__file__).parent.joinpath(file).read_text(encoding="utf-8") and new != old
