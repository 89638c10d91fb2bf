"""What a run leaves in its work directory: records, weights, summary, figures, TensorBoard."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from ctkd.engine.config.build import Run
from ctkd.engine.diagnostics.landscape import ROW_COLUMNS
from ctkd.engine.metrics import Meter, Trace
from ctkd.engine.output.checkpoint import write_tensors, write_text
from ctkd.engine.output.workdir import TEACHER, Workdir
from ctkd.engine.progress import Progress
from ctkd.engine.task import Reads, Task
from ctkd.errors import WorkdirError

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

    from ctkd.engine.output.console import Console

Record = dict[str, Any]
Summary = dict[str, Any]


def epoch_record(
    epoch: int, progress: Progress, meter: Meter, rate: float, lambda_: float | None
) -> Record:
    """An epoch's training in numbers; means over its steps, `lr` and `lambda` of the last one."""
    measured = meter.read()
    record = {"epoch": epoch, "step": progress.steps, "lr": rate, "lambda": lambda_}
    record["temperature"] = measured.pop("temperature", None)
    for name, value in measured.items():
        kept = name.startswith(("temperature", "gradient", "policy_gradient", "share_"))
        record[name if kept else f"train_{name}"] = value
    seconds = progress.train_seconds
    record["images_per_s"] = progress.timed_images / seconds if seconds else None
    record["data_wait"] = progress.wait_seconds / seconds if seconds else None
    return record


def reading_record(task: Task, warn: Callable[[str], None]) -> Record:
    """How many files of a task that reads some were bad, each named to the user; a collective."""
    if not isinstance(task, Reads):
        return {}
    problems = task.bad_samples()
    for problem in problems:
        warn(f"an image cannot be read, and is replaced or left out: {problem}")
    return {"bad_images": len(problems)}


def landscape_record(measured: dict[str, Any]) -> Record:
    """What the epoch's record says of the landscape."""
    record = {name: measured[name] for name in ("t_star", "regret")}
    record["probe_temperature"] = measured["temperature"]
    if measured["quantiles"]:
        names = ("q05", "q25", "q50", "q75", "q95")
        record |= {f"temperature_{q}": v for q, v in zip(names, measured["quantiles"], strict=True)}
    return record


def write_weights(workdir: Workdir, name: str, student: nn.Module) -> None:
    """The student's plain state dict, for anyone's use."""
    state = {key: value.detach().cpu().contiguous() for key, value in student.state_dict().items()}
    write_tensors(workdir.path / name, state)


def keep_best(
    record: Record, primary: str, student: nn.Module, progress: Progress, workdir: Workdir | None
) -> None:
    """Remembers the best epoch, by the test images (most papers' custom) and by validation's.

    An undefined metric (NaN) is never the best one.
    """
    chosen_by = primary.replace("test_", "validation_")
    if record[primary] > progress.best.get("best", -math.inf):
        progress.best |= {"best": record[primary], "best_epoch": record["epoch"]}
        if workdir is not None:
            write_weights(workdir, "student_best.pt", student)
    if (
        chosen_by != primary
        and chosen_by in record
        and record[chosen_by] > progress.best.get("validation", -math.inf)
    ):
        progress.best |= {
            "validation": record[chosen_by],
            "chosen": record[primary],
            "chosen_epoch": record["epoch"],
        }


def _valid(record: Record) -> Record:
    """The record as JSON can hold it: null where a number is NaN, which JSON does not have."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in record.items()
    }


def write_records(workdir: Workdir, progress: Progress, trace: Trace, task: Task) -> None:
    """Rewrites the record files from what the checkpoint holds, so that they always agree."""
    workdir.write_rows("metrics.jsonl", [_valid(record) for record in progress.history])
    for name, text in getattr(task, "files", {}).items():
        write_text(workdir.path / name, text)
    if not progress.landscape:
        return
    workdir.write_rows("landscape.jsonl", progress.landscape)
    lines = ["step,epoch,temperature,low,high,lambda"]
    for step, *values in trace.rows(progress.steps, task.steps_per_epoch):
        lines.append(",".join([str(step), *(f"{value:.8g}" for value in values)]))
    write_text(workdir.path / "temperature.csv", "\n".join(lines) + "\n")
    if progress.rows:
        lines = [",".join(ROW_COLUMNS)]
        for group, target, *values in progress.rows:
            words = [str(word).replace(",", ";") for word in (group, target)]
            lines.append(",".join([*words, *(f"{value:.6g}" for value in values)]))
        write_text(workdir.path / "rows.csv", "\n".join(lines) + "\n")


def summarize(run: Run, task: Task, progress: Progress) -> Summary:
    """The summary of a finished run, flat."""
    name = task.primary.removeprefix("test_")
    last, best = progress.history[-1], progress.best
    speeds = [record["images_per_s"] for record in progress.history if record["images_per_s"]]
    chosen = run.settings["recipe"]
    summary: Summary = {
        "finished": True,
        "name": run.name,
        "dataset": chosen["Recipe.dataset"].removeprefix("@"),
        "student": chosen["Recipe.student"].removeprefix("@"),
        "teacher": chosen["Teacher.network"].removeprefix("@") if run.teacher_network else None,
        "seed": run.seed,
        "epochs": run.recipe.epochs,
        "steps": progress.steps,
        "primary": task.primary,
        **progress.teacher,
        "teacher_claimed": run.teacher.claimed if run.teacher_network else None,
        "teacher_fingerprint": chosen.get(TEACHER) if run.teacher_network else None,
        f"last_{name}": last[task.primary],
        f"best_{name}": best.get("best", math.nan),  # undefined at every epoch
        "best_epoch": int(best["best_epoch"]) if "best" in best else None,
    }
    if "chosen" in best:
        summary |= {f"chosen_{name}": best["chosen"], "chosen_epoch": int(best["chosen_epoch"])}
    for key in ("temperature", "t_star", "regret"):
        summary[key] = last.get("probe_temperature" if key == "temperature" else key)
    summary["images_per_s"] = sorted(speeds)[len(speeds) // 2] if speeds else None
    summary["seconds"] = progress.seconds
    return summary


def finish(
    run: Run, task: Task, progress: Progress, workdir: Workdir, console: "Console"
) -> Summary:
    """Draws the figures, writes the summary last of all, and shows it.

    Raises:
        WorkdirError: the disk is full; what was trained is saved.
    """
    from ctkd.results.figures.save import save_figures
    from ctkd.results.read.runs import read_run

    summary = summarize(run, task, progress)
    with _explained(workdir):
        save_figures(replace(read_run(workdir.path), summary=summary), workdir.path)
    if run.runtime.tensorboard:
        with Board(run, workdir) as board:
            board.add_figures(workdir, run.recipe.epochs)
    write_text(workdir.path / "summary.json", json.dumps(_valid(summary), indent=1) + "\n")
    console.summary(summary, workdir)
    return summary


@contextlib.contextmanager
def _explained(workdir: Workdir) -> Iterator[None]:
    """A full disk, told to the user."""
    try:
        yield
    except OSError as error:
        raise WorkdirError(
            f"cannot write the figures to {workdir.path}: {error.strerror}; the same command goes "
            "on from the last checkpoint"
        ) from error


class Board:
    """TensorBoard's events of a run; writes nothing where the settings say so."""

    def __init__(self, run: Run, workdir: Workdir) -> None:
        """Nothing is opened before the first record, since importing TensorBoard takes a second."""
        self._workdir, self._wanted = workdir, run.runtime.tensorboard
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is None:
            return
        try:
            with _explained(self._workdir):
                self._writer.close()
        except WorkdirError:
            if kind is None:  # else something is being told already
                raise

    def _open(self, epoch: int) -> "SummaryWriter | None":
        if self._wanted and self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            # What a killed process wrote after its last checkpoint is hidden.
            self._writer = SummaryWriter(str(self._workdir.path / "tensorboard"), purge_step=epoch)
        return self._writer

    def add(self, record: Record) -> None:
        """An epoch's numbers."""
        with _explained(self._workdir):
            writer = self._open(record["epoch"])
            for name, value in record.items():
                skipped = name in ("epoch", "step") or value is None or math.isnan(value)
                if writer is not None and not skipped:
                    writer.add_scalar(name, value, record["epoch"], walltime=time.time())

    def add_figures(self, workdir: Workdir, epoch: int) -> None:
        """The figures of the work directory."""
        from ctkd.results.figures.save import draw_curves, draw_landscape, draw_rows
        from ctkd.results.read.runs import read_run

        with _explained(self._workdir):
            writer = self._open(epoch + 1)  # this epoch's numbers are there already
            if writer is not None:
                record = read_run(workdir.path)
                writer.add_figure("curves", draw_curves(record), epoch)
                if record.landscape:
                    writer.add_figure("landscape", draw_landscape(record), epoch)
                if record.rows:
                    writer.add_figure("rows", draw_rows(record), epoch)
