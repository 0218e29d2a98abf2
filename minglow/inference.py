"""What a trained flow is asked: latents by level, walks between images, how strange one is. Floor 3."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from math import prod

import numpy as np

from minglow import arguments
from minglow.bits import bits_per_dim, dequantize
from minglow.chain import Chain
from minglow.device import beside, to_host
from minglow.distributions import Labels, Rng
from minglow.flow import Flow
from minglow.layers import Flatten, Level

STRENGTH = 1.6  # of an attribute's direction in the published code


def latent_views(flow: Flow, z: np.ndarray) -> dict[str, np.ndarray]:
    """Flat latents (B, D) by the level at which they left: "level 1", ... -> (B, h, w, C).

    Views: what is written into them is written into z. Level 1 is the first to leave, the finest.
    Raises ValueError for latents of another shape.
    """
    if z.ndim != 2 or z.shape[1:] != flow.base.shape:
        raise ValueError(f"expected latents (B, {prod(flow.base.shape)}), got {z.shape}")
    views: dict[str, np.ndarray] = {}
    bijection = flow.bijection
    while isinstance(bijection, Level):
        leaving, z = bijection.parts(z)
        views[f"level {len(views) + 1}"] = leaving
        bijection = bijection.inner
    last = bijection.layers[-1] if isinstance(bijection, Chain) else None
    shape = last.shape if isinstance(last, Flatten) else z.shape[1:]
    views[f"level {len(views) + 1}"] = z.reshape(len(z), *shape)
    return views


def resample(flow: Flow, x: np.ndarray, levels: Iterable[str], rng: Rng = None,
             temperature: float = 1.0, labels: Labels = None) -> np.ndarray:
    """x (B, h, w, C) with the latents of some levels drawn anew, and all others kept.

    levels: names as in latent_views. Raises ValueError for one that the flow does not have.
    """
    if isinstance(levels, str) or not isinstance(levels, Iterable):
        raise ValueError(f"expected levels to be a list of names, got {levels!r}")
    z = flow.latents(x).copy()  # of a bijection that moves no number they are a view of x
    drawn = flow.base.sample(len(z), np.random.default_rng(rng), flow.dtype, temperature, labels)
    drawn = beside(drawn, z)
    mine, fresh = latent_views(flow, z), latent_views(flow, drawn)
    for level in levels:
        if level not in mine:
            raise ValueError(f"expected levels among {', '.join(mine)}, got {level!r}")
        mine[level][...] = fresh[level]
    return flow.from_latents(z)


def interpolate(flow: Flow, start: np.ndarray, end: np.ndarray, frames: int = 9) -> np.ndarray:
    """Images on the straight lines between latents: (B, h, w, C) twice -> (B, frames, h, w, C).

    The first and the last of each line are the images themselves, up to rounding.
    """
    if arguments.array("start", start).shape != arguments.array("end", end).shape:
        raise ValueError(f"expected images of one shape, got {start.shape} and {end.shape}")
    arguments.count("frames", frames, 2)
    a, b = flow.latents(start), flow.latents(end)
    share = beside(np.linspace(0, 1, frames, dtype=flow.dtype)[:, None], a)
    z = a[:, None] + share * (b - a)[:, None]
    return flow.from_latents(z.reshape(-1, z.shape[2])).reshape(len(a), frames, *start.shape[1:])


def attribute_direction(flow: Flow, having: np.ndarray, lacking: np.ndarray) -> np.ndarray:
    """From the mean latent of images that lack an attribute to that of those that have it, (D,).

    mean z+ - mean z- (Kingma & Dhariwal 2018, section 6, semantic manipulation).
    """
    return flow.latents(having).mean(axis=0) - flow.latents(lacking).mean(axis=0)


def apply_attribute(flow: Flow, x: np.ndarray, direction: np.ndarray, strength: float) -> np.ndarray:
    """x moved along an attribute's direction; the published code's strengths lie in [-1, 1].

    Raises ValueError for a direction of another shape than the latents'.
    """
    if arguments.array("direction", direction).shape != flow.base.shape:
        raise ValueError(f"expected a direction {flow.base.shape}, got {direction.shape}")
    strength = arguments.amount("strength", strength, least=-np.inf)
    step = flow.dtype(STRENGTH * strength) * direction.astype(flow.dtype)
    return flow.from_latents(flow.latents(x) + step)


def strangeness(flow: Flow, images: np.ndarray, levels: int, usual: np.ndarray,
                rng: Rng = None) -> dict[str, np.ndarray]:
    """Three scores of integer images (N, h, w, C), each (N,); higher is stranger to the model.

    bits        per dimension: what the image costs. Simple images are cheap, whatever they show.
    typicality  |bits - mean bits of the `usual` images|: far off on either side is strange
                (Nalisnick et al. 2019, section 3)
    complexity  bits - what zlib needs for the image, in bits per dimension: cost beyond what a
                general compressor finds in it (Serra et al. 2020, equation 2)
    """
    rng = np.random.default_rng(rng)
    dims = prod(arguments.array("images", images).shape[1:])
    arguments.count("levels", levels, 2)

    def bits(images: np.ndarray) -> np.ndarray:
        x = beside(dequantize(images, levels, rng, flow.dtype), flow.flat.value)
        return bits_per_dim(to_host(flow.log_prob(x)), dims, levels)

    mine = bits(images)
    stored = images.astype(np.min_scalar_type(levels - 1))  # as few bytes as hold its levels
    compressed = [8 * len(zlib.compress(image.tobytes(), 9)) for image in stored]
    return {"bits": mine, "typicality": np.abs(mine - bits(usual).mean()),
            "complexity": mine - np.array(compressed) / dims}
