"""docs/architecture.md: its picture and its table are what minglow's imports and docstrings say now."""

import importlib.util
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_architecture import FLOOR

DOCS = Path(__file__).parents[1] / "docs"
AGAIN = "python docs/architecture.py makes it again"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("architecture", DOCS / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_what_the_imports_say(script):
    assert script.PICTURE.read_text(encoding="utf-8") == script.architecture_svg(), AGAIN


def test_the_table_is_what_the_docstrings_say(script):
    page = script.PAGE.read_text(encoding="utf-8")
    assert page == script.page_with_table(page), AGAIN


def test_every_module_has_a_box_on_its_floor(script):
    found = script.boxes()
    assert {name: box.floor for name, box in found.items()} == {
        name: floor for name, floor in FLOOR.items() if name != "__main__"}
    tree = ElementTree.parse(script.PICTURE)
    names = {text.text for text in tree.iter("{http://www.w3.org/2000/svg}text")
             if text.get("class") == "name"}
    assert names == set(found)


def test_no_import_is_lost_and_none_is_drawn_twice(script):
    found = script.boxes()
    edges = script.without_shortcuts(found)

    def below(name):
        return set(edges[name]).union(*(below(other) for other in edges[name]))

    for name, box in found.items():
        assert box.imports <= below(name)
        for other in edges[name]:
            assert other in box.imports
            assert not any(other in below(between) for between in edges[name])


def test_boxes_of_a_row_do_not_touch(script):
    found = script.boxes()
    edges = script.without_shortcuts(found)
    rows, links = script.routed(script.in_rows(found, edges), edges)
    x = script.placed(rows, links)
    for row in rows:
        ends = sorted((x[name] - script.half(name), x[name] + script.half(name)) for name in row)
        assert ends[0][0] >= script.LEFT - 1e-6 and ends[-1][1] <= script.WIDTH - script.RIGHT + 1e-6
        for (_, right), (left, _) in pairwise(ends):
            assert left - right >= script.SPACE - 1e-6
