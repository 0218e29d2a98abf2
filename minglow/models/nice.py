"""NICE: additive couplings of whole vectors, and a scaling."""

from dataclasses import KW_ONLY, dataclass
from math import prod
from typing import Any

import numpy as np

from minglow.bases import Base, StandardLogistic, StandardNormal
from minglow.bijection import Bijection, Rng
from minglow.chain import Chain
from minglow.flow import Flow
from minglow.layers import AdditiveCoupling, EvenOdd, Flatten, Reverse, Scaling
from minglow.models.base import ModelConfig, check_vector, standardize
from minglow.nets import mlp
from minglow.storage.settings import accepts, option


@dataclass(frozen=True)
class NiceConfig(ModelConfig, model="nice"):
    """Settings of `nice`. The paper's for MNIST are hidden=1000 (Dinh et al. 2015, section 5.1)."""

    default_learning_rate = 0.002

    couplings: int = option(4, "number of additive couplings", minimum=1)
    hidden: int = option(256, "width of the conditioners", minimum=1)
    depth: int = option(5, "number of hidden layers of each conditioner", minimum=1)
    _: KW_ONLY
    base: str = option("logistic", "base distribution",
                       choices={"logistic": StandardLogistic, "normal": StandardNormal})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_vector((prod(self.shape),))

    def build_parts(self, rng: np.random.Generator) -> tuple[Bijection, Base]:
        """Even indices against odd ones, reversed between couplings; then one diagonal scaling."""
        dims, dtype = prod(self.shape), self.chosen("dtype")
        layers: list[Bijection] = standardize(dims) if len(self.shape) == 1 else []
        layers += [Flatten(self.shape), EvenOdd(dims)]
        for i in range(self.couplings):
            first = (dims + 1 - i % 2) // 2  # of an odd number, even indices are one more
            net = mlp(first, self.hidden, dims - first, rng, dtype, self.depth)
            layers += [AdditiveCoupling(net, first), Reverse(dims)]
        return Chain(*layers[:-1], Scaling(dims, dtype)), self.chosen("base")((dims,))

    def min_parameters(self) -> int:
        """Each coupling's first matrix, and those between two hidden layers."""
        return self.couplings * self.hidden * (self.hidden * (self.depth - 1) + prod(self.shape) // 2)


@accepts(NiceConfig)
def nice(*args: Any, rng: Rng = None, **options: Any) -> Flow:
    """NICE (Dinh et al. 2015) for images (h, w, C), which it flattens, or vectors (D,).

    Vectors are standardized first. Raises ValueError for a single number, which cannot be divided.
    rng is a seed or a Generator for the initialization; the other arguments:
    """
    return NiceConfig(*args, **options).build(rng)
