"""The figure of the landscape by kind of row: T* of each group, and the policy's T, by epoch."""

from typing import TYPE_CHECKING, Any

from ctkd.results.figures import style
from ctkd.results.figures.draw_landscape import headline_of
from ctkd.results.figures.draw_star import HOLLOW, SHAPES
from ctkd.results.read.grid_ends import bound_of
from ctkd.results.read.runs import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
LABELS = {"t_star": r"$T^\ast$", "temperature": "Mean $T$ of the policy"}
OUTSIDE = "Hollow marker: $T^\\ast$ is an end of the grid or lies outside"
MARKERS = "osD^v<>PXhp*"


def has_kinds(record: RunRecord) -> bool:
    """Whether the run recorded its landscape by kind of row."""
    return any(row.get("kinds") for row in record.landscape)


def draw_kinds(record: RunRecord) -> "Figure":
    """A column for each kind with a line for each group; a second row for a T of each row."""
    rows = [row for row in record.landscape if row.get("kinds")]
    kinds = list(rows[-1]["kinds"])
    per_row = any(row.get("quantiles") for row in rows)
    shown = ("t_star", "temperature") if per_row else ("t_star",)
    figure = style.new_figure(height=0.6 + 2.6 * len(shown), width=1.0 + 2.2 * len(kinds))
    panels = figure.subplots(len(shown), len(kinds), squeeze=False, sharex=True)
    for line, key in enumerate(shown):
        values = _values(rows, key)
        for column, kind in enumerate(kinds):
            axes = panels[line][column]
            _draw_groups(axes, rows, kind, key)
            style.dress(axes, "Epoch" if key == shown[-1] else "", "" if column else LABELS[key])
            style.epoch_axis(axes, 0, max(row["epoch"] for row in rows))
            style.temperature_axis(axes, values)
            if line == 0:
                style.legend(axes, rows=6)
                axes.set_title(kind.capitalize(), fontsize=style.NORMAL, loc="left", pad=62)
    style.headline(figure, headline_of(record))
    grid = rows[0]["temperatures"]
    if any(bound_of(value, grid) for value in _values(rows, "t_star")):
        figure.supxlabel(OUTSIDE, fontsize=style.SMALL, x=0.01, ha="left")
    return figure


def _draw_groups(axes: "Axes", rows: list[Row], kind: str, key: str) -> None:
    names = dict.fromkeys(name for row in rows for name in row["kinds"].get(kind, {}))
    for number, name in enumerate(names):
        color, linestyle = style.CYCLE[number % len(style.CYCLE)]
        points = [
            (row["epoch"], row["kinds"][kind][name][key])
            for row in rows
            if name in row["kinds"].get(kind, {})
        ]
        look = {"color": color, "linestyle": linestyle, "marker": MARKERS[number % len(MARKERS)]}
        style.line(axes, [x for x, _ in points], [y for _, y in points], name, **look)
        for x, y in points if key == "t_star" else ():
            if bound := bound_of(y, rows[0]["temperatures"]):  # T* lies outside the grid
                axes.plot(x, y, **{**HOLLOW, "color": color, "marker": SHAPES[bound]})


def _values(rows: list[Row], key: str) -> list[float]:
    groups = [group for row in rows for kind in row["kinds"].values() for group in kind.values()]
    return [group[key] for group in groups]
