"""Packs what tools/gpu_check.py needs on a bare machine: see `ctkd.commands.pack_for_gpu`."""

import sys
from pathlib import Path

# The package of this clone, even if another one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ctkd.commands.pack_for_gpu import main

if __name__ == "__main__":
    sys.exit(main())
