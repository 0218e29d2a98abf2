"""How fast minglow is and how much memory it takes, beside other libraries: `python -m benchmarks --help`."""
