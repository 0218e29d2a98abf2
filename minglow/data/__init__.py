"""Data: the digits that are shipped, 2-D toys, and the user's own images. Floor 1."""

from minglow.data.images import Images, digits, load_images
from minglow.data.toys import checkerboard, eight_gaussians, pinwheel, two_moons

__all__ = [
    "Images", "checkerboard", "digits", "eight_gaussians", "load_images", "pinwheel", "two_moons",
]
