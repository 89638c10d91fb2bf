"""Fills a teacher's cache ahead of the runs: `ctkd fill-cache`, see `ctkd.commands.fill_cache`."""

import sys
from pathlib import Path

# The package of this clone, even if another one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ctkd.commands.fill_cache import main

if __name__ == "__main__":
    sys.exit(main())
