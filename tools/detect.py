"""Draws what a run's networks detect: `ctkd detect`, see `ctkd.commands.detect_boxes`."""

import sys
from pathlib import Path

# The package of this clone, even if another one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ctkd.commands.detect_boxes import main

if __name__ == "__main__":
    sys.exit(main())
