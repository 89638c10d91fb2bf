"""Methods side by side: accuracy over seeds, the difference to a baseline, the published number."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, get_args

from ctkd.checks import suggest
from ctkd.errors import ConfigError, DataError
from ctkd.results.compare.cells import Group, group_runs
from ctkd.results.compare.published import Published, lookup
from ctkd.results.compare.statistics import Comparison, MeanStd, mean_std, paired_difference
from ctkd.results.read.runs import RunRecord

Accuracy = Literal["last", "best", "chosen"]


@dataclass(frozen=True)
class Standing:
    """One method on one pair.

    Attributes:
        accuracies: mean ± std over the seeds of "last", "best" (on the test set), and "chosen" (on
            the test set, at the epoch that was best on a validation split) where all runs have it.
        against: its difference to the baseline; None for the baseline itself, or without one.
        published: the number to set beside it.
        epochs: the length of its runs.
    """

    pair: str
    method: str
    seeds: tuple[int, ...]
    accuracies: dict[Accuracy, MeanStd]
    against: Comparison | None
    published: Published | None
    epochs: int | None


@dataclass(frozen=True)
class Standings:
    """All standings, ordered by pair, the baseline first among its methods.

    Attributes:
        shown: the accuracy that differences and tests are taken of.
        baseline: the name of the method they are taken to; None for no differences.
        selection: what choosing the epoch on the test set adds: best − last, mean over all runs.
        runs: the number of runs compared.
        unfinished: runs that were left out.
    """

    standings: tuple[Standing, ...]
    shown: Accuracy
    baseline: str | None
    selection: float
    runs: int
    unfinished: tuple[RunRecord, ...]


def compare(
    records: Sequence[RunRecord], shown: Accuracy = "last", baseline: str | None = None
) -> Standings:
    """Compares finished runs within each pair of networks, method by method over their seeds.

    Differences are paired over the seeds that a method shares with the baseline. Recipes must be
    equal within a pair; pairs may differ in theirs.

    Raises:
        ConfigError: no run is finished, recipes differ within a pair, two runs share pair, method
            and seed, no run belongs to the baseline, or `shown` is something that a run lacks.
        DataError: a summary lacks an accuracy.
    """
    if shown not in get_args(Accuracy):
        raise ConfigError(f"shown = {shown!r}: expected one of {', '.join(get_args(Accuracy))}")
    finished = [record for record in records if record.finished]
    unfinished = tuple(record for record in records if not record.finished)
    if not finished:
        places = ", ".join(str(record.path) for record in unfinished) or "no run given"
        raise ConfigError(f"no finished run to compare ({places})")
    groups = group_runs(finished)
    if baseline is not None:
        _check_baseline(groups, baseline)
    standings = tuple(
        _standing(group, method, shown, baseline)
        for group in groups
        for method in _ordered(group, baseline)
    )
    gains = [_accuracy(run, "best") - _accuracy(run, "last") for run in finished]
    return Standings(standings, shown, baseline, fmean(gains), len(gains), unfinished)


def _ordered(group: Group, baseline: str | None) -> list[str]:
    """The group's methods by name, after the baseline."""
    first = baseline and _baseline_of(group, baseline)
    return sorted(group.methods, key=lambda method: (method != first, method))


def _standing(group: Group, method: str, shown: Accuracy, baseline: str | None) -> Standing:
    """One method of a group against the group's baseline, where it has one."""
    runs = group.methods[method]
    values = {kind: _accuracies(runs, kind) for kind in get_args(Accuracy)}
    complete = {kind: found for kind, found in values.items() if len(found) == len(runs)}
    if shown not in complete:
        lacking = next(run.path for seed, run in runs.items() if seed not in values[shown])
        raise ConfigError(
            f"{lacking} kept no images out for validation, so it has no chosen epoch; "
            "show the last (or the best) instead"
        )
    against = None
    reference = baseline and _baseline_of(group, baseline)
    if reference and reference != method:
        against = paired_difference(values[shown], _accuracies(group.methods[reference], shown))
    first = next(iter(runs.values()))
    epochs = (first.summary or {}).get("epochs")
    return Standing(
        pair=group.pair,
        method=method,
        seeds=tuple(sorted(runs)),
        accuracies={kind: mean_std(list(found.values())) for kind, found in complete.items()},
        against=against,
        published=lookup(group.teacher, group.student, method, first.dataset),
        epochs=epochs if isinstance(epochs, int) else None,
    )


def _accuracies(runs: dict[int, RunRecord], kind: Accuracy) -> dict[int, float]:
    """The accuracy by seed; without the seeds whose runs chose no epoch by validation."""
    return {
        seed: _accuracy(run, kind)
        for seed, run in sorted(runs.items())
        if kind != "chosen" or run.told(f"chosen_{run.measure}") is not None
    }


def _accuracy(run: RunRecord, kind: Accuracy) -> float:
    """The run's accuracy in percent, from its summary."""
    key = f"{kind}_{run.measure}"
    value = run.told(key)
    if value is None:
        found = ""
        if (run.summary or {}).get(key, "") is None:
            found = ", found null: the test data held nothing to find; leave this run out"
        raise DataError(f"{run.path / 'summary.json'}: expected a number under {key!r}{found}")
    return value


def _check_baseline(groups: Sequence[Group], baseline: str) -> None:
    """Refuses a baseline that no group has, or that names several methods of a group."""
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
            f"the baseline {baseline!r} of {group.pair} stands for several methods; "
            f"name one of: {'; '.join(named)}"
        )
    return None
