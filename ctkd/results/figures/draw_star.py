"""T* in a figure: a dashed line, with hollow markers where T* is only a bound."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ctkd.results.figures import style
from ctkd.results.read.grid_ends import bound_of
from ctkd.results.read.runs import pick

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAR_LOOK: dict[str, Any] = {"color": style.BLACK, "linestyle": style.DASHED, "linewidth": 1.0}
STAR_LOOK |= {"marker": "^"}
STAR_LABEL = r"$T^{*} = \mathrm{argmax}\ L(T)$"
HOLLOW: dict[str, Any] = {"linestyle": "none", "color": style.BLACK, "markeredgewidth": 0.9}
HOLLOW |= {"markerfacecolor": "white", "markersize": 5.0}
SHAPES = {"at least": "^", "at most": "v"}
RELATIONS = {"at least": r"\geq", "at most": r"\leq"}


def draw_star(
    axes: "Axes",
    rows: Sequence[dict[str, Any]],
    label: str = STAR_LABEL,
    explained: bool = True,
    **look: Any,
) -> None:
    """T* of rows of a landscape, by epoch.

    A hollow marker is a bound: the loss still rises at the end of the grid, so T* lies outside. The
    legend contains hollow markers if they are `explained`.
    """
    style.line(axes, *pick(rows, "t_star"), label, **{**STAR_LOOK, **look})
    bounds = [bound_of(row["t_star"], row["temperatures"]) for row in rows]
    for bound, relation in RELATIONS.items():
        ends = [row for row, found in zip(rows, bounds, strict=True) if found == bound]
        if ends:
            last = ends[-1]["t_star"]
            text = rf"$T^{{*}} {relation} {last:.3g}$ (end of grid)"
            order = {"zorder": look.get("zorder", 2) + 1, "clip_on": look.get("clip_on", True)}
            star = {"marker": SHAPES[bound], "label": text if explained else "", **HOLLOW, **order}
            axes.plot(*pick(ends, "t_star"), markevery=max(1, round(len(ends) / 14)), **star)
