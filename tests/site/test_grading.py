"""nbgrader's view of the course: the solved notebooks earn every point, the students' version none."""

import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbgrader", reason="needs nbgrader: pip install 'minglow[course]'")
sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks"))
import build
import nbformat

CASES = build.TEXTS[:1] + [pytest.param(text, marks=pytest.mark.slow) for text in build.TEXTS[1:]]


@pytest.mark.parametrize("text", CASES, ids=lambda text: text.stem)
@pytest.mark.filterwarnings("ignore")  # nbgrader's own
def test_solutions_earn_all_points_and_the_empty_version_none(text, tmp_path):
    notebook = text.with_suffix(".ipynb")
    nbgrader = build.course(tmp_path, [notebook])
    empty = tmp_path / "release" / text.stem / notebook.name
    cells = nbformat.read(empty, as_version=4).cells
    words = "".join(cell.source for cell in cells)
    prose = "".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)\s]*[./][^)\s]*)\)", prose):
        name = Path(link).stem
        assert link.startswith(("http", "models")) or link == f"../{name}/{name}.ipynb", link
    assert "SOLUTION" not in words and "YOUR CODE HERE" in words
    possible = sum(map(int, re.findall(r"^# %% test=.* points=(\d+)$", text.read_text(encoding="utf-8"),
                                       re.MULTILINE)))
    assert (tmp_path / "nbgrader_config.py").read_text(encoding="utf-8") == build.CONFIG
    assert build.points(nbgrader, tmp_path, notebook, "solved") == (possible, possible)
    assert build.points(nbgrader, tmp_path, empty, "empty") == (0, possible)
