"""Output for the user: a live view on a terminal, one plain line per epoch in a log."""

import contextlib
import math
import re
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from ctkd.results.read.grid_ends import bound_of, bound_text
from ctkd.standard_output import output_fault

if TYPE_CHECKING:
    from torch import Tensor

    from ctkd.engine.config.build import Run
    from ctkd.engine.metrics import Meter
    from ctkd.engine.output.workdir import Workdir
    from ctkd.engine.progress import Progress
    from ctkd.engine.task import Task

WAIT_SHOWN = 0.05  # share of the training time; a lower share is not shown
HIDDEN = ("finished", "name", "primary", "lower_is_better")  # of the summary's table
REFRESH = 0.5  # seconds between two reads of the device's accumulators
PERCENT = re.compile(r"(.*[_/])?(top\d+|a[pr]\d*|claimed|agreement)([_/].*)?")  # metrics in percent


def as_text(name: str, value: float) -> str:
    """A number as text, with its unit if that is percent; "–" if undefined."""
    if math.isnan(value):
        return "–"
    return f"{value:.2f} %" if PERCENT.fullmatch(name) else f"{value:.4g}"


OPEN_FIRST = ("landscape.png", "curves.png", "summary.json")


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
        self._prefix, self._is_live = prefix, live
        self._bars: Bars | None = None
        self._looked = 0.0
        self._said: set[str] = set()
        self._grid = (0.0, math.inf)  # the temperatures of the instrument

    def say(self, text: str) -> None:
        """Prints one line without a delay: users read a log during the run."""
        self._out.print(self._prefix + text)  # which flushes
        if (fault := output_fault()) is not None:
            reason = fault.strerror
            self.warn(f"standard output cannot be written ({reason}); the run continues without it")

    def warn(self, text: str) -> None:
        """Prints one line on standard error; the same line only once."""
        if text not in self._said:
            self._said.add(text)
            console = self._out if self._bars is not None else self._errors
            console.print(f"{self._prefix}warning: {text}", style="yellow")

    @contextlib.contextmanager
    def live(self, run: "Run", task: "Task") -> Iterator[None]:
        """A context with a view of two bars and the newest numbers, on a terminal."""
        self._grid = run.instrument.low, run.instrument.high
        if self._out.quiet or not (self._is_live and self._out.is_terminal):
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        self._bars = Bars(*columns, console=self._out, transient=True)
        self._per_epoch, self._primary = task.steps_per_epoch, task.monitor
        self._unit = task.unit
        total = run.recipe.epochs * task.steps_per_epoch
        self._run_bar = self._bars.add_task(f"{self._prefix}{run.name}", total=total, numbers="")
        self._epoch_bar = self._bars.add_task("epoch", total=task.steps_per_epoch, numbers="")
        try:
            with self._bars:
                yield
        finally:
            self._bars = None

    def step(
        self, progress: "Progress", meter: "Meter", rate: float, lambda_: "Tensor | None"
    ) -> None:
        """Shows some of the steps on the live view: each update waits for the device."""
        if self._bars is None or time.monotonic() - self._looked < REFRESH:
            return
        self._looked = time.monotonic()
        measured = meter.read()
        numbers = {name: f"{measured[name]:.3f}" for name in meter.losses}
        if "temperature" in measured:
            numbers["T"] = f"{measured['temperature']:.2f}"
        if lambda_ is not None:
            numbers["λ"] = f"{lambda_.item():.3f}"
        numbers["lr"] = f"{rate:.2g}"
        epoch, done = divmod(progress.steps - 1, self._per_epoch)
        seconds, best = progress.train_seconds, progress.best
        speed = progress.timed_images / seconds if seconds else 0.0
        run_numbers = [f"{speed:.0f} {self._unit}/s"] if seconds else []
        if "best" in best:
            value = as_text(self._primary, best["best"])
            run_numbers.append(f"best {value} (epoch {best['best_epoch']:.0f})")
        self._bars.update(self._run_bar, completed=progress.steps, numbers="  ".join(run_numbers))
        self._bars.update(
            self._epoch_bar,
            completed=done + 1,
            description=f"epoch {epoch + 1}",
            numbers=" ".join(f"{name} {value}" for name, value in numbers.items()),
        )

    def teacher(self, run: "Run", metrics: dict[str, float]) -> None:
        """The teacher's measured accuracy and the published one."""
        if metrics:
            name, value = next(iter(metrics.items()))
            published = run.teacher.published_accuracy
            claim = "" if published is None else f" (published {published:.2f})"
            self.say(f"teacher: {name.removeprefix('teacher_')} {as_text(name, value)}{claim}")

    def epoch(self, record: dict[str, Any], epochs: int, task: "Task") -> None:
        """Prints an epoch's plain line."""
        parts = [f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}"]
        labels = task.labels or {task.monitor: task.monitor}
        if record.get("train_loss") is not None:
            parts.append(f"loss {record['train_loss']:.4f}")
        for key, label in labels.items():
            if record.get(key) is not None:
                parts.append(f"{label} {as_text(key, record[key])}")
            if record.get(f"ema_{key}") is not None:
                parts.append(f"ema {as_text(key, record[f'ema_{key}'])}")
        for key, label in (("temperature", "T"), ("t_star", "T*"), ("lambda", "λ"), ("lr", "lr")):
            if record.get(key) is not None:
                parts.append(f"{label} {self._number(key, record[key])}")
        for unit in ("images", "tokens"):
            if speed := record.get(f"{unit}_per_s"):
                parts.append(f"{speed:.0f} {unit}/s")
        if (record.get("data_wait") or 0) >= WAIT_SHOWN:
            parts.append(f"waiting for data {record['data_wait']:.0%}")
        if record.get("bad_images"):
            parts.append(f"bad images {record['bad_images']}")
        self.say("  ".join(parts))

    def _number(self, key: str, value: float) -> str:
        """A number as text; T* at an end of the grid is a bound, since the grid ends there."""
        bound = bound_of(value, self._grid) if key == "t_star" else None
        return bound_text(value, bound)

    def summary(self, summary: dict[str, Any], workdir: "Workdir") -> None:
        """Prints a table of a finished run, and the paths of its files."""
        table = Table(
            title=f"{self._prefix}{summary['name']}", show_header=False, title_justify="left"
        )
        for name, value in summary.items():
            if value is not None and name not in HIDDEN:
                text = as_text(name, value) if isinstance(value, float) else str(value)
                table.add_row(name.replace("_", " "), Text(text, justify="right"))
        self._out.print(table)
        names = sorted(p.name for p in workdir.path.iterdir() if not p.name.startswith("."))
        self.say(f"{workdir.path} holds {', '.join(names)}")
        if first := next((name for name in OPEN_FIRST if name in names), None):
            self.say(f"open first: {workdir.path / first}")
