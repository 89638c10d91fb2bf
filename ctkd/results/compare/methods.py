"""The comparison of methods over seeds, within each pair of networks and each recipe."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ctkd.checks import suggest
from ctkd.errors import ConfigError, DataError
from ctkd.results.compare.groups import Group, group_runs
from ctkd.results.compare.rows import Row, compared
from ctkd.results.read.measures import Measure
from ctkd.results.read.runs import RunRecord
from ctkd.results.read.schema import KINDS, Accuracy


@dataclass(frozen=True)
class Standings:
    """All methods, ordered by pair; within a pair the baseline comes first.

    Attributes:
        standings: the rows, with finished runs only.
        shown: the accuracy that is compared and tested.
        baseline: the name of the method to compare with; None for no differences.
        selection: the gain from choosing the epoch on the test set: the difference from last to
            best, mean over runs.
        runs: the number of runs compared.
        unfinished: runs that were left out.
    """

    standings: tuple[Row, ...]
    shown: Accuracy
    baseline: str | None
    selection: float
    runs: int
    unfinished: tuple[RunRecord, ...]

    @property
    def measure(self) -> Measure:
        """The name, unit and digits of the primary metric."""
        return self.standings[0].shown


def compare(
    records: Sequence[RunRecord], shown: Accuracy = "last", baseline: str | None = None
) -> Standings:
    """Compares finished runs within each pair of networks, method by method over their seeds.

    Differences are paired over the seeds that a method shares with the baseline. Only runs of one
    recipe are compared: a pair with several recipes is divided.

    Raises:
        ConfigError: no run is finished, two runs share pair, recipe, method and seed, no run
            belongs to the baseline, or a run lacks the accuracy `shown`.
        DataError: a summary lacks the last or the best accuracy.
    """
    if shown not in KINDS:
        raise ConfigError(f"shown = {shown!r}: expected one of {', '.join(KINDS)}")
    finished = [record for record in records if record.finished]
    unfinished = tuple(record for record in records if not record.finished)
    if not finished:
        paths = ", ".join(str(record.path) for record in unfinished) or "no run given"
        raise ConfigError(f"no finished run to compare ({paths})")
    gains = [abs(_required(run, "best") - _required(run, "last")) for run in finished]
    for run in finished:
        if run.result(f"{shown}_{run.measure}") is None:
            raise ConfigError(
                f"{run.path} has no validation split, so it has no chosen epoch; show the last "
                "(or the best) accuracy instead"
            )
    groups = group_runs(finished)
    if baseline is not None:
        _check_baseline(groups, baseline)
    standings = tuple(row for group in groups for row in _rows(group, shown, baseline))
    return Standings(standings, shown, baseline, fmean(gains), len(gains), unfinished)


def _rows(group: Group, shown: Accuracy, baseline: str | None) -> list[Row]:
    """The methods of a group by name, after the baseline, each with its difference to it."""
    first = baseline and _baseline_of(group, baseline)
    rows = {
        method: Row(
            method,
            {"pair": group.pair, "recipe": group.recipe, "method": method},
            dict(sorted(runs.items())),
        )
        for method, runs in group.methods.items()
    }
    ordered = sorted(rows, key=lambda method: (method != first, method))
    reference = rows[first] if first else None
    return [compared(rows[method], reference, shown) for method in ordered]


def _required(run: RunRecord, kind: Accuracy) -> float:
    """The run's accuracy in percent, from its summary."""
    key = f"{kind}_{run.measure}"
    value = run.result(key)
    if value is None:
        raise DataError(
            f"{run.path / 'summary.json'}: expected a number under {key!r}. It is null if the "
            "test data had nothing to find: leave such a run out"
        )
    return value


def _check_baseline(groups: Sequence[Group], baseline: str) -> None:
    """Raises ConfigError for a baseline that is missing, or is several methods of a group."""
    if any(_baseline_of(group, baseline) for group in groups):
        return
    methods = sorted({method for group in groups for method in group.methods})
    raise ConfigError(
        f"no finished run belongs to the baseline {baseline!r}{suggest(baseline, methods)} "
        f"(methods: {', '.join(methods)})"
    )


def _baseline_of(group: Group, baseline: str) -> str | None:
    """The label of the group's method that `baseline` names, or None."""
    if baseline in group.methods:
        return baseline
    named = [method for method in group.methods if method.startswith(f"{baseline} (")]
    if named:
        raise ConfigError(
            f"the baseline {baseline!r} of {group.pair} is the name of several methods; "
            f"name one of: {'; '.join(named)}"
        )
    return None
