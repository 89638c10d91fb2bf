"""The live view on a terminal: a bar for the run, a bar for the epoch, the newest numbers."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

if TYPE_CHECKING:
    from ctkd.engine.task import Task

WIDE = 110  # columns of a terminal with room for long bars
NAME = 24  # characters of a run's name
TIMES = 17  # columns of the percentage, the remaining time and the spaces between the columns


class LiveView:
    """Two bars at the bottom of the terminal, open inside the `with` block.

    Numbers that do not fit are left out; the least important ones come last.
    """

    def __init__(self, console: RichConsole, name: str, task: "Task", epochs: int) -> None:
        """`name` labels the bar of the run."""
        bar = 30 if console.width >= WIDE else 12
        name = name if len(name) <= NAME else f"{name[: NAME - 1]}…"
        label = max(len(name), len(f"epoch {epochs}"))
        self._room = console.width - label - bar - TIMES
        self._per_epoch = task.steps_per_epoch
        self._bars = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=label)),
            BarColumn(bar_width=bar),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True, ratio=1)),
            console=console,
            transient=True,
            expand=True,
        )
        total = epochs * self._per_epoch
        self._run = self._bars.add_task(name, total=total, numbers="")
        self._label, self._phase = "epoch 1", ""
        self._second = self._bars.add_task(self._label, total=self._per_epoch, numbers="")

    def __enter__(self) -> "LiveView":
        self._bars.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def step(self, steps: int, of_run: Iterable[str], of_epoch: Iterable[str]) -> None:
        """Shows that `steps` steps are done, with numbers of the run and of the epoch."""
        epoch, done = divmod(steps - 1, self._per_epoch)
        self._bars.update(self._run, completed=steps, numbers=self._fit(of_run))
        if self._phase or self._label != f"epoch {epoch + 1}":
            self._label, self._phase = f"epoch {epoch + 1}", ""
            self._begin_second(self._per_epoch)
        self._bars.update(self._second, completed=done + 1, numbers=self._fit(of_epoch))

    def phase(self, text: str) -> None:
        """Shows what the run does between two steps: a bar that moves, until `count` is called."""
        self._phase = text
        self._begin_second(None)

    def count(self, done: int, total: int) -> None:
        """Shows that `done` of the `total` batches of a phase are done."""
        if done == 1:  # of another split or network, perhaps with as many batches
            self._begin_second(total)
        numbers = self._fit([self._phase, f"{done:,} of {total:,} batches"])
        self._bars.update(self._second, completed=done, numbers=numbers)

    def _begin_second(self, total: int | None) -> None:
        """Replaces the second bar: a new bar measures its own remaining time."""
        self._bars.remove_task(self._second)
        self._second = self._bars.add_task(self._label, total=total, numbers=self._phase)

    def _fit(self, numbers: Iterable[str]) -> str:
        """The first numbers that fit into the line."""
        line = ""
        for number in numbers:
            longer = f"{line}  {number}" if line else number
            if len(longer) > self._room:
                break
            line = longer
        return line
