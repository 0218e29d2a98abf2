"""The configuration of a run: model, data and training, as a checkpoint stores them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from reprlib import repr as shortened
from typing import Any, NamedTuple

import numpy as np

from minglow.arrays import memory
from minglow.data import PACKAGED, TOYS, Images, Table, dither, load, rounding_steps
from minglow.data.readers import formats
from minglow.dequantization import (
    Continuous,
    Dequantizer,
    NoDequantizer,
    UniformDequantizer,
    VariationalDequantizer,
)
from minglow.models.base import MODELS, ModelConfig
from minglow.storage.settings import Config, option, pick
from minglow.training.config import TrainingConfig
from minglow.training.monitor import data_range

DEQUANTIZERS = {"uniform": UniformDequantizer, "none": NoDequantizer,
                "variational": VariationalDequantizer}


@dataclass(frozen=True, kw_only=True)
class ReadingConfig(Config):
    """Which images or which table, and how they are read."""

    data: str = option("digits", f"{', '.join([*PACKAGED, *TOYS])}, or the path of images or of a "
                                 f"table: {formats()}")
    bins: int | None = option(None, "number of intensity levels of a file, 256 if not given", minimum=2,
                              maximum=256)
    bits: int | None = option(None, "keep this number of bits of 8", minimum=1, maximum=8)
    size: int | None = option(None, "scale and crop the pictures of a folder to this size", minimum=1)
    grayscale: bool = option(False, "read the pictures of a folder as grayscale")
    held_out: float | None = option(None, "fraction of a table's rows that is held out: 0.1 if not "
                                          "given", above=0, below=1)
    dither: bool = option(False, "add uniform noise to a table's rounded columns, of the size of their "
                                 "rounding step")

    def load(self) -> Images | Table:
        """The data. Raises ValueError for what cannot be read."""
        data = load(self.data, bins=self.bins, bits=self.bits, size=self.size, grayscale=self.grayscale,
                    held_out=self.held_out)
        if not self.dither:
            return data
        if not isinstance(data, Table):
            raise ValueError(f"expected a table to dither, got images in {self.data}")
        steps = rounding_steps(data.train)
        train, held_out = dither(data.train, steps, 0), dither(data.held_out, steps, 1)
        return data._replace(train=train, held_out=held_out)

    @property
    def final_bins(self) -> int:
        """The number of bins once the bits are reduced."""
        return 2**self.bits if self.bits not in (None, 8) else self.bins or 256


@dataclass(frozen=True, kw_only=True)
class DataConfig(ReadingConfig):
    """The data that a model is trained on, and what fills the bins of images.

    columns, center, radius: of a table, the names of its columns, and where their values lie.
    """

    dequantizer: str = option("uniform", "the noise that fills the bins of images",
                              choices=tuple(DEQUANTIZERS))
    columns: tuple[str, ...] = option((), "names of a table's columns", cli=False)
    center: tuple[float, ...] = option((), "median of each column", cli=False)
    radius: tuple[float, ...] = option((), "largest distance of a value from it", cli=False)


class RunConfig(NamedTuple):
    """Everything that a run is built from."""

    model: ModelConfig
    data: DataConfig
    training: TrainingConfig

    def to_json(self) -> dict[str, Any]:
        """All settings, as JSON can hold them."""
        return {"model": model_to_json(self.model), "data": self.data.to_json(),
                "training": self.training.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunConfig:
        """The settings that `to_json` gave, all validated. Raises ValueError."""
        if values.keys() != {*cls._fields}:
            raise ValueError(f"expected settings of {', '.join(cls._fields)}, "
                             f"got {shortened([*values])}")
        config = cls(model_from_json(values),
                     DataConfig.from_json(values["data"], "the settings of the data"),
                     TrainingConfig.from_json(values["training"], "the settings of training"))
        columns = config.model.shape[0] if config.is_table else 0
        for name in "columns", "center", "radius":
            found = len(getattr(config.data, name))
            if found != columns and (name != "columns" or found):
                raise ValueError(f"expected {name} to have {columns} entries, got {found}")
        return config

    @classmethod
    def for_data(cls, given: dict[str, Any], model: str, reading: DataConfig, data: Images | Table,
                 ) -> RunConfig:
        """The settings for options by name, completed by what the data decide."""
        built = MODELS[model](shape=data.train.shape[1:], **pick(given, MODELS[model]))
        if isinstance(data, Table):
            if reading.dequantizer != "uniform":
                raise ValueError("expected images for a dequantizer, got a table: see --dither")
            center, radius = data_range(data)
            reading = replace(reading, columns=data.columns, center=tuple(center.tolist()),
                              radius=tuple(radius.tolist()))
        else:  # the number of bins in the file: images have fewer once bits are reduced
            reading = replace(reading, bins=256 if reading.bits not in (None, 8) else data.bins)
        training = TrainingConfig(**pick(given, TrainingConfig)).resolved(built, data)
        return cls(built, reading, training)

    @property
    def is_table(self) -> bool:
        """Whether the model is one of vectors, not of images."""
        return len(self.model.shape) == 1

    def build_dequantizer(self) -> Dequantizer:
        """The dequantizer, at its random initialization."""
        if self.is_table:
            return Continuous()
        bins, model = self.data.final_bins, self.model
        if self.data.dequantizer != "variational":
            return DEQUANTIZERS[self.data.dequantizer](bins)
        return VariationalDequantizer(model.shape, bins, getattr(model, "hidden", 32),
                                      rng=self.training.seed, dtype=model.chosen("dtype"))

    def check_memory(self) -> None:
        """Raise ValueError for training that this machine's memory cannot hold.

        A lower bound: five numbers for each parameter, Python's objects for each flow step, and one
        float32 for each pixel of a batch.
        """
        model = self.model
        needed = max(5 * np.dtype(model.chosen("dtype")).itemsize * model.min_parameters(),
                     model.min_bytes(),
                     10_000 * getattr(model, "flow_steps", getattr(model, "couplings", 1)),
                     4 * prod(model.shape) * (self.training.batch_size or 1))
        if needed > memory.installed():
            raise ValueError(f"expected training that fits into {memory.installed() / 1e9:.0f} GB of "
                             f"memory, got one that takes at least {shortened(needed)} bytes: take a "
                             "smaller model or batch")


def model_to_json(config: ModelConfig) -> dict[str, Any]:
    """A model's name and settings. Raises ValueError if one is a function without a name."""
    return {"name": config.model} | config.to_json()


def model_from_json(values: dict[str, Any]) -> ModelConfig:
    """The settings under "model", validated completely. Raises ValueError."""
    model = values.get("model")
    if not isinstance(model, dict) or model.get("name") not in [*MODELS]:
        raise ValueError(f"expected a model among {', '.join(MODELS)}, got {shortened(model)}")
    settings = {**model}
    name = settings.pop("name")
    return MODELS[name].from_json(settings, f"the settings of {name}")
