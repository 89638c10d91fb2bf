"""The table of a sweep's cells: live on a terminal, one line per change in a log."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from ctkd.results.read.measures import measure
from ctkd.sweeps.cell_states import LOST, State, Status
from ctkd.sweeps.slurm import ClusterError

if TYPE_CHECKING:
    from rich.console import RenderableType

PATIENCE = 600.0  # seconds for which a cluster that has answered once may be silent
AGAIN = 10.0  # seconds between two calls of a silent cluster
SHORTEST = 16  # characters that a cell's name has at least
LAST = 14  # of the last column: its title
Answer = TypeVar("Answer")
COLORS = {
    "finished": "green",
    "running": "cyan",
    "queued": "blue",
    "failed": "bold red",
    "killed": "red",
    "stopped": "yellow",
    "cancelled": "yellow",
    "not sent": "dim",
    "unknown": "yellow",
}
URGENCY: tuple[State, ...] = (
    "failed",
    "killed",
    "stopped",
    "unknown",
    "running",
    "queued",
    "cancelled",
    "not sent",
    "finished",
)


def status_table(found: Sequence[Status], width: int | None = None) -> RichTable:
    """Cell, state, epoch (of the teacher while it trains), accuracy, T, time left, node.

    A table that is wider than `width` has shortened names of cells, and wrapped reasons.
    """
    shown = [measure(status.measure) for status in found] or [measure("test_top1")]
    lower = any(each.lower_is_better for each in shown)
    titles = ["cell", "state", "epoch", shown[0].noun if lower else "test %", "T", "left"]
    rows = [_row(status, shown[0].digits) for status in found]
    widths = [max(map(len, texts)) for texts in zip(titles, *rows, strict=True)]
    others = sum(widths[1:]) + LAST + 3 * len(widths)
    longest = max(SHORTEST, width - others) if width is not None else widths[0]
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, title in enumerate(titles):
        table.add_column(title, justify="right" if index > 1 else "left", no_wrap=True)
    table.add_column("node or reason", min_width=LAST)
    for status, row in zip(found, rows, strict=True):
        name, state, *numbers = row
        cells = Text(_shortened(name, longest)), Text(state, style=COLORS[status.state])
        table.add_row(*cells, *numbers, Text(status.node))
    return table


def _row(status: Status, digits: int) -> list[str]:
    """The texts of a row, without the node."""
    again = f" (sent again: {status.again})" if status.again else ""
    return [
        status.cell.key,
        status.shown + again,
        status.teacher_epochs or f"{status.epoch}/{status.cell.epochs}",
        _number(status.accuracy, digits),
        _number(status.temperature),
        "" if status.seconds_left is None else duration(status.seconds_left),
    ]


def _shortened(name: str, longest: int) -> str:
    """The name with at most `longest` characters: its end has the seed, so its middle is cut."""
    if len(name) <= longest:
        return name
    kept = longest - 1
    return f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}"


def view(
    found: Sequence[Status], rows: int | None = None, width: int | None = None
) -> "RenderableType":
    """The table, the errors and the counts; with `rows`, the most important cells.

    `width` is the width of the terminal; None for a table as wide as its texts.
    """
    shown = list(found)
    if rows is not None and len(shown) > rows:
        urgent = sorted(range(len(found)), key=lambda i: URGENCY.index(found[i].state))
        shown = [found[i] for i in sorted(urgent[:rows])]
    parts: list[RenderableType] = [status_table(shown, width)]
    if len(shown) < len(found):
        parts.append(Text(f"… and {len(found) - len(shown)} more", style="dim"))
    parts += [Text(line) for line in complaints(found)]
    parts.append(Text(counts(found), style="bold"))
    return Group(*parts)


def complaints(found: Sequence[Status]) -> list[str]:
    """The failed cells: the first line of each error, and the log."""
    lines = []
    for status in found:
        if status.error and status.state in ("failed", "unknown", *LOST):
            first = status.error.splitlines()[0]
            log = f" — {status.log}" if status.log else ""
            lines.append(f"{status.cell.key}: {status.state}: {first}{log}")
    return lines


def counts(found: Sequence[Status]) -> str:
    """The number of cells in each state."""
    ordered = sorted(found, key=lambda status: -URGENCY.index(status.state))
    parts = Counter(status.shown for status in ordered)
    return f"{len(found)} runs: {', '.join(f'{count} {shown}' for shown, count in parts.items())}"


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes = int(seconds) // 60
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d}"
    return f"{minutes}:{int(seconds) % 60:02d}"


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def new_console() -> Console:
    """A console as wide as the terminal, or in a log as wide as the tables."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, width=240, soft_wrap=True)


def follow(
    look: Callable[[], list[Status]],
    slowest: float = 1.0,
    console: Console | None = None,
    end: Callable[[Sequence[Status]], bool] | None = None,
) -> list[Status]:
    """Checks repeatedly until no cell waits or runs; shows a live table, or the changes.

    It checks once a second at first; while nothing changes the pause grows to `slowest` seconds. A
    cluster that has answered once may be silent for a while (`PATIENCE`).

    Args:
        end: sends cells again, and decides whether all have ended.
    """
    console = console or new_console()
    ended = end or (lambda found: not any(status.active for status in found))
    found, pause = look(), min(slowest, 1.0)
    with _shown(console) as show:
        while True:
            show(found)
            if _patiently(partial(ended, found), console):
                return found
            time.sleep(pause)
            before, found = found, _patiently(look, console)
            pause = min(slowest, pause * 1.3 if _alike(before, found) else 1.0)


def _alike(one: Sequence[Status], other: Sequence[Status]) -> bool:
    """Whether nothing has changed between two checks."""
    before, now = ([(s.shown, s.epoch, s.teacher_epochs) for s in found] for found in (one, other))
    return before == now


def _patiently(ask: Callable[[], Answer], console: Console) -> Answer:
    """The result of a call that is repeated while the cluster does not answer.

    Raises ClusterError if the cluster is silent for too long.
    """
    end, silent = time.monotonic() + PATIENCE, False
    while True:
        try:
            return ask()
        except ClusterError as error:
            if time.monotonic() >= end:
                raise
            if not silent:
                console.print(f"{error}; asking again", markup=False)
            silent = True
        time.sleep(AGAIN)


@contextlib.contextmanager
def _shown(console: Console) -> Iterator[Callable[[Sequence[Status]], None]]:
    """Shows statuses: a live table on a terminal, otherwise one line per change."""
    if not console.is_terminal:
        before: dict[str, str] = {}

        def print_changes(found: Sequence[Status]) -> None:
            for status in found:
                if before.get(status.cell.key) != status.shown:
                    before[status.cell.key] = status.shown
                    console.print(_line(status), markup=False)

        yield print_changes
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        yield lambda found: live.update(
            view(found, max(5, console.height - 12), console.width), refresh=True
        )


def _line(status: Status) -> str:
    parts = [f"{status.cell.key}: {status.shown}"]
    if status.state == "finished" and status.accuracy is not None:
        parts.append(measure(status.measure).write(status.accuracy))
    if status.error:
        parts.append(status.error.splitlines()[0])
    if status.error and status.log:
        parts.append(str(status.log))
    return "  ".join(parts)
