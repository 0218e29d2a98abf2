"""Flows and dequantizers built again from what was saved of them. Floor 4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minglow import arguments, checkpoint, runs
from minglow.dequantizers import Dequantizer
from minglow.flow import Flow
from minglow.recipes import build, build_dequantizer, checked
from minglow.weights import import_safetensors, read_recipe
from minglow.words import smallest_size

WEIGHTS = ".safetensors"


def load_flow(path: str | Path) -> tuple[Flow, dict[str, Any]]:
    """The flow in a run's folder, a checkpoint or a .safetensors file, and its recipe.

    Raises CheckpointError.
    """
    path = Path(arguments.path(path))
    if path.suffix == WEIGHTS and not path.is_dir():
        recipe = read_recipe(path)
        flow = follow(path, recipe)
        import_safetensors(flow, path)
        return flow, recipe
    if (path / runs.LAST).exists() and not (path / runs.CHECKPOINT).exists():
        raise checkpoint.CheckpointError(
            f"{path / runs.CHECKPOINT}: no such file, a run has it from its first evaluation on")
    saved = checkpoint.read(path / runs.CHECKPOINT if path.is_dir() else path)
    return restored(saved), saved.recipe


def load_dequantizer(path: str | Path, recipe: dict[str, Any]) -> Dequantizer:
    """The dequantizer that a flow was trained with, from its run. Raises CheckpointError."""
    dequantizer = build_dequantizer(recipe)
    value = dequantizer.flat.value
    if value.size:
        path = Path(path)
        model = path if path.suffix == ".npz" else in_run_of(path, runs.CHECKPOINT)
        if not model.is_file():
            raise checkpoint.CheckpointError(f"{path}: expected its run's {model.name} beside it, which "
                                             "holds the dequantizer that it learned with, got none")
        saved = checkpoint.read(model)
        found = saved.arrays.get("dequantizer", np.empty(0))
        if (found.shape, found.dtype) != (value.shape, value.dtype):
            raise checkpoint.CheckpointError(
                f"{saved.path}: expected its dequantizer as {value.dtype} {value.shape}, "
                f"got {found.dtype} {found.shape}")
        checkpoint.check_values(saved.path, "dequantizer", found)
        value[...] = found
    return dequantizer


def restored(saved: checkpoint.Checkpoint) -> Flow:
    """The flow that a checkpoint's recipe builds, with its arrays. Raises CheckpointError."""
    flow = follow(saved.path, saved.recipe)
    checkpoint.restore(saved, flow)
    return flow


def follow(path: Path, recipe: dict[str, Any]) -> Flow:
    """The flow that a recipe builds, at its random start.

    Raises CheckpointError that names its file, and before memory is taken for more than that could hold.
    """
    try:
        full = checked(recipe)
        if 4 * smallest_size(full) > path.stat().st_size:  # 4 bytes are the least that a parameter takes
            raise ValueError("it asks for more parameters than the file could hold")
        return build(full)
    except ValueError as error:
        raise checkpoint.CheckpointError(f"{path}: its recipe cannot be followed: {error}") from None


def in_run_of(path: Path, name: str) -> Path:
    """A file of this name in the run's folder."""
    return (path if path.is_dir() else path.parent) / name
