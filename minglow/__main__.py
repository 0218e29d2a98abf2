"""python -m minglow: the command line. Floor 4."""

import sys

from minglow.cli import main

sys.exit(main())
