"""The table of a comparison of methods, and its notes."""

import shlex
from collections.abc import Iterator

from ctkd.results.compare.methods import Standings
from ctkd.results.compare.published import published_notes
from ctkd.results.compare.rows import (
    DIFFERENCE,
    Fields,
    accuracy_fields,
    difference_fields,
    digits_of,
    make_table,
    published_fields,
)
from ctkd.results.compare.tables import Column, Table
from ctkd.results.read.schema import Accuracy

NAMED = 3  # unfinished runs that a note names
LISTED = 6  # numbers of seeds needed that a note lists
SHOWN: dict[Accuracy, str] = {
    "last": "the last epoch's test {noun}",
    "best": "the best test epoch's {noun} (chosen on the test set, as many papers do)",
    "chosen": "the test {noun} at the epoch that was best on the validation split",
}


def shown_text(result: Standings) -> str:
    """The name of the compared value, such as "the last epoch's test accuracy"."""
    return SHOWN[result.shown].format(noun=result.measure.noun)


def standings_table(result: Standings, pair: str | None = None) -> Table:
    """The rows of one pair without a column for it, or all rows; the notes cover all rows."""
    rows = [row for row in result.standings if pair in (None, row.pair)]
    fields: Fields = [] if pair else [(Column("pair"), lambda row: row.pair)]
    fields += [(Column("method"), lambda row: row.method), *accuracy_fields(result.standings)]
    if result.baseline is not None:
        fields += difference_fields(f"Δ {result.baseline}", digits_of(result.standings))
    return make_table(rows, fields + published_fields(rows), notes(result))


def notes(result: Standings) -> Iterator[str]:
    """The accuracy shown, its selection, the tests, the published numbers, the runs left out."""
    if any(row.labels["recipe"] for row in result.standings):
        yield (
            "The runs follow different recipes, so each recipe has its own comparison; --where "
            "chooses one, such as --where epochs=10."
        )
    measure = result.measure
    scale = "Lower is better" if measure.lower_is_better else "All in percent"
    yield (
        f"Shown: {result.shown}, {shown_text(result)}. "
        f"{scale}, mean ± standard deviation over n seeds."
    )
    side = "below" if measure.lower_is_better else "above"
    yield (
        f"Selection: over {result.runs} runs the best test epoch is "
        f"{result.selection:.{measure.digits}f} {measure.difference} {side} the last epoch, on "
        f"average; a best {measure.noun} contains this gain from choosing the epoch on the test "
        "set."
    )
    if result.baseline is not None:
        yield from _about_differences(result)
    elif len({row.method for row in result.standings}) > 1:
        name = result.standings[0].name
        flag = f"--baseline {shlex.quote(name)}"
        yield f"No differences, since no baseline was given: {flag} gives one."
    yield from published_notes((row.method, row.published, row.epochs) for row in result.standings)
    for run in result.unfinished[:NAMED]:
        yield f"Left out, not finished: {run.path} ({len(run.metrics)} epochs done)."
    if len(result.unfinished) > NAMED:
        yield f"Left out, not finished: {len(result.unfinished) - NAMED} more runs."


def _about_differences(result: Standings) -> Iterator[str]:
    """How differences were computed, the gain of pairing, and the seeds that were not paired."""
    yield (
        f"Δ {result.baseline}: difference of the {result.shown} {result.measure.noun} to "
        f"{result.baseline}{', below 0 is better' if result.measure.lower_is_better else ''}, "
        f"{DIFFERENCE}"
    )
    pairs = [(row, row.against) for row in result.standings if row.against is not None]
    varied = [against for _, against in pairs if against.unpaired_variance]
    if varied:
        paired = sum(against.paired_variance or 0.0 for against in varied)
        unpaired = sum(against.unpaired_variance or 0.0 for against in varied)
        yield (
            f"Pairing: the variance of the paired differences is {paired / unpaired:.2f} of the "
            "variance of unpaired differences."
        )
    needed = [
        f"{row.method} {against.seeds_needed:,} ({row.pair})"
        for row, against in pairs
        if against.seeds_needed is not None
    ]
    if pairs and all(against.n < 2 for _, against in pairs):
        yield (
            f"No paired interval: no method shares two seeds with {result.baseline}. Train all "
            "methods with the same seeds, such as --seeds=0,1,2."
        )
    listed = "; ".join(needed) if len(needed) <= LISTED else "see the column"
    yield (
        "Seeds needed for the paired test to find this difference, if it and its variance are "
        f"the true ones (power 0.8, level 0.05): {listed or 'unknown, too few seeds'}."
    )
    for row, against in pairs:
        if not against.n:
            yield f"{row.method} ({row.pair}) shares no seed with {result.baseline}."
        elif against.n < len(row.seeds):
            yield (
                f"{row.method} ({row.pair}) shares {against.n} of its {len(row.seeds)} seeds "
                f"with {result.baseline}; only these enter the difference."
            )
