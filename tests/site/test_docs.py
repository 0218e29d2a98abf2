"""docs/paper-and-code.md: its tests exist, and minglow accepts every name, argument and call in it."""

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
from minglow import data, dequantization, inference, nets, training
from minglow.cli.main import parser
from minglow.models.glow import split_prior
from minglow.models.official import official_split_prior
from minglow.training.optimizers import Adam, OfficialAdamax, PolyakAverage, clip_norm

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "paper-and-code.md").read_text(encoding="utf-8")
MODULES = data, dequantization, inference, nets, training, mg
FLOW = mg.glow((4, 4, 1), levels=1, flow_steps=1, hidden=2, rng=0)
NAMES = {name: value for module in (builtins, *MODULES) for name, value in vars(module).items()}
NAMES |= {"partial": partial, "np": np, "minglow": mg, "split_prior": split_prior,
          "official_split_prior": official_split_prior, "flow": FLOW, "optimizer": Adam(FLOW.flat)}
# The other arguments of the page's calls are the reader's own.
NAMES |= dict.fromkeys(
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
    """A missing row is noticed, and so is a table that is not read."""
    assert len(DIFFERENCES) == 34 and len(CONFIGURATIONS) == 8
    for row in DIFFERENCES:
        assert row["paper"] and row["official code"] and row["minglow's default"]


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: row["what"])
def test_every_row_names_an_existing_test(row):
    named = code(row["test"])
    assert named
    for file, name in (span.split("::") for span in named):
        [path] = TESTS.rglob(file)
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert name.startswith("test_")
        assert name in {part.name for part in body if isinstance(part, ast.FunctionDef)}


def resolve(node):
    """The object of a name or a dotted name."""
    if isinstance(node, ast.Attribute):
        return getattr(resolve(node.value), node.attr)
    return NAMES[node.id]


def check(span):
    """Every name in an expression exists, and every call has arguments that the function accepts."""
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
def test_minglow_accepts_every_call(span):
    if span.startswith("minglow train"):
        parser().parse_args(shlex.split(span)[1:])
    else:
        check(span)


@pytest.mark.parametrize("span", [
    "glow(shape, norms=ActNorm)", "official_glow(shape, exp=True)", "Glow(shape)", "minglow.squeeze",
    "glow(shape, norm=partial(ActNorm, factors=3.0))", "flow.sample(n, heat=0.7)"])
def test_a_call_that_minglow_does_not_accept_is_found(span):
    with pytest.raises((AttributeError, KeyError, TypeError)):
        check(span)


@pytest.mark.parametrize("row", CONFIGURATIONS, ids=lambda row: row["model"])
def test_the_official_configurations_are_these_calls(row):
    flags = dict(re.findall(r"--(\w+)(?:[ =]([\d.]+))?", row["flags of the official code"]))
    built = {}

    def narrow(shape, levels, flow_steps, hidden, **options):
        built.update(shape=shape, levels=levels, flow_steps=flow_steps, hidden=hidden, **options)
        return mg.official_glow(shape, levels, 1, 2, **options)

    flow = eval(code(row["minglow"])[0], {"official_glow": narrow})
    size, levels = int(flags["image_size"]), int(flags["n_level"])
    assert built["shape"] == (size, size, 3) and built["levels"] == levels and built["hidden"] == 512
    assert built["flow_steps"] == int(flags["depth"])
    assert (built.get("coupling") == "additive") == (flags["flow_coupling"] == "0")
    assert ("classes" in built) == ("ycond" in flags) and "learntop" in flags
    assert isinstance(flow.base, mg.TopPrior)
    assert row["bits"].split(":")[0] == flags["n_bits_x"]
    shapes = [(size >> i, size >> i, 3 << i) for i in range(1, levels + 1)]
    shapes[-1] = (*shapes[-1][:2], 2 * shapes[-1][2])  # the last level factors out all of its channels
    views = inference.latent_views(flow, np.zeros((1, prod(built["shape"])), np.float32))
    assert [view.shape[1:] for view in views.values()] == shapes


def test_no_average_and_no_clipping_as_in_the_official_code():
    """ema_decay=0 leaves the last step's parameters, max_grad_norm=None every gradient's norm."""
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
    official = {"ema_decay": 0.0, "max_grad_norm": None, "optimizer": OfficialAdamax}
    mg.train(flow, data.digits(), steps=2, batch_size=8, **official)
    assert np.isfinite(flow.flat.value).all()
