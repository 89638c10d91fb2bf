"""The status of every cell of a sweep: from work directories, the notes of runs, and SLURM.

A summary shows a finished run, a note a failed one. SLURM must know only the jobs that wait or run,
so it needs no accounting.
"""

import json
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ctkd.results.read.measures import MEASURES
from ctkd.results.read.schema import METRICS_FILE, TEACHER_FILE, measure_of
from ctkd.sweeps import slurm
from ctkd.sweeps.folder import SavedCell, SweepFolder
from ctkd.sweeps.jobs import JobState, number_of
from ctkd.sweeps.ledger import Entry
from ctkd.sweeps.shared_files import last_lines, read_json

State = Literal[
    "finished",
    "running",
    "queued",
    "failed",
    "killed",
    "stopped",
    "cancelled",
    "not sent",
    "unknown",
]
ACTIVE: tuple[State, ...] = ("running", "queued")
LOST: tuple[State, ...] = ("killed", "stopped")  # without an error; by a signal from outside


@dataclass(frozen=True)
class Status:
    """The status of a cell.

    Attributes:
        epoch, accuracy, temperature: of the last finished epoch; accuracy in percent, or the value
            of another `measure`.
        seconds_left: for the remaining epochs, at the speed of this job; None if not known yet.
        node: its node, or the reason why it waits or its state is unknown.
        error: the error message, one line or more.
        log: the job's log; its log of errors if it failed.
        again: how often the launcher has sent it again.
        listed: whether SLURM may still have its job, in a state that is not clear.
        phase: "training the teacher" or "waiting for the teacher" while a running job does that.
        teacher_epochs: finished and all epochs of the teacher's training, such as "3/20".
    """

    cell: SavedCell
    state: State
    epoch: int = 0
    accuracy: float | None = None
    temperature: float | None = None
    seconds_left: float | None = None
    node: str = ""
    error: str = ""
    log: Path | None = None
    again: int = 0
    listed: bool = False
    measure: str = "test_top1"
    phase: str = ""
    teacher_epochs: str = ""

    @property
    def shown(self) -> str:
        """The state for a reader: the phase of a run that has not begun, otherwise the state."""
        return self.phase or self.state

    @property
    def active(self) -> bool:
        """Whether its job waits or runs, or may do so: then the cell must not be sent."""
        return self.state in ACTIVE or self.listed


def statuses(folder: SweepFolder, *, ask: bool = True) -> list[Status]:
    """Every cell's status, in the sweep's order.

    Args:
        ask: whether to ask SLURM; otherwise cells on SLURM that are neither finished nor failed are
            unknown.

    Raises:
        UserError: the directory contains no sweep, or SLURM does not answer.
    """
    sweep, entries = folder.read(), folder.ledger.read()
    finished = {cell.key: _summary(folder, cell.key) for cell in sweep.cells}
    asked = {key: entry for key, entry in entries.items() if not finished.get(key)}
    jobs = job_states(asked.values()) if ask else None
    found = []
    for cell in sweep.cells:
        entry, summary = entries.get(cell.key), finished[cell.key]
        if not summary:
            status = _unfinished(folder, cell, entry, jobs)
            # A run that seems lost may have finished a moment ago.
            summary = _summary(folder, cell.key) if status.state in LOST else None
        found.append(_finished(folder, cell, summary, entry) if summary else status)
    return found


def job_states(entries: Iterable[Entry]) -> dict[str, JobState]:
    """The states of the entries' jobs, by job, as far as SLURM knows them."""
    jobs = [entry.job for entry in entries if entry.cluster == "slurm" and entry.job is not None]
    return slurm.states(jobs) if jobs else {}


def _finished(
    folder: SweepFolder, cell: SavedCell, summary: Mapping[str, Any], entry: Entry | None
) -> Status:
    measure = measure_of(str(summary.get("primary", "test_top1")))
    return Status(
        cell,
        "finished",
        epoch=int(summary.get("epochs", cell.epochs)),
        accuracy=summary.get(f"last_{measure}"),
        measure=str(summary.get("primary", "test_top1")),
        temperature=summary.get("temperature"),
        node=str((read_json(folder.note(cell.key)) or {}).get("node", "")),
        log=_log(folder, cell, entry, "out"),
        again=entry.again if entry else 0,
    )


def _unfinished(
    folder: SweepFolder,
    cell: SavedCell,
    entry: Entry | None,
    jobs: Mapping[str, JobState] | None,
) -> Status:
    if entry is None:
        return Status(cell, "not sent")
    if entry.attempt:
        error = "sbatch printed no job id, so the run may be in the queue; --cancel ends it"
        return Status(cell, "unknown", error=error, listed=True)
    note: dict[str, Any] = read_json(folder.note(cell.key)) or {}
    if note.get("job") != (number_of(entry.job) or None):
        note = {}  # of an earlier job
    job = (jobs or {}).get(entry.job or "")
    if entry.cluster == "local":
        state, where = _local_state(folder, cell.key, entry, note)
    else:
        state, where = _state(entry, job, note)
        state = "unknown" if jobs is None and state in (*LOST, *ACTIVE) else state
    row = last_row(folder.workdir(cell.key) / "metrics.jsonl")
    went_wrong = state in ("failed", "killed")
    error = str(note.get("error", "")) if went_wrong or state == "stopped" else ""
    log = _log(folder, cell, entry, "err" if went_wrong else "out")
    begun = row or state != "running"
    phase, teacher_epochs = ("", "") if begun else teacher_phase(folder.workdir(cell.key))
    if state == "killed" and not error:
        error = ["ended without a message", *(last_lines(log) if log else [])][-1]
    return Status(
        cell,
        state,
        epoch=int(row.get("epoch", 0)),
        accuracy=next((row[name] for name in MEASURES if name in row), None),
        measure=next((name for name in MEASURES if name in row), "test_top1"),
        temperature=row.get("temperature"),
        seconds_left=_seconds_left(folder, cell, note, row) if state == "running" else None,
        node=where or str(note.get("node", "")),
        error=error,
        log=log,
        again=entry.again,
        listed=state == "unknown" and job is not None,
        phase=phase,
        teacher_epochs=teacher_epochs,
    )


def teacher_phase(workdir: Path) -> tuple[str, str]:
    """What a run does about its teacher, and the teacher's epochs; empty texts if nothing."""
    note: dict[str, Any] = read_json(workdir / TEACHER_FILE) or {}
    if not note:
        return "", ""
    done = int(last_row(Path(note["folder"]) / METRICS_FILE).get("epoch", 0))
    return str(note["phase"]), f"{done}/{note['epochs']}"


def _local_state(
    folder: SweepFolder, key: str, entry: Entry, note: Mapping[str, Any]
) -> tuple[State, str]:
    """The state of a local run, and the node if it is another machine."""
    if folder.is_training(key):  # also without a launcher, if it was killed
        return "running", ""
    ended: dict[str, State] = {"failed": "failed", "killed": "killed", "interrupted": "stopped"}
    noted = str(note.get("state"))
    if noted in ended:
        return ended[noted], ""
    # A laptop's name has a domain only in some networks.
    names = (name.partition(".")[0] for name in (entry.host, socket.gethostname()))
    if len(set(names)) == 2:  # the locks of another machine may be invisible here
        return "unknown", entry.host
    if folder.has_launcher:
        return ("running" if noted == "running" else "queued"), ""
    return ("killed" if noted == "running" else "stopped"), ""


def _state(entry: Entry, job: JobState | None, note: Mapping[str, Any]) -> tuple[State, str]:
    """The state of a job of SLURM, and its node, or the reason why it waits or is unknown."""
    if job is not None and job.phase in ("running", "queued"):
        preempted = job.phase == "queued" and note.get("state") == "requeued"
        return ("queued" if job.phase == "queued" else "running"), (
            "preempted, will continue" if preempted else job.node or job.reason
        )
    if entry.event == "cancelled" or (job is not None and job.phase == "cancelled"):
        return "cancelled", ""
    if job is not None and job.phase == "unclear":
        return "unknown", job.reason
    if note.get("state") == "failed":
        return "failed", ""
    return ("stopped", "") if note.get("state") == "interrupted" else ("killed", "")


def is_finished(folder: SweepFolder, key: str) -> bool:
    """Whether a cell's run is finished."""
    return _summary(folder, key) is not None


def _summary(folder: SweepFolder, key: str) -> dict[str, Any] | None:
    """The summary of a finished run."""
    summary = read_json(folder.workdir(key) / "summary.json")
    return summary if isinstance(summary, dict) and summary.get("finished") else None


def last_row(path: Path) -> dict[str, Any]:
    """The last complete line of a file of JSON objects; empty if there is none."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        return row if isinstance(row, dict) else {}
    return {}


def _seconds_left(
    folder: SweepFolder, cell: SavedCell, note: Mapping[str, Any], row: Mapping[str, Any]
) -> float | None:
    """The seconds for the remaining epochs, at the speed of this job."""
    done = int(row.get("epoch", 0)) - int(note.get("epochs_before", 0))
    if done < 1 or "started" not in note:
        return None
    written = (folder.workdir(cell.key) / "metrics.jsonl").stat().st_mtime
    pace = max(0.0, written - float(note["started"])) / done
    return max(0.0, pace * (cell.epochs - int(row["epoch"])) - (time.time() - written))


def _log(folder: SweepFolder, cell: SavedCell, entry: Entry | None, kind: str) -> Path | None:
    """The log of the newest job or run; `kind` is "out" or "err" of a job of SLURM."""
    if entry is None:
        return None
    path = folder.local_log(cell.key)
    if entry.cluster == "slurm":
        path = folder.jobs / f"{number_of(entry.job)}_0_log.{kind}"
    return path if path.exists() else None
