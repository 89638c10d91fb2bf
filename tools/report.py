"""Writes the report of a sweep, finished or not: report.html, report.csv and runs.csv.

    python tools/report.py SWEEP_DIR [--out FOLDER]

The files go into SWEEP_DIR; --out names another folder, for the sweep of another user. Exit status:
0, or 2 with a message on standard error if SWEEP_DIR is not the folder of a sweep.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# Import the package of this clone, not an installed one.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ctkd.command_line import path_argument
from ctkd.errors import UserError
from ctkd.standard_output import safe_output
from ctkd.sweeps.folder import SweepFolder
from ctkd.sweeps.report import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the report; returns the exit status."""
    with safe_output():
        options = _parser().parse_args(arguments)
        try:
            for path in write_report(SweepFolder(options.sweep_dir), out=options.out):
                print(path)
        except (UserError, OSError) as error:
            print(f"report: {error}", file=sys.stderr)
            return 2
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Writes the report of a sweep.")
    add = parser.add_argument
    add("sweep_dir", type=path_argument, metavar="SWEEP_DIR", help="such as runs/sweeps/NAME")
    add("--out", type=path_argument, metavar="FOLDER", help="by default SWEEP_DIR itself")
    return parser


if __name__ == "__main__":
    sys.exit(main())
