"""The figure of a sweep's learning curves: the accuracy of each cell by epoch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctkd.results.compare.rows import Row
from ctkd.results.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = 12  # cells in the legend; all cells are drawn


def draw_learning(cells: Sequence[Row]) -> "Figure | None":
    """A line for each cell, the mean over its seeds, and a band from the lowest to the highest.

    An epoch counts if all seeds of the cell with files have reached it. The gid of a line is
    "data-cell=" with the index of its cell. None without an evaluated epoch.
    """
    import numpy as np

    figure = style.new_figure(height=3.4 if len(cells) > 4 else 3.0, width=4.8)
    axes = figure.subplots()
    last = 0.0
    for index, cell in enumerate(cells):
        curves = [dict(zip(*r.series(r.primary), strict=True)) for r in cell.records.values()]
        curves = [curve for curve in curves if curve]
        shared = sorted(set.intersection(*map(set, curves))) if curves else []
        if not shared:
            continue
        values = np.array([[curve[epoch] for epoch in shared] for curve in curves])
        color, linestyle = style.CYCLE[index % len(style.CYCLE)]
        label = cell.name if index < NAMED else ""
        gid = f"data-cell={index}"
        if len(curves) > 1:
            look = {"color": color, "alpha": 0.15, "linewidth": 0, "gid": gid}
            style.band(axes, shared, values.min(axis=0), values.max(axis=0), "", **look)
        look = {"color": color, "linestyle": linestyle, "gid": gid}
        style.line(axes, shared, values.mean(axis=0), label, marker="o", **look)
        last = max(last, shared[-1])
    if not last:
        return None
    style.dress(axes, "Epoch", next(cell.shown.axis for cell in cells if cell.records))
    style.epoch_axis(axes, 0, last)
    style.legend(axes, rows=-(-min(len(cells), NAMED) // 3))
    return figure
