"""Curves of training."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minglow.plots.colors import COLORS


def training_curves(curve: Sequence[tuple[int, float, float]], unit: str, baseline: float,
                    baseline_name: str) -> Figure:
    """The loss over steps, with the loss of a simple model for comparison.

    curve: (step, loss of the training batches, held-out loss) for each evaluation.
    unit: of the losses and of `baseline`: "bits per dimension" or "nats per sample".
    Losses that are not finite are not drawn; the title has their number. A baseline that is not finite
    is not drawn.
    """
    steps, losses, held_out_losses = zip(*curve)
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    if np.isfinite(baseline):
        axes.axhline(baseline, color="0.5", linestyle=":", label=f"{baseline_name}, {baseline:.2f}")
    marker = "." if len(steps) < 20 else ""  # a line through one point is invisible
    values = np.array([losses, held_out_losses], np.float64)
    labels = "training batches", f"held out, {min(held_out_losses, key=_or_inf):.2f} at best"
    for line, color, label in zip(values, COLORS, labels):
        axes.plot(steps, line, marker=marker, color=color, label=label)
    finite = np.append(values, baseline)
    finite = finite[np.isfinite(finite)]
    axes.set(xlabel="step", ylabel=unit)
    if len(finite):
        margin = 0.1 * np.ptp(finite) or 1.0
        axes.set_ylim(finite.min() - margin, finite.max() + margin)
    if missing := np.size(values) - np.isfinite(values).sum():
        axes.set_title(f"{missing} losses not finite", fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _or_inf(loss: float) -> float:
    return loss if np.isfinite(loss) else np.inf
