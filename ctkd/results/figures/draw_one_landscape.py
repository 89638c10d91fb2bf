"""The figure of one landscape: L(T) and its slope, with T*, for two given networks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctkd.results.figures import style
from ctkd.results.read.grid_ends import edge_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_one_landscape(
    temperatures: Sequence[float], losses: Sequence[float], slopes: Sequence[float], t_star: float
) -> "Figure":
    """L(T) above, dL/dT below, over T on a logarithmic axis; T* is where the slope is 0."""
    figure = style.new_figure(3.6, width=4.2)
    above, below = figure.subplots(2, 1, sharex=True)
    label = f"T* {edge_text(t_star, temperatures)}"
    panels = ((above, losses, "Loss L(T)", style.BLUE), (below, slopes, "dL/dT", style.GREEN))
    for axes, values, name, color in panels:
        style.dress(axes, "Temperature T" if axes is below else "", name)
        axes.plot(temperatures, values, color=color, linewidth=style.LINE)
        axes.axvline(t_star, color=style.VERMILLION, linewidth=style.THIN, linestyle=style.DASHED)
    below.axhline(0.0, color=style.GRAY, linewidth=style.THIN)
    below.set_xscale("log")
    style.plain_log_ticks(below.xaxis)
    style.headline(figure, f"The loss of these networks is largest at {label}")
    return figure
