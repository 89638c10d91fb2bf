"""The runs of a sweep as one table: cells with mean ± std over seeds, against their baselines."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctkd.errors import DataError
from ctkd.results.compare.published import published_notes
from ctkd.results.compare.rows import (
    DIFFERENCE,
    Fields,
    Row,
    accuracy_fields,
    compared,
    difference_fields,
    digits_of,
    make_table,
    published_fields,
)
from ctkd.results.compare.tables import Cell, Column, Table
from ctkd.results.read.runs import RunRecord, read_run
from ctkd.results.read.schema import SETTINGS_FILE

NOT_REPEATED = ("finished", "seed")  # keys of a summary that have separate columns in runs.csv


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        cell: the run's name without its seed.
        labels: its value on each of its axes.
        state: finished, running, queued, failed, …
        path: its work directory, which may not exist yet.
        command: the command line that repeats the run.
    """

    cell: str
    labels: Mapping[str, str]
    seed: int
    state: str
    path: Path
    epochs: int
    error: str = ""
    log: Path | None = None
    command: str = ""


@dataclass(frozen=True)
class SweepCell(Row):
    """One cell of a sweep: all runs that differ only in the seed.

    Attributes:
        runs: all runs of the cell, with or without files; `records` has the runs with files.
        damaged: the errors of the runs with unreadable files.
        recipe_differs: the recipe's settings that differ from the baseline's.
    """

    runs: Sequence[SweepRun] = ()
    damaged: Sequence[str] = ()
    recipe_differs: Sequence[str] = ()

    @property
    def method(self) -> str:
        """The name of the configuration."""
        return next((record.name for record in self.records.values()), self.name)

    @property
    def mixed(self) -> tuple[str, ...]:
        """The settings of the recipe, with teacher and data, in which the runs differ."""
        return _differing([record.settings.recipe for record in self.records.values()])

    @property
    def state(self) -> str:
        """The state of all runs, or the number of runs in each state."""
        counted = Counter(run.state for run in self.runs)
        if len(counted) == 1:
            return next(iter(counted))
        return ", ".join(f"{number} {state}" for state, number in counted.most_common())


def sweep_cells(runs: Sequence[SweepRun], baseline: Mapping[str, str]) -> list[SweepCell]:
    """Groups the runs by cell, in their order, and compares each cell with its baseline.

    `baseline` maps some axes to values. The baseline of a cell has these values, and the cell's
    values on all other axes. If there is no such cell, and exactly one cell has the values of
    `baseline`, that cell is the baseline.
    """
    groups: dict[str, list[SweepRun]] = {}
    for run in runs:
        groups.setdefault(run.cell, []).append(run)
    cells = [_cell(name, group) for name, group in groups.items()]
    return [_against(cell, _baseline_of(cell, cells, baseline)) for cell in cells]


def _cell(name: str, runs: Sequence[SweepRun]) -> SweepCell:
    """The runs of a cell, with the records of those that have written files."""
    found, damaged = dict[int, RunRecord](), list[str]()
    for run in sorted(runs, key=lambda run: run.seed):
        if (run.path / SETTINGS_FILE).is_file():
            try:
                found[run.seed] = read_run(run.path)
            except DataError as error:
                damaged.append(str(error))
    return SweepCell(name, runs[0].labels, found, runs=runs, damaged=damaged)


def _baseline_of(
    cell: SweepCell, cells: Iterable[SweepCell], baseline: Mapping[str, str]
) -> SweepCell | None:
    """The baseline of a cell, or None."""
    if not baseline:
        return None
    able = [c for c in cells if all(c.labels.get(k) == v for k, v in baseline.items())]
    wanted = {**cell.labels, **baseline}
    exact = [c for c in able if dict(c.labels) == wanted]
    # An axis that only one of the two cells has cannot be equal; a shared axis must be equal.
    near = [c for c in able if all(wanted.get(k, v) == v for k, v in c.labels.items())]
    for candidates in (exact, near, able):
        if len(candidates) == 1:
            return candidates[0]
    return None


def _against(cell: SweepCell, baseline: SweepCell | None) -> SweepCell:
    """The cell with its difference to the baseline, in accuracy and in recipe."""
    both = [cell, baseline] if baseline else []
    recipes = [r.settings.recipe for c in both for r in list(c.records.values())[:1]]
    differs = _differing(recipes) if len(recipes) == 2 else ()
    return replace(compared(cell, baseline), recipe_differs=differs)


def _differing(recipes: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The settings with different values; settings that some recipes lack do not count."""
    keys = set[str]().union(*recipes).intersection(*recipes)
    return tuple(sorted(k for k in keys if any(r[k] != recipes[0][k] for r in recipes)))


def sweep_fields(cells: Sequence[SweepCell], axes: Sequence[str]) -> Fields:
    """The columns of a sweep: its axes (or the cell's name), state, accuracies, difference, T."""

    def label(axis: str) -> tuple[Column, Any]:
        return Column(axis), lambda cell: cell.labels.get(axis)

    fields: Fields = [*map(label, axes)] or [(Column("cell"), lambda cell: cell.name)]
    fields += [(Column("state"), lambda cell: cell.state), *accuracy_fields(cells)]
    if any(cell.baseline for cell in cells):
        fields += [
            (Column("baseline"), _baseline_name),
            *difference_fields("difference", digits_of(cells)),
        ]
    fields += [(Column("temperature", "spread"), lambda cell: cell.temperature)]
    if published := published_fields(cells):
        epochs = Column("published epochs", "count", data_only=True)
        fields += [*published, (epochs, lambda cell: cell.published and cell.published.epochs)]
    return fields


def _baseline_name(cell: SweepCell) -> str | None:
    return cell.baseline if cell.baseline != cell.name else None


def sweep_table(cells: Sequence[SweepCell], axes: Sequence[str]) -> Table:
    """A row for each cell."""
    return make_table(cells, sweep_fields(cells, axes), notes(cells))


def runs_table(cells: Sequence[SweepCell], axes: Sequence[str]) -> Table:
    """A row for each run, with the values of its summary."""
    summaries = {
        (cell.name, seed): record.summary.to_json()
        for cell in cells
        for seed, record in cell.records.items()
        if record.summary
    }
    keys = dict.fromkeys(key for summary in summaries.values() for key in summary)
    shown = [key for key in keys if key not in NOT_REPEATED]
    columns = [Column(title) for title in ("cell", *axes, "seed", "state", *shown)]
    rows: list[list[Cell]] = []
    for cell in cells:
        for run in cell.runs:
            summary = summaries.get((cell.name, run.seed), {})
            labels = [run.labels.get(axis) for axis in axes]
            rows.append([cell.name, *labels, run.seed, run.state, *map(summary.get, shown)])
    return Table(columns, rows)


def notes(cells: Sequence[SweepCell]) -> list[str]:
    """The notes on the numbers."""
    measure = cells[0].shown
    scale = "lower is better" if measure.lower_is_better else "percent"
    found = [
        f"{measure.noun.capitalize()}: test, {scale}, of the last epoch; mean ± standard deviation "
        "over seeds. The best epoch is chosen on the test set."
    ]
    if any(cell.accuracy("chosen") for cell in cells):
        found[0] += " The chosen epoch is the best one on the validation split."
    if any(cell.against for cell in cells):
        found.append(f"Difference: of the last {measure.noun} to the baseline, {DIFFERENCE}")
    if differing := sorted({setting for cell in cells for setting in cell.recipe_differs}):
        found.append(
            f"Cells also differ from their baseline in the recipe ({', '.join(differing)}): their "
            "differences are not due to the method alone."
        )
    if mixed := sorted({setting for cell in cells for setting in cell.mixed}):
        found.append(
            f"Runs of one cell differ in the recipe ({', '.join(mixed)}): the mean of such a cell "
            "mixes different settings."
        )
    if damaged := [problem for cell in cells for problem in cell.damaged]:
        found.append(f"Left out, since their files cannot be read: {'; '.join(damaged)}.")
    rows = ((cell.name, cell.published, cell.runs[0].epochs) for cell in cells)
    return found + list(published_notes(rows))
