"""Data: the digits that are shipped, 2-D toys, and the user's own images. Floor 1."""

from minglow.data.images import Images, digits, reduce_bits
from minglow.data.load import load_images
from minglow.data.packaged import mnist5k, photo_patches
from minglow.data.toys import checkerboard, eight_gaussians, pinwheel, two_moons

__all__ = [
    "Images", "checkerboard", "digits", "eight_gaussians", "load_images", "mnist5k", "photo_patches",
    "pinwheel", "reduce_bits", "two_moons",
]
