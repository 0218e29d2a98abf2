"""The command line: `minglow train` and its companions."""
