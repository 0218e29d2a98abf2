"""Hundreds of wrong calls and command lines: each gets one clear line and leaves no files."""

import json
import os
import struct
from functools import cache, partial
from itertools import product
from typing import get_args

import numpy as np
import pytest
from bijections import BIJECTIONS
from PIL import Image

import minglow as mg
from minglow import data, inference
from minglow.cli import main as cli
from minglow.dequantization import UniformDequantizer, VariationalDequantizer, log_bound
from minglow.models.base import MODELS
from minglow.nets import mlp
from minglow.runs.config import DataConfig, RunConfig
from minglow.storage import checkpoint
from minglow.storage.settings import options
from minglow.storage.weights import import_safetensors
from minglow.training import TrainingConfig, evaluate, optimizers, train

NAN, INF = float("nan"), float("inf")


# ------------------------------------------------------------------------------------ the command line

NO_WHOLE = "-1", "1.5", "nan", "two", "", "1e3", "0x10", "½", "1_000", "9" * 19, "9" * 5000
NO_COUNT = (*NO_WHOLE, "0")
NO_AMOUNT = "-1", "nan", "inf", "-inf", "1e999", "two", "", "1,5", "1_0", "9" * 5000
NO_CHOICE = "", "none of these", "GLOW"


def wrong_texts(detail, hint):
    """Texts that an option must not have; none for one that takes any text or no value."""
    kinds = get_args(hint) or (hint,)
    if detail.choices:
        return NO_CHOICE
    if int in kinds:
        return NO_COUNT if detail.minimum else NO_WHOLE
    return (*NO_AMOUNT, *(["0"] if detail.above == 0 else [])) if float in kinds else ()


TRAIN_OPTIONS = {name: entry for config in (*MODELS.values(), DataConfig, TrainingConfig)
                 for name, entry in options(config).items() if entry[0].cli}
OPTIONS = [
    *((["train"], f"--{name.replace('_', '-')}", text) for name, (detail, hint) in TRAIN_OPTIONS.items()
      for text in wrong_texts(detail, hint)),
    *product([["train"]], ["-K", "-L", "--threads"], NO_COUNT),
    *product([["sample", "RUN"], ["interpolate", "RUN"], ["check", "m:M"]], ["--seed"], NO_WHOLE),
    *product([["train"]], ["--model", "--backend"], NO_CHOICE),
    *product([["sample", "RUN"]], ["-n"], NO_COUNT),
    *product([["sample", "RUN"]], ["--label"], NO_WHOLE),
    *product([["sample", "RUN"]], ["--temperature"], NO_AMOUNT),
    *product([["interpolate", "RUN"]], ["--pairs", "--frames"], NO_COUNT),
    *product([["evaluate", "RUN"]], ["--bits", "--bins", "--size", "--threads"], NO_COUNT),
]
NO_MODEL = ("missing", "folder", "empty", "text", "cut.npz", "photos.npy", "a\nb", "\udc80", "x" * 300,
            "", "pipe", "nested.safetensors")
NO_DATA = ("missing", "folder", "empty", "text", "cut.npy", "a\nb", "\udc80", "x" * 300, "",
           "floats.npy", "one.npy", "five.npy", "pickle", "cmyk", "deep", "animated", "blank", "mixed",
           "bad.npz", "RUN", "numbers.npy", "negative.npz", "pipe")
COMMANDS = [
    *([command, path] for command in ("info", "evaluate", "sample", "interpolate", "export")
      for path in NO_MODEL),
    *(["train", "--data", path] for path in NO_DATA),
    *(["evaluate", "RUN", "--data", path] for path in NO_DATA),
    *(["train", "--resume", path] for path in NO_MODEL),
    *(["check", target] for target in ("", ":", "a", "missing:Layer", "json:missing", "json:dumps",
                                       "json:__name__", "text:M", "../m:M", "m.py:M")),
    *(["sample", "RUN", "--out", out] for out in ("no/a.png", "a.xyz", ".", "text/a.png", "no/a.npy",
                                                  "x" * 300 + ".png", "\0.png")),
    *(["export", "RUN", "--out", out] for out in ("no/a.safetensors", "a.npz", "text/a")),
    *(["train", "--runs", folder, "--steps", "1", "-K", "1"] for folder in ("text", "text/runs", "\0")),
    *(["train", "--name", name] for name in ("", "..", "a/b", "/", "a\0b", "x" * 300)),
    ["train", "--ema-decay", "1"], ["train", "--ema-decay", "2"], ["train", "--learning-rate", "0"],
    ["train", "--bits", "9"], ["train", "--bins", "257"], ["train", "--logit", "0.5"],
    ["train", "--bins", "1"], ["train", "--dequantizer", "variational", "--data", "odd.npy", "-L", "1"],
    ["train", "--size", "5000"],
    ["sample", "RUN", "--label", "0"], ["sample", "RUN", "--temperature", "1e38"], ["train", "-L", "4"],
    ["sample", "RUN", "-n", "10001"], ["interpolate", "RUN", "--pairs", "5001"], ["train", "-L", "100"],
    ["interpolate", "RUN", "--frames", "1"], ["train", "--shift", "9"], ["train", "--shift", "1e300"],
    ["train", "--threads", "5000"], ["train", "--resume", "RUN"],
    ["train", "--steps", "2500", "--resume", "a"], ["train", "--model", "nice", "--permutation", "1x1"],
    ["train", "--model", "nice", "-L", "5"], ["train", "--model", "realnvp", "-K", "7"],
    ["train", "--micro-batches", "3"], ["train", "--name", "a", "--resume", "RUN"],
    ["train", "--runs", ""],
    # more than any memory holds: refused before it is taken
    ["train", "-L", "9999999999"], ["train", "-L", "20000"], ["train", "-K", "99999999999"],
    ["train", "--model", "nice", "--couplings", "99999999999"],
    ["train", "--model", "nice", "--depth", "99999999999"], ["train", "--classes", "99999999999999"],
    ["train", "--hidden", "30000000"],
    ["train", "--batch-size", "100000000000"],
]


def line(arguments):
    """A command line as a test's name."""
    return ascii(" ".join(arguments))[1:60]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of files that are no images and no models, and of one model, RUN."""
    folder = tmp_path_factory.mktemp("files")
    flow = mg.glow((8, 8, 1), 1, 1, 4, rng=0)
    config = RunConfig(flow.config, DataConfig(bins=17), TrainingConfig())
    checkpoint.save(folder / "RUN", flow, config.to_json())
    (folder / "cut.npz").write_bytes((folder / "RUN").read_bytes()[:-50])
    (folder / "text").write_text("text")
    (folder / "empty").write_bytes(b"")
    (folder / "pickle").write_bytes(b"\x80\x04\x95more")
    os.mkfifo(folder / "pipe")
    nested = json.dumps({"__metadata__": {"minglow": "[" * 200_000}}).encode()
    (folder / "nested.safetensors").write_bytes(struct.pack("<Q", len(nested)) + nested)
    small = np.zeros((3, 8, 8), np.uint8)
    arrays = {"photos": small, "floats": small / 1.0, "one": small[:1], "five": small[..., None, None],
              "numbers": small.astype(np.int64), "odd": np.zeros((3, 3, 4), np.uint8)}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "cut.npy").write_bytes((folder / "photos.npy").read_bytes()[:-5])
    np.savez(folder / "bad.npz", images=small, labels=np.arange(2))
    np.savez(folder / "negative.npz", images=small, labels=np.array([0, -1, 0]))
    color = Image.new("RGB", (8, 8))
    for name, pictures in {
        "folder": {}, "cmyk": {"a.jpg": color.convert("CMYK"), "b.jpg": color},
        "deep": {"a/b/c.png": color, "d.png": color}, "animated": {"a.png": color},
        "blank": {"a.png": color, "b.png": None},
        "mixed": {"a.png": color, "b.png": color.resize((4, 8))},
    }.items():
        (folder / name).mkdir()
        for file, picture in pictures.items():
            path = folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if picture is None:
                path.write_bytes(b"")
            else:
                picture.save(path)
    red = Image.new("RGB", (8, 8), "red")
    color.save(folder / "animated/b.png", save_all=True, append_images=[red])
    return folder


def tree(folder):
    return sorted((str(path), path.stat().st_size) for path in folder.rglob("*"))


@pytest.mark.parametrize("arguments", [[*command, option, value] for command, option, value in OPTIONS]
                         + COMMANDS, ids=line)
def test_a_wrong_command_line_gets_one_line_and_leaves_no_files(arguments, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = tree(folder)
    try:
        status = cli.main(arguments)
    except SystemExit as exit:
        status = exit.code
    shown = capsys.readouterr()
    assert status in (1, 2)
    assert shown.err.count("\n") == 1 and shown.err[:-1].isprintable(), shown.err
    assert "error: " in shown.err and "Traceback" not in shown.err
    assert tree(folder) == before


# ------------------------------------------------------------------------------------------ the library


@cache
def flow(**options):
    return mg.glow((4, 4, 1), 1, 1, 4, rng=0, **options)


@cache
def conditional_flow():
    return mg.glow((2,), flow_steps=1, hidden=4, context=2, rng=0)


def x(*shape, dtype=np.float32):
    return np.zeros(shape or (2, 4, 4, 1), dtype)


def some_images(**changed):
    pixels = np.zeros((4, 4, 4, 1), np.uint8)
    return data.Images(pixels, pixels, 17)._replace(**changed)


NOT_ARRAYS = None, "x", 3, [[1.0]], object()
NOT_A_BATCH = [*NOT_ARRAYS, x(4), x(0, 4, 4, 1), x(2, 4, 4, 1, dtype=np.uint8), x(2, 4, 4, 1) + NAN,
               x(2, 4, 4, 1) + INF, x(2, 4, 4, 3), x(2, 3, 4, 1), x(2, 4, 4, 1).astype(np.complex64),
               np.array(["a"]), np.array([None])]
NOT_LABELS = [3.0], ["a"], [0], [0, 1, 2], [0, 3], [0, -1], [[0, 1]], "ab", 0
NOT_A_COUNT = 0, -1, 1.5, "3", None, NAN, [1]
NOT_A_SHAPE = (), (4,) * 4, (3, 3, 1), (0, 4, 1), (4, 4, 0), (-4, 4, 1), 4, "441", None, (4.0, 4, 1)

CALLS = {}


def add(name, call, wrong):
    """A call of one argument, and the values that it must refuse."""
    for number, value in enumerate(wrong):
        CALLS[f"{name} {number} {type(value).__name__!a}"] = (call, value)


for method in ("log_prob", "latents", "nll_backward", "initialize", "reconstruction_error",
               "from_latents"):
    add(f"Flow.{method}", lambda value, method=method: getattr(flow(), method)(value), NOT_A_BATCH)
add("Flow.log_prob_given_class", lambda value: flow(classes=3).log_prob_given_class(value), NOT_A_BATCH)
add("Flow.log_prob, labels", lambda value: flow(classes=3).log_prob(x(), value), NOT_LABELS)
add("Flow.sample, n", lambda value: flow().sample(value), NOT_A_COUNT)
add("Flow.sample, temperature", lambda value: flow().sample(1, 0, value), (-1, NAN, INF, "1", None, [1]))
add("Flow.sample, labels", lambda value: flow(classes=3).sample(2, 0, 1.0, value),
    (3, -1, 0.5, "a", [0]))
add("Flow.sample, on_bad", lambda value: flow().sample(2, 0, on_bad=value), ("", "skip", None, 3))
NOT_A_CONTEXT = ("x", 3, [0.0, 1.0], [[0.0, 1.0]] * 3, x(3), x(2, 2), x(3, 3), x(3, 2) + NAN,
                 np.full((3, 2), 1e300), x(3, 2, dtype=int))
for method in ("sample", "log_prob", "latents", "nll_backward", "initialize", "reconstruction_error",
               "from_latents"):
    add(f"Flow.{method}, context", lambda value, method=method: getattr(conditional_flow(), method)(
        3 if method == "sample" else x(3, 2), context=value), NOT_A_CONTEXT)
    add(f"Flow.{method}, no context", lambda value, method=method: getattr(flow(), method)(
        2 if method == "sample" else x(2, 16) if method == "from_latents" else x(), context=value),
        (x(2, 2),))
add("Flow", lambda value: mg.Flow(*value), [
    (mg.Chain(), None), (None, mg.StandardNormal((2,))), ("a", "b"),
    (mg.Chain(mg.ActNorm(2), mg.ActNorm(2, np.float64)), mg.StandardNormal((2,)))])
for name, make in {"glow": mg.glow, "official_glow": mg.official_glow, "realnvp": mg.realnvp}.items():
    add(f"{name}, shape", lambda value, make=make: make(value, 1), NOT_A_SHAPE)
    add(f"{name}, levels", lambda value, make=make: make((4, 4, 1), levels=value), (3, *NOT_A_COUNT[:4]))
    add(f"{name}, hidden", lambda value, make=make: make((4, 4, 1), 1, hidden=value), NOT_A_COUNT)
    add(f"{name}, dtype", lambda value, make=make: make((4, 4, 1), 1, dtype=value),
        (np.float16, int, "f", None))
add("glow, flow_steps", lambda value: mg.glow((4, 4, 1), flow_steps=value), NOT_A_COUNT)
add("glow, classes", lambda value: mg.glow((4, 4, 1), classes=value), (-1, 1.5, "3", NAN))
add("glow, logit", lambda value: mg.glow((4, 4, 1), logit=value), (-1, 0.5, NAN, INF, "1"))
for option in "permutation", "coupling", "net", "norm", "prior":
    add(f"glow, {option}", lambda value, option=option: mg.glow((4, 4, 1), 2, 1, 4, **{option: value}),
        ("none of these", "", 3, lambda *_: None, object()))
add("nice, shape", lambda value: mg.nice(value, 1, 4, 1), ((), (1,), 4, "44", None, (4.0,), (-4,)))
for option in "couplings", "hidden", "depth":
    add(f"nice, {option}", lambda value, option=option: mg.nice((4,), **{"hidden": 4, option: value}),
        NOT_A_COUNT)
add("spline_flow, shape", lambda value: mg.spline_flow(value, 1, 4),
    ((), (0,), (2, 2), (4, 4, 1), *NOT_A_SHAPE[4:]))
for option in "flow_steps", "hidden":
    add(f"spline_flow, {option}", lambda value, option=option: mg.spline_flow((2,), **{option: value}),
        NOT_A_COUNT)
for make in partial(mg.spline_flow, (2,)), partial(mg.glow, (2,)):
    add(f"{make.func.__name__}, context", lambda value, make=make: make(context=value),
        (-1, 1.5, "3", None, NAN))
add("spline_flow, spline_bins", lambda value: mg.spline_flow((2,), spline_bins=value),
    (*NOT_A_COUNT, 1, 101))
add("spline_flow, bound", lambda value: mg.spline_flow((2,), bound=value), (0, -1, NAN, INF, "1", None))
add("glow, scale", lambda value: mg.glow((4,), scale=value), ("", "none of these", 3))
add("glow, scale of splines", lambda value: mg.glow((4,), coupling="spline", scale=value), ("tanh",))
for kind in mg.ActNorm, mg.InvConv1x1, mg.InvConv1x1LU, mg.Shuffle, mg.Reverse, mg.Scaling, mg.Swap, \
        mg.Standardization, mg.Whitening, mg.Spline:
    add(f"{kind.__name__}, channels", kind, NOT_A_COUNT)
for kind in mg.AffineCoupling, mg.AdditiveCoupling:
    add(kind.__name__, kind, (None, "net", 3, lambda x: x, mg.ActNorm(2)))
    add(f"{kind.__name__}, identity_channels",
        lambda value, kind=kind: kind(mlp(1, 4, 2), identity_channels=value),
        [value for value in NOT_A_COUNT if value not in (None, 0)])
add("Chain", lambda value: mg.Chain(*value), ([[mg.ActNorm(2)]], [None], ["a"], [mg.ActNorm]))
add("ReversibleChain, stored", lambda value: mg.ReversibleChain(mg.ActNorm(2), stored=value),
    (-1, 1.5, "1"))
for kind in mg.StandardNormal, mg.StandardLogistic:
    add(kind.__name__, kind, (2, "2", None, (0,), (-1,), (1.5,), ("a",)))
add("Permutation", mg.Permutation, ([0, 0], [1, 2], [[0, 1]], 2, "01", None, [0.0, 1.5]))
add("Flatten", mg.Flatten, (2, "2", None, (0,), (-1,), (1.5,)))
for name, (make, shapes) in BIJECTIONS.items():
    layer = make(shapes[-1], np.random.default_rng(0), np.float32)
    for direction in layer.forward, layer.inverse:
        add(f"{name}.{direction.__name__}", direction, [
            *NOT_ARRAYS[:4], x(4), np.zeros((2, *shapes[-1]), np.uint8),
            np.zeros((0, *shapes[-1]), np.float32), np.array(["a"])])
add("dequantize", lambda value: mg.dequantize(value, 17), [
    *NOT_ARRAYS, x(), x() + NAN, np.full((2, 2), 17), np.full((2, 2), -1), np.array(["a"])])
add("dequantize, bins", lambda value: mg.dequantize(np.zeros((2, 2), int), value), NOT_A_COUNT)
add("quantize", lambda value: mg.quantize(value, 17), [*NOT_ARRAYS, x() + NAN, x().astype(int)])
add("bits_per_dim, dims", lambda value: mg.bits_per_dim(-1.0, value, 256), NOT_A_COUNT)
add("bits_per_dim, bins", lambda value: mg.bits_per_dim(-1.0, 4, value), NOT_A_COUNT)
add("bits_per_dim", lambda value: mg.bits_per_dim(value, 4, 256), ("a", None, NAN))
add("train, images", lambda value: train(flow(), value, steps=1), [
    *NOT_ARRAYS, some_images().train, some_images(train=x()), some_images(train=x(0, 4, 4, 1)),
    some_images(bins=8.5), some_images(train=np.full((4, 4, 4, 1), 99, np.uint8)),
    some_images(train=np.zeros((4, 6, 4, 1), np.uint8)),
    some_images(held_out=np.zeros((0, 4, 4, 1), np.uint8)), some_images(bins=None)])
add("train, flow", lambda value: train(value, some_images(), steps=1), NOT_ARRAYS)
for option in "steps", "batch_size", "evaluate_every", "micro_batches", "patience":
    optional = type(None) in get_args(options(TrainingConfig)[option][1])
    add(f"train, {option}",
        lambda value, option=option: train(flow(), some_images(), **{"steps": 1, option: value}),
        [value for value in NOT_A_COUNT if not (optional and value is None)])
for option in ("learning_rate", "max_grad_norm", "ema_decay", "shift", "warmup_steps", "seed",
               "classification_weight"):
    optional = type(None) in get_args(options(TrainingConfig)[option][1])
    add(f"train, {option}",
        lambda value, option=option: train(flow(), some_images(), **{"steps": 1, option: value}),
        (-1.0, NAN, INF, "1", [1], 10**400, *([] if optional else [None])))
add("train, optimizer", lambda value: train(flow(), some_images(), steps=1, optimizer=value),
    ("sgd", 3, None, "Adam"))
add("evaluate", lambda value: evaluate(flow(), value, 17), [
    *NOT_ARRAYS, x(), x(0, 4, 4, 1), np.full((4, 4, 4, 1), 99), np.zeros((2, 4, 4, 3), np.uint8)])
add("evaluate, samples", lambda value: evaluate(flow(), some_images().train, 17, samples=value),
    NOT_A_COUNT)
add("log_bound", lambda value: log_bound(flow(), value, UniformDequantizer(17), 0), [
    *NOT_ARRAYS, x(), np.full((4, 4, 4, 1), 99)])
add("VariationalDequantizer", lambda value: VariationalDequantizer(value, 17), NOT_A_SHAPE)
add("reduce_bits", lambda value: data.reduce_bits(some_images(bins=256), value), NOT_A_COUNT[:-1])
add("load_images", data.load_images, (None, 3, ""))
add("resample, levels", lambda value: inference.resample(flow(), x(), value),
    ("level 1", ["level 2"], [3], 3))
add("interpolate", lambda value: inference.interpolate(flow(), x(), *value), [
    (x(), 1), (x(), "9"), (x(), 2.5), (x(3, 4, 4, 1),), (None,), ("x",)])
add("apply_attribute", lambda value: inference.apply_attribute(flow(), x(), *value), [
    (x(16), NAN), (x(15), 1.0), (None, 1.0), (x(16), "1"), (x(16) + NAN, 1.0)])
add("anomaly_scores", lambda value: inference.anomaly_scores(flow(), value, 17, some_images().train), [
    *NOT_ARRAYS, x(), np.full((4, 4, 4, 1), 99)])
add("anomaly_scores, bins", lambda value: inference.anomaly_scores(
    flow(), some_images().train, value, some_images().train), NOT_A_COUNT)
add("use", mg.use, ("torch", "", None, 3))
add("threads", mg.threads, NOT_A_COUNT)
add("load", lambda value: mg.load(value, into=flow()), ("missing", ".", "", None, 3))
add("load, into", lambda value: mg.load("missing", into=value), ("flow", 3, mg.Chain()))
add("save, flow", lambda value: mg.save(value, "missing.npz"), (*NOT_ARRAYS, mg.Chain()))
add("save, path", lambda value: mg.save(flow(), value), (None, 3, "", "a\0b"))
add("import_safetensors", lambda value: import_safetensors(value, flow()), ("missing", ".", "", None, 3))
add("clip_norm", lambda value: optimizers.clip_norm(value, 1.0), [x(4) + NAN, x(4) + INF])


@pytest.mark.parametrize("name", CALLS)
def test_a_call_gets_one_clear_line(name):
    call, value = CALLS[name]
    parameters = flow().flat.value.copy()
    with np.errstate(all="ignore"), pytest.raises((ValueError, FloatingPointError)) as caught:
        call(value)
    message = str(caught.value)
    assert message and "\n" not in message
    assert type(caught.value).__module__.startswith("minglow") or any(
        word in message for word in ("expected", "no such file", "NaN or inf", "a folder")), message
    np.testing.assert_array_equal(flow().flat.value, parameters)
