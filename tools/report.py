"""Writes the report of a sweep, finished or not: report.html, report.csv and runs.csv.

    python tools/report.py SWEEP_DIR

Exit status: 0, or 2 with a message on standard error if the directory does not belong to a sweep.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# Import the package of this clone, not an installed one.
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
    parser = argparse.ArgumentParser(description="Writes the report of a sweep.")
    parser.add_argument(
        "sweep_dir", type=Path, metavar="SWEEP_DIR", help="for example runs/sweeps/NAME"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
