"""The table of a comparison, and the sentences without which it would mislead."""

from collections.abc import Iterator

from ctkd.results.compare.methods import Accuracy, Standing, Standings
from ctkd.results.compare.published import Published, published_notes
from ctkd.results.compare.tables import Cell, Column, Table

NAMED = 3  # of the runs that are left out
SHOWN: dict[Accuracy, str] = {
    "last": "the last epoch's test accuracy",
    "best": "the best test epoch's accuracy (chosen on the test set, as many papers do)",
    "chosen": "the test accuracy at the epoch that was best on the validation split",
}


def standings_table(result: Standings, pair: str | None = None) -> Table:
    """The rows of one pair without naming it in each, or all rows; the notes are of all in either.

    "Seeds needed" is the number with which the paired test would find the difference seen.
    """
    rows = [row for row in result.standings if pair in (None, row.pair)]
    shown_kinds: list[Accuracy] = ["last", "best"]
    if any("chosen" in row.accuracies for row in result.standings):
        shown_kinds.append("chosen")
    columns = [Column("pair")] if pair is None else []
    columns += [Column("method"), Column("n", "count")]
    columns += [Column(kind, "spread") for kind in shown_kinds]
    if result.baseline is not None:
        columns += _difference_columns(result.baseline)
    known = any(row.published for row in rows)
    if known:
        columns += [
            Column("published", "number"),
            Column("reports"),
            Column("source", data_only=True),
        ]
    cells = []
    for row in rows:
        line: list[Cell] = [row.pair] if pair is None else []
        line += [row.method, len(row.seeds), *(row.accuracies.get(kind) for kind in shown_kinds)]
        if result.baseline is not None:
            line += _difference_cells(row)
        if known:
            line += _published_cells(row.published)
        cells.append(line)
    return Table(columns, cells, list(notes(result)))


def _difference_columns(baseline: str) -> list[Column]:
    return [
        Column(f"Δ {baseline}", "change"),
        Column("95 % interval", "interval"),
        Column("p", "p"),
        Column("seeds needed", "count"),
        Column("shared seeds", "count", data_only=True),
        Column("unpaired difference", "change", data_only=True),
        Column("unpaired 95 % interval", "interval", data_only=True),
        Column("paired variance", "number", data_only=True),
        Column("unpaired variance", "number", data_only=True),
    ]


def _difference_cells(row: Standing) -> list[Cell]:
    against = row.against
    if against is None:
        return [None] * 9
    return [
        against.difference,
        against.interval,
        against.p_value,
        against.seeds_needed,
        against.n,
        against.welch_difference,
        against.welch_interval,
        against.paired_variance,
        against.unpaired_variance,
    ]


def _published_cells(found: Published | None) -> list[Cell]:
    return [found.value, found.reports, found.source] if found else [None] * 3


def notes(result: Standings) -> Iterator[str]:
    """What a reader must know: which accuracy, its selection, the test, the published numbers."""
    yield (
        f"Shown: {result.shown}, {SHOWN[result.shown]}. "
        "All in percent, mean ± standard deviation over n seeds."
    )
    yield (
        f"Selection: over {result.runs} runs the best test epoch lies {result.selection:.2f} "
        "points above the last, on average; so much of a best accuracy is choosing on the test set."
    )
    if result.baseline is not None:
        yield from _about_differences(result)
    yield from published_notes((row.method, row.published, row.epochs) for row in result.standings)
    for run in result.unfinished[:NAMED]:
        yield f"Left out, not finished: {run.path} ({len(run.metrics)} epochs done)."
    if len(result.unfinished) > NAMED:
        yield f"Left out, not finished: {len(result.unfinished) - NAMED} more runs."


def _about_differences(result: Standings) -> Iterator[str]:
    """How differences were taken, how much the pairing gained, and what could not be paired."""
    yield (
        f"Δ {result.baseline}: difference of the {result.shown} accuracy to {result.baseline}, "
        "paired over the seeds that both have; 95 % t interval, p of the paired t-test, neither "
        "corrected for the number of comparisons."
    )
    compared = [(row, row.against) for row in result.standings if row.against is not None]
    seen = [against for _, against in compared if against.unpaired_variance]
    if seen:
        paired = sum(against.paired_variance or 0.0 for against in seen)
        unpaired = sum(against.unpaired_variance or 0.0 for against in seen)
        yield (
            f"Pairing: the variance of the paired differences is {paired / unpaired:.2f} of what "
            "unpaired ones would have."
        )
    told = [
        f"{row.method} {against.seeds_needed:,} ({row.pair})"
        for row, against in compared
        if against.seeds_needed is not None
    ]
    listed = "; ".join(told) if len(told) <= 6 else "see the column"
    yield (
        "Seeds needed for the paired test to find the difference seen, if it and its variance are "
        f"the true ones (power 0.8, level 0.05): {listed or 'these runs do not tell'}."
    )
    for row, against in compared:
        if against.n < len(row.seeds):
            yield (
                f"{row.method} ({row.pair}) shares {against.n} of its {len(row.seeds)} seeds "
                f"with {result.baseline}; only these enter the difference."
            )
