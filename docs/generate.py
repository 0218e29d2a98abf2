"""The pages of the site that are generated from other files, and so stay up to date.

    notebooks/          the notebooks, each with a link for download
    reference/          a page for each module, from its docstrings; the command line, from its parser
    source/             a page for each file of code, to which other pages link
"""

import argparse
import json
import re
from pathlib import Path

import architecture

from minglow.cli.main import parser

ROOT = Path(__file__).parents[1]
SHOWN = ("minglow", "tests", "notebooks", "benchmarks")  # folders whose code has pages
LANGUAGES = {".py": "python", ".cfg": "ini", ".json": "json", ".md": "markdown"}
COURSE = {"notebooks/README.md": "notebooks/index.md", "notebooks/FORMULAS.md": "notebooks/formulas.md"}
ORPHAN = "---\norphan: true\n---"  # a page that no table of contents lists
OTHERS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "setup.cfg", ".vscode/launch.json",
          "docs/architecture.py", "docs/conf.py", "docs/generate.py")


def write_pages(docs: Path) -> None:
    """Write all of them below docs, but for unchanged files, which Sphinx then need not read."""
    pages = {**source_pages(), **notebooks(), **reference()}
    for folder in "notebooks", "reference", "source":
        for path in (docs / folder).rglob("*"):
            if path.is_file() and str(path.relative_to(docs)) not in pages:
                path.unlink()
    for name, text in pages.items():
        path = docs / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def shown_files() -> list[Path]:
    """Every file of code that has a page, relative to the repository."""
    found = [path for folder in SHOWN for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path.relative_to(ROOT) for path in found] + [Path(name) for name in OTHERS]


def source_pages() -> dict[str, str]:
    """A page for each file, with its text, and a page that lists them."""
    files = shown_files()
    pages = {}
    for file in files:
        up = "../" * (len(file.parts) + 1)
        pages[f"source/{file}.md"] = "\n".join([
            ORPHAN, f"# {file}", "", f"```{{literalinclude}} {up}{file}",
            f":language: {LANGUAGES[file.suffix]}", ":linenos:", "```", ""])
    lines = "\n".join(f"- [{file}]({file}.md)" for file in files)
    pages["source/index.md"] = f"{ORPHAN}\n# Source files\n\n{lines}\n"
    return pages


def notebooks() -> dict[str, str]:
    """The notebooks, with links that lead into the site."""
    pages = {}
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        download = f"{{download}}`Download this notebook <../../notebooks/{path.name}>`"
        cells = notebook["cells"]
        for cell, after in zip(cells, [*cells[1:], {}]):
            if cell["cell_type"] == "markdown":
                cell["source"] = inward("".join(cell["source"]), Path("notebooks"))
            else:
                alt = what_to_see("".join(after.get("source", "")))
                cell["metadata"]["mystnb"] = {"image": {"alt": alt}}
        notebook["cells"].insert(
            1, {"cell_type": "markdown", "id": "download", "metadata": {}, "source": download})
        pages[f"notebooks/{path.name}"] = json.dumps(notebook)
    names = [*(Path(name).stem for name in pages), "formulas"]
    for name, page in COURSE.items():
        text = inward((ROOT / name).read_text(encoding="utf-8"), Path("notebooks"))
        pages[page] = re.sub(r"\$`(.*?)`\$", r"$\1$", text)  # GitHub's form, in tables
    pages["notebooks/index.md"] += "\n".join(["", "```{toctree}", ":hidden:", "", *names, "```", ""])
    return pages


def what_to_see(text: str) -> str:
    """The description of a picture: the paragraph below it in the notebook, without markup."""
    seen = re.search(r"\*What to see:\*(.*?)(\n\n|$)", text, re.DOTALL)
    words = re.sub(r"[*`$\\{}]|\]\(.*?\)|\[", "", seen[1] if seen else "").split()
    return " ".join(words) or "figure: the cell above draws it"


def reference() -> dict[str, str]:
    """A page for each module, and one for the command line."""
    files = [path for path in shown_files() if path.parts[0] == "minglow" and path.name != "__main__.py"]
    pages = {}
    for file in files:
        name = module_name(file)
        members = ["   :no-members:"] if file.name == "__init__.py" else []  # it exports other files'
        pages[f"reference/{name}.md"] = "\n".join([
            f"# {name}", "", f"[Source](/source/{file}.md)", "",
            "```{eval-rst}", f".. automodule:: {name}", *members, "```", ""])
    lines = ["# Reference", "",
             "Every public name, from its docstring. A module imports only from the levels below its",
             "own; [the architecture](../architecture.md) describes the levels.", ""]
    sections = [("The package", ["minglow", "minglow.version"])]
    for number, paths in enumerate(architecture.levels(), 1):
        roots = [path.relative_to(ROOT) for path in paths]
        sections.append((f"Level {number}: {', '.join(root.stem for root in roots)}",
                         [module_name(file) for file in files if {file, *file.parents} & {*roots}]))
    for title, names in sections:
        lines += [f"## {title}", "", "```{toctree}", ":maxdepth: 1", "", *names, "```", ""]
    pages["reference/index.md"] = "\n".join(lines)
    pages["reference/command-line.md"] = command_line()
    return pages


def module_name(file: Path) -> str:
    """minglow/layers/actnorm.py -> "minglow.layers.actnorm"."""
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def command_line() -> str:
    """What `minglow COMMAND --help` prints, for every command."""
    top = parser()
    commands = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    lines = ["# The command line", "",
             "What `minglow --help` and `minglow COMMAND --help` print.", "",
             "```text", top.format_help().strip(), "```", ""]
    for name, sub in commands.choices.items():
        lines += [f"## minglow {name}", "", "```text", sub.format_help().strip(), "```", ""]
    return "\n".join(lines)


def links_into_the_site(app: object, docname: str, source: list[str]) -> None:
    """Replace links to files of the repository by links to their pages of the site."""
    if not docname.startswith(("notebooks/", "source/", "reference/")):
        source[0] = inward(source[0], Path("docs", docname).parent)


def inward(text: str, folder: Path) -> str:
    """A page's Markdown, with links to pages of the site in place of links to files."""

    def replaced(match: re.Match) -> str:
        target, anchor = match[1], match[2] or ""
        path = (ROOT / folder / target).resolve()
        if "://" in target or not path.exists() or not path.is_relative_to(ROOT):
            return match[0]
        path = path.relative_to(ROOT)
        if path.is_dir() and (ROOT / path / "__init__.py").exists():
            path /= "__init__.py"
        if path in files:
            return f"](/source/{path}.md)"
        if str(path) in COURSE:
            return f"](/{COURSE[str(path)]})"
        if path.parts[0] == "docs":
            return f"](/{path.relative_to('docs')}{anchor})"
        if path.suffix == ".ipynb":
            return f"](/{path})"
        return "](/source/index.md)" if path.is_dir() else match[0]

    files = set(shown_files())
    return re.sub(r"\]\(([^)#\s]+)(#[^)]*)?\)", replaced, text)
