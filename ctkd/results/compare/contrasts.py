"""Planned comparisons of methods: paired differences, corrected for their number, and McNemar.

A contrast is written `A:B`, for the difference A − B; with a question mark, `A:B?`, it is
exploratory and left out of the correction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctkd.errors import ConfigError, DataError
from ctkd.results.compare.methods import Standings
from ctkd.results.compare.rows import DIFFERENCE, Row
from ctkd.results.compare.statistics import (
    LEVEL,
    Comparison,
    detectable_difference,
    holm,
    mcnemar,
    paired_difference,
)
from ctkd.results.compare.tables import Cell, Column, Table
from ctkd.results.read.schema import PREDICTIONS_FILE


@dataclass(frozen=True)
class Contrast:
    """The difference of two methods.

    Attributes:
        accuracy: A − B of the accuracy that is compared.
        temperature: A − B of T at the end of the runs; None where a run has none.
        planned: whether the correction includes it.
        corrected: p by Holm's method over the planned contrasts; None for an exploratory contrast
            or one without p.
        discordant: over all seeds, the numbers of test images that only A, and only B, classifies
            correctly; None without predictions.
        apart: the number of seeds for which McNemar's exact test finds a difference, uncorrected.
    """

    a: str
    b: str
    accuracy: Comparison
    temperature: Comparison | None
    planned: bool
    corrected: float | None = None
    discordant: tuple[int, int] | None = None
    apart: int | None = None


def contrasts_of(result: Standings, written: Sequence[str]) -> list[Contrast]:
    """The contrasts, in the order given.

    Raises:
        ConfigError: a contrast is not of the form A:B, or names no method of the comparison, or
            the runs have several pairs or recipes.
        DataError: a file of predictions is damaged.
    """
    pairs = list(dict.fromkeys(row.pair for row in result.standings))
    if len(pairs) > 1:
        raise ConfigError(
            f"--contrasts needs runs of one pair and one recipe, there are {len(pairs)}: "
            f"{'; '.join(pairs)}. Choose one with --where, such as --where epochs=10"
        )
    found = [_contrast(result, text) for text in written]
    planned = [c.accuracy.p_value for c in found if c.planned and c.accuracy.p_value is not None]
    corrected = iter(holm(planned))
    return [
        replace(c, corrected=next(corrected)) if c.planned and c.accuracy.p_value is not None else c
        for c in found
    ]


def _contrast(result: Standings, text: str) -> Contrast:
    names = text.rstrip("?").split(":")
    if len(names) != 2 or not all(names):
        raise ConfigError(f"--contrasts {text!r}: expected A:B, such as ctkd:kd")
    rows = {row.name: row for row in result.standings}
    for name in names:
        if name not in rows:
            known = ", ".join(rows)
            raise ConfigError(f"--contrasts {text!r}: no method is named {name!r} ({known})")
    one, other = (rows[name] for name in names)
    seeds, wins, losses, apart = sorted(one.finished.keys() & other.finished.keys()), 0, 0, 0
    pairs = [(_right(one, seed), _right(other, seed)) for seed in seeds]
    judged = [(a, b) for a, b in pairs if a is not None and b is not None]
    for ours, theirs in judged:
        only_one, only_other, p = mcnemar(ours, theirs)
        wins, losses, apart = wins + only_one, losses + only_other, apart + (p < LEVEL)
    temperatures = [_temperatures(row) for row in (one, other)]
    return Contrast(
        names[0],
        names[1],
        paired_difference(one.values(result.shown), other.values(result.shown)),
        paired_difference(*temperatures) if all(temperatures) else None,
        planned=not text.endswith("?"),
        discordant=(wins, losses) if judged else None,
        apart=apart if judged else None,
    )


def _temperatures(row: Row) -> Mapping[int, float]:
    found = {seed: record.result("temperature") for seed, record in row.finished.items()}
    return {seed: value for seed, value in found.items() if value is not None}


def _right(row: Row, seed: int) -> list[bool] | None:
    """Whether the prediction of each test image is correct; None without predictions."""
    path = Path(row.finished[seed].path) / PREDICTIONS_FILE
    if not path.is_file():
        return None
    try:
        pairs = [line.split(",") for line in path.read_text(encoding="utf-8").split()[1:]]
        return [int(target) == int(prediction) for target, prediction in pairs]
    except ValueError as error:
        raise DataError(f"{path} is damaged: expected lines of target,prediction") from error


def contrasts_table(result: Standings, written: Sequence[str]) -> Table:
    """The contrasts as a table, with notes that explain the numbers."""
    contrasts = contrasts_of(result, written)
    columns = [
        Column("contrast"),
        Column("n", "count"),
        Column("Δ", "change"),
        Column("95 % interval", "interval"),
        Column("p", "p"),
        Column("p, Holm", "p"),
        Column("would be found", "number"),
        Column("ΔT", "change"),
        Column("95 % interval of ΔT", "interval"),
        Column("A alone right", "count"),
        Column("B alone right", "count"),
        Column("seeds apart", "count"),
    ]
    rows: list[list[Cell]] = []
    for c in contrasts:
        variance = c.accuracy.paired_variance
        least = None if not variance else detectable_difference(variance**0.5, c.accuracy.n)
        rows.append(
            [
                f"{c.a} − {c.b}{'' if c.planned else ' (exploratory)'}",
                c.accuracy.n,
                c.accuracy.difference,
                c.accuracy.interval,
                c.accuracy.p_value,
                c.corrected,
                least,
                c.temperature.difference if c.temperature else None,
                c.temperature.interval if c.temperature else None,
                c.discordant and c.discordant[0],
                c.discordant and c.discordant[1],
                c.apart,
            ]
        )
    planned = sum(c.planned for c in contrasts)
    notes = [
        f'Δ: {DIFFERENCE.rstrip(".")}; "p, Holm" is corrected, for {planned} planned contrasts.',
        "Would be found: the difference that the paired t-test finds with power 0.8 for this "
        "number of seeds and this spread.",
        "Seeds apart: pairs of runs that McNemar's exact test tells apart at 0.05, uncorrected.",
    ]
    return Table(columns, rows, notes)
