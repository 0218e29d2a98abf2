"""The pictures of a run: samples, temperatures, interpolations, densities, training curves."""

from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from minglow import plots
from minglow.arrays.device import to_device_of, to_host
from minglow.data import Images, Table
from minglow.dequantization import dequantize, quantize
from minglow.flow import Flow
from minglow.inference import interpolate
from minglow.storage.archive import replacing
from minglow.training.evaluation import baseline

MAX_IMAGES = 10_000  # on one sheet
TEMPERATURES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)


def save_pictures(folder: Path, flow: Flow, data: Images | Table, curve: list[tuple[int, float, float]],
                  seed: int) -> None:
    """Draw the pictures of a finished run."""
    simple = baseline(data)
    if isinstance(data, Table):
        figures = {"curves.png": plots.training_curves(curve, "nats per sample", simple, "Gaussian"),
                   **table_figures(flow, data, seed)}
    else:
        figures = {
            "curves.png": plots.training_curves(curve, "bits per dimension", simple, "uniform model"),
            "samples.png": sample_sheet(flow, 80, 0.8, seed, data.bins),
            "temperatures.png": temperature_strip(flow, seed, data.bins),
            "interpolation.png": interpolation_strip(flow, data.held_out, data.bins),
        }
    for name, figure in figures.items():
        save_figure(figure, folder / name)


def table_figures(flow: Flow, table: Table, seed: int) -> dict[str, Figure]:
    """Figures of a flow of vectors beside its held-out data, by their files' names."""
    data = table.held_out
    samples = to_host(flow.sample(len(data), seed, on_bad="keep"))
    columns = table.columns or tuple(f"x{i + 1}" for i in range(data.shape[1]))
    if data.shape[1] == 1:
        (low, high), = plots.robust_limits(data)
        x = np.linspace(low, high, 501)
        density = np.exp(log_prob(flow, x[:, None]))
        return {"marginals.png": plots.marginals(data, samples, columns, (x, density))}
    if data.shape[1] == 2:
        limits = plots.robust_limits(data)
        edges, density, _ = plots.density_on_grid(partial(log_prob, flow), limits, 200, flow.dtype)
        return {"density.png": plots.plane_summary(data, samples, edges, density),
                "warped-grid.png": warped_grid(flow, data[:1000])}
    return {"pairs.png": plots.pair_plot(data, samples, columns),
            "marginals.png": plots.marginals(data, samples, columns)}


def log_prob(flow: Flow, x: np.ndarray) -> np.ndarray:
    """log p of many vectors on the host, (N,): in batches, which bound the memory."""
    parts = (to_device_of(x[start:start + 4096].astype(flow.dtype), flow.flat.value)
             for start in range(0, len(x), 4096))
    return np.concatenate([to_host(flow.log_prob(part)) for part in parts])


def warped_grid(flow: Flow, data: np.ndarray) -> Figure:
    """How the flow's inverse warps the plane, from the latents of data to the data, layer by layer."""
    z = to_host(flow.latents(to_device_of(data.astype(flow.dtype), flow.flat.value)))
    layers = [layer for layer, _, _ in flow.bijection.trace_inverse(to_device_of(z, flow.flat.value))]
    stages = np.array_split(np.arange(len(layers)), min(7, len(layers)))

    def inverse_of(stage: np.ndarray, y: np.ndarray) -> np.ndarray:
        y = to_device_of(y, flow.flat.value)
        for index in stage:
            y = layers[index].inverse_only(y)
        return to_host(y)

    titles = ["latents", *(f"{stage[-1] + 1} of {len(layers)} layers" for stage in stages[:-1]), "data"]
    return plots.warped_grid([partial(inverse_of, stage) for stage in stages], titles, z)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the name's ending; the old file stays until it is complete."""
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=150)


def sample_images(flow: Flow, n: int, temperature: float, seed: int, bins: int,
                  label: int | None = None) -> np.ndarray:
    """n samples as integer images (n, h, w, C): of one class, or of all in turn where there are some."""
    _check_count(n)
    classes = flow.base.classes
    labels = label if label is not None or not classes else np.arange(n) % classes
    return quantize(to_host(flow.sample(n, seed, temperature, labels)), bins)


def sample_sheet(flow: Flow, n: int, temperature: float, seed: int, bins: int,
                 label: int | None = None) -> Figure:
    """A sheet of n samples; each class has a column of its own where there are some."""
    images = sample_images(flow, n, temperature, seed, bins, label)
    in_columns = label is None and flow.base.classes > 1
    of = ", a class in each column" if in_columns else "" if label is None else f" of class {label}"
    title = f"samples{of}, temperature {temperature:g}"
    return plots.image_sheet(images, min(n, flow.base.classes if in_columns else 16), bins, title)


def temperature_strip(flow: Flow, seed: int, bins: int) -> Figure:
    """The same latents, one temperature in each line."""
    lines = [sample_images(flow, 12, temperature, seed, bins) for temperature in TEMPERATURES]
    return plots.image_sheet(np.concatenate(lines), 12, bins, "the same latents by temperature",
                             [f"T = {temperature:g}" for temperature in TEMPERATURES])


def interpolation_strip(flow: Flow, images: np.ndarray, bins: int, pairs: int = 6,
                        frames: int = 9) -> Figure:
    """Images on the straight lines between the latents of pairs of images, one pair in each line.

    images: integer images, of which the first 2 * pairs are the ends; fewer are repeated.
    """
    _check_count(pairs * frames)
    ends = images[np.arange(2 * pairs) % len(images)]
    x = to_device_of(dequantize(ends, bins, 0, flow.dtype), flow.flat.value)
    between = to_host(interpolate(flow, x[::2], x[1::2], frames))
    frames_out = quantize(between.reshape(-1, *x.shape[1:]), bins)
    return plots.image_sheet(frames_out, frames, bins, "held-out images, and the latents between them")


def _check_count(images: int) -> None:
    if images > MAX_IMAGES:
        raise ValueError(f"expected at most {MAX_IMAGES} images at once, got {images}")
