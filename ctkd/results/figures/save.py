"""Figures as files: PNG, and PDF in which text can be selected; SVG for a page."""

import io
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ctkd.files import replacing
from ctkd.results.figures.draw_curves import draw_curves
from ctkd.results.figures.draw_kinds import draw_kinds, has_kinds
from ctkd.results.figures.draw_landscape import draw_landscape
from ctkd.results.figures.draw_rows import draw_rows
from ctkd.results.read.runs import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "draw_landscape", "draw_rows", "save_figure", "save_figures", "svg_text"]

DPI = 200
_SETTINGS = threading.Lock()


def save_figures(record: RunRecord, folder: str | os.PathLike[str]) -> list[Path]:
    """Writes landscape, rows, kinds and curves (.png and .pdf), each if the run recorded its data.

    A run that has not finished its first epoch has no curves yet. Each file is replaced as a
    whole, so that a viewer never opens a partial file.
    """
    written = []
    if record.landscape:
        written += save_figure(draw_landscape(record), folder, "landscape")
    if record.rows:
        written += save_figure(draw_rows(record), folder, "rows")
    if has_kinds(record):
        written += save_figure(draw_kinds(record), folder, "kinds")
    if record.metrics:
        written += save_figure(draw_curves(record), folder, "curves")
    return written


def save_figure(figure: "Figure", folder: str | os.PathLike[str], stem: str) -> list[Path]:
    """Writes `stem`.png and `stem`.pdf into `folder`, which is created if it is missing."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    written = []
    for kind in ("png", "pdf"):
        target = Path(folder) / f"{stem}.{kind}"
        with replacing(target) as part:
            _render(figure, part, kind)
        written.append(target)
    return written


def svg_text(figure: "Figure", name: str) -> str:
    """The figure as an <svg> element for a page.

    `name` makes the identifiers of the element differ from those of other figures on the page.
    Groups have no identifiers, except an artist whose gid is "data-KEY=VALUE": its group has this
    attribute.
    """
    stream = io.StringIO()
    _render(figure, stream, "svg", **{"svg.fonttype": "none", "svg.hashsalt": name})
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", stream.getvalue(), flags=re.DOTALL)
    text = re.sub(r'<g id="(data-\w+)=(\w+)"', r'<g \1="\2"', text[text.index("<svg") :])
    return re.sub(r'<g id="[^"]*"', "<g", text)


def _render(figure: "Figure", target: Path | TextIO, kind: str, **settings: str) -> None:
    """Saves with TrueType fonts (42): publishers refuse Type 3, which is the default."""
    import matplotlib

    # Fonts have only global settings, which are restored afterwards.
    fonts: dict[Any, Any] = {"pdf.fonttype": 42, **settings}
    with _SETTINGS, matplotlib.rc_context(fonts):
        metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
        figure.savefig(target, format=kind, dpi=DPI, metadata=metadata)  # same run, same bytes
