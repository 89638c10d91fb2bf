"""Sends a sweep to SLURM, or to this machine, and follows it; see `ctkd.sweeps.command`.

python launchers/slurm.py --sweep gin/sweeps/lambda.gin
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("ctkd") is None:  # in a clone that was not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ctkd.sweeps.command import main

if __name__ == "__main__":
    sys.exit(main())
