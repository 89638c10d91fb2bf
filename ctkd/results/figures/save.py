"""A run's figures on disk, as PNG and as PDF with text that stays text."""

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ctkd.files import replacing
from ctkd.results.figures.draw_curves import draw_curves
from ctkd.results.figures.draw_landscape import draw_landscape
from ctkd.results.figures.draw_rows import draw_rows
from ctkd.results.read.runs import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "draw_landscape", "draw_rows", "save_figure", "save_figures"]

DPI = 200
_TRUETYPE = threading.Lock()


def save_figures(record: RunRecord, folder: str | os.PathLike[str]) -> list[Path]:
    """Writes curves.{png,pdf}, and landscape.{png,pdf} and rows.{png,pdf} of what was recorded.

    A run that has not finished its first epoch has no curves yet. Each file is replaced as a
    whole, so that a viewer never meets half of one.
    """
    written = []
    if record.landscape:
        written += save_figure(draw_landscape(record), folder, "landscape")
    if record.rows:
        written += save_figure(draw_rows(record), folder, "rows")
    if record.metrics:
        written += save_figure(draw_curves(record), folder, "curves")
    return written


def save_figure(figure: "Figure", folder: str | os.PathLike[str], stem: str) -> list[Path]:
    """Writes `stem`.png and `stem`.pdf into `folder`, which is made if need be."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    written = []
    for kind in ("png", "pdf"):
        target = Path(folder) / f"{stem}.{kind}"
        with replacing(target) as part:
            _render(figure, part, kind)
        written.append(target)
    return written


def _render(figure: "Figure", path: Path, kind: str) -> None:
    """Saves with fonts as TrueType (42): publishers refuse the Type 3 that is the default."""
    import matplotlib

    # The font type can only be told through a global setting; no other of the user's is touched.
    with _TRUETYPE:
        before = matplotlib.rcParams["pdf.fonttype"]
        matplotlib.rcParams["pdf.fonttype"] = 42
        try:
            metadata = {"CreationDate": None} if kind == "pdf" else None  # same run, same bytes
            figure.savefig(path, format=kind, dpi=DPI, metadata=metadata)
        finally:
            matplotlib.rcParams["pdf.fonttype"] = before
