"""What moves while a run trains, and how a checkpoint holds it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from ctkd.distiller import Distiller
from ctkd.engine.metrics import Meter, Trace
from ctkd.engine.task import Batch

if TYPE_CHECKING:
    from ctkd.engine.optim import Optimizer


@dataclass
class Progress:
    """The plain values of a run in progress.

    Attributes:
        steps: done since the beginning.
        history: the records of the finished epochs, as `metrics.jsonl` holds them.
        landscape: the instrument's measurements, as `landscape.jsonl` holds them.
        rows: the last measurement's rows, as `rows.csv` holds them.
        best: the best value of the monitor, and its epoch.
        teacher: the teacher's metrics, measured before the first step.
        train_seconds, timed_images: of this epoch's training steps alone, the first step of a
            process (which compiles and warms up) left out; for text, tokens instead of images.
        wait_seconds: of `train_seconds`, how long steps waited for their samples.
        seconds: of everything, over all the processes that the run has had.
    """

    steps: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    landscape: list[dict[str, Any]] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    teacher: dict[str, float] = field(default_factory=dict)
    train_seconds: float = 0.0
    wait_seconds: float = 0.0
    timed_images: int = 0
    seconds: float = 0.0

    def waited(self, batches: Iterator[Batch], counts: Callable[[], bool]) -> Iterator[Batch]:
        """The batches; what the loop waits for each is added up, while that `counts`."""
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            if counts():
                waited = time.perf_counter() - started
                self.wait_seconds += waited
                self.train_seconds += waited
            yield batch

    def restart_clock(self) -> None:
        """Begins a new epoch."""
        self.train_seconds, self.wait_seconds, self.timed_images = 0.0, 0.0, 0


@dataclass(frozen=True)
class Moving:
    """Everything that a step changes."""

    student: nn.Module
    distiller: Distiller
    optimizer: "Optimizer"
    meter: Meter
    trace: Trace

    def state(self, progress: Progress) -> dict[str, Any]:
        """Tensors and plain values only, so that a checkpoint needs no unpickling of code."""
        return {
            "progress": dict(vars(progress)),
            "student": self.student.state_dict(),
            "distiller": self.distiller.state_dict(),
            "optimizer": self.optimizer.state(),
            "scaler": self.optimizer.scaler.state_dict(),  # empty where nothing is scaled
            "meter": self.meter.state(),
            **self.trace.state(),
        }

    def load(self, state: dict[str, Any]) -> Progress:
        """Takes up a checkpoint's state; the progress it was saved with."""
        self.student.load_state_dict(state["student"])
        self.distiller.load_state_dict(state["distiller"])
        self.optimizer.load(state["optimizer"])
        if state.get("scaler") and self.optimizer.scaler.is_enabled():
            self.optimizer.scaler.load_state_dict(state["scaler"])
        self.meter.load(state["meter"])
        self.trace.load(state)
        return Progress(**state["progress"])
