"""Hundreds of wrong calls and command lines: each gets one clear line, and leaves nothing behind."""

import json
import os
import struct
from functools import cache
from itertools import product

import numpy as np
import pytest
from bijections import BIJECTIONS
from PIL import Image

import minglow as mg
from minglow import data, inference
from minglow.cli import main as cli
from minglow.storage import checkpoint
from minglow.training import optimizers
from minglow.dequantization.dequantizers import VariationalDequantizer, log_bound
from minglow.nets import mlp
from minglow.training.loop import evaluate, train

NAN, INF = float("nan"), float("inf")


# ------------------------------------------------------------------------------------ the command line

NO_WHOLE = "-1", "1.5", "nan", "two", "", "1e3", "0x10", "½", "1_000", "9" * 19, "9" * 5000
NO_COUNT = (*NO_WHOLE, "0")
NO_AMOUNT = "-1", "nan", "inf", "-inf", "1e999", "two", "", "1,5", "1_0"
NO_WORD = "", "none of these", "GLOW"
OPTIONS = [
    *product([["train"]], ["-K", "-L", "--hidden", "--steps", "--batch", "--evaluate-every", "--threads",
                           "--gray-levels", "--bits", "--size"], NO_COUNT),
    *product([["train"]], ["--rate", "--decay", "--shift", "--logit", "--classification"], NO_AMOUNT),
    *product([["train"], ["sample", "RUN"], ["interpolate", "RUN"], ["check", "m:M"]], ["--seed"],
             NO_WHOLE),
    *product([["train"]], ["--model", "--permutation", "--coupling", "--net", "--base", "--dequantize",
                           "--optimizer", "--dtype", "--backend"], NO_WORD),
    *product([["sample", "RUN"]], ["-n"], NO_COUNT),
    *product([["sample", "RUN"]], ["--label"], NO_WHOLE),
    *product([["sample", "RUN"]], ["--temperature"], NO_AMOUNT),
    *product([["interpolate", "RUN"]], ["--pairs", "--frames"], NO_COUNT),
    *product([["evaluate", "RUN"]], ["--bits", "--gray-levels", "--size", "--threads"], NO_COUNT),
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
    ["train", "--decay", "1"], ["train", "--decay", "2"], ["train", "--rate", "0"],
    ["train", "--bits", "9"], ["train", "--gray-levels", "257"], ["train", "--logit", "0.5"],
    ["train", "--size", "5000"],
    ["sample", "RUN", "--label", "0"], ["sample", "RUN", "--temperature", "1e38"], ["train", "-L", "4"],
    ["sample", "RUN", "-n", "10001"], ["interpolate", "RUN", "--pairs", "5001"], ["train", "-L", "100"],
    ["interpolate", "RUN", "--frames", "1"], ["train", "--shift", "9"], ["train", "--shift", "1e300"],
    ["train", "--threads", "5000"], ["train", "--resume", "RUN"],
    ["train", "--steps", "2500", "--resume", "a"], ["train", "--model", "nice", "--permutation", "1x1"],
    # more than any memory holds, told before it is taken
    ["train", "-L", "9999999999"], ["train", "-L", "20000"], ["train", "-K", "99999999999"],
    ["train", "--model", "nice", "-K", "99999999999"], ["train", "--hidden", "30000000"],
    ["train", "--batch", "100000000000"],
]


def line(words):
    """A command line as a test's name."""
    return ascii(" ".join(words))[1:60]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of files that are no images and no models, and of one model, RUN."""
    folder = tmp_path_factory.mktemp("files")
    flow = mg.glow((8, 8, 1), 1, 1, 4, rng=0)
    recipe = {"model": "glow", "shape": [8, 8, 1], "levels": 1, "steps": 1, "hidden": 4, "seed": 0,
              "permutation": "1x1", "coupling": "affine", "reversible": False, "dtype": "float32",
              "data": "digits", "gray_levels": 17}
    checkpoint.save(folder / "RUN", flow, recipe)
    (folder / "cut.npz").write_bytes((folder / "RUN").read_bytes()[:-50])
    (folder / "text").write_text("text")
    (folder / "empty").write_bytes(b"")
    (folder / "pickle").write_bytes(b"\x80\x04\x95more")
    os.mkfifo(folder / "pipe")
    nested = json.dumps({"__metadata__": {"minglow": "[" * 200_000}}).encode()
    (folder / "nested.safetensors").write_bytes(struct.pack("<Q", len(nested)) + nested)
    small = np.zeros((3, 8, 8), np.uint8)
    arrays = {"photos": small, "floats": small / 1.0, "one": small[:1], "five": small[..., None, None],
              "numbers": small.astype(np.int64)}
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


@pytest.mark.parametrize("words", [[*command, option, value] for command, option, value in OPTIONS]
                         + COMMANDS, ids=line)
def test_a_command_line_gets_one_line_and_leaves_nothing(words, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = tree(folder)
    try:
        status = cli.main(words)
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


def x(*shape, dtype=np.float32):
    return np.zeros(shape or (2, 4, 4, 1), dtype)


def images(**changed):
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
    """A call of one argument, and all that it must refuse."""
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
add("Flow", lambda value: mg.Flow(*value), [
    (mg.Chain(), None), (None, mg.StandardNormal((2,))), ("a", "b"),
    (mg.Chain(mg.ActNorm(2), mg.ActNorm(2, np.float64)), mg.StandardNormal((2,)))])
for name, make in {"glow": mg.glow, "official_glow": mg.official_glow, "realnvp": mg.realnvp}.items():
    add(f"{name}, shape", lambda value, make=make: make(value, 1), NOT_A_SHAPE)
    add(f"{name}, levels", lambda value, make=make: make((4, 4, 1), levels=value), (3, *NOT_A_COUNT[:4]))
    add(f"{name}, hidden", lambda value, make=make: make((4, 4, 1), 1, hidden=value), NOT_A_COUNT)
    add(f"{name}, dtype", lambda value, make=make: make((4, 4, 1), 1, dtype=value),
        (np.float16, int, "f", None))
add("glow, steps", lambda value: mg.glow((4, 4, 1), flow_steps=value), NOT_A_COUNT)
add("glow, classes", lambda value: mg.glow((4, 4, 1), classes=value), (-1, 1.5, "3", NAN))
add("glow, logit", lambda value: mg.glow((4, 4, 1), logit=value), (-1, 0.5, NAN, INF, "1"))
for word in "permutation", "coupling", "net", "norm", "prior":
    add(f"glow, {word}", lambda value, word=word: mg.glow((4, 4, 1), 2, 1, 4, **{word: value}),
        ("affine", 3, lambda *_: None, object()))
add("nice, shape", lambda value: mg.nice(value, 1, 4, 1), ((), (3,), 4, "44", None, (4.0,), (-4,)))
for word in "couplings", "hidden", "depth":
    add(f"nice, {word}", lambda value, word=word: mg.nice((4,), **{"hidden": 4, word: value}),
        NOT_A_COUNT)
for kind in mg.ActNorm, mg.InvConv1x1, mg.InvConv1x1LU, mg.Shuffle, mg.Reverse, mg.Scaling, mg.Swap:
    add(f"{kind.__name__}, channels", kind, NOT_A_COUNT)
for kind in mg.AffineCoupling, mg.AdditiveCoupling:
    add(kind.__name__, kind, (None, "net", 3, lambda x: x, mg.ActNorm(2)))
    add(f"{kind.__name__}, passing", lambda value, kind=kind: kind(mlp(1, 4, 2), passing=value), [
        value for value in NOT_A_COUNT if value is not None])
add("Chain", lambda value: mg.Chain(*value), ([[mg.ActNorm(2)]], [None], ["a"], [mg.ActNorm]))
add("ReversibleChain, stored", lambda value: mg.ReversibleChain(mg.ActNorm(2), stored=value), (-1, 1.5, "1"))
for kind in mg.StandardNormal, mg.StandardLogistic:
    add(kind.__name__, kind, (2, "2", None, (0,), (-1,), (1.5,), ("a",)))
add("Permutation", mg.Permutation, ([0, 0], [1, 2], [[0, 1]], 2, "01", None, [0.0, 1.5]))
add("Flatten", mg.Flatten, (2, "2", None, (0,), (-1,), (1.5,)))
for name, (make, shapes) in BIJECTIONS.items():
    layer = make(shapes[-1], np.random.default_rng(0), np.float32)
    for way in layer.forward, layer.inverse:
        add(f"{name}.{way.__name__}", way, [*NOT_ARRAYS[:4], x(4), np.zeros((2, *shapes[-1]), np.uint8),
                                            np.zeros((0, *shapes[-1]), np.float32), np.array(["a"])])
add("dequantize", lambda value: mg.dequantize(value, 17), [
    *NOT_ARRAYS, x(), x() + NAN, np.full((2, 2), 17), np.full((2, 2), -1), np.array(["a"])])
add("dequantize, levels", lambda value: mg.dequantize(np.zeros((2, 2), int), value), NOT_A_COUNT)
add("quantize", lambda value: mg.quantize(value, 17), [*NOT_ARRAYS, x() + NAN, x().astype(int)])
add("bits_per_dim, dims", lambda value: mg.bits_per_dim(-1.0, value, 256), NOT_A_COUNT)
add("bits_per_dim, levels", lambda value: mg.bits_per_dim(-1.0, 4, value), NOT_A_COUNT)
add("bits_per_dim", lambda value: mg.bits_per_dim(value, 4, 256), ("a", None, NAN))
add("train, images", lambda value: train(flow(), value, steps=1), [
    *NOT_ARRAYS, images().train, images(train=x()), images(train=x(0, 4, 4, 1)), images(bins=8.5),
    images(train=np.full((4, 4, 4, 1), 99, np.uint8)), images(train=np.zeros((4, 6, 4, 1), np.uint8)),
    images(held_out=np.zeros((0, 4, 4, 1), np.uint8)), images(bins=None)])
add("train, flow", lambda value: train(value, images(), steps=1), NOT_ARRAYS)
for word in "steps", "batch", "evaluate_every":
    add(f"train, {word}", lambda value, word=word: train(flow(), images(), **{"steps": 1, word: value}),
        NOT_A_COUNT)
for word in "rate", "clip", "decay", "shift", "warm_up", "classification":
    add(f"train, {word}", lambda value, word=word: train(flow(), images(), **{"steps": 1, word: value}),
        (-1.0, NAN, "1", [1], None))
add("evaluate", lambda value: evaluate(flow(), value, 17), [
    *NOT_ARRAYS, x(), x(0, 4, 4, 1), np.full((4, 4, 4, 1), 99), np.zeros((2, 4, 4, 3), np.uint8)])
add("evaluate, draws", lambda value: evaluate(flow(), images().train, 17, samples=value), NOT_A_COUNT)
add("log_bound", lambda value: log_bound(flow(), value, mg.dequantizers.UniformDequantizer(17), 0), [
    *NOT_ARRAYS, x(), np.full((4, 4, 4, 1), 99)])
add("VariationalDequantizer", lambda value: VariationalDequantizer(value, 17), NOT_A_SHAPE)
add("reduce_bits", lambda value: data.reduce_bits(images(bins=256), value), NOT_A_COUNT[:-1])
add("load_images", data.load_images, (None, 3, ""))
add("resample, levels", lambda value: inference.resample(flow(), x(), value),
    ("level 1", ["level 2"], [3], 3))
add("interpolate", lambda value: inference.interpolate(flow(), x(), *value), [
    (x(), 1), (x(), "9"), (x(), 2.5), (x(3, 4, 4, 1),), (None,), ("x",)])
add("apply_attribute", lambda value: inference.apply_attribute(flow(), x(), *value), [
    (x(16), NAN), (x(15), 1.0), (None, 1.0), (x(16), "1"), (x(16) + NAN, 1.0)])
add("anomaly_scores", lambda value: inference.anomaly_scores(flow(), value, 17, images().train), [
    *NOT_ARRAYS, x(), np.full((4, 4, 4, 1), 99)])
add("anomaly_scores, levels", lambda value: inference.anomaly_scores(
    flow(), images().train, value, images().train), NOT_A_COUNT)
add("use", mg.use, ("torch", "", None, 3))
add("threads", mg.threads, NOT_A_COUNT)
add("checkpoint.load", lambda value: checkpoint.load(value, flow()), ("missing", ".", "", None, 3))
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
