"""TensorBoard's events of a run."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ctkd.engine.config.build import Run
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
    """The writer of TensorBoard's events; without effect if the settings disable TensorBoard."""

    def __init__(self, run: Run, workdir: Workdir) -> None:
        """Opens nothing before the first record, since importing TensorBoard takes a second."""
        self._workdir = workdir
        self._wanted = run.runtime.tensorboard and workdir.writes
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is None:
            return
        try:
            with disk_errors(self._workdir):
                self._writer.close()
        except WorkdirError:
            if kind is None:  # otherwise show the error that ended the block
                raise

    def _open(self, epoch: int) -> "SummaryWriter | None":
        if self._wanted and self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            # Hides the events that a killed process wrote after its last checkpoint.
            self._writer = SummaryWriter(str(self._workdir.path / "tensorboard"), purge_step=epoch)
        return self._writer

    def add(self, record: dict[str, Any]) -> None:
        """Writes an epoch's numbers."""
        with disk_errors(self._workdir):
            writer = self._open(record["epoch"])
            for name, value in record.items():
                skipped = name in ("epoch", "step") or value is None or math.isnan(value)
                if writer is not None and not skipped:
                    writer.add_scalar(tag_of(name), value, record["epoch"], walltime=time.time())

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
