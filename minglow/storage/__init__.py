"""Files: verified archives, checkpoints, safetensors, typed settings."""
