"""The writer of a work directory: records, weights, summary, figures, TensorBoard."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from ctkd.engine.config.trial import comparable_claim
from ctkd.engine.metrics import Meter, Trace
from ctkd.engine.output.checkpoint import write_tensors, write_text
from ctkd.engine.output.tensorboard import Board, disk_errors
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.progress import Progress
from ctkd.engine.task import Task
from ctkd.results.read import schema
from ctkd.results.read.grid_ends import Bound, bound_of
from ctkd.results.read.schema import EpochRecord, RunSummary
from ctkd.results.read.work_files import columns_text, trace_text
from ctkd.temperature.replay import RECORD_FILE

if TYPE_CHECKING:
    from ctkd.engine.output.console import Console
    from ctkd.engine.prepare import Prepared

Record = dict[str, Any]
Summary = dict[str, Any]


def epoch_record(
    epoch: int, progress: Progress, meter: Meter, rate: float, lambda_: float | None, unit: str
) -> Record:
    """An epoch's numbers: means over its steps, but `lr` and `lambda` of the last step.

    `unit` is the unit of the speed, see `Task`.
    """
    measured = meter.read()
    temperature = measured.pop("temperature", None)
    kept = ("temperature", "gradient", "policy_gradient", "share_")
    seconds = progress.train_seconds
    speed = progress.timed_images / seconds if seconds else None
    record = EpochRecord(
        epoch=epoch,
        step=progress.steps,
        lr=rate,
        lambda_=lambda_,
        temperature=temperature,
        more={
            name if name.startswith(kept) else f"train_{name}": value
            for name, value in measured.items()
        },
        images_per_s=speed,
        tokens_per_s=speed,
        data_wait=progress.wait_seconds / seconds if seconds else None,
    ).to_json()
    return schema.with_speed_of(record, unit)


def reading_record(task: Task, warn: Callable[[str], None]) -> Record:
    """The number of unreadable files of the task, with a warning for each; a collective."""
    problems = task.bad_samples()
    if problems is None:
        return {}
    for problem in problems:
        warn(f"an image cannot be read, and is replaced or left out: {problem}")
    return {"bad_images": len(problems)}


def landscape_record(measured: dict[str, Any]) -> Record:
    """The entries of an epoch's record that the landscape measured."""
    record = {name: measured[name] for name in ("t_star", "regret")}
    record["probe_temperature"] = measured["temperature"]
    if measured["quantiles"]:
        names = ("q05", "q25", "q50", "q75", "q95")
        record |= {f"temperature_{q}": v for q, v in zip(names, measured["quantiles"], strict=True)}
    return record


def write_weights(workdir: Workdir, name: str, student: nn.Module) -> None:
    """Writes the student's plain state dict."""
    if not workdir.writes:
        return
    state = {key: value.detach().cpu().contiguous() for key, value in student.state_dict().items()}
    write_tensors(workdir.path / name, state)


def keep_best(
    record: Record, task: Task, student: nn.Module, progress: Progress, workdir: Workdir
) -> None:
    """Keeps the best epoch by the test metric (as in most papers) and by the validation metric.

    An undefined metric (NaN) is never the best one.
    """
    primary, sign = task.monitor, -1 if task.lower_is_better else 1
    chosen_by = primary.replace("test_", "validation_")
    if sign * record[primary] > sign * progress.best.get("best", -sign * math.inf):
        progress.best |= {"best": record[primary], "best_epoch": record["epoch"]}
        write_weights(workdir, "student_best.pt", student)
    if (
        chosen_by != primary
        and chosen_by in record
        and sign * record[chosen_by] > sign * progress.best.get("validation", -sign * math.inf)
    ):
        progress.best |= {
            "validation": record[chosen_by],
            "chosen": record[primary],
            "chosen_epoch": record["epoch"],
        }


def _valid(record: Record) -> Record:
    """The record for JSON, with null for NaN, which JSON does not have."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in record.items()
    }


def write_records(workdir: Workdir, progress: Progress, trace: Trace, task: Task) -> None:
    """Rewrites the record files from the checkpoint's state, so that both agree."""
    if not workdir.writes:
        return
    workdir.write_rows(schema.METRICS_FILE, [_valid(record) for record in progress.history])
    for name, text in task.files.items():
        write_text(workdir.path / name, text)
    if not progress.landscape:
        return
    workdir.write_rows(schema.LANDSCAPE_FILE, progress.landscape)
    steps = trace.rows(progress.steps, task.steps_per_epoch)
    write_text(workdir.path / schema.TRACE_FILE, trace_text(steps))
    write_tensors(workdir.path / RECORD_FILE, {"temperatures": trace.kept_record()})
    if progress.rows:
        write_text(workdir.path / schema.ROWS_FILE, columns_text(progress.rows))


def summarize(prepared: "Prepared", progress: Progress) -> RunSummary:
    """The summary of a finished run."""
    run, task, teacher = prepared.run, prepared.task, prepared.teacher
    last, best = progress.history[-1], progress.best
    speeds = [speed for record in progress.history if (speed := record.get(f"{task.unit}_per_s"))]
    speed = sorted(speeds)[len(speeds) // 2] if speeds else None
    recipe, key = run.settings["recipe"], f"ema_{task.monitor}"
    more = dict(progress.teacher)
    if key in last:
        more[f"ema_{schema.measure_of(task.monitor)}"] = last[key]
    if task.evaluated_samples is not None:
        more["evaluated_samples"] = task.evaluated_samples
    return RunSummary(
        finished=True,
        name=run.name,
        dataset=recipe["Recipe.dataset"].removeprefix("@"),
        student=recipe["Recipe.student"].removeprefix("@"),
        teacher=recipe["Teacher.network"].removeprefix("@") if run.teacher_network else None,
        seed=run.seed,
        epochs=run.recipe.epochs,
        steps=progress.steps,
        primary=task.monitor,
        lower_is_better=task.lower_is_better,
        more=more,
        teacher_claimed=comparable_claim(run),
        teacher_fingerprint=teacher.fingerprint if teacher else None,
        last=last[task.monitor],
        best=best.get("best", math.nan),  # undefined at every epoch
        best_epoch=int(best["best_epoch"]) if "best" in best else None,
        chosen=best.get("chosen"),
        chosen_epoch=int(best["chosen_epoch"]) if "chosen" in best else None,
        temperature=last.get("probe_temperature"),
        t_star=last.get("t_star"),
        t_star_is=_bound_of_last(progress),
        regret=last.get("regret"),
        images_per_s=speed,
        tokens_per_s=speed,
        seconds=progress.seconds,
    )


def _bound_of_last(progress: Progress) -> Bound | None:
    """Whether the last measurement's T* is an end of the grid."""
    measured = progress.landscape[-1] if progress.landscape else None
    return bound_of(measured["t_star"], measured["temperatures"]) if measured else None


def finish(
    prepared: "Prepared", progress: Progress, workdir: Workdir, console: "Console"
) -> Summary:
    """Draws the figures, writes the summary as the last file, and prints it.

    Raises:
        WorkdirError: the disk is full; checkpoint and weights are saved.
    """
    from ctkd.results.figures.save import save_figures
    from ctkd.results.read.runs import read_run

    run, teacher = prepared.run, prepared.teacher
    summary = summarize(prepared, progress)
    written = schema.with_speed_of(summary.to_json(), prepared.task.unit)
    if not workdir.writes:
        return written
    if teacher is not None and teacher.cache is not None:
        console.say(teacher.cache.counts())
    if run.runtime.figures:
        with console.phase("drawing the figures"), disk_errors(workdir):
            save_figures(replace(read_run(workdir.path), summary=summary), workdir.path)
            with Board(run, workdir) as board:
                board.add_figures(workdir, run.recipe.epochs)
    text = json.dumps(_valid(written), indent=1)
    write_text(workdir.path / schema.SUMMARY_FILE, text + "\n")
    console.summary(written, workdir)
    return written
