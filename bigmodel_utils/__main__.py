"""Runs the command line: ``python -m bigmodel_utils``."""

import sys

from .cli import main

if __name__ == "__main__":  # importing this module, as doctest does, runs nothing
    sys.exit(main())
