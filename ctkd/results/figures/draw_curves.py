"""The figure of a training: accuracy, losses, λ and learning rate, and temperature by epoch."""

from typing import TYPE_CHECKING, Any

from ctkd.results.figures import style
from ctkd.results.figures.draw_landscape import (
    BANDS,
    bounds_of,
    headline_of,
    quantiles_of,
)
from ctkd.results.figures.draw_star import draw_star
from ctkd.results.read.runs import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_curves(record: RunRecord) -> "Figure":
    """Panels over the epochs: 2 × 2 for a run with a temperature, otherwise 1 × 3."""
    tempered = len(record.series("temperature")[0]) > 0
    figure = style.new_figure(height=4.8 if tempered else 2.7)
    panels = figure.subplots(2, 2).flat if tempered else figure.subplots(1, 3).flat
    drawings = [_draw_accuracy, _draw_losses, _draw_schedules]
    if tempered:
        drawings.append(_draw_temperature)
    epochs = [row.epoch for row in record.metrics] or [1]
    for draw, axes in zip(drawings, panels, strict=True):
        draw(axes, record, 2 if tempered else 3)
        style.epoch_axis(axes, min(epochs), max(epochs))
    style.headline(figure, headline_of(record))
    return figure


def _draw_accuracy(axes: "Axes", record: RunRecord, rows: int) -> None:
    """Test (and validation) accuracy, its best epoch, and the teacher's accuracy as a level."""
    epochs, values = record.series(record.primary)
    style.line(axes, epochs, values, "Test", color=style.BLUE, marker="o")
    checked = record.primary.replace("test_", "validation_")
    if checked != record.primary:
        look = {"color": style.ORANGE, "linestyle": style.DASHED, "marker": "s"}
        style.line(axes, *record.series(checked), "Validation", **look)
    teacher = record.result(f"teacher_{record.measure}")
    if teacher is not None:
        label = f"Teacher {teacher:.{record.shown.digits}f}"
        style.level(axes, teacher, label, linestyle=(0, (6, 2)))
    if len(values):
        # the first of equal values, as in the summary
        best = int(values.argmin() if record.shown.lower_is_better else values.argmax())
        star: dict[str, Any] = {"marker": "*", "markersize": 8, "color": style.VERMILLION}
        star |= {"zorder": 5, "markeredgecolor": "white", "markeredgewidth": 0.6}
        label = f"Best {values[best]:.{record.shown.digits}f} (epoch {epochs[best]:.0f})"
        axes.plot(epochs[best], values[best], linestyle="none", label=label, **star)
    style.dress(axes, "Epoch", record.shown.axis)
    style.legend(axes, rows)


def _draw_losses(axes: "Axes", record: RunRecord, rows: int) -> None:
    """The training loss, its terms before weighting, and the test loss."""
    measured = dict.fromkeys(key for row in record.metrics for key in row.more)
    keys = [key for key in measured if key.startswith("train_")]
    groups = [key.removeprefix("share") for key in measured if key.startswith("share_")]
    terms = [key for key in keys if key != "train_loss" and not key.endswith(tuple(groups))]
    dots: dict[str, Any] = {"marker": "o", "markersize": 2.6}
    style.line(axes, *record.series("train_loss"), "Training", color=style.BLACK, **dots)
    for index, key in enumerate(terms if len(terms) > 1 else ()):  # one term is the loss itself
        color, linestyle = style.CYCLE[index % len(style.CYCLE)]
        name = key.removeprefix("train_")
        label = name.upper() if len(name) <= 4 else name.replace("_", " ").capitalize()
        style.line(axes, *record.series(key), label, color=color, linestyle=linestyle, **dots)
    style.line(axes, *record.series("test_loss"), "Test (CE)", color=style.GRAY, marker="s")
    values = [value for key in [*keys, "test_loss"] for value in record.series(key)[1]]
    # Terms can differ by orders of magnitude (DKD's TCKD and NCKD), so the axis is logarithmic.
    if values and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
        style.plain_log_ticks(axes.yaxis)
    style.dress(axes, "Epoch", "Loss (terms unweighted)" if len(terms) > 1 else "Loss")
    style.legend(axes, rows)


def _draw_schedules(axes: "Axes", record: RunRecord, rows: int) -> None:
    """The learning rate, and λ on a second axis if there is an adversary."""
    epochs, rates = record.series("lr")
    look: dict[str, Any] = {"color": style.BLUE, "linestyle": style.DASHED, "marker": "s"}
    style.line(axes, epochs, rates, "Learning rate", **look)
    if len(rates) and rates.min() > 0:
        axes.set_yscale("log")
        if rates.max() < 8 * rates.min():  # else no power of ten, so no tick label
            axes.set_ylim(rates.min() / 10, rates.max() * 2)
    style.dress(axes, "Epoch", "Learning rate")
    handles = list(axes.lines)
    strengths = record.series("lambda")
    if len(strengths[0]):
        right = axes.twinx()
        label = r"Reversal strength $\lambda$"
        style.line(right, *strengths, label, color=style.VERMILLION, marker="o")
        style.dress(right, "", r"Reversal strength $\lambda$")
        right.spines["right"].set_visible(True)
        right.grid(False)
        right.set_ylim(0, max(1.0, float(strengths[1].max())) * 1.08)
        handles += right.lines
    style.legend(axes, rows, handles)


def _draw_temperature(axes: "Axes", record: RunRecord, rows: int) -> None:
    """The temperature's mean over each epoch, its range, per-row quantiles, T* and the bounds."""
    epochs, low = record.series("temperature_low")
    also, high = record.series("temperature_high")
    color: dict[str, Any] = {"color": style.VERMILLION, "linewidth": 0}
    if len(epochs) == len(also) and (high > low).any():
        style.band(axes, epochs, low, high, "Range in the epoch", alpha=0.15, **color)
    # No epoch's mean includes the probe before training (epoch 0).
    quantiles = quantiles_of([row for row in record.landscape if row["epoch"] > 0])
    if quantiles is not None:
        for lower, upper, alpha, label in BANDS:
            values = quantiles[1][lower], quantiles[1][upper]
            style.band(axes, quantiles[0], *values, label, alpha=alpha, **color)
    means, stars = record.series("temperature"), record.series("t_star")
    look: dict[str, Any] = {"color": style.VERMILLION, "marker": "o", "linewidth": 2.0}
    style.line(axes, *means, "Mean $T$", markersize=4.0, **look)
    draw_star(axes, [row for row in record.landscape if row["epoch"] > 0])
    bounds = bounds_of(record.landscape)
    for index, bound in enumerate(bounds):
        label = "" if index else "Bounds of $T$"
        style.level(axes, bound, label, linestyle=style.DOTTED)
    style.dress(axes, "Epoch", "Temperature $T$")
    style.temperature_axis(axes, [*means[1], *stars[1], *low, *high, *bounds])
    style.legend(axes, rows if quantiles is None else rows + 1)
