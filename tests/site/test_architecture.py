"""The architecture: levels of packages, imports downwards, small files, every line in a debugger."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minglow
from minglow import kernels

ROOT = Path(__file__).parents[2]
PACKAGE = Path(minglow.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_ENTRIES, MAX_LEVELS, MAX_LINES = 20, 14, 200


def module(path):
    """minglow/layers/actnorm.py -> "minglow.layers.actnorm"."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def public(owner, name):
    """Functions and classes that a module defines itself, and methods that a class does."""
    for key, value in vars(owner).items():
        if not key.startswith("_") and callable(value) and getattr(value, "__module__", "") == name:
            yield key, getattr(owner, key)
            if inspect.isclass(value):
                yield from ((f"{key}.{method}", found) for method, found in public(value, name))


def test_every_public_name_says_what_it_is():
    names = [module(path) for path in FILES]
    found = {f"{name}.{key}": value for name in names if name != "minglow.__main__"
             for key, value in public(importlib.import_module(name), name)}
    assert len(found) > 400
    assert [key for key, value in found.items() if not inspect.getdoc(value)] == []


def test_imports_go_downwards():
    """The contract of import-linter in setup.cfg: complete levels, no upward import, no cycle."""
    command = ["lint-imports", "--config", "setup.cfg", "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stdout
    assert "Contracts: 1 kept, 0 broken." in result.stdout


def test_an_upward_import_is_found(tmp_path):
    package = tmp_path / "minglow"
    for name in "high", "low":
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text("import minglow.high" if name == "low" else "")
    (package / "__init__.py").write_text("")
    (tmp_path / "setup.cfg").write_text(
        "[importlinter]\nroot_package = minglow\n[importlinter:contract:layers]\nname = Levels\n"
        "type = layers\ncontainers = minglow\nlayers =\n    high\n    low\n")
    result = subprocess.run(["lint-imports", "--no-cache"], cwd=tmp_path, text=True, capture_output=True,
                            check=False, env={"PATH": str(Path(sys.executable).parent),
                                              "PYTHONPATH": str(tmp_path)})
    assert result.returncode == 1
    assert "minglow.low is not allowed to import minglow.high" in result.stdout


def test_there_are_few_entries_and_levels():
    entries = [path for path in PACKAGE.iterdir() if not path.name.startswith(("__", "."))
               and path.name not in ("version.py", "py.typed")]
    assert 15 < len(entries) <= MAX_ENTRIES
    levels = (ROOT / "setup.cfg").read_text(encoding="utf-8").split("layers =\n")[1].split("\n\n")[0]
    assert 10 < len(levels.splitlines()) <= MAX_LEVELS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short_and_say_what_they_are(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    assert ast.get_docstring(ast.parse(text))


def lines_met(backend, root):
    """Every function of files below `root` that a tracing debugger meets in one training step."""
    met = set()

    def trace(frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and root in path.parents:
            met.add(f"{path.stem}.{frame.f_code.co_name}")
        return trace

    flows = [minglow.glow((4, 4, 1), levels=2, flow_steps=1, hidden=2, permutation=permutation, rng=0)
             for permutation in ("1x1", "lu")]
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 4, 4, 1))
    before = sys.gettrace()
    with minglow.use(backend):
        sys.settrace(trace)
        try:
            for flow in flows:
                flow.nll_backward(x)
                flow.bijection.inverse(flow.latents(x))
        finally:
            sys.settrace(before)
    return met


@pytest.mark.parametrize(("backend", "file"), [("numpy", "reference"), ("loops", "loops")])
def test_a_debugger_steps_through_every_layer_and_kernel(backend, file):
    met = lines_met(backend, PACKAGE)
    optimizers = {"adam", "adamax", "move_towards"}
    assert {f"{file}.{name}" for name in set(kernels.NAMES) - optimizers} <= met
    layers = {"actnorm", "invconv", "coupling", "squeeze", "level", "chain", "conv", "dense", "net"}
    for layer in layers:
        assert {f"{layer}.forward", f"{layer}.backward"} <= met
    for layer in layers - {"conv", "dense", "net"}:
        assert f"{layer}.inverse" in met
    assert {"invconv_lu.matrix", "invconv_lu.backward"} <= met
    assert "<lambda>" not in {name.split(".")[1] for name in met}
