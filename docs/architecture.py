"""The table of levels in architecture.md, from import-linter's contract in setup.cfg and docstrings.

    python docs/architecture.py        # writes the table into the page
"""

import ast
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- levels: begin -->\n", "<!-- levels: end -->\n"


def levels() -> list[list[Path]]:
    """The modules and packages of each level, from top to bottom."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = config["importlinter:contract:layers"]["layers"].strip().split("\n")
    paths = [[ROOT / "minglow" / name.strip() for name in line.split("|")] for line in lines]
    return [[path if path.is_dir() else path.with_suffix(".py") for path in line] for line in paths]


def page_with_table(page: str) -> str:
    """The page with the table that belongs in it."""
    rows = ["| level | package or module | purpose |", "| --- | --- | --- |"]
    for number, paths in enumerate(levels(), 1):
        for path in paths:
            text = (path / "__init__.py" if path.is_dir() else path).read_text(encoding="utf-8")
            doc = ast.get_docstring(ast.parse(text)) or ""
            purpose = " ".join(doc.split("\n\n")[0].split()).split(". ")[0].removesuffix(".")
            rows.append(f"| {number} | [{path.stem}](../{path.relative_to(ROOT)}) | {purpose}. |")
    before, _, after = page.partition(BEGIN)
    return before + BEGIN + "\n".join(rows) + "\n" + END + after.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
