"""Results of runs, read from their work directories: tables, paired statistics and figures."""

from typing import TYPE_CHECKING

from ctkd.lazy import lazy_names

if TYPE_CHECKING:
    from ctkd.results.compare.methods import Standings, compare
    from ctkd.results.compare.published import Published, lookup
    from ctkd.results.compare.statistics import Comparison, mean_std, paired_difference
    from ctkd.results.compare.tables import Column, Table
    from ctkd.results.figures.draw_differences import draw_differences
    from ctkd.results.figures.save import draw_curves, draw_landscape, draw_rows, save_figures
    from ctkd.results.read.runs import RunRecord, find_runs, read_run
    from ctkd.results.read.summaries import read_summaries

__all__ = [
    "Column",
    "Comparison",
    "Published",
    "RunRecord",
    "Standings",
    "Table",
    "compare",
    "draw_curves",
    "draw_differences",
    "draw_landscape",
    "draw_rows",
    "find_runs",
    "lookup",
    "mean_std",
    "paired_difference",
    "read_run",
    "read_summaries",
    "save_figures",
]
_ORIGINS = {
    "compare.methods": ("Standings", "compare"),
    "figures.save": ("draw_curves", "draw_landscape", "draw_rows", "save_figures"),
    "figures.draw_differences": ("draw_differences",),
    "compare.published": ("Published", "lookup"),
    "read.runs": ("RunRecord", "find_runs", "read_run"),
    "compare.statistics": ("Comparison", "mean_std", "paired_difference"),
    "read.summaries": ("read_summaries",),
    "compare.tables": ("Column", "Table"),
}
__getattr__ = lazy_names(
    __name__, {name: f"{__name__}.{module}" for module, names in _ORIGINS.items() for name in names}
)
