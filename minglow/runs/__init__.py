"""A training run: its configuration, its folder, and what is loaded from it."""
