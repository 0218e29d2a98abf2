"""The house: four floors, imports downwards, small files, and a debugger that gets everywhere."""

import ast
import importlib
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest

import minglow
from minglow import kernels

PACKAGE = Path(minglow.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS = {
    1: {"bijection", "arrays", "params", "distributions", "bits", "kernels", "data", "plots",
        "memory", "blas", "archive", "device", "arguments", "signals", "text", "top_prior", "version"},
    2: {"layers", "nets", "chain", "flow", "optim", "checkpoint", "testing", "dequantizers",
        "weights", "state", "diagnosis", "ranks"},
    3: {"models", "train", "runs", "metrics", "inference", "evaluation"},
    4: {"cli", "commands", "options", "recipes", "check", "saved", "training", "words", "__main__"},
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}


def module(path):
    """minglow/layers/actnorm.py -> ("layers", "actnorm")"""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(path):
    """Every module of minglow that a file imports, as ("layers", "actnorm"); () is minglow itself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.ImportFrom) and node.level), "relative imports hide the floor"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "minglow":
            parts = tuple(node.module.split(".")[1:])
            for alias in node.names:
                file = PACKAGE.joinpath(*parts, alias.name)
                is_module = file.is_dir() or file.with_suffix(".py").exists()
                yield (*parts, alias.name) if is_module else parts
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "minglow":
                    yield tuple(alias.name.split(".")[1:])


def public(owner, name):
    """Functions and classes that a module defines itself, and methods that a class does."""
    for key, value in vars(owner).items():
        if not key.startswith("_") and callable(value) and getattr(value, "__module__", "") == name:
            yield key, getattr(owner, key)
            if inspect.isclass(value):
                yield from ((f"{key}.{method}", found) for method, found in public(value, name))


def test_every_public_name_says_what_it_is():
    names = [".".join(("minglow", *module(path))) for path in FILES]
    found = {f"{name}.{key}": value for name in names if name != "minglow.__main__"
             for key, value in public(importlib.import_module(name), name)}
    assert len(found) > 400
    assert [key for key, value in found.items() if not inspect.getdoc(value)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short_and_import_downwards(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 200
    here = module(path)
    if not here:
        return  # minglow/__init__.py gathers the public names of all floors
    floor = FLOOR[here[0]]
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "every file says what it is"
    for target in imports(path):
        if not target:
            assert floor == 4, f"{path.name} imports the whole package"
        else:
            assert FLOOR[target[0]] <= floor, f"{path.name} imports {'.'.join(target)} from above"


def test_no_two_modules_import_each_other():
    graph = {module(path): set(imports(path)) - {()} for path in FILES if module(path)}
    packages = {name for name in FLOOR if (PACKAGE / name).is_dir()}

    def reachable(start):
        seen, waiting = set(), [start]
        while waiting:
            for target in graph.get(waiting.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return seen

    for start in graph:
        assert start not in reachable(start), f"{'.'.join(start)} imports itself in a circle"
    by_package = {name: {t[0] for m, targets in graph.items() if m[0] == name for t in targets} - {name}
                  for name in FLOOR}
    for name in packages:
        for target in by_package[name]:
            assert name not in by_package[target], f"{name} and {target} import each other"


def lines_met(backend, root):
    """Every function of files below `root` that a tracing debugger meets in one training step."""
    met = set()

    def trace(frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and root in path.parents:
            met.add(f"{path.stem}.{frame.f_code.co_name}")
        return trace

    flow = minglow.glow((4, 4, 1), levels=2, steps=1, hidden=2, permutation=minglow.InvConv1x1LU, rng=0)
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 4, 4, 1))
    before = sys.gettrace()
    with minglow.use(backend):
        sys.settrace(trace)
        try:
            flow.nll_and_grad(x)
            flow.bijection.inverse(flow.latents(x))
        finally:
            sys.settrace(before)
    return met


@pytest.mark.parametrize(("backend", "file"), [("numpy", "reference"), ("loops", "loops")])
def test_a_debugger_steps_through_every_layer_and_kernel(backend, file):
    met = lines_met(backend, PACKAGE)
    optimisers = {"adam", "adamax", "move_towards"}
    assert {f"{file}.{name}" for name in set(kernels.NAMES) - optimisers} <= met
    layers = {"actnorm", "invconv", "coupling", "squeeze", "level", "chain", "conv", "dense", "net"}
    for layer in layers:
        assert {f"{layer}.forward", f"{layer}.backward"} <= met
    for layer in layers - {"conv", "dense", "net"}:
        assert f"{layer}.inverse" in met
    assert "<lambda>" not in {name.split(".")[1] for name in met}
