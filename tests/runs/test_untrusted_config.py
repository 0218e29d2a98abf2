"""The configuration in an untrusted file: every wrong entry gets one line and takes no memory."""

import tracemalloc
import types
from functools import cache
from typing import get_args

import numpy as np
import pytest

import minglow as mg
from minglow.cli import main as cli
from minglow.models.base import MODELS
from minglow.runs.config import DataConfig, RunConfig
from minglow.runs.loading import load_run
from minglow.storage import checkpoint
from minglow.storage.checkpoint import CheckpointError
from minglow.storage.settings import options
from minglow.training.config import TrainingConfig
from minglow.validation import MAX_COUNT

SMALL = {"glow": {"hidden": 4, "flow_steps": 1}, "official": {"hidden": 4, "flow_steps": 1},
         "realnvp": {"hidden": 4, "levels": 1, "net": "plain"}, "nice": {"hidden": 4},
         "spline": {"hidden": 4, "flow_steps": 1}}
TABLE = {"columns": ("a", "b", "c"), "center": (-1.0, 0.0, 2.0), "radius": (1.0, 0.5, 3.0)}
CONFIGS = {**{name: MODELS[name] for name in SMALL}, "data": DataConfig, "training": TrainingConfig}
MEGABYTES = 4  # more than reading a small file takes


@cache
def small_run(model="glow"):
    """A model and the configuration of a run that could have trained it, on images or on a table."""
    table = model == "spline"
    flow = MODELS[model]((3,) if table else (4, 4, 1), **SMALL[model]).build(0)
    data = DataConfig(data="a.csv", **TABLE) if table else DataConfig(bins=17)
    return flow, RunConfig(flow.config, data, TrainingConfig(steps=1))


def wrong_values(detail, hint):
    """Values that a field must not have: of other types, and outside of its bounds."""
    types_ = get_args(hint) or (hint,)
    if detail.choices:
        wrong = ["", "none of these", 3, True, [next(iter(detail.choices))], {}, 1.5]
    elif bool in types_:
        wrong = [0, 1, "true", 1.0, [True], {}]
    elif Ellipsis in types_ and int not in types_:  # a list of texts or of numbers
        parts = [None, [], {}, True] + (
            [3, 1.5] if str in types_ else ["1", float("nan"), float("inf"), 10**400, -(10**400)])
        wrong = ["a", 3, True, {}, *([part] for part in parts), *([0.5, part] for part in parts)]
    elif str in types_:
        wrong = [3, 1.5, True, ["a"], {}]
    elif int in types_ and Ellipsis not in types_:
        wrong = [detail.minimum - 1, detail.maximum + 1, 10**400, -(10**400), 1.5, "3", True, [3], {},
                 float("nan"), float("inf")]
    elif float in types_:
        low = max(detail.minimum, detail.above)
        wrong = [low - 0.1, detail.above, detail.below, 10**400, -(10**400), float("nan"), float("inf"),
                 "1", True, [1.0], {}]
        wrong = [value for value in wrong if value != float("-inf")]
    else:  # a shape
        wrong = [[], 4, "441", [4, 0, 1], [4, -4, 1], [4.0, 4, 1], [True, 4, 1], {}, [[4, 4, 1]], ["4"],
                 [4, 4, MAX_COUNT + 1], [4, 4, 10**400], [1] * 10_000, [None]]
    return wrong + [None] * (types.NoneType not in types_)


def changes():
    """Part and field -> changes of the part's entries, each with what the message has to say."""
    found = {}
    for part, config in CONFIGS.items():
        for name, (detail, hint) in options(config).items():
            found[part, name] = [({name: value}, f"expected {name} to be")
                                 for value in wrong_values(detail, hint)]
            found[part, name].append(({name: ...}, f"expected an entry '{name}' in the settings of"))
        found[part, "unknown"] = [({"unknown": 1}, "expected no entry 'unknown' in the settings of")]
    found["glow", "name"] = [({"name": name}, "expected a model among")
                             for name in ("gan", "", 3, None, ["glow"], ...)]
    return found


CHANGES = changes()


def changed(settings, change):
    """Settings with entries replaced, or removed where the new value is `...`."""
    return {key: value for key, value in (settings | change).items() if value is not ...}


@pytest.mark.parametrize(("part", "name"), CHANGES)
def test_a_wrong_entry_gets_one_line_and_takes_no_memory(part, name, tmp_path):
    flow, config = small_run(part if part in SMALL else "glow")
    path, entries = tmp_path / "a.npz", config.to_json()
    entry = part if part in entries else "model"
    for change, message in CHANGES[part, name]:
        checkpoint.save(path, flow, entries | {entry: changed(entries[entry], change)})
        for load in (mg.load, load_run) if entry == "model" else (load_run,):
            tracemalloc.start()
            with pytest.raises(CheckpointError, match=message) as error:
                load(path)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            text = str(error.value)
            assert text.startswith(f"{path}: its configuration cannot be used: ") and text.isprintable()
            assert peak < MEGABYTES * 10**6


@pytest.mark.parametrize(("model", "name", "value", "expected"), [
    *(("spline", name, [*TABLE[name]][:2], "3 entries, got 2") for name in TABLE),
    ("spline", "center", [], "3 entries, got 0"),
    ("spline", "radius", [1.0] * 10_000, "3 entries, got 10000"),
    ("glow", "columns", ["a"], "0 entries, got 1"), ("glow", "center", [0.0], "0 entries, got 1"),
    ("glow", "radius", [0.0], "0 entries, got 1")])
def test_a_table_has_a_name_and_a_range_for_each_column(model, name, value, expected, tmp_path, capsys):
    flow, config = small_run(model)
    path, entries = tmp_path / "a.npz", config.to_json()
    checkpoint.save(path, flow, entries)
    assert cli.main(["info", str(path)]) == 0
    checkpoint.save(path, flow, entries | {"data": entries["data"] | {name: value}})
    with pytest.raises(CheckpointError, match=f"cannot be used: expected {name} to have {expected}$"):
        load_run(path)
    checkpoint.save(path, flow, entries | {"data": entries["data"] | {"columns": []}})
    assert load_run(path).config.data.columns == ()  # a table without names


@pytest.mark.parametrize("part", ["model", "data", "training"])
@pytest.mark.parametrize("value", [..., None, 3, "glow", [], ["a"], [["a", 1]], {}])
@pytest.mark.parametrize("arguments", [["info"], ["sample"], ["train", "--resume"]], ids=" ".join)
def test_a_missing_or_wrong_part_gets_one_line(part, value, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flow, config = small_run()
    forged = changed(config.to_json(), {part: value})
    checkpoint.save("last.npz", flow, forged, facts={"best": float("inf")})
    assert cli.main([*arguments, "last.npz"]) == 1
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and "last.npz: " in shown.err and not shown.out
    assert [path.name for path in tmp_path.iterdir()] == ["last.npz"]


def test_an_unknown_part_is_refused(tmp_path):
    flow, config = small_run()
    checkpoint.save(tmp_path / "a.npz", flow, config.to_json() | {"other": {}})
    message = r"expected settings of model, data, training, got \['model', 'data', 'training', 'other'\]"
    with pytest.raises(CheckpointError, match=message):
        load_run(tmp_path / "a.npz")


def test_a_file_with_control_characters_sends_none_to_the_terminal(tmp_path, capsys):
    flow = mg.Flow(mg.ActNorm(4), mg.StandardNormal((4,)))
    checkpoint.save(tmp_path / "a.npz", flow)
    manifest = checkpoint.archive.read(tmp_path / "a.npz")[1]
    manifest["settings"] |= {"\x1b[31m": "\x1b[0m\n", "bijection": {"\x07": "\x1b"}}
    checkpoint.archive.write(tmp_path / "a.npz", {"base.a": flow.flat.value}, manifest)
    assert cli.main(["info", str(tmp_path / "a.npz")]) == 0
    assert capsys.readouterr().out.replace("\n", "").isprintable()


@pytest.mark.parametrize(("model", "shape"), [
    ("realnvp", (3, 4, 1)), ("nice", (3, 2, 1))])
def test_a_dequantizer_that_cannot_have_the_shape_is_refused(model, shape, tmp_path):
    flow = MODELS[model](shape, **SMALL[model] | ({"levels": 1} if model != "nice" else {})).build(0)
    config = RunConfig(flow.config, DataConfig(bins=17, dequantizer="variational"), TrainingConfig())
    checkpoint.save(tmp_path / "a.npz", flow, config.to_json())
    with pytest.raises(CheckpointError, match=r"cannot be used: expected images .* of even height"):
        load_run(tmp_path / "a.npz")


SIZES = {
    "glow": [{"hidden": 1}, {"hidden": 40}, {"classes": 7}, {"levels": 1}, {"flow_steps": 9},
             {"coupling": "additive"}, {"learned_prior": False, "permutation": "reverse"},
             {"net": "mlp"}, {"net": "paper"}, {"net": "residual"}, {"shape": (64,), "levels": 1},
             {"shape": (64,), "levels": None, "coupling": "additive", "permutation": "shuffle"},
             {"coupling": "spline"}, {"coupling": "spline", "net": "residual"},
             {"shape": (63,), "levels": None, "coupling": "spline"},
             {"context": 3}, {"context": 5000}, {"shape": (2,), "levels": 1, "context": 5000}],
    "official": [{"hidden": 40}, {"classes": 7}, {"levels": 1, "coupling": "additive"}],
    "realnvp": [{"hidden": 1}, {"hidden": 40}, {"levels": 1}, {"net": "plain"},
                {"shape": (63,), "net": None}, {"shape": (2,), "net": None, "couplings": 20}],
    "nice": [{"hidden": 1}, {"hidden": 40}, {"depth": 1}, {"depth": 9}, {"couplings": 9}],
    "spline": [{"shape": (dims,)} | size for dims in (1, 2, 63)
               for size in ({}, {"hidden": 40}, {"flow_steps": 9}, {"spline_bins": 100}, {"context": 1},
                            {"context": 5000})],
}


@pytest.mark.parametrize(("model", "shape", "options", "expected"), [
    ("glow", (8, 8, 3), {"levels": 2, "flow_steps": 5, "hidden": 7},
     5 * 7 * (2 * 7 + 9 * 6) + 5 * 6**2 + 6**2),
    ("glow", (8, 8, 3), {"levels": 1, "flow_steps": 5, "hidden": 7, "classes": 4},
     5 * 7 * (7 + 9 * 3) + 5 * 3**2 + 4 * 3),
    ("glow", (8, 8, 3), {"levels": 3, "flow_steps": 5, "hidden": 7, "permutation": "shuffle"},
     5 * 7 * (3 * 7 + 9 * 12) + 12**2),
    ("glow", (8, 8, 3), {"levels": 2, "flow_steps": 5, "hidden": 7, "learned_prior": False,
                         "permutation": "lu"}, 5 * 7 * (2 * 7 + 9 * 6) + 5 * 6**2),
    ("glow", (64,), {"flow_steps": 5, "hidden": 7}, 5 * 7 * (7 + 64) + 5 * 64**2),
    ("glow", (8, 8, 3), {"levels": 1, "flow_steps": 5, "hidden": 7, "net": "mlp"},
     5 * 7 * (7 + 3) + 5 * 3**2),
    ("realnvp", (8, 8, 3), {"levels": 3, "hidden": 7}, 4 * 7 * (3 * 36 * 7 + 9 * 12)),
    ("realnvp", (8, 8, 3), {"levels": 1, "hidden": 7, "net": "plain"}, 4 * 7 * (7 + 9 * 3)),
    ("nice", (3, 2, 3), {"couplings": 3, "hidden": 11, "depth": 4}, 3 * 11 * (11 * 3 + 9)),
    ("glow", (8, 8, 3), {"levels": 2, "flow_steps": 5, "hidden": 7, "context": 8},
     5 * 7 * (2 * (7 + 8) + 9 * 6) + 5 * 6**2 + 6**2),
    ("glow", (8, 8, 3), {"levels": 1, "flow_steps": 5, "hidden": 7, "coupling": "spline"},
     5 * 7 * (7 + (9 + 11) * 3) + 5 * 3**2),
    ("realnvp", (5,), {"couplings": 3, "hidden": 7}, 3 * 7 * (7 + 5)),
    ("spline", (5,), {"flow_steps": 3, "hidden": 7, "spline_bins": 4, "context": 6},
     3 * (5 * 11 + 7 * (7 + 6 + 2 * 11))),
    ("spline", (1,), {"flow_steps": 3, "hidden": 7, "spline_bins": 4}, 3 * 11)])
def test_the_lower_bound_counts_what_its_docstring_names(model, shape, options, expected):
    assert MODELS[model](shape, **options).min_parameters() == expected


@pytest.mark.parametrize("flow", [
    mg.glow((64,), hidden=64, flow_steps=2, rng=0), mg.nice((64,), hidden=64, rng=0),
    mg.glow((8, 8, 1), hidden=64, flow_steps=1, net="mlp", rng=0)])
def test_a_saved_flow_is_not_too_large_for_its_file(flow, tmp_path):
    mg.save(flow, tmp_path / "flow.npz")
    loaded = mg.load(tmp_path / "flow.npz")
    np.testing.assert_array_equal(loaded.flat.value, flow.flat.value)


@pytest.mark.parametrize(("model", "size"), [(model, size) for model in SIZES for size in SIZES[model]])
def test_the_lower_bound_of_the_number_of_parameters_is_not_far_below(model, size):
    config = MODELS[model](**{"shape": (8, 8, 3)} | SMALL[model] | size)
    count = config.build(0).flat.value.size
    assert config.min_parameters() <= count < 40 * config.min_parameters()
