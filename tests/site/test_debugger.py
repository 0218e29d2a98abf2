"""pdb stops in every layer and kernel of a flow, and shows the values that are computed."""

import ast
import inspect
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minglow
from minglow.arrays.shapes import rows
from minglow.kernels import loops

HERE = Path(minglow.__file__).parents[1]
PROGRAM = HERE / "notebooks" / "step_through.py"
LAUNCH_TEXT = (HERE / ".vscode" / "launch.json").read_text(encoding="utf-8")
LAUNCH = json.loads(LAUNCH_TEXT)
GUIDE = (HERE / "docs" / "guides" / "debugger.md").read_text(encoding="utf-8")
SESSIONS = re.findall(r"^```text\n(\$ python -m pdb.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
NUMBERED = re.compile(r"\w\.py[:(]\d|\b[Ll]ines? \d")  # a place that names a line by its number
START = ["tbreak training_step", "continue"]


def session(commands, backend, folder):
    """What pdb answers to each command that the program is stopped for."""
    commands = [*commands, "quit"]
    call = [sys.executable, "-m", "pdb", PROGRAM, backend]
    done = subprocess.run(call, input="\n".join(commands) + "\n", cwd=folder, capture_output=True,
                          text=True, env=os.environ | {"NO_COLOR": "1"}, check=True, timeout=120)
    _, *answers = done.stdout.split("(Pdb) ")
    assert len(answers) == len(commands), done.stdout
    return [answer.strip() for answer in answers]


def named_lines(page):
    """The file, the number and the text of each line that a page names, as the page shows them."""
    answered = re.findall(r"tbreak (\S+)\nBreakpoint \d+ at \.*(\w+\.py):(\d+)\n", page)
    for name, file, number in answered:
        yield file, int(number), f"def {name.rpartition('.')[2]}("
    for file, number, text in re.findall(r"(\w+\.py)\((\d+)\)\w+\(\)\n-> (.*)\n", page):
        yield file, int(number), text
    ((file, number, text),) = re.findall(r"tbreak \S*?(\w+\.py):(\d+), [^`]*?\n-> (.*)\n", page)
    yield file, int(number), text
    for number in re.findall(r"\bline (\d+)", page):  # in the prose above that conditional breakpoint
        yield file, int(number), text


def values(answers, commands):
    """The numbers that `p name.tolist()` printed, by name."""
    return {command[2:].removesuffix(".tolist()"): np.array(ast.literal_eval(answer))
            for command, answer in zip(commands, answers) if command.endswith(".tolist()")}


@pytest.fixture(scope="module")
def expected():
    """The same training step in this process: the flow, and each layer's input, output and log_det."""
    flow, images = runpy.run_path(str(PROGRAM))["small_flow"]()
    flow.flat.grad[...] = 0
    flow.nll_backward(images)
    x, met = images, []
    for layer in flow.bijection.layers:
        y, log_det, _ = layer.forward(x)
        met.append((layer, x, y, log_det))
        x = y
    return flow, met


@pytest.mark.parametrize(("backend", "file"), [("loops", "loops"), ("numpy", "reference")])
def test_a_step_forwards_and_backwards(backend, file, expected, tmp_path):
    _, met = expected
    functions = [
        "ActNorm.forward", f"kernels.{file}.shift_scale", "InvConv1x1.forward", "AffineCoupling.forward",
        f"kernels.{file}.couple", "AffineCoupling.backward", f"kernels.{file}.couple_backward",
        "InvConv1x1.backward", "ActNorm.backward",
    ]
    commands = [
        *START, *(f"tbreak minglow.{function}" for function in functions),
        "continue", "p x.shape",  # ActNorm.forward
        "continue", "p x.tolist()", "p shift.tolist()", "p scale.tolist()",  # its kernel
        "up", "p type(self).__name__", "down", "return", "p __return__.tolist()",
        "continue", "p (x + 0).tolist()",  # InvConv1x1.forward
        "continue", "p (x - 0).tolist()",  # AffineCoupling.forward
        "continue", "return", "p __return__[1].tolist()", "up", "up", "p len(caches)",  # its kernel
        "continue", "p dlog_det.tolist()",  # AffineCoupling.backward
        "continue", "continue", "continue", "p (dlog_det + 0).tolist()",  # ActNorm.backward
        "return", "p self.grads['shift'].tolist()",
    ]
    answers = session(commands, backend, tmp_path)
    said, found = dict(zip(commands, answers)), values(answers, commands)
    assert said["p x.shape"] == "(3, 2, 2, 4)" and said["p type(self).__name__"] == "'ActNorm'"
    assert said["p len(caches)"] == "3"
    stops = [answer.splitlines()[-2] for command, answer in zip(commands, answers)
             if command == "continue"]
    assert [Path(stop.split("(")[0]).stem for stop in stops[1:]] == [
        "actnorm", file, "invconv", "coupling", file, "coupling", file, "invconv", "actnorm"]
    (norm, norm_in, norm_out, _), (_, mix_in, mix_out, _), (_, _, _, log_det) = met[1:4]
    for name, value in {
        "x": rows(norm_in), "shift": norm.params["shift"], "scale": np.exp(norm.params["log_scale"]),
        "__return__": rows(norm_out), "(x + 0)": mix_in, "(x - 0)": mix_out, "__return__[1]": log_det,
        "dlog_det": np.full(3, -1 / 3), "(dlog_det + 0)": np.full(3, -1 / 3),
        "self.grads['shift']": norm.grads["shift"],
    }.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


def test_a_conditional_breakpoint_stops_at_one_number_of_a_kernel(expected, tmp_path):
    lines, first = inspect.getsourcelines(loops.shift_scale)
    (offset,) = [number for number, line in enumerate(lines) if "y[n, c] =" in line]
    commands = [*START, f"tbreak {inspect.getsourcefile(loops)}:{first + offset}, n == 3 and c == 2",
                "continue", "p n, c", "p x[n].tolist()", "next", "p y[3, :3].tolist()"]
    answers = session(commands, "loops", tmp_path)
    _, x, y, _ = expected[1][1]
    assert answers[commands.index("p n, c")] == "(3, 2)"
    found = values(answers, commands)
    np.testing.assert_allclose(found["x[n]"], rows(x)[3], rtol=1e-12)
    np.testing.assert_allclose(found["y[3, :3]"], rows(y)[3, :3], rtol=1e-12)


def test_every_line_number_in_the_guide_is_compared():
    assert len(list(named_lines(GUIDE))) == len(NUMBERED.findall(GUIDE)) >= 8
    assert not NUMBERED.findall(LAUNCH_TEXT)


@pytest.mark.parametrize(("file", "number", "text"), list(named_lines(GUIDE)))
def test_a_line_number_in_the_guide_is_that_of_the_source(file, number, text):
    (path,) = [path for path in (PROGRAM, *HERE.glob("minglow/**/*.py")) if path.name == file]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert number in [at for at, line in enumerate(lines, start=1) if line.strip().startswith(text)]


@pytest.mark.parametrize("text", SESSIONS, ids=["forward", "backward", "conditional"])
def test_the_values_in_the_guide_are_those_of_pdb(text):
    _, *shown = text.split("(Pdb) ")
    commands = [part.splitlines()[0] for part in shown]
    assert commands.pop() == "quit"
    for command, part, answer in zip(commands, shown, session(commands, "loops", HERE)):
        if command.startswith("p "):
            pages, pdbs = (np.array(re.findall(r"-?\d+\.?\d*", printed), float)
                           for printed in (part[len(command):], answer))
            np.testing.assert_allclose(pages, pdbs, atol=1e-7)


def test_the_program_runs_to_its_end_with_every_backend(expected):
    nll = expected[0].nll_backward(expected[1][0][1]).nll
    for backend in minglow.kernels.HOST:
        call = [sys.executable, PROGRAM, backend]
        done = subprocess.run(call, capture_output=True, text=True, check=True, timeout=120)
        assert done.stdout == f"{nll:.4f} nats\n"


def test_the_notebook_shows_the_program_as_it_is():
    notebook = (HERE / "notebooks" / "11_debugger.py").read_text(encoding="utf-8")
    assert PROGRAM.read_text(encoding="utf-8") in notebook


@pytest.mark.parametrize("configuration", LAUNCH["configurations"], ids=lambda each: each["name"])
def test_what_the_editor_launches_is_there(configuration):
    assert configuration["type"] == "debugpy" and configuration["request"] == "launch"
    assert configuration["justMyCode"] is False  # or an installed minglow is stepped over
    assert ("program" in configuration) != ("module" in configuration)
    if "module" in configuration:
        assert configuration["module"] == "pytest" and "${file}" in configuration["args"]
    else:
        program = Path(configuration["program"].replace("${workspaceFolder}", str(HERE)))
        ast.parse(program.read_text(encoding="utf-8"))
        assert set(configuration["args"]) < set(minglow.kernels.HOST)
