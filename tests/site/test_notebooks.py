"""The notebooks are their texts, run without a complaint; formulas are checked, exercises graded.

That they run is `pytest --nbmake notebooks`; tests/site/test_grading.py hands them in.
"""

import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="needs jupytext: pip install 'minglow[notebooks]'")
nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install 'minglow[notebooks]'")
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))
import build  # noqa: E402

# Words by which an author skips a step that the reader would have needed.
SKIPPED = r"\b(clearly|obviously|trivially|of course|it is easy to see|simply)\b"
each = pytest.mark.parametrize("text", build.TEXTS, ids=lambda path: path.stem)


def committed(text):
    return nbformat.read(text.with_suffix(".ipynb"), as_version=4)


def test_there_are_fourteen_and_each_has_both_forms():
    assert [path.name[:2] for path in build.TEXTS] == [f"{number:02}" for number in range(14)]
    assert {path.stem for path in build.TEXTS} == {path.stem for path in NOTEBOOKS.glob("*.ipynb")}


@each
def test_a_notebook_is_its_text(text):
    mine, theirs = build.from_text(text), committed(text)
    assert [(cell.cell_type, cell.source, cell.id, cell.metadata) for cell in mine.cells] == \
           [(cell.cell_type, cell.source, cell.id, cell.metadata) for cell in theirs.cells]
    assert mine.metadata == theirs.metadata
    assert (theirs.nbformat, theirs.nbformat_minor) == (mine.nbformat, mine.nbformat_minor)


@each
def test_it_was_run_from_top_to_bottom_without_a_complaint(text):
    code = [cell for cell in committed(text).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", output
    assert text.with_suffix(".ipynb").stat().st_size < 800_000


@each
def test_no_output_speaks_of_the_machine_that_made_it(text):
    assert not re.search(r"/(home|root|work|tmp|Users)/|0x[0-9a-f]{8}",
                         "".join(str(cell.get("outputs", "")) for cell in committed(text).cells))


@each
def test_every_formula_is_numbered_and_checked(text):
    number = str(int(text.name[:2]))
    found = build.formulas(committed(text))
    assert [formula.number for formula in found] == [f"{number}.{k + 1}" for k in range(len(found))]
    assert found and [formula.number for formula in found if not formula.cells] == []
    source = text.read_text(encoding="utf-8")
    checks = " ".join(re.findall(r"^# checks .*", source, re.MULTILINE))
    unknown = set(re.findall(r"\((\d+\.\d+)\)", checks)) - {formula.number for formula in found}
    assert unknown == set(), "no such formula"
    code = [cell.source for cell in committed(text).cells if cell.cell_type == "code"]
    for count in {count for formula in found for count in formula.cells}:
        assert re.search(r"^ *assert |check_layer\(", code[count - 1], re.MULTILINE), f"cell [{count}]"


@each
def test_exercises_have_a_solution_and_a_graded_test(text):
    source, cells = text.read_text(encoding="utf-8"), build.from_text(text).cells
    marks = [cell.metadata["nbgrader"] for cell in cells if "nbgrader" in cell.metadata]
    solutions = [mark["grade_id"] for mark in marks if mark["solution"]]
    tests = [mark["grade_id"] for mark in marks if mark["grade"]]
    assert tests == [f"test-{name}" for name in solutions] and len(set(tests)) == len(tests)
    asked = re.findall(r"\*\*Exercise \d+\.(\d+):.*?\*\* \((\d+) points?\)", source)
    assert [int(number) for number, _ in asked] == list(range(1, len(asked) + 1))
    assert 3 <= len(asked) <= 5
    assert [int(points) for _, points in asked] == [mark["points"] for mark in marks if mark["grade"]]
    for cell in cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            assert cell.source.count("### BEGIN SOLUTION") == cell.source.count("### END SOLUTION") > 0


@each
def test_links_lead_somewhere_and_no_step_is_skipped(text):
    words = "\n".join(cell.source for cell in committed(text).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", words):
        assert target.startswith("https://") or (NOTEBOOKS / target).exists(), target
    assert re.findall(SKIPPED, words, re.IGNORECASE) == []


def test_the_table_of_formulas_is_up_to_date():
    table = build.formula_table({path.stem: build.from_text(path) for path in build.TEXTS})
    assert (NOTEBOOKS / "FORMULAS.md").read_text(encoding="utf-8") == table


def test_a_formula_without_a_check_is_seen():
    cells = [nbformat.v4.new_markdown_cell("# A\n$$\na = b\n\\tag{1.1}\n$$\n$$\nc\n$$"),
             nbformat.v4.new_code_cell("1"), nbformat.v4.new_code_cell("# checks (1.1)\nassert True")]
    found = build.formulas(nbformat.v4.new_notebook(cells=cells))
    assert [(formula.number, formula.latex, formula.section, formula.cells) for formula in found] == \
           [("1.1", "a = b", "A", [2]), ("", "c", "A", [])]
