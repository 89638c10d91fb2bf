"""Compares finished runs: method by method, over seeds, against a baseline and published numbers.

    ctkd compare WORKDIR... [--baseline kd] [--show last|best|chosen]
                            [--format terminal|markdown|csv|latex] [--output FILE]
                            [--figure FILE.png] [--contrasts A:B,A:C] [--where epochs=10]
    ctkd compare WORKDIR WORKDIR --config

A WORKDIR may also be a folder with work directories at any depth. Runs of different recipes have
separate tables; --where chooses runs. --config shows in what two runs differ. Instead of work
directories, the runs.csv of one or several sweeps can be given. Exit status: 0, or 2 with a message
on standard error if the runs cannot be compared.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from ctkd.command_line import path_argument, run_tool
from ctkd.errors import ConfigError
from ctkd.files import replacing
from ctkd.results.compare.contrasts import contrasts_table
from ctkd.results.compare.methods import Standings, compare
from ctkd.results.compare.standings import notes, standings_table
from ctkd.results.compare.tables import FORMATS, print_notes, print_table
from ctkd.results.compare.two_runs import difference_text
from ctkd.results.figures.draw_differences import draw_differences
from ctkd.results.figures.save import save_figure
from ctkd.results.read.runs import RunRecord, find_runs, read_run
from ctkd.results.read.select import select
from ctkd.results.read.summaries import NOTE, read_summaries
from ctkd.standard_output import check_output

SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".txt": "terminal"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints or writes the comparison; returns the exit status."""
    return run_tool(make_parser(), arguments, _compare)


def _compare(options: argparse.Namespace) -> None:
    """Compares, then prints or writes. Raises UserError or OSError."""
    if options.config:
        _print_differences(options.workdirs)
        return
    kind = _format(options.format, options.output)
    given = [str(path) for path in options.workdirs]
    records = select(_records(given), options.where)
    result = compare(records, options.show, _baseline(options.baseline, records))
    contrasts = options.contrasts.split(",") if options.contrasts else []
    if options.figure is not None:
        _draw(result, options.figure)
    if options.output is None:
        _write(result, kind, sys.stdout, contrasts)
        check_output()
    else:
        _save(result, kind, options.output, contrasts)
    if given[0].endswith(".csv"):
        print(NOTE, file=sys.stderr)


def _print_differences(folders: Sequence[Path]) -> None:
    """Prints the differences of two runs."""
    if len(folders) != 2:
        raise ConfigError(f"--config compares two work directories, {len(folders)} came")
    sys.stdout.write(difference_text(folders[0], folders[1]))
    check_output()


def _records(given: Sequence[str]) -> list[RunRecord]:
    """The runs of work directories, or those of tables of summaries."""
    tables = [path for path in given if path.endswith(".csv")]
    if not tables:
        return [read_run(path) for path in find_runs(given)]
    if len(tables) < len(given):
        folder = next(path for path in given if path not in tables)
        raise ConfigError(
            f"{tables[0]} is a table, {folder} is not: a table lacks the settings that must be "
            "equal; compare work directories, or tables (`ctkd report` writes the runs.csv of a "
            "sweep)"
        )
    return [record for table in dict.fromkeys(tables) for record in read_summaries(table)]


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="ctkd compare",
        description="Compares finished runs, method by method, over their seeds.",
    )
    parser.add_argument(
        "workdirs",
        nargs="+",
        type=path_argument,
        metavar="WORKDIR",
        help="work directories, or folders of them; or runs.csv",
    )
    parser.add_argument(
        "--baseline", help="the method to compare with (default: kd, if there is one)"
    )
    parser.add_argument(
        "--show",
        choices=("last", "best", "chosen"),
        default="last",
        help="the accuracy to compare (default: last)",
    )
    parser.add_argument(
        "--format",
        choices=("terminal", *FORMATS),
        help="default: by the suffix of --output (.md .csv .tex .txt), else terminal",
    )
    parser.add_argument(
        "--output", type=path_argument, metavar="FILE", help="write to this file, not the screen"
    )
    parser.add_argument(
        "--figure",
        type=path_argument,
        metavar="FILE.png",
        help="draw the differences with their intervals, as .png and as .pdf",
    )
    parser.add_argument(
        "--contrasts",
        metavar="A:B,A:C",
        help="instead of the comparison, these planned differences, corrected by Holm's method, "
        "with McNemar's test of the predictions; A:B? is exploratory",
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="only runs with this value of a setting, such as epochs=10, student=resnet20 or "
        "CosineLambda.end=1; may be repeated",
    )
    parser.add_argument(
        "--config",
        action="store_true",
        help="of two work directories: the settings that differ, and where the runs come from",
    )
    return parser


def _format(given: str | None, output: Path | None) -> str:
    """The format given, or the format of the output's suffix."""
    if given is not None or output is None:
        return given or "terminal"
    if output.suffix not in SUFFIXES:
        raise ConfigError(
            f"--output {output}: expected a suffix out of {', '.join(SUFFIXES)}, or a --format"
        )
    return SUFFIXES[output.suffix]


def _baseline(given: str | None, records: Sequence[RunRecord]) -> str | None:
    """The baseline given; by default kd if it was run, as in most papers."""
    if given is not None:
        return given
    return "kd" if any(run.finished and run.name == "kd" for run in records) else None


def _draw(result: Standings, target: Path) -> None:
    """Writes the figure as PNG and as PDF."""
    if target.suffix not in (".png", ".pdf"):
        raise ConfigError(f"--figure {target}: expected a name that ends in .png or .pdf")
    for path in save_figure(draw_differences(result), target.parent, target.stem):
        print(f"written: {path}", file=sys.stderr)


def _save(result: Standings, kind: str, output: Path, contrasts: Sequence[str]) -> None:
    """Writes the whole file, or leaves the old one."""
    with replacing(output) as part, part.open("w", encoding="utf-8") as stream:
        _write(result, kind, stream, contrasts)
    print(f"written: {output}")


def _write(result: Standings, kind: str, stream: TextIO, contrasts: Sequence[str]) -> None:
    """Writes the table with its notes; the notes of CSV go to standard error."""
    table = contrasts_table(result, contrasts) if contrasts else standings_table(result)
    if kind == "terminal" and contrasts:
        print_table(table, stream)
        print_notes(table.notes, stream)
        return
    if kind == "terminal":
        _print_tables(result, stream)
        return
    stream.write(FORMATS[kind](table))
    if kind == "csv":
        for note in table.notes:
            print(note, file=sys.stderr)


def _print_tables(result: Standings, stream: TextIO) -> None:
    """One table for each pair and recipe, and the notes once."""
    for pair in dict.fromkeys(row.pair for row in result.standings):
        print_table(standings_table(result, pair), stream, title=pair)
        stream.write("\n")
    print_notes(notes(result), stream)
