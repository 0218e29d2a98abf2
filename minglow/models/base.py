"""What a model is built from: one declaration for Python, the command line and files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minglow import layers
from minglow.bases import Base
from minglow.bijection import Bijection, Rng
from minglow.flow import Flow
from minglow.storage.settings import Config, option

MODELS: dict[str, type[ModelConfig]] = {}  # by their names on the command line
SCALES = {"sigmoid": layers.sigmoid_scale, "tanh": layers.tanh_scale, "exp": layers.exp_scale}


@dataclass(frozen=True)
class ModelConfig(Config):
    """Settings of a model; `class MyConfig(ModelConfig, model="mine")` makes `--model mine`.

    model                 its name
    default_learning_rate the peak of the learning rate, where training is not given one
    whitens               whether its flows of vectors begin with a Whitening
    """

    model: ClassVar[str]
    default_learning_rate: ClassVar[float] = 0.01
    whitens: ClassVar[bool] = True

    shape: tuple[int, ...] = option(help="shape of one sample, (h, w, C) or (D,)", cli=False)
    dtype: str = option("float32", "precision of parameters and arithmetic",
                        choices={"float32": np.float32, "float64": np.float64}, closed=True,
                        kw_only=True)

    def __init_subclass__(cls, model: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.model = model
        MODELS[model] = cls

    def build(self, rng: Rng = None) -> Flow:
        """The flow that these settings describe, randomly initialized by a seed or a Generator."""
        return Flow(*self.build_parts(np.random.default_rng(rng)), config=self)

    def build_parts(self, rng: np.random.Generator) -> tuple[Bijection, Base]:
        """The bijection and the base distribution of the flow."""
        raise NotImplementedError(f"{type(self).__name__} has no build_parts")

    def min_bytes(self) -> int:
        """A lower bound of the size of the flow's arrays: the parameters, and a whitening's matrix."""
        whitening = self.shape[0] ** 2 if self.whitens and len(self.shape) == 1 else 0
        return 4 * self.min_parameters() + 8 * whitening

    def min_parameters(self) -> int:
        """A lower bound of the number of parameters, within a factor of about thirty: an untrusted
        configuration cannot ask for memory that its file does not fill."""
        raise NotImplementedError(f"{type(self).__name__} has no min_parameters")


def standardize(dims: int) -> list[Bijection]:
    """The layers that give vectors (D,) mean 0 and covariance I, once data have initialized them."""
    return [layers.Standardization(dims), layers.Whitening(dims)]


def check_vector(shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a coupling can divide vectors of this shape, (D,)."""
    if len(shape) == 1 and shape[0] < 2:
        raise ValueError("expected vectors of at least 2 numbers, since a coupling reads one to change "
                         f"another, got shape {shape}: minglow.spline_flow takes single numbers")
