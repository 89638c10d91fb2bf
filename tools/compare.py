"""Compares finished runs: method by method, over seeds, against a baseline and published numbers.

    python tools/compare.py WORKDIR... [--baseline kd] [--show last|best|chosen]
                            [--format terminal|markdown|csv|latex] [--output FILE]
                            [--figure FILE.png]

A WORKDIR may also be a folder that holds work directories at any depth; in their place, the
runs.csv of a sweep's report, or of several. Exit status: 0, or 2 with a message on standard error
where the runs cannot be compared.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

# The package beside this file, whatever is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ctkd.command_line import path_argument
from ctkd.errors import ConfigError, UserError
from ctkd.files import replacing
from ctkd.results.compare.methods import Standings, compare
from ctkd.results.compare.standings import notes, standings_table
from ctkd.results.compare.tables import FORMATS, print_table
from ctkd.results.figures.draw_differences import draw_differences
from ctkd.results.figures.save import save_figure
from ctkd.results.read.runs import RunRecord, find_runs, read_run
from ctkd.results.read.summaries import NOTE, read_summaries
from ctkd.standard_output import check_output, safe_output

SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".txt": "terminal"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints or writes the comparison; returns the exit status."""
    with safe_output():
        options = _parser().parse_args(arguments)
        try:
            _compare(options)
        except (UserError, OSError) as error:
            print(f"compare: {error}", file=sys.stderr)
            return 2
        return 0


def _compare(options: argparse.Namespace) -> None:
    """Compares, then prints or writes. Raises UserError or OSError."""
    kind = _format(options.format, options.output)
    given = [str(path) for path in options.workdirs]
    records = _records(given)
    result = compare(records, options.show, _baseline(options.baseline, records))
    if options.figure is not None:
        _draw(result, options.figure)
    if options.output is None:
        _write(result, kind, sys.stdout)
        check_output()
    else:
        _save(result, kind, options.output)
    if given[0].endswith(".csv"):
        print(NOTE, file=sys.stderr)


def _records(given: Sequence[str]) -> list[RunRecord]:
    """The runs of work directories, or those of tables of summaries."""
    tables = [path for path in given if path.endswith(".csv")]
    if not tables:
        return [read_run(path) for path in find_runs(given)]
    if len(tables) < len(given):
        folder = next(path for path in given if path not in tables)
        raise ConfigError(
            f"{tables[0]} and {folder}: a table has not the settings that runs are checked by; "
            "compare work directories, or tables (tools/report.py makes that of a sweep)"
        )
    return [record for table in dict.fromkeys(tables) for record in read_summaries(table)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compares finished runs, method by method, over their seeds."
    )
    parser.add_argument(
        "workdirs",
        nargs="+",
        type=path_argument,
        metavar="WORKDIR",
        help="or a folder of them, or a runs.csv",
    )
    parser.add_argument(
        "--baseline", help="the method to take differences to (default: kd, if any)"
    )
    parser.add_argument(
        "--show",
        choices=("last", "best", "chosen"),
        default="last",
        help="the accuracy that differences are taken of (default: last)",
    )
    parser.add_argument(
        "--format",
        choices=("terminal", *FORMATS),
        help="default: as the output's suffix says (.md .csv .tex .txt), else terminal",
    )
    parser.add_argument(
        "--output", type=path_argument, metavar="FILE", help="write there, not on the screen"
    )
    parser.add_argument(
        "--figure",
        type=path_argument,
        metavar="FILE.png",
        help="draw the differences with their intervals there, and as .pdf beside it",
    )
    return parser


def _format(told: str | None, output: Path | None) -> str:
    """The format asked for, or the one that the output's suffix stands for."""
    if told is not None or output is None:
        return told or "terminal"
    if output.suffix not in SUFFIXES:
        raise ConfigError(
            f"--output {output}: expected a suffix out of {', '.join(SUFFIXES)}, or a --format"
        )
    return SUFFIXES[output.suffix]


def _baseline(told: str | None, records: Sequence[RunRecord]) -> str | None:
    """The baseline asked for; unasked, kd where it was run, as in most papers."""
    if told is not None:
        return told
    return "kd" if any(run.finished and run.name == "kd" for run in records) else None


def _draw(result: Standings, target: Path) -> None:
    """Writes the figure as PNG and PDF, whichever of both was named."""
    if target.suffix not in (".png", ".pdf"):
        raise ConfigError(f"--figure {target}: expected a name that ends in .png or .pdf")
    for path in save_figure(draw_differences(result), target.parent, target.stem):
        print(f"written: {path}", file=sys.stderr)


def _save(result: Standings, kind: str, output: Path) -> None:
    """Writes the file as a whole or not at all."""
    with replacing(output) as part, part.open("w", encoding="utf-8") as stream:
        _write(result, kind, stream)
    print(f"written: {output}")


def _write(result: Standings, kind: str, stream: TextIO) -> None:
    """The table with its notes; beside CSV, which has no place for them, on standard error."""
    table = standings_table(result)
    if kind == "terminal":
        _print_tables(result, stream)
        return
    stream.write(FORMATS[kind](table))
    if kind == "csv":
        for note in table.notes:
            print(note, file=sys.stderr)


def _print_tables(result: Standings, stream: TextIO) -> None:
    """One table for each pair, and the notes once."""
    for pair in dict.fromkeys(row.pair for row in result.standings):
        print_table(standings_table(result, pair), stream, title=pair)
        stream.write("\n")
    for note in notes(result):
        stream.write(f"{note}\n")


if __name__ == "__main__":
    sys.exit(main())
