"""Measure, and show what was measured.

    python -m benchmarks speed       a step, log_prob and sample beside other libraries (15 minutes)
    python -m benchmarks depth       a step by depth, beside other libraries (10 minutes)
    python -m benchmarks scaling     time by depth, batch and resolution (5 minutes)
    python -m benchmarks memory      peak memory by depth
    python -m benchmarks digits      held-out bits/dim by wall-clock (8 minutes)
    python -m benchmarks contention  a step while another process uses a core
    python -m benchmarks startup     import, first step, first compile
    python -m benchmarks figure3, family, mnist, photos      published experiments (half an hour each;
                                     finished runs are not repeated)
    python -m benchmarks report      tables and plots of the stored results

Each measurement writes benchmarks/results/NAME.json, with the machine's description.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

from benchmarks import experiments
from benchmarks.experiments import EXPERIMENTS
from benchmarks.machine import describe

RESULTS = Path(__file__).parent / "results"
MEASUREMENTS = {"speed": "speed.measure", "scaling": "speed.scaling", "memory": "memory.measure",
                "depth": "speed.depth", "digits": "digits.measure",
                "contention": "contention.measure", "startup": "startup.measure"}


def main() -> None:
    """Run one measurement, or the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*MEASUREMENTS, *EXPERIMENTS, "report"])
    parser.add_argument("--quick", action="store_true", help="a few rounds, to see that it works")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args()
    if args.what == "report":
        from benchmarks import experiments_report, report  # noqa: PLC0415  need results, not the libraries

        print(report.write(args.out))
        print(experiments_report.write(args.out))
        return
    if args.what in EXPERIMENTS:
        experiments.measure(args.what, args.out, args.quick)
        return
    module, function = MEASUREMENTS[args.what].split(".")
    found = getattr(import_module(f"benchmarks.{module}"), function)(quick=args.quick)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{args.what}.json"
    path.write_text(json.dumps({"machine": describe(), "quick": args.quick, **found}, indent=1) + "\n",
                    encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
