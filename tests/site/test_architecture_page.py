"""docs/architecture.md: its table of levels is what setup.cfg and the docstrings say."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_up_to_date(script):
    page = script.PAGE.read_text(encoding="utf-8")
    assert page == script.page_with_table(page), "python docs/architecture.py writes it again"


def test_every_module_and_package_is_in_the_table(script):
    listed = [path for paths in script.levels() for path in paths]
    modules = [path for path in (ROOT / "minglow").glob("*.py")
               if path.name not in ("__init__.py", "__main__.py", "version.py")]
    packages = [path.parent for path in (ROOT / "minglow").glob("*/__init__.py")]
    assert sorted(listed) == sorted([*modules, *packages])
