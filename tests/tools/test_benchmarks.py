"""The benchmarks compare like with like, and the page shows what was measured."""

import json

import numpy as np
import pytest
from device import installed

import minglow as mg
from benchmarks import experiments, experiments_report, report, timing
from benchmarks.experiments import EXPERIMENTS
from benchmarks.memory import resident
from benchmarks.products import products
from benchmarks.subject import LARGE, SMALL, Size
from benchmarks.timing import exponent, ratios, summary
from minglow.nets import Conv, Dense, TransposedConv
from minglow.testing import perturbed

TINY = Size((8, 8, 3), levels=2, steps=2, hidden=6, batch=3)


def as_torch(owner, value, shape):
    """A parameter of minglow in the layout of the Glow in PyTorch."""
    if isinstance(owner, Conv):
        return value.transpose(0, 3, 1, 2)
    if isinstance(owner, TransposedConv):
        return value[:, ::-1, ::-1].transpose(3, 0, 1, 2)
    return (value.T if isinstance(owner, Dense) else value).reshape(shape)


def test_the_glow_in_pytorch_is_the_same_flow():
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'minglow[bench]'")
    from benchmarks.libraries import Glow  # noqa: PLC0415  imports torch

    flow = perturbed(mg.glow(TINY.shape, TINY.levels, TINY.steps, TINY.hidden, rng=0), 0)
    other = Glow(TINY)
    ours = [(owner, value) for _, owner in flow.walk() for value in owner.params.values()]
    theirs = list(other.parameters())
    assert len(ours) == len(theirs)
    assert sum(tensor.numel() for tensor in theirs) == flow.flat.value.size
    with torch.no_grad():
        for (owner, value), tensor in zip(ours, theirs):
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(as_torch(owner, value, tensor.shape))))
        images = TINY.images()
        x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        np.testing.assert_allclose(other.log_prob(x), flow.log_prob(images), rtol=1e-4)
        np.testing.assert_allclose(other.inverse(other(x)[0]), x, atol=1e-4)


@pytest.mark.parametrize("size", [SMALL, TINY, LARGE._replace(steps=1)])
def test_the_products_are_those_of_the_conditioners(size):
    """Every pixel is multiplied with every weight of a conditioner once: forward, for dW and for dx."""
    flow = mg.glow(size.shape, size.levels, size.steps, size.hidden)
    forward = 0
    for path, owner in flow.walk():
        if isinstance(owner, (Conv, Dense, TransposedConv)) and owner.params["weight"].shape[0] > 0:
            level = path.count("inner")
            pixels = size.shape[0] * size.shape[1] // 4 ** (level + 1)
            is_prior = path.endswith("net.0") and f"{path[:-1]}2" not in dict(flow.walk())
            forward += 0 if is_prior else 2 * size.batch * pixels * owner.params["weight"].size
    assert products(size, backward=False).flop == forward
    assert products(size).flop == 3 * forward


def test_subjects_take_turns(monkeypatch):
    monkeypatch.setattr(timing, "SETTLE", 0)
    turns = []
    calls = {name: lambda name=name: turns.append(name) for name in "ab"}
    times = timing.interleaved(calls, rounds=2, repeat=3)
    assert "".join(turns) == "aabb" + 2 * "aaaabbbb"
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 2, "b": 2}


def test_summaries_and_exponents_are_what_they_say():
    assert summary([0.003, 0.001, 0.002, 0.004, 0.005]) == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert exponent([1, 2, 4, 8], [5, 10, 20, 40]) == pytest.approx(1)
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    now = resident()
    assert resident("VmHWM") >= 0.9 * now > 2**20  # the kernel counts pages a batch at a time


def test_ratios_take_the_fastest_other_library():
    medians = {"minglow": 10, "minglow, numpy": 1, "minglow, reversible": 12, "normflows": 30,
               "PyTorch": 40, "PyTorch, compiled": 20}
    times = {"train_step": {name: {"median": value} for name, value in medians.items()}}
    found = ratios(times, {"train_step": {"median": 8}})
    assert found == {
        "train_step: fastest other / minglow": 2, "train_step: fastest other, eager / minglow": 3,
        "products / train_step": 0.8, "reversible / stored": 1.2}


def test_the_page_shows_what_was_measured():
    results = report.DOCS.parent / "benchmarks" / "results"
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in results.glob("*.json")}
    measured = {"speed", "depth", "scaling", "memory", "digits", "contention", "startup"}
    assert set(found) - set(EXPERIMENTS) == measured
    assert not any(entry["quick"] for entry in found.values())
    page = (report.DOCS / "performance.md").read_text(encoding="utf-8")
    assert page.split(report.BEGIN)[1].split(report.END)[0].strip() == report.tables(found).strip()
    page = (report.DOCS / "experiments.md").read_text(encoding="utf-8")
    experiments_found = experiments_report.tables(experiments_report.read(results))
    assert page.split(report.BEGIN)[1].split(report.END)[0].strip() == experiments_found.strip()


def test_the_family_has_as_many_parameters_each():
    path = report.DOCS.parent / "benchmarks" / "results" / "family.json"
    counts = {run["parameters"] for run in json.loads(path.read_text(encoding="utf-8"))["runs"].values()}
    assert len(counts) == 3 and max(counts) < 1.04 * min(counts)


def test_published_nats_become_published_bits():
    rows = experiments_report.nice_in_bits()
    assert "| 1980.50 | 4.36 |" in rows and "| 5371.78 | 4.48 |" in rows


def test_an_experiment_resumes_where_it_was_interrupted(tmp_path, monkeypatch, capsys):
    done = []

    def one(name):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(name)
        return {"bits": 1.0, "seconds": 2.0}

    def runs(found, folder, faster):
        for name in "abcd":
            yield name, lambda name=name: one(name)

    monkeypatch.setitem(EXPERIMENTS, "mine", runs)
    with mg.threads(1), pytest.raises(KeyboardInterrupt):
        experiments.measure("mine", tmp_path)
    done.clear()
    with mg.threads(1):
        found = experiments.measure("mine", tmp_path)
    assert done == ["c", "d"] and list(found["runs"]) == ["a", "b", "c", "d"]
    with mg.threads(1), pytest.raises(ValueError, match="whose runs are complete"):
        experiments.measure("mine", tmp_path, quick=True)


def test_the_gpu_benchmark_runs_on_what_stands_in_for_one():
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'minglow[bench]'")
    from benchmarks import gpu  # noqa: PLC0415  imports torch

    with installed():
        found = gpu.measure(gpu.QUICK, rounds=1, device="cpu")
    assert set(found) == {"train_step", "log_prob", "sample"}
    assert all(set(times) == {"minglow, cupy", "PyTorch"} for times in found.values())
