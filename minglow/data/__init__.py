"""Data: the packaged data sets, 2-D toys, and your own images."""

from minglow.data.dataset import Images, reduce_bits
from minglow.data.packaged import PACKAGED, digits, mnist5k, photo_patches
from minglow.data.readers import formats, load, load_images
from minglow.data.toys import checkerboard, eight_gaussians, pinwheel, two_moons

__all__ = [
    "PACKAGED", "Images", "checkerboard", "digits", "eight_gaussians", "formats", "load", "load_images",
    "mnist5k", "photo_patches", "pinwheel", "reduce_bits", "two_moons"]
