"""Inference: latents by level, interpolation, attributes, anomaly scores."""

import zlib
from collections.abc import Iterable
from math import prod

import numpy as np

from minglow import validation
from minglow.arrays.device import to_device_of, to_host
from minglow.bases.base import Labels
from minglow.bijection import Rng
from minglow.chain import Chain
from minglow.dequantization.bits import bits_per_dim, dequantize
from minglow.flow import Flow
from minglow.layers import Flatten, Level

STRENGTH = 1.6  # factor of an attribute's direction in the official code


def latent_views(flow: Flow, z: np.ndarray) -> dict[str, np.ndarray]:
    """Views of flat latents (B, D) by level: "level 1", the finest, "level 2", ... -> (B, h, w, C)."""
    if z.ndim != 2 or z.shape[1:] != flow.base.shape:
        raise ValueError(f"expected latents (B, {prod(flow.base.shape)}), got {z.shape}")
    views: dict[str, np.ndarray] = {}
    bijection = flow.bijection
    while isinstance(bijection, Level):
        factored_out, z = bijection.parts(z)
        views[f"level {len(views) + 1}"] = factored_out
        bijection = bijection.inner
    last = bijection.layers[-1] if isinstance(bijection, Chain) else None
    shape = last.shape if isinstance(last, Flatten) else z.shape[1:]
    return views | {f"level {len(views) + 1}": z.reshape(len(z), *shape)}


def resample(flow: Flow, x: np.ndarray, levels: Iterable[str], rng: Rng = None,
             temperature: float = 1.0, labels: Labels = None) -> np.ndarray:
    """x (B, h, w, C) with new random latents in some levels, named as in latent_views; others stay."""
    if isinstance(levels, str) or not isinstance(levels, Iterable):
        raise ValueError(f"expected levels to be a list of names, got {levels!r}")
    z = flow.latents(x).copy()  # a bijection that only reshapes returns a view of x
    noise = flow.base.sample(len(z), np.random.default_rng(rng), flow.dtype, temperature, labels)
    views, new_views = latent_views(flow, z), latent_views(flow, to_device_of(noise, z))
    for level in levels:
        if level not in views:
            raise ValueError(f"expected levels among {', '.join(views)}, got {level!r}")
        views[level][...] = new_views[level]
    return flow.from_latents(z)


def interpolate(flow: Flow, start: np.ndarray, end: np.ndarray, frames: int = 9) -> np.ndarray:
    """Images along straight lines between latents: (B, h, w, C) twice -> (B, frames, h, w, C)."""
    if validation.check_array("start", start).shape != validation.check_array("end", end).shape:
        raise ValueError(f"expected images of one shape, got {start.shape} and {end.shape}")
    validation.check_count("frames", frames, 2)
    a, b = flow.latents(start), flow.latents(end)
    fractions = to_device_of(np.linspace(0, 1, frames, dtype=flow.dtype)[:, None], a)
    z = a[:, None] + fractions * (b - a)[:, None]
    return flow.from_latents(z.reshape(-1, z.shape[2])).reshape(len(a), frames, *start.shape[1:])


def attribute_direction(flow: Flow, having: np.ndarray, lacking: np.ndarray) -> np.ndarray:
    """Mean latent of images with an attribute minus that of images without, (D,): Glow, section 6."""
    return flow.latents(having).mean(axis=0) - flow.latents(lacking).mean(axis=0)


def apply_attribute(flow: Flow, x: np.ndarray, direction: np.ndarray, strength: float) -> np.ndarray:
    """x with its latents shifted along an attribute's direction; official strengths are in [-1, 1]."""
    if validation.check_array("direction", direction).shape != flow.base.shape:
        raise ValueError(f"expected a direction {flow.base.shape}, got {direction.shape}")
    strength = validation.check_number("strength", strength, minimum=-np.inf)
    step = flow.dtype(STRENGTH * strength) * direction.astype(flow.dtype)
    return flow.from_latents(flow.latents(x) + step)


def anomaly_scores(flow: Flow, images: np.ndarray, bins: int, usual: np.ndarray,
                   rng: Rng = None) -> dict[str, np.ndarray]:
    """Three anomaly scores of integer images (N, h, w, C), each (N,); an anomaly has a high score.

    bits        bits per dimension under the flow. They are low for simple images of any content.
    typicality  |bits - mean bits of the `usual` images| (Nalisnick et al. 2019, section 3)
    complexity  bits - zlib's bits per dimension, to correct for simple images (Serra et al. 2020,
                equation 2)
    """
    rng = np.random.default_rng(rng)
    dims = prod(validation.check_array("images", images).shape[1:])
    validation.check_count("bins", bins, 2)

    def bits_of(images: np.ndarray) -> np.ndarray:
        x = to_device_of(dequantize(images, bins, rng, flow.dtype), flow.flat.value)
        return bits_per_dim(to_host(flow.log_prob(x)), dims, bins)

    bits = bits_of(images)
    stored = images.astype(np.min_scalar_type(bins - 1))  # the smallest dtype that holds the values
    compressed = [8 * len(zlib.compress(image.tobytes(), 9)) for image in stored]
    return {"bits": bits, "typicality": np.abs(bits - bits_of(usual).mean()),
            "complexity": bits - np.array(compressed) / dims}
