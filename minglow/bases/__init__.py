"""Base distributions: what the latents of a flow are distributed as."""

from minglow.bases.base import Base
from minglow.bases.standard import StandardLogistic, StandardNormal
from minglow.bases.top_prior import TopPrior

__all__ = ["Base", "StandardLogistic", "StandardNormal", "TopPrior"]
