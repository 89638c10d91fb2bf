"""Output for the user: a live view on a terminal, one plain line per epoch in a log."""

import contextlib
import datetime
import math
import textwrap
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from ctkd.engine.config.trial import comparable_claim, remark
from ctkd.engine.output.epoch_line import as_text, epoch_line, speed_text
from ctkd.engine.output.live_view import LiveView
from ctkd.results.read.grid_ends import bound_text
from ctkd.standard_output import output_fault

if TYPE_CHECKING:
    from torch import Tensor

    from ctkd.engine.config.run import Run
    from ctkd.engine.metrics import Meter
    from ctkd.engine.output.workdir import Workdir
    from ctkd.engine.progress import Progress
    from ctkd.engine.task import Task

__all__ = ["Console", "as_text"]

HIDDEN = ("finished", "name", "primary", "lower_is_better", "t_star_is", "teacher_fingerprint")
TITLES = {
    "t_star": "T*, the T of the largest loss",
    "temperature": "T",
    "images_per_s": "images per second",
    "tokens_per_s": "tokens per second",
    "seconds": "time",
    "teacher_claimed": "teacher, published",
}
REFRESH = 0.5  # seconds between two reads of the device's accumulators
FILES = {  # of a work directory, by importance: the first one is opened first
    "landscape.png": "the loss over all temperatures, with T and T*",
    "curves.png": "accuracy, losses, schedules and temperature by epoch",
    "rows.png": "the temperatures of single rows",
    "summary.json": "the result, for programs",
    "metrics.jsonl": "the numbers of every epoch",
    "student_last.pt": "the student's weights after the last epoch",
    "student_best.pt": "the student's weights of the best test epoch",
    "config.gin": "all settings; repeats the run as a --gin_file",
}


class Console:
    """Prints to standard output; warns on standard error or above an open live view."""

    def __init__(
        self,
        prefix: str = "",
        quiet: bool = False,
        live: bool = True,
        file: IO[str] | None = None,
    ) -> None:
        """`prefix` starts every line: it names the training if that is not the run itself.

        A `quiet` console prints nothing; all ranks except rank 0 have one. Without `live` there is
        no live view. Everything goes to `file` if there is one.
        """
        options: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False}
        self._out = RichConsole(file=file, quiet=quiet, **options)
        self._errors = RichConsole(file=file, stderr=file is None, quiet=quiet, **options)
        self._prefix, self._is_live = prefix, live and not quiet and self._out.is_terminal
        self._view: LiveView | None = None
        self._looked = 0.0
        self._said: set[str] = set()
        self._grid = (0.0, math.inf)  # the temperatures of the instrument

    def say(self, text: str) -> None:
        """Prints one line without a delay: users read a log during the run."""
        self._print(self._out, self._prefix + text)
        if (fault := output_fault()) is not None:
            reason = fault.strerror
            self.warn(f"standard output cannot be written ({reason}); the run continues without it")

    def warn(self, text: str) -> None:
        """Prints one line on standard error; the same line only once."""
        if text not in self._said:
            self._said.add(text)
            console = self._out if self._view is not None else self._errors
            self._print(console, f"{self._prefix}warning: {text}", style="yellow")

    def _print(self, console: RichConsole, text: str, style: str | None = None) -> None:
        """Prints, which flushes. A terminal breaks long lines between words; a log keeps them."""
        if console.is_terminal:
            look = {"break_long_words": False, "break_on_hyphens": False}
            text = textwrap.fill(text, console.width, subsequent_indent="    ", **look)  # type: ignore[arg-type]
        console.print(text, style=style)

    @contextlib.contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Shows on a terminal that a slow part of the run without a live view goes on."""
        if not self._is_live or self._view is not None:
            yield
            return
        with self._out.status(f"{self._prefix}{text}"):
            yield

    def between_steps(self, text: str, *, logged: bool = False) -> None:
        """Shows in the live view what the run does until the next step, such as an evaluation.

        A log has a line for it if it is `logged`.
        """
        if self._view is not None:
            self._view.phase(text)
        elif logged:
            self.say(text)

    @contextlib.contextmanager
    def live(self, run: "Run", task: "Task") -> Iterator[None]:
        """A context with a view of two bars and the newest numbers, on a terminal."""
        self._grid = run.instrument.low, run.instrument.high
        self._metric, self._unit = task.monitor, task.unit
        if not self._is_live:
            yield
            return
        name = self._prefix.strip(" |") or run.name
        with LiveView(self._out, name, task, run.recipe.epochs) as view:
            self._view, task.watch = view, view.count
            try:
                yield
            finally:
                self._view = task.watch = None

    def step(
        self, progress: "Progress", meter: "Meter", rate: float, lambda_: "Tensor | None"
    ) -> None:
        """Shows some of the steps on the live view: each update waits for the device."""
        if self._view is None or time.monotonic() - self._looked < REFRESH:
            return
        self._looked = time.monotonic()
        measured, seconds, best = meter.read(), progress.train_seconds, progress.best
        losses = sorted(meter.losses, key=lambda name: name != "loss")
        first, *terms = [f"{name} {measured[name]:.3f}" for name in losses] or [""]
        numbers = [first]
        if "temperature" in measured:
            numbers.append(f"T {measured['temperature']:.2f}")
        if lambda_ is not None:
            numbers.append(f"λ {lambda_.item():.3f}")
        numbers += [f"lr {rate:.2g}", *terms]
        run_numbers = []
        if "best" in best:
            value = as_text(self._metric, best["best"])
            run_numbers.append(f"best {value} (epoch {best['best_epoch']:.0f})")
        if seconds:
            run_numbers.append(f"{speed_text(progress.timed_images / seconds)} {self._unit}/s")
        self._view.step(progress.steps, run_numbers, numbers)

    def teacher(self, run: "Run", metrics: dict[str, float]) -> None:
        """The teacher's measured accuracy, and the published one except in a trial."""
        if metrics:
            name, value = next(iter(metrics.items()))
            published = comparable_claim(run)
            claim = "" if published is None else f" (published {published:.2f})"
            self.say(f"teacher: {name.removeprefix('teacher_')} {as_text(name, value)}{claim}")

    def epoch(self, record: dict[str, Any], epochs: int, task: "Task") -> None:
        """Prints an epoch's line: all numbers in a log, those that fit on a terminal."""
        width = self._out.width - len(self._prefix) if self._out.is_terminal else math.inf
        self.say(epoch_line(record, epochs, task, self._grid, width))

    def summary(self, summary: dict[str, Any], workdir: "Workdir") -> None:
        """Prints a table of a finished run, its most useful files, and the file to open first."""
        label = str(summary["name"])
        heading = label if label == self._prefix.strip(" |") else self._prefix + label
        table = Table(title=heading, show_header=False, title_justify="left")
        for name, value in summary.items():
            if value is not None and name not in HIDDEN:
                title = TITLES.get(name, name.replace("_", " "))
                table.add_row(title, Text(_of_summary(name, value, summary), justify="right"))
        self._out.print(table)
        found = [name for name in FILES if (workdir.path / name).is_file()]
        if not self._prefix:  # a teacher and the runs of a group have the same files
            self.say(f"files in {workdir.path}:")
            for name in found:
                self.say(f"  {name:<15}  {FILES[name]}")
        if found:
            self.say(f"open first: {workdir.path / found[0]}")
        if (text := remark(summary)) is not None:
            self.say(text)


def _of_summary(name: str, value: Any, summary: dict[str, Any]) -> str:
    """A value of the summary's table as text."""
    if not isinstance(value, float):
        return str(value)
    if name == "t_star":
        return bound_text(value, summary.get("t_star_is"))
    if name == "seconds":
        return str(datetime.timedelta(seconds=round(value)))
    if name == "regret":
        return f"{100 * value:.2f} %"
    return speed_text(value) if name.endswith("_per_s") else as_text(name, value)
