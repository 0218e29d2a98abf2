"""python -m minglow: the command line."""

import sys

from minglow.cli.main import main

sys.exit(main())
