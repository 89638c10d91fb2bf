"""A sweep in sentences: what was trained, and what the differences to the baseline say."""

from collections.abc import Iterable, Sequence

from ctkd.results.compare.statistics import LEVEL
from ctkd.results.compare.sweep_table import SweepCell

NAMED = 3  # networks, data sets or cells that a sentence names


def about(cells: Sequence[SweepCell]) -> list[str]:
    """Networks, data set, epochs, the teacher's accuracy and the seeds; nothing without files."""
    records = [record for cell in cells for record in cell.records.values()]
    if not records:
        return []
    pairs = (f"{run.teacher} → {run.student}" if run.teacher else run.student for run in records)
    taught = {run.student for run in records if run.teacher}
    named = [pair for pair in dict.fromkeys(pairs) if pair not in taught]
    found = [
        _listed(named, "pairs of networks"),
        _listed([r.dataset for r in records], "data sets"),
    ]
    epochs = sorted({run.epochs for cell in cells for run in cell.runs})
    found.append(_range(epochs, "epoch", "epochs"))
    measured = [(run, run.result(f"teacher_{run.measure}")) for run in records]
    values = sorted({run.shown.write(value) for run, value in measured if value is not None})
    if values:
        found.append(f"teacher's {records[0].shown.noun} {_listed(values, 'values')}")
    seeds = sorted({run.seed for cell in cells for run in cell.runs})
    found.append(f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}")
    return found


def _listed(texts: Iterable[str], noun: str) -> str:
    """The different texts, or their number if there are many."""
    different = list(dict.fromkeys(texts))
    return ", ".join(different) if len(different) <= NAMED else f"{len(different)} {noun}"


def _range(numbers: Sequence[int], one: str, many: str) -> str:
    ends = f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"
    return f"{ends} {one if numbers[-1] == 1 else many}"


def verdict(cells: Sequence[SweepCell]) -> str:
    """One or two sentences about the differences to the baseline."""
    if not any(cell.finished for cell in cells):
        return "No run is finished yet."
    if not any(cell.baseline for cell in cells):
        return "Sweep.baseline is not set, so the table has no differences."
    compared = [cell for cell in cells if cell.against and cell.against.difference is not None]
    if not compared:
        return "No cell has a finished run with a seed of its baseline yet, so nothing is compared."
    judged = [cell for cell in compared if cell.against and cell.against.interval]
    if not judged:
        return "The cells share too few seeds with their baseline for an interval: add seeds."
    return _of_one(judged[0]) if len(judged) == 1 else _of_several(judged)


def _of_one(cell: SweepCell) -> str:
    against = cell.against
    assert against is not None
    assert against.interval is not None
    low, high = (_signed(end, cell) for end in against.interval)
    found = (
        f"{_change(cell)} against {cell.baseline}, 95 % interval {low} to {high}, "
        f"{against.n} shared seeds."
    )
    if against.excludes_zero:
        return f"{found} The interval excludes 0: {cell.name} is {_better(cell)}."
    found += " The interval contains 0: these runs do not tell the two apart."
    if against.seeds_needed:
        found += (
            f" The test would find a difference of this size with {against.seeds_needed:,} seeds."
        )
    return found


def _of_several(cells: Sequence[SweepCell]) -> str:
    clear = [cell for cell in cells if cell.against and cell.against.excludes_zero]
    chance = LEVEL * len(cells)
    found = f"{len(clear)} of {len(cells)} cells have a 95 % interval that excludes 0"
    if clear:
        ordered = sorted(clear, key=lambda cell: -abs(cell.against.difference or 0))  # type: ignore[union-attr]
        found += ": " + "; ".join(f"{_change(cell)} ({_better(cell)})" for cell in ordered[:NAMED])
        found += "; …" if len(clear) > NAMED else ""
    return f"{found}. Chance alone gives {chance:.1f} of {len(cells)} on average."


def _change(cell: SweepCell) -> str:
    """The name of a cell with its difference."""
    assert cell.against is not None
    value = _signed(cell.against.difference or 0.0, cell)
    return f"{cell.name}: {value} {cell.shown.difference}"


def _signed(value: float, cell: SweepCell) -> str:
    """A number with its sign, a minus sign instead of a hyphen."""
    return f"{value:+.{cell.shown.digits}f}".replace("-", "−")


def _better(cell: SweepCell) -> str:
    assert cell.against is not None
    rises = (cell.against.difference or 0) > 0
    return "better" if rises != cell.shown.lower_is_better else "worse"
