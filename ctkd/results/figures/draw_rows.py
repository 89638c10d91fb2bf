"""The figure of a policy with one temperature per row: T by group of rows and by difficulty."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from ctkd.errors import DataError
from ctkd.results.figures import style
from ctkd.results.figures.draw_landscape import headline_of
from ctkd.results.read.runs import RunRecord

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

COLORS = (style.SKY, style.VERMILLION, style.GREEN, style.PURPLE)
BINS = 8  # with equal numbers of rows
CLASSES = 6  # the most frequent classes, each with a box
WHISKERS = (5, 95)  # percent
MEASURES = {"student_ce": "Student's cross-entropy", "teacher_confidence": "Teacher's confidence"}
SURE = 1e-6  # of 1 − confidence: rows.csv has six digits


def draw_rows(record: RunRecord) -> "Figure":
    """Three panels with the rows of the last probe: T by group and class, by CE, by confidence.

    A dot is a row. The line is the median of T in bins with equal numbers of rows. ρ is Spearman's
    rank correlation over all rows.

    Raises:
        DataError: the run recorded no rows, because its policy has one T for all rows.
    """
    if not record.rows:
        raise DataError(
            f"{record.path}: no rows to draw; only a policy with one T per row has them"
        )
    figure = style.new_figure(height=3.2)
    by_group, *by_difficulty = figure.subplots(1, 3, sharey=True)
    _draw_groups(by_group, record.rows)
    for axes, (name, label) in zip(by_difficulty, MEASURES.items(), strict=True):
        rho = rank_correlation(record.rows[name], record.rows["temperature"])
        _draw_difficulty(axes, record.rows, name)
        known = rf"Spearman's $\rho$ = {rho:+.2f}".replace("-", "−") if rho == rho else ""
        style.dress(axes, f"{label}\n{known}", "")
    style.temperature_axis(by_group, record.rows["temperature"])
    style.legend(by_difficulty[0])
    style.headline(figure, headline_of(record))
    return figure


def rank_correlation(x: "Floats", y: "Floats") -> float:
    """Spearman's ρ; nan if `x` or `y` is constant."""
    from scipy.stats import spearmanr

    if min(x) == max(x) or min(y) == max(y):
        return float("nan")
    return float(spearmanr(x, y).statistic)


def _draw_groups(axes: "Axes", rows: dict[str, Any]) -> None:
    """Boxes from the lower to the upper quartile, whiskers to 5 and 95 % of the rows."""
    groups = list(dict.fromkeys(sorted(rows["group"].tolist())))
    drawn = [(group, rows["group"] == group, COLORS[k % 4]) for k, group in enumerate(groups)]
    targets = Counter(rows["target"].tolist())
    for _, chosen, _ in drawn:  # a group of one class (the background) would be shown twice
        own = set(rows["target"][chosen].tolist())
        if len(own) == 1:
            targets.pop(own.pop())
    for target, _ in targets.most_common(CLASSES):
        drawn.append((target, rows["target"] == target, style.GRAY))
    boxes = axes.boxplot(
        [rows["temperature"][chosen] for _, chosen, _ in drawn],
        whis=WHISKERS,
        showfliers=False,
        patch_artist=True,
        widths=0.6,
        medianprops={"color": style.BLACK},
    )
    for patch, (_, _, color) in zip(boxes["boxes"], drawn, strict=True):
        patch.set(facecolor=color, alpha=0.6, linewidth=style.THIN)
    style.dress(axes, "Group or class (number of rows)", "Temperature $T$")
    axes.set_title("Box: middle 50 % of rows\nWhiskers: 5–95 %", fontsize=style.SMALL, loc="left")
    labels = [f"{name} ({int(chosen.sum())})" for name, chosen, _ in drawn]
    axes.set_xticks(range(1, len(drawn) + 1), labels, rotation=40, ha="right")


def _draw_difficulty(axes: "Axes", rows: dict[str, Any], name: str) -> None:
    import numpy as np

    x, t = rows[name], rows["temperature"]
    if name == "teacher_confidence":  # most are close to 1: a logarithmic axis of 1 − confidence
        x = np.maximum(1 - x, SURE)
    for number, group in enumerate(dict.fromkeys(sorted(rows["group"].tolist()))):
        chosen = rows["group"] == group
        dots: dict[str, Any] = {"linestyle": "none", "marker": ".", "markersize": 3.0, "alpha": 0.5}
        axes.plot(x[chosen], t[chosen], color=COLORS[number % 4], label=_capital(group), **dots)
    order = np.argsort(x, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    middle = [(np.median(x[part]), np.median(t[part])) for part in parts]
    look: dict[str, Any] = {"color": style.BLACK, "marker": "o", "markersize": 3.0}
    axes.plot(*zip(*middle, strict=True), linewidth=style.LINE, label="Median of a bin", **look)
    if name == "teacher_confidence":
        _confidence_axis(axes, x)
    elif x.min() > 0 and x.max() > 100 * x.min():
        axes.set_xscale("log")
        style.few_log_ticks(axes.xaxis)


def _confidence_axis(axes: "Axes", distances: "Floats") -> None:
    """An axis of confidence, with ticks at 0.9, 0.99, and so on; `distances` are 1 − confidence."""
    margin = (distances.max() / distances.min()) ** 0.04 * 1.01
    low, high = distances.min() / margin, distances.max() * margin
    axes.set_xscale("log")
    axes.set_xlim(high, low)
    axes.minorticks_off()
    ticks = [tick for tick in (0.5, *(10.0**-power for power in range(1, 7))) if low < tick < high]
    axes.set_xticks(ticks, [f"{1 - tick:.6g}" for tick in ticks], rotation=40, ha="right")


def _capital(name: str) -> str:
    """The name with a capital letter."""
    return name[:1].upper() + name[1:]
