"""Makes the report of a sweep again, finished or not: report.html, report.csv and runs.csv.

    python tools/report.py SWEEP_DIR

Exit status: 0, or 2 with a message on standard error where the directory is no sweep's.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# The package beside this file, whatever is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ctkd.errors import UserError
from ctkd.sweeps.folder import SweepFolder
from ctkd.sweeps.report import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the report into the sweep's directory; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        for path in write_report(SweepFolder(options.sweep_dir)):
            print(path)
    except (UserError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Makes the report of a sweep again.")
    parser.add_argument("sweep_dir", type=Path, metavar="SWEEP_DIR", help="runs/sweeps/NAME, say")
    return parser


if __name__ == "__main__":
    sys.exit(main())
