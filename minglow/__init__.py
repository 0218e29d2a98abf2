"""minglow: Glow in plain NumPy, with every backward pass derived by hand."""

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from minglow import bases, layers, models
from minglow.arrays.device import to_device, to_host
from minglow.arrays.threads import threads
from minglow.bases import *
from minglow.bijection import Bijection, Module, Net, SingularWeightError
from minglow.chain import Chain, ReversibleChain
from minglow.dequantization import bits_per_dim, dequantize, quantize
from minglow.flow import Flow
from minglow.kernels import use
from minglow.layers import *
from minglow.models import *
from minglow.params import FlatParams
from minglow.version import __version__

if TYPE_CHECKING:
    from minglow import data, testing
    from minglow.runs.loading import load, save
    from minglow.training import evaluate, train

__all__ = [
    "Bijection", "Chain", "FlatParams", "Flow", "Module", "Net", "ReversibleChain",
    "SingularWeightError", "__version__", "bits_per_dim", "data", "dequantize", "evaluate", "load",
    "quantize", "save", "testing", "threads", "to_device", "to_host", "train", "use",
    *bases.__all__, *layers.__all__, *models.__all__,
]
LATER = {"data": "minglow.data:", "evaluate": "minglow.training:evaluate",
         "load": "minglow.runs.loading:load", "save": "minglow.runs.loading:save",
         "testing": "minglow.testing:", "train": "minglow.training:train"}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import what trains and what reads files when it is first used: `import minglow` need not wait."""
    if name not in LATER:
        raise AttributeError(f"module 'minglow' has no attribute {name!r}")
    return resolve_name(LATER[name])
