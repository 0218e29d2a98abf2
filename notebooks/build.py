"""Build the notebooks from their texts, and the course that instructors hand out and grade.

    python notebooks/build.py               run all texts (*.py) and write the notebooks (*.ipynb)
    python notebooks/build.py 05 07         run only these
    python notebooks/build.py --course DIR  a course for nbgrader in DIR: source/ has the solutions,
                                            release/ is the students' version, without them

A text is a notebook in jupytext's percent format. A cell that students complete begins with
`# %% solution="name"`, and the cell that grades it with `# %% test="name" points=2`. A formula has a
\\tag{5.3}, and the cell that checks it begins with `# checks (5.3)`. FORMULAS.md, which is also written,
lists them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
TEXTS = sorted(HERE.glob("[0-9][0-9]_*.py"))
SECONDS = 120  # limit for each cell
METADATA = {"jupytext": {"formats": "ipynb,py:percent"},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"}}
CONFIG = f"""# What nbgrader's commands read in this folder.
c = get_config()
c.CourseDirectory.course_id = "minglow"
c.ExecutePreprocessor.timeout = {SECONDS}  # seconds that a cell may take
"""


def from_text(path: Path) -> nbformat.NotebookNode:
    """The notebook that a text describes, not run yet."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"
        marks = {word: cell.metadata.pop(word, None) for word in ("solution", "test", "points")}
        if marks["solution"] or marks["test"]:
            cell.metadata["nbgrader"] = nbgrader_metadata(**marks)
    return notebook


def nbgrader_metadata(solution: str | None, test: str | None, points: int | None) -> dict[str, object]:
    """A cell's metadata in nbgrader's schema 3: students complete a solution; a test is locked."""
    marks = {"grade": bool(test), "grade_id": f"test-{test}" if test else solution,
             "locked": bool(test), "solution": bool(solution), "task": False, "schema_version": 3}
    return marks | ({"points": points} if test else {})


def run(notebook: nbformat.NotebookNode) -> None:
    """Execute all cells in place; raises at the first error. Drops metadata that differ between runs."""
    NotebookClient(notebook, timeout=SECONDS, coalesce_streams=True,
                   resources={"metadata": {"path": str(HERE)}}).execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)


class Formula(NamedTuple):
    """A displayed formula, its section, and the numbers of the cells that check it, as in Jupyter."""

    number: str  # its tag, "5.3"; empty if it has none
    latex: str
    section: str
    cells: list[int]


def formulas(notebook: nbformat.NotebookNode) -> list[Formula]:
    """All displayed formulas of a notebook, in order."""
    found, section, checks = [], "", {}
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for count, source in enumerate(code, start=1):
        for line in re.findall(r"^# checks .*", source, re.MULTILINE):
            for number in re.findall(r"\((\d+\.\d+)\)", line):
                checks.setdefault(number, []).append(count)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for part in re.findall(r"^#+ [^\n]*|\$\$.*?\$\$", cell.source, re.DOTALL | re.MULTILINE):
                if part.startswith("#"):
                    section = part.splitlines()[0].lstrip("# ")
                    continue
                tag = re.search(r"\\tag\{(.*?)\}", part)
                number = tag[1] if tag else ""
                latex = " ".join(re.sub(r"\\tag\{.*?\}", "", part).strip("$").split())
                found.append(Formula(number, latex, section, checks.get(number, [])))
    return found


def formula_table(notebooks: dict[str, nbformat.NotebookNode]) -> str:
    """FORMULAS.md: every formula, and the cells that check it."""
    lines = ["# Formulas, and the cells that check them", "", "By `python notebooks/build.py`.", ""]
    for name, notebook in notebooks.items():
        title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
        lines += [f"## [{title}]({name}.ipynb)", "",
                  "| | formula | section | checked in cell |", "| --- | --- | --- | --- |"]
        for formula in formulas(notebook):
            # A bar would end the table's cell; GitHub leaves $`...`$ as it is.
            latex = formula.latex.replace(r"\|", r"\Vert ").replace("|", r"\vert ")
            cells = ", ".join(f"[{count}]" for count in formula.cells)
            section = formula.section.replace("|", r"\|")
            lines.append(f"| ({formula.number}) | $`{latex}`$ | {section} | {cells} |")
        lines.append("")
    return "\n".join(lines)


def student_link(link: re.Match) -> str:
    """A link to the web, the model or a notebook in the course's folders; the text of any other link."""
    words, target = link.groups()
    if target.startswith(("http", "models")):
        return link[0]
    name = Path(target).stem
    return f"[{words}](../{name}/{name}.ipynb)" if target == f"{name}.ipynb" else words


def course(folder: Path, notebooks: list[Path]) -> object:
    """Write an nbgrader course with a released assignment for each notebook; return nbgrader's API.

    An nbgrader_config.py that is there already is not changed.
    """
    from nbgrader.apps import NbGraderAPI  # noqa: PLC0415  needed only for courses
    from traitlets.config import PyFileConfigLoader  # noqa: PLC0415

    settings = folder / "nbgrader_config.py"
    folder.mkdir(parents=True, exist_ok=True)
    if not settings.exists():
        settings.write_text(CONFIG, encoding="utf-8")
    config = PyFileConfigLoader(settings.name, str(folder)).load_config()
    config.CourseDirectory.root = str(folder.resolve())
    nbgrader = NbGraderAPI(config=config)
    for path in notebooks:
        source = folder / "source" / path.stem
        shutil.copytree(HERE / "models", source / "models", dirs_exist_ok=True)
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = re.sub(r"\[([^]]*)\]\(([^)\s]*[./][^)\s]*)\)", student_link, cell.source)
        nbformat.write(notebook, source / path.name)
        answer = nbgrader.generate_assignment(path.stem, force=True, create=True)
        if not answer["success"]:
            raise RuntimeError(f"{path.name}: nbgrader did not release it: {answer.get('log', answer)}")
    return nbgrader


def points(nbgrader: object, folder: Path, notebook: Path, student: str) -> tuple[float, float]:
    """Submit a notebook in a student's name and grade it; return the points and the largest possible."""
    name = notebook.stem
    shutil.copytree(folder / "source" / name, folder / "submitted" / student / name)
    shutil.copy(notebook, folder / "submitted" / student / name)
    answer = nbgrader.autograde(name, student, force=True, create=True)
    if not answer["success"]:
        raise RuntimeError(f"{name}: nbgrader could not grade it: {answer.get('log', answer)}")
    with nbgrader.gradebook as gradebook:
        submission = gradebook.find_submission(name, student)
        return submission.score, submission.max_score


def main() -> None:
    """Run texts, or make a course."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("numbers", nargs="*", help="of the notebooks to run; all of them by default")
    parser.add_argument("--course", type=Path, metavar="DIR", help="make a course for nbgrader here")
    arguments = parser.parse_args()
    texts = [path for path in TEXTS if not arguments.numbers or path.name[:2] in arguments.numbers]
    if not texts:
        parser.error(f"expected numbers such as 05, got {' '.join(arguments.numbers)}")
    if arguments.course:
        course(arguments.course, [path.with_suffix(".ipynb") for path in texts])
        print(f"students get {arguments.course / 'release'}")
        return
    for path in texts:
        start = time.perf_counter()
        notebook = from_text(path)
        run(notebook)
        target = path.with_suffix(".ipynb")
        nbformat.write(notebook, target)
        print(f"{target.name}: {time.perf_counter() - start:.0f} s, {target.stat().st_size // 1024} kB",
              flush=True)
    table = formula_table({path.stem: from_text(path) for path in TEXTS})
    (HERE / "FORMULAS.md").write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
