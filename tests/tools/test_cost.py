"""benchmarks/cost.py against the code: parameters, products and caches are those of real flows."""

from pathlib import Path

import numpy as np
import pytest

import minglow as mg
from benchmarks import cost
from benchmarks.cost import H100, Model, Rates

MODELS = [
    Model((8, 8, 1), 2, 8, 64, 64), Model((8, 8, 3), 3, 4, 6, 2), Model((16, 8, 2), 3, 3, 5, 2),
    Model((4, 4, 1), 1, 1, 3, 4), Model((4, 4, 1), 2, 1, 3, 1), Model((8, 8, 3), 2, 2, 4, 3),
    Model((4, 4, 3), 1, 5, 7, 1, number=8),
]
VARIANTS = [model._replace(learned_prior=learned, additive=additive)
            for model in MODELS for learned in (True, False) for additive in (False, True)]
each = pytest.mark.parametrize("model", VARIANTS, ids=str)
either = pytest.mark.parametrize("reversible", [False, True], ids=["stored", "reversible"])


def flow_of(model, reversible=False):
    return mg.glow(model.shape, model.levels, model.steps, model.hidden, reversible=reversible,
                   learned_prior=model.learned_prior, dtype=(np.float32, np.float64)[model.number == 8],
                   coupling=mg.AdditiveCoupling if model.additive else mg.AffineCoupling, rng=0)


def images(model, flow):
    return np.random.default_rng(0).uniform(-0.5, 0.5, (model.batch, *model.shape)).astype(flow.dtype)


class Counted(np.ndarray):
    """An array that counts the FLOPs of every `@`, as do arrays computed from it."""

    flops = 0

    def __matmul__(self, other):
        return multiply(self, other)

    def __rmatmul__(self, other):
        return multiply(other, self)


def multiply(a, b):
    assert a.ndim == b.ndim == 2
    Counted.flops += 2 * a.shape[0] * a.shape[1] * b.shape[1]
    return (a.view(np.ndarray) @ b.view(np.ndarray)).view(Counted)


def arrays(cache):
    """The arrays in a cache, each with its base in place of a view: address -> bytes."""
    if isinstance(cache, np.ndarray):
        while isinstance(cache.base, np.ndarray):
            cache = cache.base
        return {cache.__array_interface__["data"][0]: cache.nbytes}
    found = {}
    for part in cache or ():
        found |= arrays(part)
    return found


@each
def test_parameters_are_the_flows(model):
    assert cost.parameters(model) == flow_of(model).flat.value.size


def test_parameters_of_the_sizes_that_are_measured():
    """Those of docs/performance.md."""
    assert cost.parameters(Model((32, 32, 3), 3, 8, 512, 16)) == 11_015_664
    assert cost.parameters(Model((8, 8, 1), 2, 8, 64, 64)) == 153_680


@each
@either
def test_products_are_those_that_a_step_makes(model, reversible):
    """Counted while a step runs, in every layer, without the formula."""
    flow = flow_of(model, reversible)
    for _, module in flow.walk():
        module.params.update({name: value.view(Counted) for name, value in module.params.items()})
    x = images(model, flow).view(Counted)
    Counted.flops = 0
    with mg.use("numpy"):
        dx = flow.nll_backward(x).dx
    assert isinstance(dx, Counted)  # every array on the way has counted
    assert Counted.flops == cost.flops(model, reversible)


def test_a_forgotten_product_is_noticed(monkeypatch):
    found = cost.levels_of(MODELS[0])
    forgetful = [[layer._replace(products=layer.products[:2]) for layer in level] for level in found]
    right = cost.flops(MODELS[0])
    monkeypatch.setattr(cost, "levels_of", lambda model: forgetful)
    assert cost.flops(MODELS[0]) < right


@each
@either
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_activations_are_the_bytes_in_the_cache(model, reversible, backend):
    if backend == "numba":
        pytest.importorskip("numba")
    flow = flow_of(model, reversible)
    with mg.use(backend):
        _, _, cache = flow.bijection.forward(images(model, flow))
    assert sum(arrays(cache).values()) == cost.activations(model, reversible)


def test_shared_memory_is_counted_once():
    x = np.zeros(3)
    assert sum(arrays([x, (x[:2], [None, {}]), np.zeros((2, 2))[::2]]).values()) == 24 + 32


@either
def test_memory_beside_what_was_measured(reversible):
    """docs/performance.md has MiB of a process above its parameters, K 4 to 32. Temporary arrays are an
    estimate, and most of the reversible mode's memory."""
    measured = {4: (126, 70), 8: (219, 79), 16: (410, 80), 32: (794, 82)}
    for depth, mebibytes in measured.items():
        model = Model((32, 32, 3), 3, depth, 512, 16)
        found = cost.memory(model, reversible) - cost.VECTORS * 4 * cost.parameters(model)
        assert found / 2**20 == pytest.approx(mebibytes[reversible], rel=0.125 if reversible else 0.02)


def test_memory_is_vectors_and_what_grows_with_the_batch():
    model = Model((4, 4, 1), 1, 1, 3, 4)
    none, one, two = (cost.memory(model._replace(batch=batch)) for batch in (0, 1, 2))
    assert none == 5 * 4 * cost.parameters(model)
    # 4 pixels of 4 channels, of which 2 are changed: actnorm 4, patches 18, hidden 6, net's output 4,
    # coupling 8; temporary: 3 hidden layers of 3, taps of 18 and 2 * 18, and 16
    assert one - none == 4 * 4 * (4 + 18 + 6 + 4 + 8 + 9 + 54 + 16)
    assert two - one == one - none


def test_the_largest_batch_fits_and_one_more_does_not(monkeypatch):
    for model in cost.OFFICIAL.values():
        for reversible in False, True:
            most = cost.largest_batch(model, reversible)
            assert cost.memory(model._replace(batch=most), reversible) <= cost.MEMORY
            assert cost.memory(model._replace(batch=most + 1), reversible) > cost.MEMORY
    monkeypatch.setattr(cost, "MEMORY", 1000)
    assert cost.largest_batch(MODELS[0]) == 0


def test_an_allreduce_is_a_ring_between_copies():
    endless = Rates(1, 1, 0, host=np.inf, shared=100, network=10)
    assert cost.allreduce(1000, 1, endless) == 0
    assert cost.allreduce(1000, 2, endless) == pytest.approx(1000 / 100)  # 2 * 1/2 of it
    assert cost.allreduce(1000, 4, endless) == pytest.approx(1500 / 100)
    assert cost.allreduce(1000, 64, endless) == pytest.approx(2000 * 63 / 64 / 10)
    staged = endless._replace(staging=50, host=20)
    assert cost.allreduce(1000, 2, staged) == pytest.approx(10 + 2000 / 50 + 4000 / 20)


def test_a_step_is_its_parts():
    model = Model((8, 8, 1), 2, 2, 4, 8)
    slow = {"flops": 1e3, "bandwidth": 1e30, "launch": 0.0, "host": 1e30, "shared": 1e30, "draw": 0.0}
    assert cost.seconds(model, Rates(**slow))["total"] == pytest.approx(cost.flops(model) / 1e3)
    narrow = cost.seconds(model, Rates(**slow | {"flops": 1e30, "bandwidth": 1e3}))
    moved, calls = cost.elementwise(model)
    assert narrow["between"] == pytest.approx(moved / 1e3)
    assert narrow["total"] == pytest.approx(narrow["between"] + narrow["products"])
    waiting = Rates(**slow | {"launch": 0.5, "draw": 2.0})
    assert cost.seconds(model, waiting)["total"] == pytest.approx(
        0.5 * calls + 2 * 8 * 64 + cost.flops(model) / 1e3)
    queued = cost.seconds(model, waiting._replace(device=True))
    assert queued["calls"] == pytest.approx(0.5 * calls * cost.APART_CALLS)
    assert queued["total"] == pytest.approx(max(queued["calls"], queued["products"]) + queued["draw"])


def test_ranks_share_all_but_the_noise():
    model = Model((8, 8, 1), 2, 8, 64, 64)
    rates = Rates(1e9, 1e10, 0.0)
    alone, two = cost.seconds(model, rates), cost.seconds(model, rates, ranks=2)
    assert two["draw"] == alone["draw"]
    assert two["products"] == pytest.approx(alone["products"] / 2, rel=0.01)
    assert two["Allreduce"] > alone["Allreduce"] == 0


def test_reversible_adds_the_forward_of_all_but_two_steps_a_level():
    model = Model((8, 8, 1), 2, 8, 64, 64)
    ratio = cost.flops(model, True) / cost.flops(model)
    assert ratio == pytest.approx(1 + 6 / 8 / 3, rel=0.01)
    assert cost.flops(model._replace(steps=2), True) == cost.flops(model._replace(steps=2))
    assert cost.elementwise(model, True)[0] > cost.elementwise(model)[0]


def test_the_command_predicts_one_size(capsys):
    cost.main(["--shape", "8", "8", "1", "--gflops", "100", "--bandwidth", "20", "--ranks", "2"])
    text = capsys.readouterr().out
    assert text.startswith("153,680 parameters, 0.51 GFLOP a step")
    expected = cost.seconds(Model((8, 8, 1), 2, 8, 64, 64), Rates(1e11, 2e10, 3e-6, host=2e10), 2)
    assert f"{1e3 * expected['total']:.2f} ms" in text
    with pytest.raises(SystemExit):
        cost.main(["--shape", "8", "8", "1", "--ranks", "3"])
    assert "3 ranks" in capsys.readouterr().err


def test_the_page_shows_the_tables(capsys):
    cost.main([])
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == cost.tables() + "\n"
    for table in cost.tables().split("\n\n"):
        assert table in page
    assert H100.flops < 67e12 and H100.bandwidth < 3.35e12  # sustained, not peak
