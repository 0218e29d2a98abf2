"""Saving flows, and loading what was saved: flows, dequantizers and the settings of their run."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import NamedTuple

from minglow import validation
from minglow.arrays import memory
from minglow.dequantization import Dequantizer
from minglow.flow import Flow
from minglow.runs import folder
from minglow.runs.config import RunConfig, model_from_json, model_to_json
from minglow.storage import checkpoint
from minglow.storage.checkpoint import Checkpoint, CheckpointError
from minglow.storage.weights import export_safetensors, read_safetensors

SAFETENSORS = ".safetensors"
SAMPLE_BYTES = 64  # for each value of a sample: `minglow info` draws 16


class Run(NamedTuple):
    """What a training run left."""

    flow: Flow
    dequantizer: Dequantizer
    config: RunConfig


def save(flow: Flow, path: str | Path) -> None:
    """Write a flow to a file: a checkpoint, or weights if the path ends in .safetensors.

    The file holds the flow's arrays, the settings of its layers and, for a model of minglow.models,
    what it is built from. A file of that name stays intact until the new one is complete.
    """
    validation.check_instance("flow", flow, Flow)
    path, config = Path(validation.check_path(path)), {}
    if flow.config is not None:
        with suppress(ValueError):  # a function of the user's own among the settings: load needs `into`
            config = {"model": model_to_json(flow.config)}
    (export_safetensors if path.suffix == SAFETENSORS else checkpoint.save)(path, flow, config)


def load(path: str | Path, into: Flow | None = None) -> Flow:
    """The flow in a run's folder, a checkpoint or a .safetensors file.

    into: a flow of the same layers, which gets the file's arrays; needed for layers of one's own, which
    no file can build. Raises CheckpointError for what does not fit, and leaves `into` untouched then.
    """
    saved = read(path)
    if into is None:
        return build(saved)
    checkpoint.restore(saved, validation.check_instance("into", into, Flow))
    return into


def load_run(path: str | Path) -> Run:
    """The flow that a run left, its dequantizer, and its settings. Raises CheckpointError."""
    saved = read(path)
    config, flow = run_config(saved), build(saved)
    with naming_file(saved):
        dequantizer = config.build_dequantizer()
    value = dequantizer.flat.value
    if value.size:
        path = Path(path)
        model = saved.path if path.suffix == ".npz" else folder.in_run(path, folder.CHECKPOINT)
        if not model.is_file():
            raise CheckpointError(f"{path}: expected the run's {model.name} in the same folder, which "
                                  "holds the dequantizer that was trained with the flow, got none")
        found = checkpoint.read(model).arrays.get("dequantizer")
        checkpoint.check_like(model, "dequantizer", found, value)
        value[...] = found
    return Run(flow, dequantizer, config)


def read(path: str | Path) -> Checkpoint:
    """The content of a run's best model, a checkpoint or a .safetensors file. Raises CheckpointError."""
    path = Path(validation.check_path(path))
    if path.suffix == SAFETENSORS and not path.is_dir():
        return read_safetensors(path)
    best = path / folder.CHECKPOINT
    if (path / folder.LAST).exists() and not best.exists():
        raise CheckpointError(f"{best}: no such file, a run writes it at its first evaluation")
    return checkpoint.read(best if path.is_dir() else path)


def build(saved: Checkpoint) -> Flow:
    """The flow in a file, built from the settings there.

    The settings are validated, and compared with the file's size, before any memory is taken. Raises
    CheckpointError that names the file.
    """
    if "model" not in saved.config:
        raise CheckpointError(f"{saved.path}: expected the settings of a model, got none: build the "
                              "flow, and load it by minglow.load(path, into=flow)")
    with naming_file(saved):
        config = model_from_json(saved.config)
        if config.min_bytes() > saved.path.stat().st_size:
            raise ValueError("it describes more parameters than the file can hold")
        if SAMPLE_BYTES * prod(config.shape) > memory.installed():
            raise ValueError("it describes samples that this machine's memory cannot hold")
        flow = config.build()
    checkpoint.restore(saved, flow)
    return flow


def run_config(saved: Checkpoint) -> RunConfig:
    """The settings of the run that wrote a file. Raises CheckpointError that names it."""
    if saved.config.keys() <= {"model"}:  # what `save` stores
        raise CheckpointError(f"{saved.path}: holds a flow without the data and training settings of a "
                              "run: use it in Python, by minglow.load")
    with naming_file(saved):
        return RunConfig.from_json(saved.config)


@contextmanager
def naming_file(saved: Checkpoint) -> Iterator[None]:
    """Turn the ValueError for a setting into a CheckpointError that names the file."""
    try:
        yield
    except ValueError as error:
        raise CheckpointError(f"{saved.path}: its configuration cannot be used: {error}") from None
