"""The rows and columns of every table of results: accuracies, differences, published numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ctkd.results.compare.published import Published, lookup
from ctkd.results.compare.statistics import Comparison, MeanStd, mean_std, paired_difference
from ctkd.results.compare.tables import Cell, Column, Table
from ctkd.results.read.measures import Measure, measure
from ctkd.results.read.runs import RunRecord
from ctkd.results.read.schema import KINDS, Accuracy

R = TypeVar("R", bound="Row")
Fields = list[tuple[Column, Callable[[Any], Cell]]]  # a column, and its cell of a row

DIFFERENCE = (
    "paired over the shared seeds; 95 % t interval, p of the paired t-test, neither "
    "corrected for the number of comparisons."
)


@dataclass(frozen=True)
class Row:
    """The runs of one method with one pair of networks, or of one cell of a sweep.

    Attributes:
        name: the method, or the cell.
        labels: texts that identify the row, by column title.
        records: the runs by seed, ascending, finished or not.
        baseline: name of the row that this row is compared with (its own name if it is the
            baseline); None without a baseline.
        against: the difference to the baseline; None for the baseline itself, or without one.
    """

    name: str
    labels: Mapping[str, str]
    records: Mapping[int, RunRecord]
    baseline: str | None = None
    against: Comparison | None = None

    @property
    def pair(self) -> str:
        """The pair of networks, in a comparison of methods."""
        return self.labels["pair"]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs, ascending."""
        return tuple(self.records)

    @property
    def finished(self) -> dict[int, RunRecord]:
        """The finished runs by seed."""
        return {seed: record for seed, record in self.records.items() if record.finished}

    def values(self, kind: Accuracy) -> dict[int, float]:
        """The accuracy of the finished runs in percent, by seed; {} if one of them has none."""
        found = {s: r.result(f"{kind}_{r.measure}") for s, r in self.finished.items()}
        known = {seed: value for seed, value in found.items() if value is not None}
        return known if len(known) == len(found) else {}

    def accuracy(self, kind: Accuracy) -> MeanStd | None:
        """Mean ± std of `values`."""
        return _mean_std(self.values(kind).values())

    @property
    def shown(self) -> Measure:
        """How values of the primary metric are shown."""
        record = next(iter(self.records.values()), None)
        return measure("test_top1") if record is None else record.shown

    @property
    def temperature(self) -> MeanStd | None:
        """The temperature at the end of the finished runs."""
        return _mean_std(record.result("temperature") for record in self.finished.values())

    @property
    def method(self) -> str:
        """The name of the configuration, the key of published numbers."""
        return self.name

    @property
    def published(self) -> Published | None:
        """The published number of the method."""
        record = next(iter(self.records.values()), None)
        if record is None:
            return None
        return lookup(record.teacher, record.student, self.method, record.dataset)

    @property
    def epochs(self) -> int | None:
        """The length of the runs."""
        summaries = (record.summary for record in self.finished.values())
        return next((summary.epochs for summary in summaries if summary), None)


def _mean_std(values: Iterable[float | None]) -> MeanStd | None:
    known = [value for value in values if value is not None]
    return mean_std(known) if known else None


def compared(row: R, baseline: R | None, kind: Accuracy = "last") -> R:
    """The row with its difference to the baseline, paired over seeds."""
    if baseline is None:
        return row
    ours, theirs = row.values(kind), baseline.values(kind)
    against = None
    if row.name != baseline.name and ours and theirs:
        against = paired_difference(ours, theirs)
    return replace(row, baseline=baseline.name, against=against)


def _part(column: Column, owner: str, name: str) -> tuple[Column, Callable[[Row], Cell]]:
    """A column with an attribute of `against` or of `published`; empty for rows without it."""
    return column, lambda row: getattr(getattr(row, owner), name, None)


def accuracy_fields(rows: Sequence[Row]) -> Fields:
    """The number of seeds and the accuracies; "chosen" only if some run has a validation split."""

    def field(kind: Accuracy) -> tuple[Column, Callable[[Row], Cell]]:
        return Column(kind, "spread", digits_of(rows)), lambda row: row.accuracy(kind)

    split = any(row.accuracy("chosen") for row in rows)
    kinds = [kind for kind in KINDS if kind != "chosen" or split]
    return [(Column("n", "count"), lambda row: len(row.finished)), *map(field, kinds)]


def digits_of(rows: Sequence[Row]) -> int:
    """The decimals of all values of a table."""
    return max((row.shown.digits for row in rows), default=2)


def difference_fields(title: str, digits: int = 2) -> Fields:
    """The difference to the baseline under `title`, its test, and numbers for further work.

    "Seeds needed" is the number of seeds with which the paired test would find this difference.
    """
    columns = {
        "difference": Column(title, "change", digits),
        "interval": Column("95 % interval", "interval", digits),
        "p_value": Column("p", "p"),
        "seeds_needed": Column("seeds needed", "count"),
        "n": Column("shared seeds", "count", data_only=True),
        "welch_difference": Column("unpaired difference", "change", data_only=True),
        "welch_interval": Column("unpaired 95 % interval", "interval", data_only=True),
        "paired_variance": Column("paired variance", "number", data_only=True),
        "unpaired_variance": Column("unpaired variance", "number", data_only=True),
    }
    return [_part(column, "against", name) for name, column in columns.items()]


def published_fields(rows: Sequence[Row]) -> Fields:
    """The published number and its source, if there is one for any row."""
    columns = {
        "value": Column("published", "number"),
        "reports": Column("reports"),
        "source": Column("source", data_only=True),
    }
    known = any(row.published for row in rows)
    return [_part(column, "published", name) for name, column in columns.items() if known]


def make_table(rows: Sequence[Row], fields: Fields, notes: Iterable[str]) -> Table:
    """The table with one column for each field."""
    cells = [[cell(row) for _, cell in fields] for row in rows]
    return Table([column for column, _ in fields], cells, list(notes))
