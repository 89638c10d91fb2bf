"""The figures of a sweep: accuracy along each axis, and the temperatures of each cell."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ctkd.results.compare.rows import Row
from ctkd.results.compare.statistics import MeanStd
from ctkd.results.compare.tables import Column
from ctkd.results.figures import style
from ctkd.results.figures.draw_landscape import (
    bounds_of,
    draw_losses,
    draw_policy,
    limit_epochs,
)
from ctkd.results.figures.draw_star import draw_star
from ctkd.results.read.runs import RunRecord, pick

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 10  # ratio of the largest to the smallest number that makes an axis logarithmic
NAMED = 12  # series in a legend; more would fill the figure
SHIFT = 0.08  # distance of cells with the same text on an axis
LONG = 40  # total letters of an axis's texts from which on they are rotated
LIST = 10  # number of an axis's texts from which on they are listed from top to bottom
LINE_HEIGHT = 0.19  # height of a listed text, in inches
EVALUATIONS = 90  # drawn epochs of a landscape; more are not visible in a figure of this size
COLORS = (style.BLUE, style.VERMILLION, style.GREEN, style.ORANGE, style.PURPLE, style.SKY)


def draw_axis(axis: str, cells: Sequence[Row]) -> "Figure | None":
    """Accuracy of the last epoch, mean ± std, against the values of one axis of a sweep.

    The other axes make the series. A cell without a value on the axis is a dashed line. The gid of
    a point is "data-cell=" with the index of its cell. Many texts are listed from top to bottom,
    and the accuracy then runs from left to right. None if there is nothing to compare.
    """
    values = list(dict.fromkeys(cell.labels[axis] for cell in cells if axis in cell.labels))
    accuracies = [(index, cell, cell.accuracy("last")) for index, cell in enumerate(cells)]
    shown = [(index, cell, spread) for index, cell, spread in accuracies if spread]
    if len(values) < 2 or not any(axis in cell.labels for _, cell, _ in shown):
        return None
    listed = len(values) > LIST and not _numeric(values)
    height = 0.8 + LINE_HEIGHT * len(values) if listed else 2.5
    axes = (figure := style.new_figure(height=height, width=4.2)).subplots()
    numeric, ticks = (False, _list(axes, values)) if listed else _ticks(axes, values)
    series: dict[str, list[tuple[float, int, MeanStd]]] = {}
    for value, tick in ticks.items():
        same = [point for point in shown if point[1].labels.get(axis) == value]
        for rank, (index, cell, spread) in enumerate(same):
            rest = [f"{k.rpartition('.')[2]}={v}" for k, v in cell.labels.items() if k != axis]
            shift = 0.0 if numeric else SHIFT * (rank - (len(same) - 1) / 2)
            series.setdefault(", ".join(rest), []).append((tick + shift, index, spread))
    for number, (name, points) in enumerate(series.items()):
        _draw_series(axes, points, number, name, numeric, listed)
    levels = [(cell.name, spread.mean) for _, cell, spread in shown if axis not in cell.labels]
    for number, (name, mean) in enumerate(levels, len(series)):
        look = {"color": COLORS[number % len(COLORS)], "linestyle": style.DASHED, "linewidth": 1.0}
        (axes.axvline if listed else axes.axhline)(
            mean, label=name if number < NAMED else "", **look
        )
    titles = axis, axis_label(shown[0][1])
    style.dress(axes, *(reversed(titles) if listed else titles))
    style.legend(axes, rows=2)
    return figure


def _numeric(values: Sequence[str]) -> bool:
    """Whether all values are numbers."""
    try:
        return all(float(value) == float(value) for value in values)
    except ValueError:
        return False


def _list(axes: "Axes", values: Sequence[str]) -> dict[str, float]:
    """Writes the values below one another, the first on top; the position of each."""
    ticks = {value: float(index) for index, value in enumerate(values)}
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_yticks(list(ticks.values()), list(ticks))
    return ticks


def _ticks(axes: "Axes", values: Sequence[str]) -> tuple[bool, dict[str, float]]:
    """Whether all values are numbers, and the position of each value on the axis, ascending.

    The position of a number is its value. The axis is logarithmic for positive, distant numbers.
    """
    numeric = _numeric(values)
    if numeric:
        ticks = {value: float(value) for value in sorted(values, key=float)}
    else:
        ticks = {value: float(index) for index, value in enumerate(values)}
    low, *_, high = ticks.values()
    if not numeric:
        axes.set_xlim(low - 0.5, high + 0.5)
    elif 0 < low <= high / WIDE:
        axes.set_xscale("log")
        axes.minorticks_off()
    turned: dict[str, Any] = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"}
    look = turned if sum(map(len, ticks)) > LONG else {}
    axes.set_xticks(list(ticks.values()), list(ticks), **look)
    return numeric, ticks


def _draw_series(
    axes: "Axes",
    points: list[tuple[float, int, MeanStd]],
    number: int,
    name: str,
    line: bool,
    listed: bool,
) -> None:
    """A point with its error bar for each cell, and a line through the points."""
    color = COLORS[number % len(COLORS)]
    if line:
        axes.plot(
            [x for x, *_ in points], [spread.mean for *_, spread in points], color=color, alpha=0.6
        )
    look: dict[str, Any] = {"fmt": "o", "markersize": 4.0, "linewidth": style.LINE, "color": color}
    for x, index, spread in points:
        std = spread.std or 0.0
        if listed:
            bar = axes.errorbar(spread.mean, x, xerr=std, **look)
        else:
            bar = axes.errorbar(x, spread.mean, yerr=std, **look)
        for artist in bar.get_children():
            artist.set_gid(f"data-cell={index}")
    if name and number < NAMED:
        bar.set_label(name)


def axis_label(cell: Row) -> str:
    """The label of the axis of results."""
    lower = cell.shown.lower_is_better
    return f"Test {cell.shown.noun}, last epoch ({'lower is better' if lower else '%'})"


def accuracy_text(cell: Row) -> str:
    """The name of a cell, its accuracy if a run is finished, and the number of finished runs."""
    spread = cell.accuracy("last")
    text = Column("last", "spread", cell.shown.digits).write(spread)
    unit = f" {cell.shown.unit}".rstrip()
    return f"{cell.name}: {text}{unit}, n = {spread.n}" if spread else cell.name


def draw_temperatures(cell: Row, limits: Iterable[float] = ()) -> "Figure | None":
    """T of every seed by epoch, and the landscape of the first seed; None without temperatures.

    The axis also shows the temperatures `limits`, so that figures share one axis.
    """
    records = [record for record in cell.records.values() if record.landscape]
    if not records:
        return None
    figure = style.new_figure(height=2.5, width=6.0)
    seeds, field = figure.subplots(1, 2, sharey=True)
    _draw_seeds(seeds, records)
    rows = _thinned(records[0].landscape)
    draw_policy(field, rows)
    draw_losses(field, rows)
    style.dress(field, f"Epoch, seed {records[0].seed}", "")
    field.grid(False)
    limit_epochs(field, rows)
    style.temperature_axis(seeds, [*limits, *temperatures(cell)])
    style.legend(field, rows=3)
    style.headline(figure, accuracy_text(cell))
    return figure


def _draw_seeds(axes: "Axes", records: Sequence[RunRecord]) -> None:
    """T of every seed, and T* of the first one."""
    for record in records:
        label = "$T$ of each seed" if record is records[0] else ""
        look: dict[str, Any] = {"color": style.VERMILLION, "alpha": 0.75, "linewidth": 1.0}
        style.line(axes, *pick(record.landscape, "temperature"), label, **look)
    draw_star(axes, records[0].landscape, explained=False, marker="", linewidth=0.8)
    for bound in bounds_of(records[0].landscape):
        style.level(axes, bound, "", linestyle=style.DOTTED)
    style.dress(axes, "Epoch", "Temperature $T$")
    last = [row["epoch"] for record in records for row in record.landscape]
    style.epoch_axis(axes, 0, max(last))
    style.legend(axes)


def temperatures(cell: Row) -> list[float]:
    """All temperatures of a cell: T, T* and the bounds."""
    found = [bounds_of(record.landscape) for record in cell.records.values()]
    for record in cell.records.values():
        found += [tuple(pick(record.landscape, key)[1]) for key in ("temperature", "t_star")]
    return [float(value) for values in found for value in values]


def _thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """About `EVALUATIONS` rows at equal distances, with the first and the last."""
    return [*rows[: -1 : max(1, len(rows) // EVALUATIONS)], rows[-1]]
