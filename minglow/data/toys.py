"""Toy densities in the plane, (n, 2) float32, for flows that can be plotted."""

from reprlib import repr as shortened

import numpy as np

from minglow.bijection import Rng
from minglow.data.table import Table


def two_moons(n: int, rng: Rng = None) -> np.ndarray:
    """Two interleaving half circles of radius 1 with normal noise of 0.1."""
    rng = np.random.default_rng(rng)
    angle, upper = np.pi * rng.random(n), rng.integers(2, size=n)
    points = np.where(upper[:, None], np.c_[np.cos(angle), np.sin(angle)],
                      np.c_[1 - np.cos(angle), 0.5 - np.sin(angle)])
    return (points - np.array([0.5, 0.25]) + 0.1 * rng.standard_normal((n, 2))).astype(np.float32)


def pinwheel(n: int, rng: Rng = None) -> np.ndarray:
    """Five blades around the origin: elongated Gaussians, twisted by radius (Johnson et al. 2016)."""
    rng = np.random.default_rng(rng)
    radius, across = 1 + 0.3 * rng.standard_normal(n), 0.1 * rng.standard_normal(n)
    angle = 2 * np.pi / 5 * rng.integers(5, size=n) + 0.25 * np.exp(radius)
    cos, sin = np.cos(angle), np.sin(angle)
    return 1.5 * np.c_[radius * cos - across * sin, radius * sin + across * cos].astype(np.float32)


def checkerboard(n: int, rng: Rng = None) -> np.ndarray:
    """Uniform on the eight dark fields of a 4 x 4 board over [-2, 2)^2."""
    rng = np.random.default_rng(rng)
    column, pair = rng.integers(4, size=n), rng.integers(2, size=n)
    corner = np.stack([column, 2 * pair + column % 2], axis=1)
    return (corner - 2 + rng.random((n, 2))).astype(np.float32)


def eight_gaussians(n: int, rng: Rng = None) -> np.ndarray:
    """Eight Gaussians of standard deviation 0.15 on a circle of radius 2."""
    rng = np.random.default_rng(rng)
    angle = 2 * np.pi / 8 * rng.integers(8, size=n)
    center = 2 * np.c_[np.cos(angle), np.sin(angle)]
    return (center + 0.15 * rng.standard_normal((n, 2))).astype(np.float32)


TOYS = {"moons": two_moons, "pinwheel": pinwheel, "checkerboard": checkerboard,
        "gaussians": eight_gaussians}  # the names of `--data`


def toy(name: str, rng: Rng = 0) -> Table:
    """A toy density as a Table: 20,000 points to train on and 5,000 held out. Raises ValueError."""
    if name not in TOYS:
        raise ValueError(f"expected one of {', '.join(TOYS)}, got {shortened(name)}")
    points = TOYS[name](25_000, rng)
    return Table(points[:20_000], points[20_000:], ("x1", "x2"))
