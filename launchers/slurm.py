"""Sends a sweep to SLURM, or to this machine, and follows it; see `ctkd.sweeps.command`.

python launchers/slurm.py --sweep gin/sweeps/lambda.gin
"""

import sys
from pathlib import Path

# The package of this clone, even if another one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ctkd.sweeps.command import main

if __name__ == "__main__":
    sys.exit(main())
