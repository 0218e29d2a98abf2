"""Speed and memory of minglow, beside other libraries: `python -m benchmarks --help`."""
