"""A sweep's runs as one table: cells with mean ± std over seeds, against their baselines."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ctkd.errors import DataError
from ctkd.results.compare.published import Published, lookup, published_notes
from ctkd.results.compare.statistics import Comparison, MeanStd, mean_std, paired_difference
from ctkd.results.compare.tables import Cell, Column, Table
from ctkd.results.read.runs import SETTINGS_FILE, RunRecord, read_run

SAID = ("finished", "seed")  # of a summary, what the row tells already
Kind = Literal["last", "chosen", "best"]  # epoch: the last, by validation images, by test images


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        cell: the run's name without its seed.
        labels: its value on each axis that it has.
        state: finished, running, queued, failed, …
        path: its work directory, which need not be there yet.
        command: the command line that does the same.
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
class SweepCell:
    """The runs of one cell, by seed, and what came out of those that are finished.

    Attributes:
        records: of those that have written anything, by seed.
        damaged: what is wrong with the files of those that are left out of it.
        against: the difference of the last accuracy to `baseline`'s, paired over seeds.
        baseline: the name of the cell it is compared with; its own where it is one.
    """

    name: str
    labels: Mapping[str, str]
    runs: Sequence[SweepRun]
    records: Mapping[int, RunRecord]
    damaged: Sequence[str] = ()
    baseline: str | None = None
    against: Comparison | None = None
    recipe_differs: Sequence[str] = ()

    def values(self, kind: Kind) -> dict[int, float]:
        """The finished runs' accuracy in percent, by seed."""
        told = {s: r.told(f"{kind}_{r.measure}") for s, r in self.records.items() if r.finished}
        return {seed: value for seed, value in told.items() if value is not None}

    def summary(self, kind: Kind) -> MeanStd | None:
        """Mean ± std of the finished runs' accuracy; None while none is finished."""
        values = list(self.values(kind).values())
        return mean_std(values) if values else None

    @property
    def temperature(self) -> MeanStd | None:
        """The finished runs' temperature at the end."""
        told = [r.told("temperature") for r in self.records.values() if r.finished]
        values = [value for value in told if value is not None]
        return mean_std(values) if values else None

    @property
    def published(self) -> Published | None:
        """The number to set beside it, for a run that bears a method's name."""
        record = next(iter(self.records.values()), None)
        if record is None:
            return None
        return lookup(record.teacher, record.student, record.name, record.dataset)

    @property
    def mixed(self) -> tuple[str, ...]:
        """The settings of the recipe, teacher and data among them, in which its runs differ."""
        return _differing([record.settings["recipe"] for record in self.records.values()])

    @property
    def state(self) -> str:
        """The runs' state, or how many are in which."""
        counted = Counter(run.state for run in self.runs)
        if len(counted) == 1:
            return next(iter(counted))
        return ", ".join(f"{number} {state}" for state, number in counted.most_common())


def sweep_cells(runs: Sequence[SweepRun], baseline: Mapping[str, str]) -> list[SweepCell]:
    """Groups the runs by cell, in their order, and compares each with its baseline.

    `baseline` names some axes' values. A cell's baseline is the one that has these values and
    else the cell's own; where there is none such, the only cell that has these values, if there is
    only one.
    """
    groups: dict[str, list[SweepRun]] = {}
    for run in runs:
        groups.setdefault(run.cell, []).append(run)
    cells = {
        name: SweepCell(name, group[0].labels, group, *_records(group))
        for name, group in groups.items()
    }
    return [
        _compared(cell, _baseline_of(cell, cells.values(), baseline)) for cell in cells.values()
    ]


def _records(runs: Iterable[SweepRun]) -> tuple[dict[int, RunRecord], list[str]]:
    """What the runs have written, by seed, and what is wrong with those that cannot be read."""
    found, damaged = {}, list[str]()
    for run in runs:
        if (run.path / SETTINGS_FILE).is_file():
            try:
                found[run.seed] = read_run(run.path)
            except DataError as error:
                damaged.append(str(error))
    return found, damaged


def _baseline_of(
    cell: SweepCell, cells: Iterable[SweepCell], baseline: Mapping[str, str]
) -> SweepCell | None:
    if not baseline:
        return None
    able = [c for c in cells if all(c.labels.get(k) == v for k, v in baseline.items())]
    wanted = {**cell.labels, **baseline}
    exact = [c for c in able if dict(c.labels) == wanted]
    # Axes that only one of the two has cannot be equal; those that both have must be.
    near = [c for c in able if all(wanted.get(k, v) == v for k, v in c.labels.items())]
    for candidates in (exact, near, able):
        if len(candidates) == 1:
            return candidates[0]
    return None


def _compared(cell: SweepCell, baseline: SweepCell | None) -> SweepCell:
    if baseline is None:
        return cell
    against = None
    ours, theirs = cell.values("last"), baseline.values("last")
    if baseline.name != cell.name and ours and theirs:
        against = paired_difference(ours, theirs)
    differs = _recipe_differences(cell, baseline)
    return replace(cell, baseline=baseline.name, against=against, recipe_differs=differs)


def _recipe_differences(cell: SweepCell, baseline: SweepCell) -> tuple[str, ...]:
    """The settings of the recipe in which two cells differ, where both have run."""
    if not cell.records or not baseline.records:
        return ()
    return _differing([next(iter(c.records.values())).settings["recipe"] for c in (cell, baseline)])


def _differing(recipes: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The settings that all have, and not all alike; a run without a teacher has fewer."""
    keys = set[str]().union(*recipes).intersection(*recipes)
    return tuple(sorted(k for k in keys if any(r[k] != recipes[0][k] for r in recipes)))


def sweep_table(cells: Sequence[SweepCell], axes: Sequence[str]) -> Table:
    """A row for each cell: its value on each axis, accuracies, the difference, T at the end."""
    shown = [Column(axis) for axis in axes] or [Column("cell")]
    columns = [*shown, Column("state"), Column("n", "count")]
    kinds: list[Kind] = ["last", "chosen", "best"]
    if not any(cell.summary("chosen") for cell in cells):
        kinds.remove("chosen")  # no images were set aside to choose by
    columns += [Column(kind, "spread") for kind in kinds]
    columns += [Column("baseline"), Column("difference", "change")]
    columns += [Column("95 % interval", "interval"), Column("p", "p")]
    columns += [Column("shared seeds", "count", data_only=True), Column("temperature", "spread")]
    columns += [Column("published", "number"), Column("reports", data_only=True)]
    columns += [Column("published epochs", "count", data_only=True)]
    columns += [Column("source", data_only=True)]
    rows: list[list[Cell]] = []
    for cell in cells:
        against = cell.against
        row: list[Cell] = [cell.labels.get(axis) for axis in axes] or [cell.name]
        row += [cell.state, len(cell.values("last")), *(cell.summary(kind) for kind in kinds)]
        row.append(cell.baseline if cell.baseline != cell.name else None)
        row += (
            [against.difference, against.interval, against.p_value, against.n]
            if against
            else [None] * 4
        )
        told = cell.published
        row.append(cell.temperature)
        row += [told.value, told.reports, told.epochs, told.source] if told else [None] * 4
        rows.append(row)
    return Table(columns, rows, notes(cells))


def runs_table(cells: Sequence[SweepCell], axes: Sequence[str]) -> Table:
    """A row for each run, with what its summary tells."""
    told = [record.summary or {} for cell in cells for record in cell.records.values()]
    keys = [key for key in dict.fromkeys(k for summary in told for k in summary) if key not in SAID]
    columns = [Column(title) for title in ("cell", *axes, "seed", "state", *keys)]
    rows: list[list[Cell]] = []
    for cell in cells:
        for run in cell.runs:
            record = cell.records.get(run.seed)
            summary = (record.summary if record else None) or {}
            labels = [run.labels.get(axis) for axis in axes]
            rows.append([cell.name, *labels, run.seed, run.state, *(summary.get(k) for k in keys)])
    return Table(columns, rows)


def notes(cells: Sequence[SweepCell]) -> list[str]:
    """What a reader must know of the numbers."""
    told = [
        "Accuracy: test, percent, of the last epoch; mean ± standard deviation over seeds. The "
        "best epoch's is chosen on the test set."
    ]
    if any(cell.summary("chosen") for cell in cells):
        told[0] += " The chosen epoch is the best one on images set aside for that."
    if any(cell.against for cell in cells):
        told.append(
            "Differences are of the last accuracy, paired over the seeds that both have, with the "
            "95 % t interval and the p of the paired t-test; no correction for many comparisons."
        )
    differing = sorted({setting for cell in cells for setting in cell.recipe_differs})
    if differing:
        told.append(
            f"Cells differ from their baseline in the recipe too ({', '.join(differing)}): their "
            "differences are not the method's alone."
        )
    mixed = sorted({setting for cell in cells for setting in cell.mixed})
    if mixed:
        told.append(
            f"Runs of one cell differ in the recipe ({', '.join(mixed)}): their mean is of unlike "
            "things."
        )
    damaged = [problem for cell in cells for problem in cell.damaged]
    if damaged:
        told.append(f"Left out, since their files cannot be read: {'; '.join(damaged)}.")
    beside = [(cell.name, cell.published, cell.runs[0].epochs) for cell in cells]
    return told + list(published_notes(beside))
