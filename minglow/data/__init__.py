"""Data: the packaged data sets, 2-D toys, and your own images and tables."""

from minglow.data.dataset import Images, reduce_bits
from minglow.data.packaged import PACKAGED, digits, mnist5k, photo_patches
from minglow.data.readers import formats, load, load_images
from minglow.data.rounding import dither, rounding_steps
from minglow.data.table import Table, check_table, split
from minglow.data.toys import TOYS, checkerboard, eight_gaussians, pinwheel, toy, two_moons

__all__ = [
    "PACKAGED", "TOYS", "Images", "Table", "check_table", "checkerboard", "digits", "dither",
    "eight_gaussians", "formats", "load", "load_images", "mnist5k", "photo_patches", "pinwheel",
    "reduce_bits", "rounding_steps", "split", "toy", "two_moons"]
