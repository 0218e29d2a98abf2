"""Neural spline flows: couplings whose elementwise map is a spline."""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from minglow.bases import Base, StandardNormal
from minglow.bijection import Bijection, Net, Rng
from minglow.chain import Chain
from minglow.flow import Flow
from minglow.layers import (
    ActNorm,
    AffineCoupling,
    InvConv1x1,
    Spline,
    SplineCoupling,
    Standardization,
    tanh_scale,
)
from minglow.layers.conditional import Conditional, Context
from minglow.layers.spline import MAX_BINS
from minglow.models.base import ModelConfig
from minglow.nets import ContextNet, mlp
from minglow.storage.settings import accepts, option


@dataclass(frozen=True)
class SplineFlowConfig(ModelConfig, model="spline"):
    """Settings of `spline_flow`."""

    whitens = False

    flow_steps: int = option(5, "number of flow steps", flag="-K", minimum=1)
    hidden: int = option(32, "width of the conditioners", minimum=1)
    _: KW_ONLY
    spline_bins: int = option(8, "number of bins of each spline", minimum=2, maximum=MAX_BINS)
    bound: float = option(4.0, "splines act in [-bound, bound] and are the identity outside", above=0)
    context: int = option(0, "length of the vector that the density is conditioned on", cli=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.shape) != 1:
            raise ValueError(f"expected vectors (D,), got shape {self.shape}: for images, "
                             "minglow.glow(shape, coupling='spline')")

    def build_parts(self, rng: np.random.Generator) -> tuple[Bijection, Base]:
        """Standardization, and flow steps whose splines act on the columns themselves."""
        context, (dims,) = Context() if self.context else None, self.shape
        steps: list[Bijection] = [Standardization(dims)]
        for _ in range(self.flow_steps):
            steps += self._flow_step(dims, rng, context)
        bijection: Bijection = Chain(*steps)
        if context:
            bijection = Conditional(bijection, context, self.context, self.shape)
        return bijection, StandardNormal(self.shape)

    def _flow_step(self, dims: int, rng: np.random.Generator, context: Context | None,
                   ) -> list[Bijection]:
        """Actnorm, splines of single numbers, spline coupling, and a linear map.

        The linear map begins as the exchange of the coupling's halves: splines fit rounded and bounded
        columns, which a rotation would mix.
        """
        dtype, bins, bound, first = self.chosen("dtype"), self.spline_bins, self.bound, dims // 2
        steps: list[Bijection] = [ActNorm(dims, dtype), Spline(dims, bins, bound, dtype)]
        if context:  # shift and scale of each number, since a spline shifts only within its bound
            net: Net = ContextNet(mlp(self.context, self.hidden, 2 * dims, rng, dtype), context)
            steps.append(AffineCoupling(net, tanh_scale, identity_channels=0))
        if first:
            outputs = (3 * bins - 1) * (dims - first)
            net = mlp(first + self.context, self.hidden, outputs, rng, dtype)
            net = ContextNet(net, context) if context else net
            mixing = InvConv1x1(dims, rng, dtype)
            mixing.params["weight"][...] = np.roll(np.eye(dims), first, axis=0)
            steps += [SplineCoupling(net, bins, bound, first), mixing]
        return steps

    def min_parameters(self) -> int:
        """The matrices of each coupling, those of its context, and the splines of single numbers."""
        dims, knots = self.shape[0], 3 * self.spline_bins - 1
        coupling = self.hidden * (self.hidden + self.context + dims // 2 * knots)
        coupling = coupling if dims > 1 or self.context else 0
        return self.flow_steps * (dims * knots + coupling)


@accepts(SplineFlowConfig)
def spline_flow(*args: Any, rng: Rng = None, **options: Any) -> Flow:
    """Neural spline flow (Durkan et al. 2019, RQ-NSF (C), section 3.2) for vectors (D,), also of D = 1.

    Vectors are standardized. Each flow step has an actnorm, a spline of each number by itself, a spline
    coupling and a linear map if there are two numbers or more, and for a context an affine map that is
    determined by it.

    rng is a seed or a Generator for the initialization; the other arguments:
    """
    return SplineFlowConfig(*args, **options).build(rng)
