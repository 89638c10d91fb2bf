"""Published top-1 accuracies by teacher, student and method, read from `published.csv`.

Two sources may differ in their recipe and in the accuracy that they report: the best test epoch
exceeds the last epoch by about 0.3 points, which is the size of the gains that papers claim.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

ALONE_METHOD = "vanilla"  # the student without a teacher
EPOCHS = {None: "epoch not stated", "last": "last epoch", "best": "best epoch"}


@dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        value: top-1 accuracy on the test set, percent.
        source: the paper or the README with the number.
        reports: the accuracy of the "best" test epoch or of the "last" epoch; None if the
            source does not state it.
        epochs: length of the published run.
        runs: number of runs in the mean; None if the source does not state it.
    """

    value: float
    source: str
    reports: Literal["best", "last"] | None
    epochs: int = 240
    runs: int | None = None


Key = tuple[str, str, str, str]  # data set, teacher ("" for none), student, method


def _read() -> dict[Key, tuple[Published, ...]]:
    """The rows of `published.csv`; within a key, in the order of the file."""
    found: dict[Key, tuple[Published, ...]] = {}
    text = (files("ctkd.results.compare") / "published.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        key = row["dataset"], row["teacher"], row["student"], row["method"]
        reports: Any = row["reports"] or None
        runs = int(row["runs"]) if row["runs"] else None
        number = Published(float(row["value"]), row["source"], reports, int(row["epochs"]), runs)
        found[key] = (*found.get(key, ()), number)
    return found


_NUMBERS = _read()

# CIFAR-100: teacher and student, in the order of the papers' tables; networks without a teacher.
PAIRS: tuple[tuple[str, str], ...] = tuple(
    dict.fromkeys((key[1], key[2]) for key in _NUMBERS if key[0] == "cifar100" and key[1])
)
ALONE: dict[str, float] = {
    key[2]: numbers[0].value
    for key, numbers in _NUMBERS.items()
    if key[0] == "cifar100" and key[3] == ALONE_METHOD
}


def lookup(
    teacher: str | None, student: str, method: str, dataset: str = "cifar100"
) -> Published | None:
    """The published number for a run of `method`, the first of `lookup_all`, or None.

    `method` is the name of our configuration: vanilla (the student alone, for any teacher), kd,
    ctkd, dkd, dkd_ctkd, standardized (KD + LS), ctkd_standardized (CTKD + LS), dist or wttm.
    """
    return next(iter(lookup_all(teacher, student, method, dataset)), None)


def lookup_all(
    teacher: str | None, student: str, method: str, dataset: str = "cifar100"
) -> tuple[Published, ...]:
    """All published numbers; the number with the recipe of our configuration comes first."""
    taught_by = "" if method == ALONE_METHOD else teacher or ""
    return _NUMBERS.get((dataset, taught_by, student, method), ())


def published_notes(rows: Iterable[tuple[str, Published | None, int | None]]) -> Iterator[str]:
    """The sources of the published numbers, and a note if their runs have another length.

    Args:
        rows: the method, its published number and our number of epochs, for each row of a table.
    """
    known = [(method, found, ours) for method, found, ours in rows if found is not None]
    sources: dict[str, list[str]] = {}
    for method, found, _ in known:
        mean = f", mean of {found.runs} runs" if found.runs else ""
        methods = sources.setdefault(f"{found.source}{mean}, {EPOCHS[found.reports]}", [])
        methods += [method] if method not in methods else []
    if sources:
        listed = "; ".join(f"{', '.join(methods)}: {source}" for source, methods in sources.items())
        yield f"Published: {listed}. Do not compare a best epoch with a last epoch."
    lengths = {(ours, found.epochs) for _, found, ours in known if ours not in (None, found.epochs)}
    for ours, theirs in sorted(lengths, key=str):
        yield f"The published runs have {theirs} epochs, these have {ours}."
