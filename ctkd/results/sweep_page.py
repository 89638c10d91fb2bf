"""A sweep as one HTML page without other files: table, figures, links to the runs."""

import json
import os
import re
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from ctkd.results.compare.published import EPOCHS
from ctkd.results.compare.statistics import MeanStd
from ctkd.results.compare.sweep_table import SweepCell, SweepRun, notes, sweep_fields
from ctkd.results.compare.sweep_text import about, verdict
from ctkd.results.compare.tables import Cell, Column
from ctkd.results.figures import draw_sweep
from ctkd.results.figures.draw_learning import draw_learning
from ctkd.results.figures.save import svg_text
from ctkd.results.read.grid_ends import bound_text
from ctkd.results.read.runs import RunRecord
from ctkd.results.read.schema import KINDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATES = ("failed", "killed", "stopped", "unknown", "running", "queued", "cancelled")  # by urgency
NOT_SHOWN = ("baseline", "reports")  # columns of report.csv only
HEADINGS = {  # columns whose title in report.csv is short
    "n": "seeds",
    "last": "last epoch",
    "best": "best epoch",
    "chosen": "chosen epoch",
    "temperature": "T",
}
ON_A_PHONE = ("cell", "last", "difference", "95 % interval", "p", "temperature", "published")
FILES = {"configuration": "config.gin", "curves": "curves.png", "landscape": "landscape.png",
         "metrics": "metrics.jsonl"}  # fmt: skip


def sweep_page(
    name: str, axes: Sequence[str], cells: Sequence[SweepCell], folder: Path, made: float
) -> str:
    """The text of the page. Links are relative to `folder`, the folder of the page.

    `made` is the time that the page shows as its date, in seconds since 1970.
    """
    runs = [run for cell in cells for run in cell.runs]
    states = Counter(run.state for run in runs)
    values = [value for cell in cells for value in draw_sweep.temperatures(cell)]
    limits = [min(values), max(values)] if values else []
    charts = (draw_sweep.draw_axis(axis, cells) for axis in axes)
    landscapes = (draw_sweep.draw_temperatures(cell, limits) for cell in cells)
    here = files("ctkd.results")
    parts = {
        "style": (here / "sweep_page.css").read_text(encoding="utf-8"),
        "script": (here / "sweep_page.js").read_text(encoding="utf-8"),
        "name": escape(name),
        "made": f"{len(cells)} cells, {len(runs)} runs; "
        f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(made))}",
        "about": escape(" · ".join(about(cells))),
        "verdict": escape(verdict(cells)),
        "counts": "".join(
            f'<span class="chip {escape(state)}">{count} {escape(state)}</span>'
            for state, count in states.items()
        ),
        "selects": _selects(axes, cells, list(states)),
        "table": _table(axes, cells, folder),
        "notes": "".join(f"<li>{escape(note)}</li>" for note in notes(cells)),
        "learning": _section(
            "Learning curves",
            "learning",
            [("learning curves", draw_learning(cells))],
            "A line is the mean over the seeds of a cell, the band reaches from its lowest seed to "
            "its highest one.",
        ),
        "charts": _section("Accuracy along each axis", "charts", zip(axes, charts, strict=True)),
        "cards": _section(
            "Temperatures",
            "cards",
            zip((cell.name for cell in cells), landscapes, strict=True),
            "Left: T of every seed, and T* = argmax L(T) of the first seed. Right: L(T) / max L of "
            "the first seed, brightest where the loss is largest. All figures share one axis of T.",
        ),
    }
    return Template((here / "sweep_page.html").read_text(encoding="utf-8")).substitute(parts)


def _selects(axes: Sequence[str], cells: Sequence[SweepCell], states: Sequence[str]) -> str:
    """A filter for each axis, and one for the states; none for a single value."""
    choices = {axis: [cell.labels[axis] for cell in cells if axis in cell.labels] for axis in axes}
    titles = _short(axes) | {"state": "state"}
    texts = []
    for name, values in [*choices.items(), ("state", states)]:
        options = [("", "all"), *((value, value) for value in dict.fromkeys(values))]
        if len(options) > 2:
            lines = "".join(
                f'<option value="{escape(value)}">{escape(titles[name])}: {escape(text)}</option>'
                for value, text in options
            )
            texts.append(
                f'<select aria-label="{escape(name)}" data-name="{escape(name)}">{lines}</select>'
            )
    return "".join(texts)


def _short(axes: Sequence[str]) -> dict[str, str]:
    """The last part of an axis's name ("end" of "CosineLambda.end"), if no other axis has it."""
    ends = {axis: axis.rpartition(".")[2] for axis in axes}
    return {axis: axis if list(ends.values()).count(e) > 1 else e for axis, e in ends.items()}


def _table(axes: Sequence[str], cells: Sequence[SweepCell], folder: Path) -> str:
    """The head, and a body for each cell: its row, and a hidden row with its runs."""
    fields = [field for field in sweep_fields(cells, axes) if field[0].title not in NOT_SHOWN]
    fields = [field for field in fields if not field[0].data_only]
    short = _short(axes)
    kinds = {column.title: _kind(column) for column, _ in fields}
    if axes:  # a phone shows the cell's name instead of a column for each axis
        fields.insert(0, (Column("cell"), lambda cell: cell.name))
        kinds["cell"] = "narrow"
    heads = "".join(
        f'<th class="{kinds[column.title]}" scope="col" data-title="{escape(column.title)}" '
        f'title="{escape(column.title)}"><button type="button">'
        f"{escape(short.get(column.title) or _heading(column.title, cells))}</button></th>"
        for column, _ in fields
    )
    bodies = []
    for index, cell in enumerate(cells):
        values = {axis: [text] for axis, text in cell.labels.items()}
        values["state"] = sorted({run.state for run in cell.runs})
        found = " ".join([*cell.labels.values(), cell.name, cell.state]).lower()
        hint = draw_sweep.accuracy_text(cell)
        row = "".join(
            _cell(cell, column, value(cell), kinds[column.title]) for column, value in fields
        )
        runs = "".join(_run(run, cell.records.get(run.seed), folder) for run in cell.runs)
        bodies.append(
            f'<tbody data-cell="{index}" data-words="{escape(found)}" data-hint="{escape(hint)}" '
            f'data-values="{escape(json.dumps(values))}"><tr class="cell" tabindex="0">{row}</tr>'
            f'<tr class="detail" hidden><td colspan="{len(fields)}"><div>{runs}</div></td></tr>'
            "</tbody>\n"
        )
    return f"<thead><tr>{heads}</tr></thead>\n{''.join(bodies)}"


def _heading(title: str, cells: Sequence[SweepCell]) -> str:
    """The heading of a column of numbers, with the unit of accuracies."""
    unit = cells[0].shown.unit if title in KINDS else ""
    return HEADINGS.get(title, title) + (f", {unit}" if unit else "")


def _kind(column: Column) -> str:
    """The classes of a column: numbers are on the right, some columns are on wide screens only."""
    side = "number" if column.kind != "text" else ""
    return side if column.title in ON_A_PHONE else f"{side} wide"


def _cell(cell: SweepCell, column: Column, value: Cell, kind: str) -> str:
    """One cell of the table, with the key to sort it by."""
    text, hint = column.write(value), ""
    if column.title in ("state", "cell"):
        states = {run.state for run in cell.runs}
        worst = next((state for state in STATES if state in states), "finished")
        kind += " state" if column.title == "state" else ""
        kind += f" {worst}" if column.title == "state" or worst != "finished" else ""
    if column.title == "difference":
        text = "baseline" if cell.baseline == cell.name else text
        hint = f"compared with {cell.baseline}" if value is not None else ""
        kind += " sure" if cell.against and cell.against.excludes_zero else ""
    if column.title == "published" and cell.published:
        hint = f"{cell.published.source}, {EPOCHS[cell.published.reports]}"
    if column.kind != "text":
        text = text.replace("-", "−")
    key = value.mean if isinstance(value, MeanStd) else value
    key = key[0] if isinstance(key, tuple) else key
    return (
        f'<td class="{kind}" title="{escape(hint)}" '
        f'data-key="{escape("" if key is None else str(key))}">{escape(text)}</td>'
    )


def _run(run: SweepRun, record: RunRecord | None, folder: Path) -> str:
    """A run of a cell: state, links, error and command."""
    paths = {kind: run.path / name for kind, name in FILES.items()} | {"log": run.log}
    links = "".join(
        f'<a href="{urllib.parse.quote(os.path.relpath(path, folder), "/=")}">{kind}</a>'
        for kind, path in paths.items()
        if path is not None and path.exists()
    )
    epoch = record.metrics[-1].epoch if record and record.metrics else 0
    last = record.result(f"last_{record.measure}") if record else None
    reached = "" if record is None or last is None else f", {record.shown.write(last)}"
    if record is not None and (star := record.result("t_star")) is not None:
        bound: Any = record.summary and record.summary.t_star_is
        reached += f", T {record.result('temperature'):.3g}, T* {bound_text(star, bound)}"
    return (
        f'<div class="run"><p><b>seed {run.seed}</b> <span class="{run.state}">{run.state}</span> '
        f"– epoch {epoch} of {run.epochs}{reached}</p><p>{links}</p>"
        + (f'<p class="error">{escape(run.error)}</p>' if run.error else "")
        + (f"<code>{escape(run.command)}</code>" if run.command else "")
        + "</div>"
    )


def _section(
    title: str, name: str, figures: Iterable[tuple[str, "Figure | None"]], text: str = ""
) -> str:
    """A section with the figures and a link to save each; empty without figures."""
    parts = []
    for index, (caption, figure) in enumerate(figures):
        if figure is not None:
            file = re.sub(r"[^\w.=+-]+", "_", caption)
            parts.append(
                f'<figure data-cell="{index}">{svg_text(figure, f"{name}{index}")}'
                f'<a class="save" download="{file}.svg" href="#">Save as SVG</a></figure>\n'
            )
    intro = f'<p class="quiet">{text}</p>' if text else ""
    body = f'<div id="{name}" class="{name}">{"".join(parts)}</div>'
    return f"<section><h2>{title}</h2>{intro}{body}</section>" if parts else ""
