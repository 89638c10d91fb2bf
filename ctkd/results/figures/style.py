"""The style of all figures: a paper's full width, safe for color-blind readers, readable in gray.

The style is set on the artists of each figure, not in matplotlib's global state, which belongs to
the user.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ctkd.results.read.work_files import is_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 7.0  # inches: two columns of most proceedings
SMALL, NORMAL = 7.0, 8.0  # points
THIN, LINE = 0.7, 1.4

# Okabe and Ito's palette; lines also differ in style.
BLACK, GRAY = "#000000", "#777777"
ORANGE, SKY, GREEN, BLUE = "#E69F00", "#56B4E9", "#009E73", "#0072B2"
VERMILLION, PURPLE = "#D55E00", "#CC79A7"
DASHED: Any = (0, (4, 1.5))
DOTTED: Any = (0, (1, 2))
CYCLE: tuple[tuple[str, Any], ...] = (
    (BLUE, (0, (5, 1.5))),
    (VERMILLION, (0, (1.2, 1.2))),
    (GREEN, (0, (5, 1.5, 1.2, 1.5))),
    (ORANGE, (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2))),
    (PURPLE, (0, (8, 2))),
    (SKY, "-"),
)


def new_figure(height: float, width: float = WIDTH) -> "Figure":
    """An empty figure outside pyplot. Saving it chooses the backend."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.03, hspace=0.04))


def dress(axes: "Axes", x: str, y: str) -> None:
    """Labels, fonts and frame of one panel."""
    axes.set_xlabel(x, fontsize=NORMAL)
    axes.set_ylabel(y, fontsize=NORMAL)
    axes.tick_params(which="both", labelsize=SMALL, width=THIN, length=2.5)
    axes.grid(True, color="#E3E3E3", linewidth=0.5)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_linewidth(THIN)
        spine.set_visible(side in ("left", "bottom"))


def headline(figure: "Figure", text: str) -> None:
    """One line over all panels."""
    figure.suptitle(text, fontsize=NORMAL, fontweight="bold", x=0.01, ha="left")


def legend(axes: "Axes", rows: int = 2, handles: list[Any] | None = None) -> None:
    """A legend above the panel, where it cannot hide data."""
    shown = axes.get_legend_handles_labels()[0] if handles is None else handles
    if shown:
        spacing = {"borderaxespad": 0.1, "columnspacing": 1.0, "labelspacing": 0.3}
        spacing |= {"handlelength": 2.2, "handletextpad": 0.6}
        look: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), **spacing}
        columns = -(-len(shown) // rows)
        axes.legend(handles=shown, ncols=columns, fontsize=SMALL, frameon=False, **look)


def line(axes: "Axes", x: Any, y: Any, label: str, **look: Any) -> None:
    """One curve with about a dozen markers; nothing if there are no values."""
    if len(x):
        standard = {"linewidth": LINE, "markersize": 3.2, "markeredgewidth": 0.0}
        standard["markevery"] = max(1, round(len(x) / 14))
        axes.plot(x, y, label=label, **{**standard, **look})


def band(axes: "Axes", x: Any, low: Any, high: Any, label: str, **look: Any) -> None:
    """The area between two curves; for a single epoch, which has no width, a narrow bar."""
    if len(x) == 1:
        x = [x[0] - 0.03, x[0] + 0.03]
        low, high = [low[0]] * 2, [high[0]] * 2
    axes.fill_between(x, low, high, label=label, **look)


def level(axes: "Axes", value: float, label: str, **look: Any) -> None:
    """A thin line across the panel; an empty label leaves it out of the legend."""
    axes.axhline(value, label=label or None, **{"color": BLACK, "linewidth": THIN, **look})


def epoch_axis(axes: "Axes", first: float, last: float) -> None:
    """Whole epochs from `first` to `last`; a single epoch is in the middle."""
    from matplotlib.ticker import MaxNLocator

    margin = 0.02 * (last - first) if last > first else 1.0
    axes.set_xlim(first - margin, last + margin)
    locator = MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    axes.xaxis.set_major_locator(locator)


def temperature_axis(axes: "Axes", values: Iterable[Any]) -> None:
    """A logarithmic axis with all `values`, and a margin in which a value at a bound is visible."""
    positive = [value for value in values if is_number(value) and value > 0] or [1.0]
    low, high = min(positive), max(positive)
    # The limits of an almost constant temperature would show only its last digits.
    low, high = min(low, high / 1.5), max(high, low * 1.5)
    margin = (high / low) ** 0.03
    axes.set_yscale("log")
    axes.set_ylim(low / margin, high * margin)
    plain_log_ticks(axes.yaxis)


def plain_log_ticks(axis: "Axis") -> None:
    """Ticks of a logarithmic axis at 1, 2, 5 (denser on a short axis), without exponents."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    dense, normal, sparse = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0,)
    subs = dense if high < 5 * low else normal if high < 1000 * low else sparse
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def few_log_ticks(axis: "Axis") -> None:
    """At most five ticks of a logarithmic axis, at powers of ten, each with its label."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(numticks=6))
    axis.set_minor_locator(NullLocator())
