"""What a run leaves in its work directory: records, weights, summary, figures, TensorBoard."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from ctkd.engine.diagnostics.landscape import ROW_COLUMNS
from ctkd.engine.metrics import Meter, Trace
from ctkd.engine.output.checkpoint import write_tensors, write_text
from ctkd.engine.output.tensorboard import Board, disk_errors
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.progress import Progress
from ctkd.engine.task import Task

if TYPE_CHECKING:
    from ctkd.engine.output.console import Console
    from ctkd.engine.prepare import Prepared

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
    problems = task.bad_samples()
    if problems is None:
        return {}
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
    """Writes the student's plain state dict."""
    if not workdir.writes:
        return
    state = {key: value.detach().cpu().contiguous() for key, value in student.state_dict().items()}
    write_tensors(workdir.path / name, state)


def keep_best(
    record: Record, primary: str, student: nn.Module, progress: Progress, workdir: Workdir
) -> None:
    """Remembers the best epoch, by the test images (most papers' custom) and by validation's.

    An undefined metric (NaN) is never the best one.
    """
    chosen_by = primary.replace("test_", "validation_")
    if record[primary] > progress.best.get("best", -math.inf):
        progress.best |= {"best": record[primary], "best_epoch": record["epoch"]}
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
    if not workdir.writes:
        return
    workdir.write_rows("metrics.jsonl", [_valid(record) for record in progress.history])
    for name, text in task.files.items():
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


def summarize(prepared: "Prepared", progress: Progress) -> Summary:
    """The summary of a finished run, flat."""
    run, task, teacher = prepared.run, prepared.task, prepared.teacher
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
        "teacher_fingerprint": teacher.fingerprint if teacher else None,
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
    prepared: "Prepared", progress: Progress, workdir: Workdir, console: "Console"
) -> Summary:
    """Draws the figures, writes the summary last of all, and shows it.

    Raises:
        WorkdirError: the disk is full; what was trained is saved.
    """
    from ctkd.results.figures.save import save_figures
    from ctkd.results.read.runs import read_run

    run, teacher = prepared.run, prepared.teacher
    summary = summarize(prepared, progress)
    if not workdir.writes:
        return summary
    if teacher is not None and teacher.cache is not None:
        console.say(teacher.cache.counts())
    with disk_errors(workdir):
        save_figures(replace(read_run(workdir.path), summary=summary), workdir.path)
    with Board(run, workdir) as board:
        board.add_figures(workdir, run.recipe.epochs)
    write_text(workdir.path / "summary.json", json.dumps(_valid(summary), indent=1) + "\n")
    console.summary(summary, workdir)
    return summary
