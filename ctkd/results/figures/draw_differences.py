"""The figure of a comparison: every method's difference to the baseline, with its interval."""

from typing import TYPE_CHECKING, Any

from ctkd.errors import ConfigError
from ctkd.results.compare.methods import Standings
from ctkd.results.compare.standings import shown_text
from ctkd.results.compare.statistics import Comparison, Interval
from ctkd.results.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.21  # inches per method
SEED = 0.16  # distance of the dots above the interval, in rows
FEW = 2  # two seeds: their interval has 13 standard errors to each side, too wide to set the scale


def draw_differences(result: Standings) -> "Figure":
    """A panel for each pair of networks, a row for each method, the best difference on top.

    A row has the mean of the paired differences, its 95 % t interval, and each seed's difference
    as a dot. An interval without zero has another color and marker. The interval of two
    seeds may be wider than the panel: an arrow marks the cut. One seed has no interval.

    Raises:
        ConfigError: the comparison has no baseline, or no method shares a seed with it.
    """
    if result.baseline is None:
        raise ConfigError("no differences to draw: no baseline was given")
    pairs: dict[str, list[tuple[float, str, Comparison]]] = {}
    for row in result.standings:
        if row.against is not None and row.against.difference is not None:
            drawn = row.against.difference, row.method, row.against
            pairs.setdefault(row.pair, []).append(drawn)
    if not pairs:
        raise ConfigError(
            f"no differences to draw: no method shares a seed with the baseline {result.baseline}"
        )
    sizes = [len(rows) for rows in pairs.values()]
    figure = style.new_figure(height=ROW * sum(sizes) + 0.75 * len(sizes) + 0.2)
    panels = figure.subplots(len(sizes), 1, sharex=True, squeeze=False, height_ratios=sizes)[:, 0]
    limits = _limits([against for rows in pairs.values() for *_, against in rows])
    panels[0].set_xlim(limits)
    lower = result.measure.lower_is_better
    for axes, (pair, rows) in zip(panels, pairs.items(), strict=True):
        _draw_pair(axes, sorted(rows, key=lambda row: row[:2], reverse=lower), limits)
        style.dress(axes, "", "")
        axes.grid(False, axis="y")
        axes.set_title(pair, fontsize=style.NORMAL, loc="left")
    panels[-1].set_xlabel(
        difference_label(result),
        fontsize=style.NORMAL,
    )
    style.legend(panels[0], rows=1, handles=_handles())
    panels[0].get_legend().set_loc("lower right")
    panels[0].get_legend().set_bbox_to_anchor((1.0, 1.0), transform=panels[0].transAxes)
    return figure


def difference_label(result: Standings) -> str:
    """The label of the axis."""
    if result.measure.lower_is_better:
        return f"Difference to {result.baseline} of {shown_text(result)} (below 0 is better)"
    return f"Difference to {result.baseline} in points of {shown_text(result)}"


def _limits(compared: list[Comparison]) -> Interval:
    """The range of all values to show, with zero and a margin."""
    values = [0.0]
    for each in compared:
        values += each.differences
        if each.interval is not None and each.n > FEW:
            values += each.interval
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 1.0
    return low - margin, high + margin


def _draw_pair(axes: "Axes", rows: list[tuple[float, str, Comparison]], limits: Interval) -> None:
    axes.axvline(0.0, color=style.BLACK, linewidth=style.THIN)
    for y, (difference, _, against) in enumerate(rows):
        settled = against.excludes_zero
        look: dict[str, Any] = {"color": style.VERMILLION if settled else style.BLUE}
        if against.interval is not None:
            low, high = against.interval
            shown = max(low, limits[0]), min(high, limits[1])
            axes.plot(shown, [y] * 2, linewidth=style.LINE, **look)
            for end, cut, arrow in zip(shown, (low < shown[0], high > shown[1]), "<>", strict=True):
                if cut:
                    axes.plot(end, y, marker=arrow, markersize=4.0, clip_on=False, **look)
        axes.plot(difference, y, marker="D" if settled else "o", markersize=4.5, **look)
        seeds: dict[str, Any] = {"marker": ".", "markersize": 3.5, "linestyle": "none"}
        axes.plot(against.differences, [y + SEED] * against.n, color=style.GRAY, **seeds)
    axes.set_yticks(range(len(rows)), [f"{method} ({against.n})" for _, method, against in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"linewidth": style.LINE, "markersize": 4.5}
    return [
        Line2D([], [], marker="o", color=style.BLUE, label="Mean, 95 % interval", **look),
        Line2D(
            [], [], marker="D", color=style.VERMILLION, label="95 % interval excludes 0", **look
        ),
        Line2D([], [], marker=".", color=style.GRAY, label="A seed", linestyle="none"),
    ]
