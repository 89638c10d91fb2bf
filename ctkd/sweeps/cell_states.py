"""How every cell of a sweep fares: from the work directories, the tasks' notes and the cluster.

A finished run is known by its summary, a failed one by its task's note. The cluster is asked only
what waits and what runs, so that it does not matter whether it keeps accounts of what ended.
"""

import json
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ctkd.sweeps import local, slurm
from ctkd.sweeps.folder import SavedCell, SweepFolder
from ctkd.sweeps.jobs import JobState
from ctkd.sweeps.ledger import Entry
from ctkd.sweeps.shared_files import read_json

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
LOST: tuple[State, ...] = ("killed", "stopped")  # without a word, or told to by somebody else
TAIL = 4096  # bytes of a log in which its last words are looked for


@dataclass(frozen=True)
class Status:
    """How a cell fares.

    Attributes:
        epoch, accuracy, temperature: of the last finished epoch; accuracy in percent.
        seconds_left: what its epochs will take at the pace of this job; None if not known yet.
        node: where it runs, or why it waits.
        error: what went wrong, in a line or more.
        log: where it speaks; the errors' log if something went wrong.
        again: how often it was sent again unasked.
        away: whether another machine's queue started it, which cannot be asked from here.
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
    away: bool = False


def statuses(folder: SweepFolder, *, ask: bool = True) -> list[Status]:
    """Every cell's status, in the sweep's order.

    Args:
        ask: whether to ask the clusters; else what is neither finished nor failed is unknown.

    Raises:
        UserError: the directory is no sweep's, or SLURM does not answer.
    """
    sweep, entries = folder.read(), folder.ledger.read()
    finished = {cell.key: _summary(folder, cell) for cell in sweep.cells}
    asked = {key: entry for key, entry in entries.items() if not finished.get(key)}
    jobs = job_states(asked.values(), folder) if ask else None
    queue = any(e.cluster == "local" and e.job is None for e in asked.values())
    waiting = queue and local.queue_is_alive(folder.path)
    found = []
    for cell in sweep.cells:
        entry, summary = entries.get(cell.key), finished[cell.key]
        if not summary:
            status = _unfinished(folder, cell, entry, jobs, waiting)
            # What seems lost may have finished since its summary was looked for.
            summary = _summary(folder, cell) if status.state in LOST else None
        found.append(_finished(folder, cell, summary, entry) if summary else status)
    return found


def job_states(entries: Iterable[Entry], folder: SweepFolder) -> dict[str, JobState]:
    """What the clusters know of the entries' jobs, by job."""
    known: dict[str, list[str]] = {"slurm": [], "local": []}
    for entry in entries:
        if entry.job is not None and not _is_away(entry):
            known[entry.cluster].append(entry.job)
    found = local.states(known["local"], folder.path)
    return found | (slurm.states(known["slurm"]) if known["slurm"] else {})


def _finished(
    folder: SweepFolder, cell: SavedCell, summary: Mapping[str, Any], entry: Entry | None
) -> Status:
    primary = str(summary.get("primary", "test_top1")).removeprefix("test_")
    return Status(
        cell,
        "finished",
        epoch=int(summary.get("epochs", cell.epochs)),
        accuracy=summary.get(f"last_{primary}"),
        temperature=summary.get("temperature"),
        node=str((read_json(folder.note(cell.key)) or {}).get("node", "")),
        log=_log(folder, entry, "out"),
        again=entry.again if entry else 0,
    )


def _unfinished(
    folder: SweepFolder,
    cell: SavedCell,
    entry: Entry | None,
    jobs: Mapping[str, JobState] | None,
    queue_alive: bool,
) -> Status:
    if entry is None:
        return Status(cell, "not sent")
    note: dict[str, Any] = read_json(folder.note(cell.key)) or {}
    if note.get("job") != entry.job:
        note = {}  # of an earlier job
    job = (jobs or {}).get(entry.job or "")
    state, told = _state(entry, job, note, queue_alive)
    if jobs is None and state in (*LOST, *ACTIVE):
        state = "unknown"
    row = last_row(folder.workdir(cell.key) / "metrics.jsonl")
    away = state == "unknown" and _is_away(entry)
    went_wrong = state in ("failed", "killed")
    error = str(note.get("error", "")) if went_wrong or state == "stopped" else ""
    log = _log(folder, entry, "err" if went_wrong else "out")
    if state == "killed" and not error:
        error = _last_words(log) or "ended without a word"
    return Status(
        cell,
        state,
        epoch=int(row.get("epoch", 0)),
        accuracy=row.get("test_top1", row.get("ap")),
        temperature=row.get("temperature"),
        seconds_left=_seconds_left(folder, cell, note, row) if state == "running" else None,
        node=told or str(note.get("node", "")),
        error=error,
        log=log,
        again=entry.again,
        away=away,
    )


def _is_away(entry: Entry) -> bool:
    """Whether a job is another machine's, whose numbers say nothing here."""
    return entry.cluster == "local" and entry.host != socket.gethostname()


def _state(
    entry: Entry, job: JobState | None, note: Mapping[str, Any], queue_alive: bool
) -> tuple[State, str]:
    """The state, and the node or why it waits."""
    if job is not None and job.phase in ("running", "queued"):
        preempted = job.phase == "queued" and note.get("state") == "requeued"
        return ("queued" if job.phase == "queued" else "running"), (
            "preempted, to go on" if preempted else job.node or job.reason
        )
    if entry.event == "cancelled" or (job is not None and job.phase == "cancelled"):
        return "cancelled", ""
    if entry.cluster == "local" and entry.event == "sent":
        return ("queued", "") if queue_alive else ("killed", "its queue has gone")
    if _is_away(entry) and note.get("state") not in ("failed", "interrupted"):
        return "unknown", entry.host
    if note.get("state") == "failed":
        return "failed", ""
    return ("stopped", "") if note.get("state") == "interrupted" else ("killed", "")


def _summary(folder: SweepFolder, cell: SavedCell) -> dict[str, Any] | None:
    """The summary of a finished run."""
    told = read_json(folder.workdir(cell.key) / "summary.json")
    return told if isinstance(told, dict) and told.get("finished") else None


def last_row(path: Path) -> dict[str, Any]:
    """The last whole line of a file of JSON objects; nothing where there is none."""
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
    """The epochs left at the pace of those that this job has done."""
    done = int(row.get("epoch", 0)) - int(note.get("epochs_before", 0))
    if done < 1 or "started" not in note:
        return None
    written = (folder.workdir(cell.key) / "metrics.jsonl").stat().st_mtime
    pace = max(0.0, written - float(note["started"])) / done
    return max(0.0, pace * (cell.epochs - int(row["epoch"])) - (time.time() - written))


def _log(folder: SweepFolder, entry: Entry | None, kind: str) -> Path | None:
    if entry is None or not entry.jobs:
        return None
    path = folder.jobs / f"{entry.jobs[-1]}_0_log.{kind}"
    return path if path.exists() else None


def _last_words(log: Path | None) -> str:
    """The last line of a log that says something."""
    if log is None:
        return ""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
