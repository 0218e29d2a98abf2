"""README, guides and derivations do as they say: a page's blocks run from its top, in an empty folder.

python  runs; a page's blocks share one namespace. With a first line such as `# my_layer.py` it is that
        file as well, for the blocks and commands below.
sh      lines that begin with minglow, python -m minglow or pytest run, and mpiexec where it is;
        `# exits with 1` at the end of one says that it has to.
text    right below one of these it is what that printed: numbers may differ, `...` stands for anything.
        One that begins with `$ python -m pdb` is a session in a clone, and held to its answers in the
        same way. One that begins with `# PyTorch` is Python, and runs where PyTorch is installed; one
        that begins with `# CuPy`, on what stands in for CuPy here (device.py).
"""

import doctest
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import matplotlib
import pytest
from device import installed
from test_distributed import MISSING, MPIEXEC

import minglow
from minglow.arrays import threads
from minglow.cli import main as cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "bits.md", ROOT / "docs" / "invertibility.md",
         *sorted((ROOT / "docs" / "guides").glob("*.md")),
         *(path for path in sorted((ROOT / "docs" / "derivations").glob("*.md"))
           if "```python" in path.read_text(encoding="utf-8"))]
GIVEN = {"README.md": {"MyLayer": minglow.ActNorm}}  # what a page leaves to its reader
FENCE = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# (\w+\.py)\n")
COMMANDS = "minglow ", "python -m minglow ", "pytest ", "mpiexec "
SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """A fenced block: what it is, what is in it, the line of the page where that begins."""

    kind: str
    text: str
    line: int
    right_below: bool  # the block before


def blocks(page):
    found, end = [], 0
    for match in FENCE.finditer(page):
        line = page.count("\n", 0, match.start("text")) + 1
        found.append(Block(match["kind"], match["text"], line, not page[end:match.start()].strip()))
        end = match.end()
    assert page.count("\n```") + page.startswith("```") == 2 * len(found), "a block has no end"
    return found


def run(page, name, namespace):
    """Run a page's text in this folder; `name` is for tracebacks."""
    printed = None
    for block in blocks(page):
        where = f"{name}:{block.line}"
        if block.kind == "python" or block.text.startswith(("# PyTorch", "# CuPy")):
            printed = executed(block, name, namespace)
        elif block.kind == "sh":
            lines = [line for line in block.text.splitlines() if line.startswith(COMMANDS)]
            outs = [commanded(line, where) for line in lines]
            printed = None if None in outs or not outs else "".join(outs)
        elif block.text.startswith("$ python -m pdb"):
            compare(session(block.text), block.text, where)
        else:
            if block.kind == "text" and block.right_below and printed is not None:
                compare(printed, block.text, where)
            printed = None


def executed(block, name, namespace):
    """What a block of Python prints; None where it needs PyTorch, and that is not there."""
    if block.text.startswith("# PyTorch") and not find_spec("torch"):
        return None
    file = FILE.match(block.text)
    if file:
        Path(file[1]).write_text(block.text, encoding="utf-8")
        importlib.invalidate_caches()
    code = compile("\n" * (block.line - 1) + block.text, name, "exec")  # with the page's line numbers
    with redirect_stdout(io.StringIO()) as out:
        exec(code, namespace)
    return out.getvalue()


def commanded(line, where):
    """What a command prints on stdout; None where it needs mpiexec, and that is not there."""
    words = shlex.split(line, comments=True)
    status = re.search(r"# exits with (\d+)$", line)
    if words[0] == "mpiexec" and MISSING:
        return None
    if words[0] in ("pytest", "mpiexec"):
        start = words.index("minglow") if words[0] == "mpiexec" else 0
        call = [*([MPIEXEC] * bool(start)), *words[1:start], sys.executable, "-m", *words[start:]]
        # A reader's pytest, without the options and the workers of the one that runs this test.
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        done = subprocess.run(call, capture_output=True, text=True, check=False, env=env)
        code, out = done.returncode, done.stdout
    else:
        with redirect_stdout(io.StringIO()) as stream:
            try:
                code = cli.main(words[words.index("minglow") + 1:])
            except SystemExit as error:
                code = error.code
        out = stream.getvalue()
    assert code == int(status[1] if status else 0), f"{where}: {line} exits with {code}: {out}"
    return out


def session(text):
    """The transcript of a debugger that is given the commands of another transcript."""
    first, *rest = text.splitlines()
    commands = [line.removeprefix("(Pdb) ") for line in rest if line.startswith("(Pdb) ")]
    done = subprocess.run([sys.executable, *shlex.split(first)[2:]], input="\n".join(commands) + "\n",
                          cwd=ROOT, capture_output=True, text=True, check=False,
                          env=os.environ | {"NO_COLOR": "1"})
    begin, *answers = done.stdout.split("(Pdb) ")
    typed = "".join(f"(Pdb) {command}\n{answer}" for command, answer in zip(commands, answers))
    return f"{first}\n{begin}{typed}\n"


def compare(printed, page, where):
    assert doctest.OutputChecker().check_output(masked(page), masked(printed), SAME), (
        f"{where} says\n{page}\nand not\n{printed}")


def masked(text):
    """Text without its numbers, and without what depends on how wide they are."""
    return re.sub(r"(?<=\[)\s+", "", re.sub(r"-?\d+(\.\d*)?(e[-+]?\d+)?", "#", text))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to be in; what a page imports from it or chooses does not outlive the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    matplotlib.use("Agg")
    chosen, numbers = threads.threads.chosen, [library.num_threads for library in threads.libraries()]
    with installed(), minglow.use(minglow.kernels.current_backend()):
        yield tmp_path
    threads.threads.chosen = chosen
    for library, number in zip(threads.libraries(), numbers):
        library.set_num_threads(number)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_runs_as_it_stands(path, folder):
    run(path.read_text(encoding="utf-8"), str(path), {"__name__": "page", **GIVEN.get(path.name, {})})


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_block_is_left_out_by_another_name(path):
    kinds = [block.kind for block in blocks(path.read_text(encoding="utf-8"))]
    assert {"python", "sh", "text"} & set(kinds)
    assert not {"", "py", "python3", "pycon", "bash", "shell", "console"} & set(kinds)


@pytest.mark.parametrize(("page", "error"), [
    ("```python\n1 / 0\n```", ZeroDivisionError),
    ("```python\nx = 1\n```\nthen\n```python\nassert x == 2\n```", AssertionError),
    ("```python\nif\n```", SyntaxError),
    ("```python\nnowhere\n```", NameError),
    ("```python\nimport warnings\nwarnings.warn('old')\n```", UserWarning),
    ("```python\nprint('one 1')\n```\n\n```text\ntwo 1\n```", AssertionError),
    ("```python\npass\n```\n\n```text\nwords\n```", AssertionError),
    ("```sh\nminglow info nowhere\n```", AssertionError),
    ("```sh\nminglow nonsense\n```", AssertionError),
    ("```sh\npython -m minglow --version  # exits with 1\n```", AssertionError),
    ("```sh\npytest nowhere.py\n```", AssertionError),
    ("```python\n# mine.py\nx = 1\n```\n\n```python\nimport mine\nassert mine.x == 2\n```",
     AssertionError),
    ("```text\n$ python -m pdb notebooks/step_through.py\n(Pdb) p 'no'\n'yes'\n```", AssertionError),
    ("```python\npass\n", AssertionError),
], ids=["raises", "shared", "syntax", "name", "warning", "printed", "silent", "command", "usage",
        "status", "pytest", "file", "session", "fence"])
def test_a_page_that_is_broken_fails(page, error, folder):
    with pytest.raises(error):
        run(page, "page.md", {"__name__": "page"})


@pytest.mark.parametrize("page", [
    "```python\nprint('one 1.5', [0.5, -1])\n```\n\n```text\none\n2.25 ... 1]\n```",
    "```sh\nminglow info nowhere  # exits with 1\ncd elsewhere\n```",
    "```text\nnothing = nowhere\n```\n\n```python\npass\n```\n\nA table:\n\n```text\nwords\n```",
    "```python\n# mine.py\nx = 1\n```\n\n```python\nimport mine\n\nassert mine.x == x\n```",
    "```text\n$ python -m pdb notebooks/step_through.py\n...\n(Pdb) p 'no'\n'no'\n```",
], ids=["printed", "command", "text", "file", "session"])
def test_a_page_that_is_right_passes(page, folder):
    run(page, "page.md", {"__name__": "page"})


def test_a_traceback_names_the_line_of_the_page(folder):
    with pytest.raises(ZeroDivisionError) as raised:
        run("# Title\n\n```python\nx = 0\n1 / x\n```\n", "page.md", {})
    assert (str(raised.traceback[-1].path).endswith("page.md"), raised.traceback[-1].lineno) == (True, 4)
