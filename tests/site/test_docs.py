"""docs/paper-and-code.md: its tests exist, and every name, argument and call in it is minglow's."""

import ast
import builtins
import inspect
import re
import shlex
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import pytest

import minglow as mg
from minglow import inference, nets
from minglow.bases import top_prior
from minglow.dequantization import bits, dequantizers
from minglow.training import loop, optimizers
from minglow.cli.main import parser
from minglow.data import digits, images
from minglow.models import glow as models
from minglow.training.optimizers import PolyakAverage, clip_norm

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "paper-and-code.md").read_text(encoding="utf-8")
MODULES = mg, nets, optim, train, inference, bits, dequantizers, top_prior, images, models
FLOW = mg.glow((4, 4, 1), levels=1, flow_steps=1, hidden=2, rng=0)
NAMES = {name: value for module in (builtins, *MODULES) for name, value in vars(module).items()}
# What the page's calls are handed stands for something that a reader has.
NAMES |= {"minglow": mg, "flow": FLOW, "optimizer": optimizers.Adam(FLOW.flat)} | dict.fromkeys(
    ["shape", "channels", "dims", "top", "hidden", "x", "labels", "n", "data", "images", "log_prob", "D",
     "seen"])


def table(first):
    """The rows of the table whose first column has this name, as dictionaries."""
    lines = PAGE.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    head, _, *rest = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]
                      if line.startswith("|") or not line)
    rows = rest[:next((i for i, cells in enumerate(rest) if cells == [""]), len(rest))]
    assert all(len(cells) == len(head) for cells in rows), "a cell holds a |"
    return [dict(zip(head, cells)) for cells in rows]


def code(cell):
    return re.findall("`([^`]+)`", cell)


DIFFERENCES, CONFIGURATIONS = table("what"), table("model")
CALLS = sorted({span for row in DIFFERENCES for column in ("minglow's default", "how to get the other")
                for span in code(row[column])}
               | {span for row in CONFIGURATIONS for column in ("minglow", "bits")
                  for span in code(row[column])}
               | {span for span in code(PAGE) if span.startswith("minglow")})


def test_the_page_covers_what_it_should():
    """A row less is noticed, and so is a table that is not read."""
    assert len(DIFFERENCES) == 34 and len(CONFIGURATIONS) == 8
    for row in DIFFERENCES:
        assert row["paper"] and row["published code"] and row["minglow's default"]


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: row["what"])
def test_every_row_names_a_test_that_there_is(row):
    named = code(row["test"])
    assert named
    for file, name in (span.split("::") for span in named):
        body = ast.parse((TESTS / file).read_text(encoding="utf-8")).body
        assert name.startswith("test_")
        assert name in {part.name for part in body if isinstance(part, ast.FunctionDef)}


def resolve(node):
    """What a name or a dotted name stands for."""
    if isinstance(node, ast.Attribute):
        return getattr(resolve(node.value), node.attr)
    return NAMES[node.id]


def check(span):
    """Every name in a piece of Python is known, and every call has arguments that are taken."""
    tree = ast.parse(span, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            resolve(node)
        if isinstance(node, ast.Call) and resolve(node.func) is not min:
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            if resolve(node.func) is partial:
                inspect.signature(resolve(node.args[0])).bind_partial(*node.args[1:], **keywords)
            else:
                inspect.signature(resolve(node.func)).bind(*node.args, **keywords)


@pytest.mark.parametrize("span", CALLS)
def test_every_call_is_one_that_minglow_takes(span):
    if span.startswith("minglow train"):
        parser().parse_args(shlex.split(span)[1:])
    else:
        check(span)


@pytest.mark.parametrize("span", [
    "glow(shape, norms=ActNorm)", "official_glow(shape, exp=True)", "Glow(shape)", "minglow.squeeze",
    "glow(shape, norm=partial(ActNorm, factors=3.0))", "flow.sample(n, heat=0.7)"])
def test_a_call_that_minglow_does_not_take_is_found(span):
    with pytest.raises((AttributeError, KeyError, TypeError)):
        check(span)


@pytest.mark.parametrize("row", CONFIGURATIONS, ids=lambda row: row["model"])
def test_the_published_configurations_are_these_calls(row):
    flags = dict(re.findall(r"--(\w+)(?:[ =]([\d.]+))?", row["flags of the published code"]))
    built = {}

    def narrow(shape, levels, steps, hidden=512, **options):
        built.update(shape=shape, levels=levels, steps=steps, hidden=hidden, **options)
        return mg.official_glow(shape, levels, 1, 2, **options)

    flow = eval(code(row["minglow"])[0], {"official_glow": narrow})
    size, levels = int(flags["image_size"]), int(flags["n_level"])
    assert built["shape"] == (size, size, 3) and built["levels"] == levels and built["hidden"] == 512
    assert built["steps"] == int(flags["depth"])
    assert built.get("additive", False) == (flags["flow_coupling"] == "0")
    assert ("classes" in built) == ("ycond" in flags) and "learntop" in flags
    assert isinstance(flow.base, mg.TopPrior)
    assert row["bits"].split(":")[0] == flags["n_bits_x"]
    shapes = [(size >> i, size >> i, 3 << i) for i in range(1, levels + 1)]
    shapes[-1] = (*shapes[-1][:2], 2 * shapes[-1][2])  # the last level keeps both of its halves
    views = inference.latent_views(flow, np.zeros((1, prod(built["shape"])), np.float32))
    assert [view.shape[1:] for view in views.values()] == shapes


def test_no_average_and_no_clipping_as_published():
    """decay=0 leaves the last step's parameters, clip=inf every gradient's length."""
    flat = mg.FlatParams(mg.ActNorm(3))
    average = PolyakAverage(flat, ema_decay=0.0)
    for value in 1.0, 7.0:
        flat.value[...] = value
        average.update()
        np.testing.assert_allclose(average.average, flat.value, rtol=1e-6)
    grad = np.full(3, 1e30)
    clip_norm(grad, np.inf)
    np.testing.assert_array_equal(grad, 1e30)
    flow = mg.glow((8, 8, 1), levels=1, flow_steps=1, hidden=2, rng=0)
    published = {"decay": 0.0, "clip": np.inf, "optimizer": optimizers.OfficialAdamax}
    loop.train(flow, digits(), steps=2, batch_size=8, **published)
    assert np.isfinite(flow.flat.value).all()
