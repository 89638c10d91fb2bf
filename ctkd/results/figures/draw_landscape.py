"""The figure of the game: the loss over all temperatures, and the policy's temperature."""

from typing import TYPE_CHECKING, Any

from ctkd.errors import DataError
from ctkd.results.figures import style
from ctkd.results.figures.draw_star import draw_star
from ctkd.results.read.runs import RunRecord, pick

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CONTRAST = 2.0
DARKEST = 0.5  # of L / max L: smaller values have the same color
BANDS = ((0, 4, 0.28, "5–95 % of rows"), (1, 3, 0.4, "25–75 % of rows"))  # of five quantiles


def draw_landscape(record: RunRecord) -> "Figure":
    """Epoch × temperature, with L(T) / max L of the probe as color, the policy's T, and T*.

    T* is the temperature with the largest loss, the adversary's goal. For a policy with one T per
    row, bands show the middle 50 % and 90 % of its temperatures on the probe. If the first epochs
    were recorded step by step, a panel on the left shows every step of the temperature.

    Raises:
        DataError: the run recorded no landscape (it has no teacher, or has not evaluated yet).
    """
    if not record.landscape:
        raise DataError(f"{record.path}: no landscape to draw; a run without a teacher has none")
    figure = style.new_figure(height=3.1)
    if len(record.trace.get("step", ())):
        plunge, axes = figure.subplots(1, 2, sharey=True, width_ratios=(1, 2.3))
        _draw_plunge(plunge, record)
        style.dress(axes, "Epoch", "")
        axes.tick_params(which="both", left=False)
    else:
        axes = figure.subplots()
        style.dress(axes, "Epoch", "Temperature $T$")
    axes.grid(False)
    draw_policy(axes, record.landscape)
    mesh = draw_losses(axes, record.landscape)
    _mark_lambda(axes, record)
    _limit(axes, record)
    saturates = mesh.get_array().min() < mesh.norm.vmin
    bar = figure.colorbar(
        mesh, ax=axes, pad=0.015, aspect=28, extend="min" if saturates else "neither"
    )
    bar.set_label(r"$L(T)\,/\,\mathrm{max}\,L$, per epoch", fontsize=style.NORMAL)
    bar.set_ticks([value for value in (0.5, 0.7, 0.8, 0.9, 0.95, 1.0) if value >= mesh.norm.vmin])
    bar.ax.tick_params(labelsize=style.SMALL, width=style.THIN, length=2.5)
    bar.outline.set_linewidth(style.THIN)
    style.legend(axes)
    style.headline(figure, headline_of(record))
    return figure


def normalized_losses(rows: list[dict[str, Any]]) -> tuple["Floats", "Floats", "Floats"]:
    """Epochs [E], temperatures [T], and the losses [E, T], each epoch divided by its maximum.

    A row on another grid than the first row's is interpolated in log T. The value is nan if a loss
    is missing, or if no loss of its epoch is positive.
    """
    import numpy as np

    grid = np.array(rows[0]["temperatures"], dtype=np.float64)
    table = np.full((len(rows), len(grid)), np.nan)
    for index, row in enumerate(rows):
        losses = np.array(row["losses"], dtype=np.float64)  # null becomes nan
        losses[~np.isfinite(losses)] = np.nan
        points = np.array(row["temperatures"], dtype=np.float64)
        if len(points) != len(grid) or not np.array_equal(points, grid):
            losses = np.interp(np.log(grid), np.log(points), losses, left=np.nan, right=np.nan)
        if np.any(losses > 0):
            table[index] = losses / np.nanmax(losses)
    return np.array([row["epoch"] for row in rows], dtype=np.float64), grid, table


def draw_losses(axes: "Axes", rows: list[dict[str, Any]]) -> Any:
    """The colored field, and the temperatures between which the regret is below 1 %.

    The loss is interpolated between temperatures, not between epochs: each evaluated epoch extends
    half-way to its neighbors, so that the steps show the measured epochs.
    """
    import numpy as np
    from matplotlib.colors import PowerNorm

    epochs, grid, table = normalized_losses(rows)
    coarse, fine = np.log(grid), np.linspace(np.log(grid[0]), np.log(grid[-1]), 321)
    field = np.array([np.interp(fine, coarse, losses) for losses in table])
    values = np.ma.masked_invalid(field.T)
    floor = float(values.min()) if values.count() else 0.0
    good = np.where(field >= 0.99, np.exp(fine), np.nan)
    measured = np.isfinite(good).any(axis=1)
    for index, extreme in enumerate((np.nanmin, np.nanmax)):
        look: dict[str, Any] = {"label": None if index else "1 % regret", "zorder": 2}
        look |= {"color": style.BLACK, "linewidth": 0.5, "marker": "_", "markersize": 3.0}
        look["markevery"] = 1 if len(epochs) == 1 else []
        axes.plot(epochs[measured], extreme(good[measured], axis=1), **look)
    return axes.pcolormesh(
        borders_of(epochs),
        np.exp(edges(fine)),
        values,
        cmap="cividis",
        # Above T* the loss is a plateau, slightly lower: most colors are for values near 1.
        norm=PowerNorm(CONTRAST, vmin=max(DARKEST, floor) if floor < 1 else DARKEST, vmax=1.0),
        zorder=0,
        rasterized=True,  # thousands of cells: as vectors they have seams and need much space
    )


def edges(centers: "Floats") -> "Floats":
    """The borders of cells around ascending `centers`: half-way between, one more than cells."""
    import numpy as np

    if len(centers) == 1:
        return np.array([centers[0] - 0.5, centers[0] + 0.5])
    middles = (centers[1:] + centers[:-1]) / 2
    first, last = 2 * centers[0] - middles[0], 2 * centers[-1] - middles[-1]
    return np.concatenate([[first], middles, [last]])


def borders_of(epochs: "Floats") -> "Floats":
    """The borders of the epochs' cells; the outer cells extend by half an epoch."""
    import numpy as np

    return np.clip(edges(epochs), epochs[0] - 0.5, epochs[-1] + 0.5)


def draw_policy(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    """The policy's temperature at each evaluation with its spread and bounds, and T* over it."""
    temperatures = pick(rows, "temperature")
    axes.plot(
        *temperatures, color="white", linewidth=3.2, alpha=0.7, zorder=3
    )  # contrast to the field
    thick: dict[str, Any] = {"color": style.VERMILLION, "linewidth": 2.0, "markersize": 4.5}
    style.line(axes, *temperatures, "Policy's $T$", marker="o", clip_on=False, zorder=4, **thick)
    # Thin and dashed above the policy's thick line: both are visible where the two agree.
    draw_star(axes, rows, clip_on=False, zorder=5)
    quantiles = quantiles_of(rows)
    if quantiles is not None:
        edge: dict[str, Any] = {"edgecolor": style.VERMILLION, "linewidth": 0.6}
        for low, high, alpha, label in BANDS:
            epochs, values = quantiles
            look = {"facecolor": "white", "alpha": alpha, **edge}
            style.band(axes, epochs, values[low], values[high], label, **look)
    for index, bound in enumerate(bounds_of(rows)):
        style.level(axes, bound, "", color="white", alpha=0.5)  # black dots are invisible on blue
        label = "" if index else "Bounds of $T$"
        style.level(axes, bound, label, linestyle=style.DOTTED)


def quantiles_of(rows: list[dict[str, Any]]) -> tuple["Floats", "Floats"] | None:
    """Epochs [E] and quantiles [5, E] of a per-row policy's temperatures; None for a global T."""
    import numpy as np

    known = [row for row in rows if row.get("quantiles")]
    if not known:
        return None
    epochs = np.array([row["epoch"] for row in known], dtype=np.float64)
    return epochs, np.array([row["quantiles"] for row in known], dtype=np.float64).T


def bounds_of(rows: list[dict[str, Any]]) -> tuple[float, ...]:
    """The lower and upper bound of the policy's temperature, or () without bounds."""
    return next((tuple(map(float, row["bounds"])) for row in rows if row.get("bounds")), ())


def _draw_plunge(axes: "Axes", record: RunRecord) -> None:
    """The temperature at every step of the first epochs, against T* at their evaluations."""
    trace = record.trace
    end = float(trace["epoch"].max())
    spread = bool((trace["high"] > trace["low"]).any())
    if spread:
        look = {"color": style.VERMILLION, "alpha": 0.2, "linewidth": 0}
        style.band(axes, trace["epoch"], trace["low"], trace["high"], "Range of rows", **look)
    marker = "o" if len(trace["step"]) == 1 else ""
    steps, temperatures = trace["epoch"], trace["temperature"]
    style.line(axes, steps, temperatures, "$T$", color=style.VERMILLION, marker=marker)
    before = sum(row["epoch"] < end for row in record.landscape)
    shown = record.landscape[: before + 1]  # the line ends at the first evaluation after `end`
    draw_star(axes, shown, "$T^{*}$", explained=False)
    style.dress(axes, "Epoch (every step)", "Temperature $T$")
    style.epoch_axis(axes, 0.0, end)
    style.legend(axes, rows=2 if spread else 1)


def _mark_lambda(axes: "Axes", record: RunRecord) -> None:
    """A thin vertical line at the epoch at which λ reaches its maximum, if λ changes."""
    epochs, strengths = record.series("lambda")
    if not len(strengths) or strengths.max() <= strengths.min():
        return
    full = float(epochs[strengths.argmax()])
    if full > record.landscape[-1]["epoch"]:
        return
    from matplotlib.patheffects import Normal, Stroke

    axes.axvline(full, color="white", linewidth=style.THIN, linestyle=(0, (2, 2)))
    axes.annotate(
        rf"$\lambda={strengths.max():.3g}$",
        (full, 0.06),
        xycoords=("data", "axes fraction"),
        xytext=(3, 0),
        textcoords="offset points",
        color="white",
        fontsize=style.SMALL,
        path_effects=[Stroke(linewidth=1.2, foreground="#333333"), Normal()],
    )


def _limit(axes: "Axes", record: RunRecord) -> None:
    """Limits with the whole field, the policy's temperatures, and its bounds."""
    rows = record.landscape
    values = [*bounds_of(rows), *pick(rows, "temperature")[1], *pick(rows, "t_star")[1]]
    values += [row["temperatures"][side] for row in rows for side in (0, -1)]
    values += [value for row in rows for value in row.get("quantiles") or ()]
    style.temperature_axis(axes, values)
    limit_epochs(axes, rows)


def limit_epochs(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    """An epoch axis with the whole field."""
    borders = borders_of(pick(rows, "epoch")[0])
    style.epoch_axis(axes, borders[0], borders[-1])
    axes.set_xlim(borders[0], borders[-1])  # no margin: the field is wider than the lines


def headline_of(record: RunRecord) -> str:
    """Method, networks and seed in one line."""
    pair = f"{record.teacher} → {record.student}" if record.teacher else record.student
    seed = "" if record.seed is None else f", seed {record.seed}"
    return f"{record.name}: {pair}{seed}"
