"""Colors, and matplotlib's defaults for the figures."""

import matplotlib
from cycler import cycler

GRAYS = "gray_r"  # 0 is white, like paper
SIGNED = "RdBu_r"  # blue below 0, white at 0, red above
# Okabe and Ito's palette, which is safe for color-blind readers: blue, vermilion, green, ...
COLORS = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"


def style() -> None:
    """Set matplotlib's defaults to those of minglow's figures."""
    matplotlib.rcParams.update({
        "axes.prop_cycle": cycler(color=COLORS), "axes.spines.top": False, "axes.spines.right": False,
        "axes.titlesize": 10, "figure.constrained_layout.use": True, "figure.dpi": 90, "font.size": 9,
        "image.cmap": "viridis", "image.interpolation": "nearest", "legend.frameon": False,
    })
