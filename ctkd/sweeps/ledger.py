"""The ledger: what was sent and when, one line of JSON for each event.

"sending" is written before sbatch is called, then "sent" or "refused". If neither follows, a job
may be in the queue. A run on this machine has only "sent", written at its start.
"""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ctkd.errors import WorkdirError
from ctkd.files import owner_of
from ctkd.locks import locked

Event = Literal["sending", "refused", "sent", "cancelled"]


@dataclass
class Entry:
    """A cell's history.

    Attributes:
        job: the newest job's id; None for a run on this machine.
        event: the newest event: "sent" or "cancelled".
        cluster, host: "slurm" or "local", and the machine that sent the cell.
        again: how often the launcher has sent the cell again since a user sent it.
        jobs: all its jobs, oldest first.
        attempt: the batch script of an attempt with an unknown result; empty for none.
    """

    job: str | None = None
    event: Event = "sent"
    cluster: str = ""
    host: str = ""
    again: int = 0
    jobs: list[str] = field(default_factory=list)
    attempt: str = ""


class Ledger:
    """The ledger of a sweep's directory."""

    def __init__(self, path: Path) -> None:
        """Writes nothing before the first event."""
        self.path = path

    def add(
        self,
        event: Event,
        cell: str,
        cluster: str,
        job: str | None = None,
        again: bool = False,
        script: str = "",
    ) -> None:
        """Appends an event.

        Args:
            again: whether the launcher, not a user, sends the cell again.
            script: the batch script that is being sent.
        """
        noted: dict[str, object] = {"event": event, "cell": cell, "cluster": cluster, "job": job}
        noted |= {"again": again, "host": socket.gethostname()}
        if script:
            noted["script"] = script
        # A full disk may have cut the last line: this event starts a new one.
        line = "\n" + json.dumps(noted | {"time": time.time()}) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # One write of a short line cannot mix with other writes.
            whole = os.write(descriptor, line.encode()) == len(line.encode())
        finally:
            os.close(descriptor)
        if not whole:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def read(self) -> dict[str, Entry]:
        """The history of every cell that was sent, or may have been sent."""
        entries: dict[str, Entry] = {}
        sent: set[str] = set()
        lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        for line in lines:
            try:
                noted = json.loads(line)
                if not isinstance(noted, dict) or "cell" not in noted:
                    continue
            except ValueError:  # cut by a full disk or by a machine that stopped
                continue
            entry = entries.setdefault(noted["cell"], Entry(cluster=noted["cluster"]))
            if noted["event"] in ("sending", "refused"):
                entry.attempt = noted.get("script", "")
            else:
                sent.add(noted["cell"])
                _enter(entry, noted)
        return {key: entry for key, entry in entries.items() if key in sent or entry.attempt}

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """A context in which no other process reads and adds events.

        Raises:
            WorkdirError: the ledger cannot be written; it may belong to another user.
        """
        try:
            with locked(self.path.with_suffix(".lock")):
                yield
        except OSError as error:
            raise WorkdirError(
                f"cannot use {self.path}: {error.strerror}{owner_of(self.path)}"
            ) from error


def _enter(entry: Entry, noted: dict[str, Any]) -> None:
    """Enters an event of a cell that was sent."""
    entry.event, entry.cluster, entry.host = noted["event"], noted["cluster"], noted["host"]
    entry.attempt = ""
    if noted["event"] == "cancelled":
        return
    entry.job = noted["job"]
    if entry.job is not None:
        entry.jobs.append(entry.job)
    entry.again = entry.again + 1 if noted["again"] else 0
