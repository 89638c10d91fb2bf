"""Reads the output of `squeue`: one line per job, and a site's other lines.

A job counts as ended only if squeue prints a known state. An unknown state (of another version of
SLURM), or an unreadable line, makes a job unclear: it may still be in the queue, and a run that is
sent again would be trained twice.
"""

import re
import time
from dataclasses import dataclass, field
from datetime import datetime

from ctkd.sweeps.jobs import JobState, number_of

FORMAT = "%i|%T|%N|%e|%r"  # id, state, nodes, end, reason; the reason is free text, so it is last
SETTLED = 120.0  # seconds after its end in which SLURM may still put a job back into the queue
QUEUED = (
    "PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
)  # fmt: skip
RUNNING = (
    "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING",
    "POWER_UP_NODE", "EXPEDITING", "UPDATE_DB",
)  # fmt: skip
ELSEWHERE = ("REVOKED",)  # another cluster of the federation has started the job
# SLURM itself puts jobs in these states back into the queue a moment later.
REQUEUEABLE = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED", "RECONFIG_FAIL")
ENDED = ("COMPLETED", "FAILED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY")
LINE = re.compile(
    r"(?P<array>\d+)(?:_(?:(?P<task>\d+)|\[(?P<tasks>[^]|]*)\]?))?(?:\+(?P<part>\d+))?"
    r"(?:[@;][\w.-]*)?\|(?P<state>[A-Za-z_]+)[^|]*(?:\|(?P<rest>.*))?"
)
CLUSTER = re.compile(r"CLUSTER: *\S*")  # the headline of a cluster in the answer to -M


@dataclass
class Listing:
    """The jobs of one array in squeue's list.

    Attributes:
        tasks: the state of each task with a line, alone or in a range ("7_[2-5%2]").
        whole: the state of a line without tasks: a single job, or an array that was cancelled
            before its first task started.
        cut: the state of a range that squeue cut short ("7_[1,3,5,...]").
        unread: the lines that are not jobs.
    """

    tasks: dict[str, JobState] = field(default_factory=dict)
    whole: JobState | None = None
    cut: JobState | None = None
    unread: list[str] = field(default_factory=list)

    def of(self, job: str) -> JobState | None:
        """A job's state; None if squeue has forgotten the job."""
        task = number_of(job).partition("_")[2]
        state = self.tasks.get(task) or self.whole or self.cut
        if state is not None or not self.unread:
            return state
        count, first = len(self.unread), self.unread[0][:60]
        lines = "a line that is" if count == 1 else f"{count} lines that are"
        return JobState("unclear", "", f"squeue printed {lines} no job's: {first!r}")


def read_listing(text: str, array: str, now: float | None = None) -> Listing:
    """The jobs of the array `array` in squeue's output; lines of other jobs are skipped."""
    listing = Listing()
    for line in filter(None, map(str.strip, text.splitlines())):
        found = LINE.fullmatch(line)
        if found is None:
            if not CLUSTER.fullmatch(line):
                listing.unread.append(line)
        elif found["array"] == array and found["part"] in (None, "0"):
            # The first part of a heterogeneous job counts for all.
            _enter(listing, found, _state(found, time.time() if now is None else now))
    return listing


def _enter(listing: Listing, found: re.Match[str], state: JobState) -> None:
    """Enters a line of squeue."""
    if found["task"] is not None:
        listing.tasks[found["task"]] = state
    elif found["tasks"] is not None:
        numbers, whole = _numbers(found["tasks"])
        for number in numbers:
            listing.tasks.setdefault(str(number), state)
        if not whole:
            listing.cut = state
    else:
        listing.whole = state


def _numbers(text: str) -> tuple[list[int], bool]:
    """The tasks of a range, "0-8:2,11%4", and whether the whole range could be read."""
    numbers, whole = list[int](), True
    for part in text.partition("%")[0].split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part.strip())
        if found is None:
            whole = False
            continue
        first, last = int(found[1]), int(found[2] or found[1])
        numbers += range(first, last + 1, max(1, int(found[3] or 1)))
    return numbers, whole


def _state(found: re.Match[str], now: float) -> JobState:
    """The state in a line, with its node and reason."""
    name = found["state"].upper()
    node, end, reason = [*(found["rest"] or "").split("|", 2), "", "", ""][:3]
    reason = "" if reason in ("None", "") else reason
    if name in QUEUED:
        return JobState("queued", node, reason)
    if name in RUNNING:
        return JobState("running", node)
    if name in ELSEWHERE:
        return JobState("running", "another cluster of the federation")
    if name.startswith("CANCELLED"):
        return JobState("cancelled", node)
    if name in REQUEUEABLE and not _is_past(end, now - SETTLED):
        return JobState("queued", "", f"{name}, SLURM may requeue it")
    if name in (*REQUEUEABLE, *ENDED):
        return JobState("ended", node)
    return JobState("unclear", node, f"squeue calls its state {name}, which is not known here")


def _is_past(moment: str, limit: float) -> bool:
    """Whether a time of squeue (local time) is before the limit; False if it is unreadable."""
    try:
        return datetime.fromisoformat(moment).timestamp() < limit
    except (ValueError, OverflowError, OSError):
        return False
