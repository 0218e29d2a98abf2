"""Complete models, composed of layers: no arithmetic of their own but the auto-encoders' losses."""

from minglow.models.autoencoder import autoencoder
from minglow.models.glow import glow
from minglow.models.nice import nice
from minglow.models.official import official_glow
from minglow.models.realnvp import realnvp
from minglow.models.spline import spline_flow
from minglow.models.vae import vae

__all__ = ["autoencoder", "glow", "nice", "official_glow", "realnvp", "spline_flow", "vae"]
