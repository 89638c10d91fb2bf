"""TensorBoard's events of a run."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ctkd.engine.config.identity import IDENTITY
from ctkd.engine.config.run import Run
from ctkd.engine.metrics import Trace
from ctkd.engine.output.workdir import Workdir
from ctkd.errors import WorkdirError

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


@contextlib.contextmanager
def disk_errors(workdir: Workdir) -> Iterator[None]:
    """Turns an OSError, such as a full disk, into a WorkdirError."""
    try:
        yield
    except OSError as error:
        raise WorkdirError(
            f"cannot write the figures to {workdir.path}: {error.strerror}; the same command "
            "continues from the last checkpoint"
        ) from error


def tag_of(name: str) -> str:
    """The tag of a number: its group, such as train/ or temperature/, and its name."""
    for group in ("train", "test", "validation"):
        if name.startswith(f"{group}_"):
            return f"{group}/{name.removeprefix(f'{group}_')}"
    if name in ("t_star", "regret", "lambda") or "temperature" in name:
        return f"temperature/{name}"
    return f"run/{name}"


class Board:
    """The writers of TensorBoard's events; without effect if the settings disable TensorBoard.

    `tensorboard/NAME-seedN` has the numbers of every epoch, `tensorboard/NAME-seedN/steps` the
    temperature and λ of every step of the first epochs, by step instead of epoch.
    """

    def __init__(self, run: Run, workdir: Workdir, trace: Trace | None = None) -> None:
        """Opens nothing before the first record, since importing TensorBoard takes a second."""
        self._run, self._workdir, self._trace = run, workdir, trace
        self._wanted = run.runtime.tensorboard and workdir.writes
        base = workdir.path / "tensorboard"
        # A run of version 0.1 continues in the folder in which it began.
        self._folder = base if any(base.glob("events*")) else base / f"{run.name}-seed{run.seed}"
        self._writer: SummaryWriter | None = None
        self._of_steps: SummaryWriter | None = None

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with disk_errors(self._workdir):
                for writer in (self._writer, self._of_steps):
                    if writer is not None:
                        writer.close()
        except WorkdirError:
            if kind is None:  # otherwise show the error that ended the block
                raise

    def _open(self, epoch: int) -> "SummaryWriter | None":
        if self._wanted and self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            # Hides the events that a killed process wrote after its last checkpoint.
            self._writer = SummaryWriter(str(self._folder), purge_step=epoch)
        return self._writer

    def add(self, record: dict[str, Any]) -> None:
        """Writes an epoch's numbers, and with the first ones the settings."""
        with disk_errors(self._workdir):
            first, writer = self._writer is None, self._open(record["epoch"])
            if writer is None:
                return
            numbers = {
                tag_of(name): value
                for name, value in record.items()
                if name not in ("epoch", "step") and value is not None and not math.isnan(value)
            }
            if first:
                self._add_settings(writer, numbers)
            for tag, value in numbers.items():
                writer.add_scalar(tag, value, record["epoch"], walltime=time.time())
            self._add_steps(record)

    def _add_settings(self, writer: "SummaryWriter", numbers: dict[str, float]) -> None:
        """Writes the settings as hyperparameters, with the metrics of the test set."""
        from torch.utils.tensorboard.summary import hparams

        kinds = (int, float, str, bool)
        settings = {
            name: value if isinstance(value, kinds) else str(value)
            for kind in IDENTITY
            for name, value in self._run.settings[kind].items()
        }
        metrics = {tag: value for tag, value in numbers.items() if tag.startswith("test/")}
        events: Any = writer.file_writer  # it is open: the writer has just been made
        for part in hparams(settings, metrics):  # type: ignore[no-untyped-call]
            events.add_summary(part)

    def _add_steps(self, record: dict[str, Any]) -> None:
        """Writes T and λ of each step of the epoch, as far as the trace has them."""
        per_epoch = record["step"] // record["epoch"]
        done = record["step"] - per_epoch
        if self._trace is None or done >= len(self._trace.values):
            return  # a later epoch: its steps are not in the trace
        rows = self._trace.rows(record["step"], per_epoch)[done:]
        if self._of_steps is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._of_steps = SummaryWriter(str(self._folder / "steps"), purge_step=done + 1)
        for step, _, temperature, low, high, strength in rows:
            values = {"temperature": temperature, "lambda": strength}
            values |= {"lowest": low, "highest": high} if high > low else {}
            for name, value in values.items():
                self._of_steps.add_scalar(f"steps/{name}", value, step, walltime=time.time())

    def add_figures(self, workdir: Workdir, epoch: int) -> None:
        """Writes the figures of the work directory."""
        from ctkd.results.figures.save import draw_curves, draw_landscape, draw_rows
        from ctkd.results.read.runs import read_run

        with disk_errors(self._workdir):
            writer = self._open(epoch + 1)  # the numbers of this epoch are already written
            if writer is not None:
                record = read_run(workdir.path)
                writer.add_figure("curves", draw_curves(record), epoch)
                if record.landscape:
                    writer.add_figure("landscape", draw_landscape(record), epoch)
                if record.rows:
                    writer.add_figure("rows", draw_rows(record), epoch)
