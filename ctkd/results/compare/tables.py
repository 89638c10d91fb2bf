"""A table, written as Markdown, CSV or LaTeX, or printed on a terminal.

Cells stay values until they are written: a user reads "71.21 ± 0.08", and a program reads mean
and standard deviation in two columns of CSV.
"""

import csv
import io
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

from ctkd.results.compare.statistics import Interval, MeanStd

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Cell = str | int | float | MeanStd | Interval | None


@dataclass(frozen=True)
class Column:
    """The heading of a column, and the format of its cells.

    Attributes:
        title: the heading.
        kind: "text"; "count"; "number" (with `digits`); "change" (a number with its sign);
            "p" (a probability); "spread" (a MeanStd); "interval" (low and high).
        digits: decimals of numbers.
        data_only: written to CSV only: numbers for further work, too many for a reader.
    """

    title: str
    kind: Literal["text", "count", "number", "change", "p", "spread", "interval"] = "text"
    digits: int = 2
    data_only: bool = False

    def write(self, cell: Cell) -> str:
        """The cell as text; a dash if there is no value."""
        if cell is None:
            return "–"
        if isinstance(cell, MeanStd):
            mean = f"{cell.mean:.{self.digits}f}"
            return mean if cell.std is None else f"{mean} ± {cell.std:.{self.digits}f}"
        if isinstance(cell, tuple):
            return f"[{cell[0]:+.{self.digits}f}, {cell[1]:+.{self.digits}f}]"
        if isinstance(cell, str) or self.kind in ("text", "count"):
            return str(cell)
        if self.kind == "p":
            return "<0.001" if cell < 0.001 else f"{cell:.3f}"
        return f"{cell:{'+' if self.kind == 'change' else ''}.{self.digits}f}"

    def fields(self) -> list[str]:
        """The headings in CSV."""
        parts = {"spread": ("mean", "std"), "interval": ("low", "high")}.get(self.kind)
        return [f"{self.title} {part}" for part in parts] if parts else [self.title]

    def values(self, cell: Cell) -> list[str]:
        """The values of a cell in CSV, unrounded; empty if there is no value."""
        if isinstance(cell, MeanStd):
            cell = (cell.mean, cell.std)  # type: ignore[assignment]
        parts = cell if isinstance(cell, tuple) else (cell,) * len(self.fields())
        return ["" if part is None else str(part) for part in parts]


@dataclass(frozen=True)
class Table:
    """Rows of cells under their columns, and notes below the table."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells under {len(self.columns)} columns")

    def texts(self) -> tuple[list[Column], list[list[str]]]:
        """The columns for a reader, and the rows as text."""
        chosen = [index for index, column in enumerate(self.columns) if not column.data_only]
        rows = [[self.columns[index].write(row[index]) for index in chosen] for row in self.rows]
        return [self.columns[index] for index in chosen], rows


def to_markdown(table: Table) -> str:
    """A pipe table with aligned columns, and the notes as a list."""
    columns, rows = table.texts()
    escaped = [[_markdown(text) for text in row] for row in rows]
    heads = [_markdown(column.title) for column in columns]
    widths = [max(3, *map(len, cells)) for cells in zip(heads, *escaped, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if column.kind == "text" else cell.rjust(width)
            for cell, width, column in zip(cells, widths, columns, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if column.kind == "text" else "-" * (width - 1) + ":"
        for width, column in zip(widths, columns, strict=True)
    ]
    notes = [f"- {_markdown(note)}" for note in table.notes]
    lines = [line(heads), line(rule), *map(line, escaped)]
    return "\n".join(lines + (["", *notes] if notes else [])) + "\n"


def to_csv(table: Table) -> str:
    """Comma-separated values, one unrounded number per column, without notes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field for column in table.columns for field in column.fields()])
    for row in table.rows:
        pairs = zip(table.columns, row, strict=True)
        writer.writerow([value for column, cell in pairs for value in column.values(cell)])
    return text.getvalue()


def to_latex(table: Table) -> str:
    """A tabular for the package booktabs, with the notes as a small paragraph below it."""
    columns, rows = table.texts()
    shape = "".join("l" if column.kind == "text" else "r" for column in columns)
    heads = " & ".join(_latex(column.title) for column in columns)
    lines = ["% needs \\usepackage{booktabs}", f"\\begin{{tabular}}{{{shape}}}", "\\toprule"]
    lines += [f"{heads} \\\\", "\\midrule"]
    lines += [" & ".join(map(_latex, row)) + " \\\\" for row in rows]
    lines += ["\\bottomrule", "\\end{tabular}"]
    if table.notes:
        notes = "\n".join(f"{_latex(note)}\\par" for note in table.notes)
        lines += ["", f"{{\\footnotesize\n{notes}\n}}"]
    return "\n".join(lines) + "\n"


def to_rich(table: Table, narrow: bool = False) -> "RichTable":
    """A table for rich's console; brackets in a text are not markup.

    `narrow` breaks headings, spreads and intervals into two lines.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    columns, rows = table.texts()
    gap = (0, 0 if narrow else 1, 0, 0)  # in addition to the one space of the box
    drawn = RichTable(box=box.SIMPLE_HEAD, padding=gap, pad_edge=False)
    for column in columns:
        heading = column.title
        if narrow and len(heading) > 8:
            heading = "\n".join(heading.rsplit(" ", 1))
        justify: Literal["left", "right"] = "left" if column.kind == "text" else "right"
        drawn.add_column(Text(heading), justify=justify, no_wrap=True)
    for row in rows:
        broken = (text.replace(" ±", "\n±").replace(", ", ",\n") for text in row)
        drawn.add_row(*(Text(text) for text in (broken if narrow else row)))
    return drawn


def print_table(table: Table, stream: TextIO, title: str | None = None) -> None:
    """Prints the table, narrower if the terminal is narrow, but never cuts a number."""
    from rich.console import Console

    drawn = to_rich(table)
    wide = Console(width=10_000)
    width = wide.measure(drawn).maximum
    if stream.isatty() and width > Console(file=stream).width:
        drawn = to_rich(table, narrow=True)
        width = wide.measure(drawn).maximum
    if title is not None:  # a title of the table itself would be wrapped to the table's width
        Console(file=stream, highlight=False, soft_wrap=True).print(
            title, style="bold", markup=False
        )
    Console(file=stream, highlight=False, width=width).print(drawn)


def print_notes(notes: Iterable[str], stream: TextIO) -> None:
    """Prints each note in one line; on a terminal the lines break between words."""
    for note in notes:
        wraps = stream.isatty()
        text = textwrap.fill(note, shutil.get_terminal_size().columns) if wraps else note
        stream.write(f"{text}\n")


def _markdown(text: str) -> str:
    """Text with an escape before each character that Markdown would interpret."""
    text = re.sub(r"([\\`*|])", r"\\\1", text.replace("\n", " "))
    text = re.sub(r"(<(?=[A-Za-z/!])|\](?=[(\[]))", r"\\\1", text)
    return re.sub(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])", r"\\_", text)


_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"[": "{[}", "]": "{]}"},  # at the start of a row "[" is an argument of the \\\\ before it
    **{"<": "$<$", ">": "$>$", "±": r"$\pm$", "→": r"$\rightarrow$", "×": r"$\times$"},
    **{"−": "$-$", "–": "--", "λ": r"$\lambda$", "α": r"$\alpha$", "Δ": r"$\Delta$"},
}


def _latex(text: str) -> str:
    """Text with LaTeX's special characters escaped; a leading sign becomes a math sign."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w.)])([+-])(?=\d)", r"${\1}$", escaped)


FORMATS = {"markdown": to_markdown, "csv": to_csv, "latex": to_latex}
