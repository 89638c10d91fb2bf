"""The figures of a sweep: accuracy along each axis, and the temperatures of each cell."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ctkd.results.compare.rows import Row
from ctkd.results.compare.tables import Column
from ctkd.results.figures import style
from ctkd.results.figures.draw_landscape import (
    STAR_LABEL,
    STAR_LOOK,
    borders_of,
    bounds_of,
    draw_losses,
    draw_policy,
)
from ctkd.results.read.runs import RunRecord, pick

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 10  # ratio of the largest to the smallest number that makes an axis logarithmic
NAMED = 12  # series in a legend; more would fill the figure
SHIFT = 0.08  # distance of cells with the same text on an axis
LONG = 40  # letters of all texts of an axis, from which on they are rotated
EVALUATIONS = 90  # drawn of a landscape; more are not visible in a figure of this size
COLORS = (style.BLUE, style.VERMILLION, style.GREEN, style.ORANGE, style.PURPLE, style.SKY)
SPREAD = Column("last", "spread")


def draw_axis(axis: str, cells: Sequence[Row]) -> "Figure | None":
    """Accuracy of the last epoch, mean ± std, against the values of one axis of a sweep.

    The other axes make the series. A cell without a value on the axis is a dashed line. The gid of
    a point is "data-cell=" with the index of its cell. None if there is nothing to compare.
    """
    values = list(dict.fromkeys(cell.labels[axis] for cell in cells if axis in cell.labels))
    shown = [(index, cell) for index, cell in enumerate(cells) if cell.accuracy("last")]
    if len(values) < 2 or not any(axis in cell.labels for _, cell in shown):
        return None
    series: dict[str, list[tuple[int, Row]]] = {}
    for index, cell in shown:
        if axis in cell.labels:
            others = ", ".join(
                f"{name.rpartition('.')[2]}={text}"
                for name, text in cell.labels.items()
                if name != axis
            )
            series.setdefault(others, []).append((index, cell))
    figure = style.new_figure(height=2.5, width=4.2)
    axes = figure.subplots()
    ticks, numeric = _ticks(values)
    positions = {}
    for value, tick in ticks.items():  # cells with the same text are drawn next to each other
        same = [index for index, cell in shown if cell.labels.get(axis) == value]
        for rank, index in enumerate(same):
            positions[index] = tick + (0 if numeric else SHIFT * (rank - (len(same) - 1) / 2))
    for number, (others, members) in enumerate(series.items()):
        points = [(positions[index], index, cell) for index, cell in members]
        _draw_series(axes, sorted(points, key=lambda point: point[0]), number, others, numeric)
    levels = [cell for _, cell in shown if axis not in cell.labels]
    for number, cell in enumerate(levels, len(series)):
        look = {"color": COLORS[number % len(COLORS)], "linestyle": style.DASHED, "linewidth": 1.0}
        style.level(axes, _mean(cell), cell.name if number < NAMED else "", **look)
    style.dress(axes, axis, "Test accuracy, last epoch (%)")
    _value_axis(axes, ticks, numeric)
    style.legend(axes, rows=2)
    return figure


def _ticks(values: Sequence[str]) -> tuple[dict[str, float], bool]:
    """The position of each value on an axis, and whether it is the value as a number."""
    try:
        return {value: float(value) for value in values}, True
    except ValueError:
        return {value: float(index) for index, value in enumerate(values)}, False


def _draw_series(
    axes: "Axes", points: list[tuple[float, int, Row]], number: int, name: str, line: bool
) -> None:
    """One series: a point with its error bar for each cell, and a line along an axis of numbers."""
    color = COLORS[number % len(COLORS)]
    if line:
        axes.plot([x for x, *_ in points], [_mean(c) for *_, c in points], color=color, alpha=0.6)
    for index, (x, cell_index, cell) in enumerate(points):
        spread = cell.accuracy("last")
        label = name if index == 0 and number < NAMED else None
        bar = axes.errorbar(
            x, _mean(cell), (spread and spread.std) or 0.0, fmt="o", markersize=4.0, color=color,
            linewidth=style.LINE, label=label or None,
        )  # fmt: skip
        for artist in bar.get_children():
            artist.set_gid(f"data-cell={cell_index}")


def _mean(cell: Row) -> float:
    spread = cell.accuracy("last")
    return spread.mean if spread else float("nan")


def _value_axis(axes: "Axes", ticks: dict[str, float], numeric: bool) -> None:
    """Ticks at the values of the axis; logarithmic if positive numbers differ by much."""
    low, high = min(ticks.values()), max(ticks.values())
    if numeric and low > 0 and high >= WIDE * low:
        axes.set_xscale("log")
        axes.minorticks_off()
    turned: dict[str, Any] = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(
        list(ticks.values()), list(ticks), **(turned if sum(map(len, ticks)) > LONG else {})
    )
    if not numeric:
        axes.set_xlim(low - 0.5, high + 0.5)


def draw_temperatures(cell: Row, limits: Iterable[float] = ()) -> "Figure | None":
    """T of every seed by epoch, and the landscape of the first seed; None without temperatures.

    `limits` are further temperatures that the axis must show, so that figures share one axis.
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
    borders = borders_of(pick(rows, "epoch")[0])
    style.dress(field, f"Epoch, seed {records[0].seed}", "")
    field.grid(False)
    style.epoch_axis(field, *borders[[0, -1]])
    field.set_xlim(*borders[[0, -1]])
    style.temperature_axis(seeds, [*limits, *temperatures(cell)])
    style.legend(field, rows=3)
    accuracy = f": {SPREAD.write(cell.accuracy('last'))} %" if cell.accuracy("last") else ""
    style.headline(figure, cell.name + accuracy)
    return figure


def _draw_seeds(axes: "Axes", records: Sequence[RunRecord]) -> None:
    """T of every seed, and T* of the first one."""
    for record in records:
        label = "$T$ of each seed" if record is records[0] else ""
        look: dict[str, Any] = {"color": style.VERMILLION, "alpha": 0.75, "linewidth": 1.0}
        style.line(axes, *pick(record.landscape, "temperature"), label, **look)
    star = STAR_LOOK | {"marker": "", "linewidth": 0.8}
    style.line(axes, *pick(records[0].landscape, "t_star"), STAR_LABEL, **star)
    for bound in bounds_of(records[0].landscape):
        style.level(axes, bound, "", linestyle=style.DOTTED)
    style.dress(axes, "Epoch", "Temperature $T$")
    last = [row["epoch"] for record in records for row in record.landscape]
    style.epoch_axis(axes, 0, max(last))
    style.legend(axes)


def temperatures(cell: Row) -> list[float]:
    """The extremes of the temperatures, of T* and of the bounds of a cell."""
    values = [
        *(bound for record in cell.records.values() for bound in bounds_of(record.landscape)),
        *(
            float(value)
            for record in cell.records.values()
            for key in ("temperature", "t_star")
            for value in pick(record.landscape, key)[1]
        ),
    ]
    return [min(values), max(values)] if values else []


def _thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `EVALUATIONS` rows at equal distances, with the first and the last."""
    if len(rows) <= EVALUATIONS:
        return rows
    step = (len(rows) - 1) / (EVALUATIONS - 1)
    return [rows[round(index * step)] for index in range(EVALUATIONS)]
