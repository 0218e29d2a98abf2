"""Figures of images, matrices, maps of the plane, tables and training, as matplotlib objects."""

from minglow.plots.animation import SIGNS, animation_html
from minglow.plots.colors import COLORS, GRAYS, SIGNED, style
from minglow.plots.images import draw_images, draw_matrix, image_sheet, tile
from minglow.plots.plane import density_on_grid, draw_grid, plane_summary, warped_grid
from minglow.plots.points import robust_limits
from minglow.plots.tables import marginals, pair_plot
from minglow.plots.training import training_curves

__all__ = [
    "COLORS", "GRAYS", "SIGNED", "SIGNS", "animation_html", "density_on_grid", "draw_grid",
    "draw_images", "draw_matrix", "image_sheet", "marginals", "pair_plot", "plane_summary",
    "robust_limits", "style", "tile", "training_curves", "warped_grid",
]
