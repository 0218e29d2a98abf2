"""The command `minglow sample`."""

import argparse
import csv
import io
from pathlib import Path

import numpy as np

from minglow.arrays.device import to_host
from minglow.cli.commands import explosion_of, print_facts, save, to_backend
from minglow.runs import figures
from minglow.runs.folder import in_run
from minglow.runs.loading import load_run
from minglow.storage.archive import replacing


def run_sample(args: argparse.Namespace) -> None:
    """Draw samples: of images a picture or an array, of a table a .csv file or an array."""
    run = load_run(args.checkpoint)
    flow, label, is_table = to_backend(run.flow), args.label, run.config.is_table
    temperature = args.temperature if "temperature" in args else 1.0 if is_table else 0.8
    number = args.number if "number" in args else 1000 if is_table else 80
    suffix = "" if label is None else f"-label{label}"
    name = f"samples{suffix}-T{temperature:g}-seed{args.seed}"
    out = args.out or in_run(args.checkpoint, name + (".csv" if is_table else ".png"))
    if warning := explosion_of(flow, run.config).warning():
        print_facts(warning=warning)
    if is_table:
        rows = to_host(flow.sample(number, args.seed, temperature, label, on_bad="drop"))
        save_rows(rows, run.config.data.columns, out)
        print_facts(samples=out, rows=len(rows), **({} if len(rows) == number else {
            "warning": f"{number - len(rows)} of {number} samples are NaN or inf, and left out"}))
        return
    chosen = flow, number, temperature, args.seed, run.config.data.final_bins, label
    if out.suffix == ".npy":
        images = figures.sample_images(*chosen)
        with replacing(out) as file:
            np.save(file, images)
    else:
        out = save(figures.sample_sheet(*chosen), out)
    print_facts(samples=out)


def save_rows(rows: np.ndarray, columns: tuple[str, ...], out: Path) -> None:
    """Write the rows of a table (N, D) to a .csv file, with a header of names if any, or a .npy file."""
    if out.suffix not in (".csv", ".npy"):
        raise ValueError(f"expected a file that ends in .csv or .npy, got {out}")
    with replacing(out) as file:
        if out.suffix == ".npy":
            np.save(file, rows)
            return
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([columns] if columns else [])
        writer.writerows(rows.tolist())
        text.detach()
