"""Whole flows, put together from layers; no arithmetic of their own. Floor 3."""

from minglow.models.glow import glow

__all__ = ["glow"]
