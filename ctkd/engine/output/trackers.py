"""Trackers, which receive the numbers of each epoch: TensorBoard, CSV, Weights & Biases.

A tracker has `add(record)` for an epoch, and `close()`. `Runtime.trackers` names the optional ones.
"""

import abc
import csv
import io
import math
import os
from typing import Any

from ctkd.engine.config.identity import identity_of
from ctkd.engine.config.run import Run
from ctkd.engine.metrics import Trace
from ctkd.engine.output.checkpoint import write_text
from ctkd.engine.output.tensorboard import Board, tag_of
from ctkd.engine.output.workdir import Workdir


class Tracker(abc.ABC):
    """Receives the record of each epoch, a line of `metrics.jsonl`."""

    @abc.abstractmethod
    def add(self, record: dict[str, Any]) -> None:
        """An epoch's numbers."""

    def close(self) -> None:
        """Called once, also after an error."""
        return None


class CsvTracker(Tracker):
    """`metrics.csv` in the work directory: a row for each epoch, for spreadsheets."""

    def __init__(self, run: Run, workdir: Workdir) -> None:
        """Keeps the rows of earlier epochs, if the run is resumed."""
        self._path = workdir.path / "metrics.csv"
        self._rows: list[dict[str, Any]] = []
        if self._path.is_file():
            with self._path.open(encoding="utf-8", newline="") as stream:
                self._rows = list(csv.DictReader(stream))

    def add(self, record: dict[str, Any]) -> None:
        """See `Tracker`: a resumed run replaces the rows that a killed process wrote last."""
        kept = [row for row in self._rows if int(row["epoch"]) < record["epoch"]]
        self._rows = [*kept, record]
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        stream = io.StringIO()
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self._path, stream.getvalue())


class WandbTracker(Tracker):
    """Weights & Biases; `WANDB_PROJECT` (default ctkd), `WANDB_MODE` and others are its variables.

    A resumed run continues under the same id.
    """

    def __init__(self, run: Run, workdir: Workdir) -> None:
        """Opens the run with all settings; `Runtime` has checked that wandb is installed."""
        import wandb

        settings = {k: v for values in run.settings.values() for k, v in values.items()}
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "ctkd"),
            name=f"{run.name} seed {run.seed}",
            group=f"{run.dataset_name} {run.pair}",
            id=identity_of(run.settings),
            dir=str(workdir.path),
            config=settings,
            resume="allow",
        )

    def add(self, record: dict[str, Any]) -> None:
        """See `Tracker`."""
        numbers = {
            tag_of(name): value
            for name, value in record.items()
            if isinstance(value, int | float) and not math.isnan(value)
        }
        self._run.log(numbers, step=record["epoch"])

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


TRACKERS: dict[str, type[CsvTracker] | type[WandbTracker]] = {
    "csv": CsvTracker,
    "wandb": WandbTracker,
}


class Trackers:
    """All trackers of a run, on rank 0; TensorBoard is `Runtime.tensorboard`."""

    def __init__(self, run: Run, workdir: Workdir, trace: Trace) -> None:
        """Opens the trackers in `Runtime.trackers`."""
        self._board = Board(run, workdir, trace)
        names = run.runtime.trackers if workdir.writes else ()
        self._others = [TRACKERS[name](run, workdir) for name in names]

    def __enter__(self) -> "Trackers":
        self._board.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        for tracker in self._others:
            tracker.close()
        self._board.__exit__(kind, *rest)

    def add(self, record: dict[str, Any]) -> None:
        """Gives an epoch's numbers to each tracker."""
        self._board.add(record)
        for tracker in self._others:
            tracker.add(record)
