"""Writes the report of a sweep: `ctkd report`, see `ctkd.commands.report_sweep`."""

import sys
from pathlib import Path

# The package of this clone, even if another one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ctkd.commands.report_sweep import main

if __name__ == "__main__":
    sys.exit(main())
