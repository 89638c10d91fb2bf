"""Writes the report of a sweep, finished or not: report.html, report.csv and runs.csv.

    ctkd report SWEEP_DIR [--out FOLDER]

The files go into SWEEP_DIR; --out names another folder, for the sweep of another user. Exit status:
0, or 2 with a message on standard error if SWEEP_DIR is not the folder of a sweep.
"""

import argparse
from collections.abc import Sequence

from ctkd.command_line import path_argument, run_tool
from ctkd.sweeps.folder import SweepFolder
from ctkd.sweeps.report import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the report; returns the exit status."""
    return run_tool(make_parser(), arguments, _write)


def _write(options: argparse.Namespace) -> None:
    for path in write_report(SweepFolder(options.sweep_dir), out=options.out):
        print(path)


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="ctkd report", description="Writes the report of a sweep."
    )
    add = parser.add_argument
    add("sweep_dir", type=path_argument, metavar="SWEEP_DIR", help="such as runs/sweeps/NAME")
    add("--out", type=path_argument, metavar="FOLDER", help="by default SWEEP_DIR itself")
    return parser
