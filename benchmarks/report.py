"""Tables and plots of benchmarks/results, written into docs/performance.md and docs/images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
MEBIBYTES = 64, 128, 256, 512, 1024, 2048
COLORS = {"minglow": "C0", "minglow, reversible": "C2", "normflows": "C1", "PyTorch": "C3"}
WHAT = {"train_step": "training step", "log_prob": "`log_prob`", "sample": "`sample`"}


def write(results: Path) -> str:
    """Draw the plots, put the tables into the page, and return them."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in results.glob("*.json")}
    text = tables(found)
    fill(DOCS / "performance.md", text)
    plots(found)
    return text


def fill(page: Path, text: str) -> None:
    """Write the tables between the two marks on a page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(before + BEGIN + "\n" + text + END + rest.split(END)[1], encoding="utf-8")


def tables(found: dict[str, Any]) -> str:
    """All tables, in Markdown."""
    parts = [machine(found["speed"]["machine"])]
    parts += [speed(name, found["speed"][name]) for name in ("large", "small")]
    parts += [section(found[section.__name__]) for section in (
        depth, memory, scaling, digits, contention, startup)]
    return "\n".join(parts)


def table(head: list[str], rows: list[list[str]]) -> str:
    """One table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def machine(facts: dict[str, Any]) -> str:
    """The machine, in Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    variables = ", ".join(f"{name}={value}" for name, value in facts["variables"].items()) or "none set"
    return (f"{facts['cores']} cores, {facts['processor']}; Python {facts['python']}, {versions}. "
            f"Thread pools: {'; '.join(facts['threads'])}. Environment variables: {variables}.\n")


def speed(name: str, found: dict[str, Any]) -> str:
    """Times of one size, and their ratios."""
    size, times = found["size"], found["milliseconds"]
    h, w, c = size["shape"]
    title = (f"### The {name} config\n\n{h} x {w} x {c}, L {size['levels']}, K {size['steps']}, width "
             f"{size['hidden']}, affine, batch {size['batch']}, float32. Milliseconds: median "
             f"(quartiles) of {found['rounds']} rounds.\n")
    rows = [[subject, f"{count:,}"] + [cell(times[what][subject]) for what in WHAT]
            for subject, count in found["parameters"].items()]
    limit, flop = found["products"], found["gflop"]
    rows.append(["the matrix products alone", f"{flop['train_step']:.2f} GFLOP a step",
                 cell(limit["train_step"]), cell(limit["log_prob"]), cell(limit["log_prob"])])
    ratio = [[what, f"{value:.2f}"] for what, value in found["ratios"].items()]
    return "\n".join([title, table(["", "parameters", *WHAT.values()], rows),
                      table(["ratio of medians", ""], ratio)])


def cell(entry: dict[str, float]) -> str:
    """Median (quartiles)."""
    digits = 0 if entry["median"] >= 100 else 1
    return f"{entry['median']:.{digits}f} ({entry['low']:.{digits}f} to {entry['high']:.{digits}f})"


def depth(found: dict[str, Any]) -> str:
    """Training steps by depth."""
    by_depth = found["milliseconds"]
    names = next(iter(by_depth.values()))
    rows = [[name, *(cell(entry[name]) for entry in by_depth.values())] for name in names]
    return "\n".join(["### By depth\n", table(["training step, large config", *by_depth], rows)])


def memory(found: dict[str, Any]) -> str:
    """Peak memory by depth."""
    rows = [[name, *(f"{value:.0f}" for value in values)] for name, values in found["mebibytes"].items()]
    head = ["MiB above parameters", *(f"K {depth}" for depth in found["depths"])]
    ratio = [[what, f"{value:.2f}"] for what, value in found["ratios"].items()]
    return "\n".join(["### Memory\n", table(head, rows), table(["ratio", ""], ratio),
                      "![Peak memory by depth](images/performance-memory.png)\n"])


def scaling(found: dict[str, Any]) -> str:
    """Exponents of time by depth, batch and pixels."""
    series = {name: entry for name, entry in found.items() if isinstance(entry, dict) and "at" in entry}
    rows = [[name, ", ".join(map(str, entry["at"])),
             ", ".join(f"{value:.0f}" for value in entry["milliseconds"]), f"{entry['exponent']:.2f}"]
            for name, entry in series.items()]
    return "\n".join(["### How time grows\n",
                      table(["training step by", "at", "milliseconds", "exponent"], rows),
                      "![Time by depth, batch and pixels](images/performance-scaling.png)\n"])


def digits(found: dict[str, Any]) -> str:
    """Held-out bits at the end of the clock."""
    rows = [[name, *(f"{bits:.3f}" for bits in values)] for name, values in found["at the end"].items()]
    head = [f"bits/dim after {found['seconds']:.0f} s", *(f"seed {seed}" for seed in found["seeds"])]
    return "\n".join(["### Learning by the clock\n", table(head, rows),
                      "![Held-out bits per dimension by wall-clock](images/performance-digits.png)\n"])


def contention(found: dict[str, Any]) -> str:
    """A step of the small config, idle and beside another process."""
    states = found["milliseconds"]
    rows = [[name, *(cell(states[state][name]) for state in states)] for name in states["idle"]]
    return "\n".join(["### With a busy core\n", table(["training step, small config", *states], rows)])


def startup(found: dict[str, Any]) -> str:
    """Start-up times."""
    rows = [[name, f"{entry['median'] / 1e3:.2f} s"] for name, entry in found.items()
            if isinstance(entry, dict) and "median" in entry]
    return "\n".join(["### Start-up\n", table(["process", "median"], rows)])


def plots(found: dict[str, Any]) -> None:
    """One picture a topic."""
    figure = Figure((6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, values in found["memory"]["mebibytes"].items():
        axes.plot(found["memory"]["depths"], values, "o-", label=name, color=COLORS[name])
    label(axes, "flow steps a level, K", "MiB above parameters", at=found["memory"]["depths"])
    axes.set_yticks(MEBIBYTES, [str(mebibytes) for mebibytes in MEBIBYTES])
    save(figure, "performance-memory")

    figure = Figure((9, 3.2), layout="constrained")
    for axes, what in zip(figure.subplots(1, 3, sharey=True), ("depth", "batch", "pixels")):
        for name, suffix in ("minglow", ""), ("minglow, reversible", ", reversible"):
            entry = found["scaling"][what + suffix]
            axes.plot(entry["at"], entry["milliseconds"], "o-", color=COLORS[name],
                      label=f"{name}: exponent {entry['exponent']:.2f}")
        label(axes, what, "ms a training step" if what == "depth" else "", at=entry["at"])
    save(figure, "performance-scaling")

    figure = Figure((6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, curves in found["digits"]["curves"].items():
        for i, curve in enumerate(curves):
            axes.plot(*zip(*curve), color=COLORS[name], label=name if i == 0 else None)
    label(axes, "seconds of training", "held-out bits per dimension")
    save(figure, "performance-digits")


def label(axes: Axes, x: str, y: str, at: Sequence[int] = ()) -> None:
    """Name the axes; with `at`, make both logarithmic, with these ticks."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if at:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(at, [str(tick) for tick in at])
        axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def save(figure: Figure, name: str) -> None:
    """docs/images/NAME.png"""
    figure.savefig(DOCS / "images" / f"{name}.png", dpi=120)
