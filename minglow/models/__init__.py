"""Whole flows, put together from layers; no arithmetic of their own. Floor 3."""
