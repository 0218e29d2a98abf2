"""Flows and dequantizers built again from what was saved of them. Floor 4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minglow import checkpoint, runs
from minglow.dequantizers import Dequantizer
from minglow.flow import Flow
from minglow.recipes import build, build_dequantizer
from minglow.weights import import_safetensors, read_recipe

WEIGHTS = ".safetensors"


def load_flow(path: str | Path) -> tuple[Flow, dict[str, Any]]:
    """The flow in a run's folder, a checkpoint or a .safetensors file, and its recipe.

    Raises CheckpointError.
    """
    path = Path(path)
    if path.suffix == WEIGHTS and not path.is_dir():
        recipe = read_recipe(path)
        flow = follow(path, recipe, build)
        import_safetensors(flow, path)
        return flow, recipe
    saved = checkpoint.read(path / runs.CHECKPOINT if path.is_dir() else path)
    return restored(saved, build), saved.recipe


def load_dequantizer(path: str | Path, recipe: dict[str, Any]) -> Dequantizer:
    """The dequantizer that a flow was trained with, from its run. Raises CheckpointError."""
    dequantizer = build_dequantizer(recipe)
    value = dequantizer.flat.value
    if value.size:
        path = Path(path)
        model = path if path.suffix == ".npz" else beside(path, runs.CHECKPOINT)
        if not model.is_file():
            raise checkpoint.CheckpointError(f"{path}: expected its run's {model.name} beside it, which "
                                             "holds the dequantizer that it learned with, got none")
        saved = checkpoint.read(model)
        found = saved.arrays.get("dequantizer", np.empty(0))
        if (found.shape, found.dtype) != (value.shape, value.dtype):
            raise checkpoint.CheckpointError(
                f"{saved.path}: expected its dequantizer as {value.dtype} {value.shape}, "
                f"got {found.dtype} {found.shape}")
        value[...] = found
    return dequantizer


def restored(saved: checkpoint.Checkpoint, build: Callable[[dict[str, Any]], Any]) -> Any:
    """What a checkpoint's recipe builds, with its arrays. Raises CheckpointError."""
    built = follow(saved.path, saved.recipe, build)
    checkpoint.restore(saved, built)
    return built


def follow(path: Path, recipe: dict[str, Any], build: Callable[[dict[str, Any]], Any]) -> Any:
    """What a recipe builds, at its random start. Raises CheckpointError that names its file."""
    try:
        return build(recipe)
    except (KeyError, TypeError, ValueError) as error:
        message = f"{path}: its recipe cannot be followed ({error!r})"
        raise checkpoint.CheckpointError(message) from None


def beside(path: Path, name: str) -> Path:
    """A file of this name in the run's folder."""
    return (path if path.is_dir() else path.parent) / name
