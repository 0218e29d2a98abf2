"""Tables: minglow's default flows beside a Gaussian and normflows, in nats per sample of test rows.

    python -m benchmarks.tables                        all three, three seeds each (8 minutes)
    python -m benchmarks.tables --only diamonds --diamonds diamonds.csv
    python -m benchmarks.tables --only cancer conditional --seeds 0

diamonds     seven numbers of 53,940 diamonds, from plotnine's package or a file. Its flows and those of
             normflows have as many parameters, and normflows trains for as many seconds.
cancer       scikit-learn's breast cancer data, 569 rows of 30 columns, with early stopping
conditional  densities p(x | c) that are known

Rows are split 80/10/10 by a seeded permutation: training, validation, which chooses among learning
rates and checkpoints, and test, which is used once. All methods see the same arrays. Densities are
those of the columns in their own units.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from math import cos, pi
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import minglow
from benchmarks import conditional
from benchmarks.machine import describe
from benchmarks.report import table
from benchmarks.timing import interleaved, summary
from minglow.data import Table
from minglow.flow import Flow
from minglow.training.evaluation import gaussian_nats
from minglow.training.optimizers import Adam, PolyakAverage, clip_norm, warm_up_cosine

Result = dict[str, Any]
COLUMNS = "carat", "depth", "table", "price", "x", "y", "z"
SIZES = slice(4, 7)  # x, y and z, in millimeters
FLOWS = {"glow": minglow.glow, "spline_flow": minglow.spline_flow}
PARTNERS = {"glow": "normflows, RealNVP", "spline_flow": "normflows, spline"}
GAUSSIAN = "Gaussian, full covariance"
# As minglow trains a table: batch, clipping, average; warm-up as a fraction of the steps.
BATCH, MAX_GRAD_NORM, EMA_DECAY, WARM_UP = 256, 100.0, 0.99, 0.08
# Of normflows; validation rows of the first seed choose. minglow's flows whiten vectors themselves.
SETTINGS = [(rate, whiten) for rate in (0.01, 0.003) for whiten in (False, True)]
EVALUATIONS = 25  # of normflows, which keeps the best; as many as minglow's
THREADS = 1, 2  # of PyTorch, which takes the faster number; minglow takes one for flows of this size
TEST_DRAWS = 20_000  # of a conditional density


def diamonds(path: Path | None) -> np.ndarray:
    """The seven columns, (53,920, 7) float64.

    20 rows have a size x, y or z of 0 mm, which is a missing value: they are left out. Other outliers
    stay, such as a z of 31.8 mm. All values are rounded, so that their likelihood has no bound: they get
    uniform noise of the width of a rounding step.
    """
    if path is None:
        spec = find_spec("plotnine")
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit("expected diamonds.csv: pip install plotnine, or --diamonds PATH")
        path = Path(spec.submodule_search_locations[0]) / "data" / "diamonds.csv"
    with path.open(encoding="utf-8", newline="") as file:
        x = np.array([[float(row[name]) for name in COLUMNS] for row in csv.DictReader(file)])
    x = x[(x[:, SIZES] > 0).all(axis=1)]
    return minglow.data.dither(x, minglow.data.rounding_steps(x), rng=0)


def parts_of(x: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test rows: 80, 10 and 10%."""
    order, tenth = np.random.default_rng(seed).permutation(len(x)), round(len(x) / 10)
    return x[order[2 * tenth:]], x[order[tenth:2 * tenth]], x[order[:tenth]]


def mean_nats(flow: Flow, x: np.ndarray) -> float:
    """Mean negative log-likelihood of samples (N, D)."""
    return minglow.evaluate(flow, x.astype(flow.dtype), batch_size=1024)


def minglow_run(name: str, x: np.ndarray, seed: int, **options: Any) -> Result:
    """Train one of minglow's flows with its defaults."""
    train, validation, test = parts_of(x, seed)
    flow, warnings, last = FLOWS[name](x.shape[1:], rng=seed), [], []
    start = perf_counter()
    minglow.train(flow, Table(train, validation), seed=seed, on_step=last.append,
                  on_warning=warnings.append, **options)
    return {"parameters": flow.flat.value.size, "seconds": perf_counter() - start,
            "steps": last[-1].step, "validation": mean_nats(flow, validation),
            "test": mean_nats(flow, test), "warnings": warnings}


def measure_diamonds(x: np.ndarray, seeds: list[int], steps: int | None) -> dict[str, list[Result]]:
    """Results of every method, one for each seed; each of normflows comes after the flow it meets."""
    options = {} if steps is None else {"steps": steps}
    found: dict[str, list[Result]] = {name: [] for name in (GAUSSIAN, *FLOWS, *PARTNERS.values())}
    chosen: dict[str, tuple[float, bool]] = {}
    for seed in seeds:
        train, _, test = parts_of(x, seed)
        d = x.shape[1]
        found[GAUSSIAN].append({"parameters": d + d * (d + 1) // 2, "test": gaussian_nats(train, test)})
        for name, partner in PARTNERS.items():
            ours = minglow_run(name, x, seed, **options)
            tried = [normflows_run(partner, x, seed, *settings, ours["seconds"], ours["parameters"])
                     for settings in ([chosen[name]] if name in chosen else SETTINGS)]
            best = min(tried, key=lambda result: result["validation"])
            chosen[name] = best["rate"], best["whiten"]
            found[name].append(ours)
            found[partner].append(best | {"tried": tried})
            print(f"diamonds, seed {seed}: {name} {ours['test']:.3f} in {ours['seconds']:.0f} s, "
                  f"{partner} {best['test']:.3f} in {best['steps']} steps at {best['rate']}, "
                  f"{'whitened' if best['whiten'] else 'standardized'}", flush=True)
    return found


def normflows_run(name: str, x: np.ndarray, seed: int, rate: float, whiten: bool, seconds: float,
                  parameters: int) -> Result:
    """Train a flow of normflows on standardized or whitened rows until its seconds are over."""
    import torch  # noqa: PLC0415  the other measurements don't need it

    torch.manual_seed(seed)
    train, validation, test = parts_of(x, seed)
    mean, matrix = train.mean(axis=0), np.diag(1 / train.std(axis=0))
    if whiten:
        values, vectors = np.linalg.eigh(np.corrcoef(train, rowvar=False))
        matrix = matrix @ vectors / np.sqrt(values)
    log_det = np.linalg.slogdet(matrix)[1]

    def load(rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(((rows - mean) @ matrix).astype(np.float32))

    def nats(flow: Any, rows: torch.Tensor) -> float:
        with torch.no_grad():
            return float(-flow.log_prob(rows).double().mean() - log_det)

    flow = normflows_flow(name, x.shape[1], parameters)
    rows, held_out = load(train), load(validation)
    with torch.no_grad():
        flow.log_prob(rows[:10_000])  # its actnorms are set by their first batch
    averaged, best = copy.deepcopy(flow), (float("inf"), copy.deepcopy(flow))
    weights = list(flow.parameters())
    torch.set_num_threads(fastest_threads(lambda: flow.forward_kld(rows[:BATCH]).backward()))
    optimizer = torch.optim.Adam(weights, lr=rate)
    batches, steps, evaluations, start = batches_of(len(rows), seed), 0, 0, perf_counter()
    done = 0.0
    while done < 1:
        steps += 1
        optimizer.param_groups[0]["lr"] = rate * min(1, done / WARM_UP) * 0.5 * (1 + cos(pi * done))
        optimizer.zero_grad()
        loss = flow.forward_kld(rows[next(batches)])
        if torch.isfinite(loss):  # as in normflows' examples
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, MAX_GRAD_NORM)
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.parameters()), weights,
                                 max(1 - EMA_DECAY, 1 / (steps + 1)))
        done = (perf_counter() - start) / seconds
        if done * EVALUATIONS >= evaluations + 1 or done >= 1:
            evaluations = int(done * EVALUATIONS)
            found = nats(averaged, held_out)
            best = (found, copy.deepcopy(averaged)) if found < best[0] else best
            done = (perf_counter() - start) / seconds
    return {"parameters": sum(weight.numel() for weight in weights), "seconds": perf_counter() - start,
            "steps": steps, "validation": best[0], "test": nats(best[1], load(test)), "rate": rate,
            "whiten": whiten}


def fastest_threads(step: Callable[[], object]) -> int:
    """The number of PyTorch's threads with which a step takes the least time."""
    import torch  # noqa: PLC0415  the other measurements don't need it

    def milliseconds(threads: int) -> float:
        torch.set_num_threads(threads)
        return summary(interleaved({"step": step}, rounds=5)["step"])["median"]

    return min(THREADS, key=milliseconds)


def batches_of(count: int, seed: int) -> Iterator[np.ndarray]:
    """Indices of batches, shuffled in each epoch."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(count)
        yield from (order[i:i + BATCH] for i in range(0, count - BATCH + 1, BATCH))


def normflows_flow(name: str, dims: int, parameters: int) -> Any:
    """A flow of normflows with the width whose number of parameters is nearest, within 5%.

    As in its examples, zero-initialized MLPs for RealNVP, and residual nets for the spline flow. It has
    minglow's numbers of flow steps, hidden layers and bins, and the same bound of splines. Linear maps
    mix the columns, and actnorms follow them in RealNVP.
    """
    import normflows as nf  # noqa: PLC0415  the other measurements don't need it

    def build(width: int) -> Any:
        flows: list[Any] = []
        if name == PARTNERS["glow"]:
            config = minglow.glow((dims,)).config
            for _ in range(config.flow_steps):
                net = nf.nets.MLP([(dims + 1) // 2, width, width, dims // 2 * 2], init_zeros=True)
                flows += [nf.flows.AffineCouplingBlock(net), nf.flows.LULinearPermute(dims),
                          nf.flows.ActNorm(dims)]
        else:
            config = minglow.spline_flow((dims,)).config
            for i in range(config.flow_steps):
                flows += [nf.flows.CoupledRationalQuadraticSpline(
                    dims, 1, width, num_bins=config.spline_bins, tail_bound=config.bound,
                    reverse_mask=i % 2 == 1), nf.flows.LULinearPermute(dims)]
        return nf.NormalizingFlow(nf.distributions.DiagGaussian(dims, trainable=False), flows)

    def distance(flow: Any) -> float:
        return abs(sum(weight.numel() for weight in flow.parameters()) / parameters - 1)

    flow = min(map(build, range(16, 65)), key=distance)
    if distance(flow) > 0.05:
        raise ValueError(f"expected a width with {parameters} parameters within 5%, found none")
    return flow


def measure_cancer(seeds: list[int], steps: int | None) -> dict[str, list[Result]]:
    """The Gaussian and minglow's default glow, with early stopping."""
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415  the other measurements don't need it

    x, options = load_breast_cancer().data, {} if steps is None else {"steps": steps}
    found: dict[str, list[Result]] = {GAUSSIAN: [], "glow": []}
    for seed in seeds:
        train, _, test = parts_of(x, seed)
        d = x.shape[1]
        found[GAUSSIAN].append({"parameters": d + d * (d + 1) // 2, "test": gaussian_nats(train, test)})
        found["glow"].append(minglow_run("glow", x, seed, patience=5, **options))
    return found


def measure_conditional(seeds: list[int], steps: int | None) -> dict[str, list[Result]]:
    """Gaps to the true log p(x | c): a table by `minglow.train`, images by a plain loop."""
    found: dict[str, list[Result]] = {}
    for name, density, train in (("plane", conditional.plane, train_table),
                                 ("image", conditional.image, train_images)):
        found[name] = []
        for seed in seeds:
            rng, start = np.random.default_rng(seed), perf_counter()
            flow = train(density, rng, seed, steps)
            seconds, test = perf_counter() - start, density(TEST_DRAWS, rng)
            log_prob = np.concatenate([
                flow.log_prob(test.x[i:i + 1000], context=test.context[i:i + 1000])
                for i in range(0, TEST_DRAWS, 1000)]).astype(float)
            found[name].append({"parameters": flow.flat.value.size, "seconds": seconds,
                                "test": -log_prob.mean(), "true": -test.log_prob.mean(),
                                "gap": (test.log_prob - log_prob).mean()})
    return found


def train_table(density: conditional.Density, rng: np.random.Generator, seed: int,
                steps: int | None) -> Flow:
    """minglow's defaults on 50,000 rows."""
    rows = density(50_000, rng)
    flow = minglow.glow(rows.x.shape[1:], context=3, rng=seed)
    minglow.train(flow, minglow.data.split(rows.x, context=rows.context), seed=seed,
                  **({} if steps is None else {"steps": steps}))
    return flow


def train_images(density: conditional.Density, rng: np.random.Generator, seed: int,
                 steps: int | None) -> Flow:
    """A loop over fresh images: `minglow.train` takes images of integers, and these are real."""
    steps, first = steps or 4000, density(1000, rng)
    flow = minglow.glow(first.x.shape[1:], flow_steps=2, context=3, rng=seed)
    flow.initialize(first.x, first.context)
    optimizer, average = Adam(flow.flat), PolyakAverage(flow.flat, EMA_DECAY)
    for step in range(1, steps + 1):
        batch = density(128, rng)
        flow.flat.grad[...] = 0
        flow.nll_backward(batch.x, context=batch.context)
        clip_norm(flow.flat.grad, MAX_GRAD_NORM)
        optimizer.step(0.01 * warm_up_cosine(step, steps, min(200, steps // 2)))
        average.update()
    flow.flat.value[...] = average.average
    return flow


def report(found: dict[str, dict[str, list[Result]]], seeds: list[int]) -> str:
    """Test nats of every method, then what is required of them."""
    by_seed = [f"seed {seed}" for seed in seeds]
    texts = []
    for what, methods in found.items():
        rows = [[name, f"{results[0]['parameters']:,}", across(results, "seconds", "{:.0f}"),
                 across(results, "steps", "{:,}"), *(f"{result['test']:.3f}" for result in results)]
                for name, results in methods.items()]
        if what == "conditional":
            rows += [[f"{name}, true density", "", "", "",
                      *(f"{result['true']:.3f}" for result in results)]
                     for name, results in methods.items()]
        head = ["nats per sample", "parameters", "seconds", "steps", *by_seed]
        texts.append(f"### {what.capitalize()}\n\n{table(head, rows)}")
    rows = [[name, *(f"{value:.3f}" for value in values), "yes" if met(values) else "no"]
            for name, values, met in requirements(found)]
    texts.append("### Requirements\n\n" + table(["nats", *by_seed, "met"], rows))
    return "\n".join(texts)


def across(results: list[Result], key: str, form: str) -> str:
    """The smallest and the largest value over the seeds."""
    values = [result[key] for result in results if key in result]
    shown = [form.format(end) for end in ((min(values), max(values)) if values else ())]
    return " to ".join(dict.fromkeys(shown))


def requirements(found: dict[str, dict[str, list[Result]]],
                 ) -> Iterator[tuple[str, list[float], Callable[[list[float]], bool]]]:
    """Each with its numbers, one for each seed, and whether they meet it."""

    def gains(what: str, ours: str, other: str) -> list[float]:
        return [b["test"] - a["test"] for a, b in zip(found[what][ours], found[what][other])]

    if "diamonds" in found:
        for name in FLOWS:
            yield (f"diamonds: Gaussian - {name}, at least 1", gains("diamonds", name, GAUSSIAN),
                   lambda values: min(values) >= 1)
        for name, partner in PARTNERS.items():
            yield (f"diamonds: {partner} - {name}, above 0", gains("diamonds", name, partner),
                   lambda values: min(values) > 0)
    if "cancer" in found:
        yield ("cancer: Gaussian - glow, at least 0", gains("cancer", "glow", GAUSSIAN),
               lambda values: min(values) >= 0)
    for name, results in found.get("conditional", {}).items():
        yield (f"conditional: {name} - true density, at most 0.1", [result["gap"] for result in results],
               lambda values: max(values) <= 0.1)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    measurements = "diamonds", "cancer", "conditional"
    parser.add_argument("--only", nargs="+", choices=measurements, default=measurements)
    parser.add_argument("--diamonds", type=Path, help="diamonds.csv; by default that of plotnine")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of minglow's training, fewer to see that it works")
    parser.add_argument("--out", type=Path, help="a JSON file for all numbers")
    args = parser.parse_args()
    found: dict[str, dict[str, list[Result]]] = {}
    for what in args.only:
        if what == "diamonds":
            found[what] = measure_diamonds(diamonds(args.diamonds), args.seeds, args.steps)
        else:
            measure = measure_cancer if what == "cancer" else measure_conditional
            found[what] = measure(args.seeds, args.steps)
    if args.out:
        facts = {"machine": describe(), "seeds": args.seeds}
        args.out.write_text(json.dumps(facts | found, indent=1) + "\n", encoding="utf-8")
    print(report(found, args.seeds))


if __name__ == "__main__":
    main()
