"""The one place that says which version this is. Floor 1."""

__version__ = "0.1.0"
