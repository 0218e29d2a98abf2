"""Integer images as real numbers, and nats as bits per dimension."""

from minglow.dequantization.bits import bits_per_dim, dequantize, quantize
from minglow.dequantization.dequantizers import (
    Continuous,
    Dequantizer,
    NoDequantizer,
    UniformDequantizer,
    VariationalDequantizer,
    log_bound,
)

__all__ = [
    "Continuous", "Dequantizer", "NoDequantizer", "UniformDequantizer", "VariationalDequantizer",
    "bits_per_dim", "dequantize", "log_bound", "quantize",
]
