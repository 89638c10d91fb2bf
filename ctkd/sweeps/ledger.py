"""What was sent and when: one line of JSON an event, appended by launcher and queue alike."""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ctkd.errors import WorkdirError
from ctkd.files import owner_of
from ctkd.locks import locked

Event = Literal["sent", "started", "cancelled"]


@dataclass
class Entry:
    """A cell's history.

    Attributes:
        job: the newest job's number; None while it waits in the queue of this machine.
        event: the newest event.
        cluster, host: where it was sent, and from which machine.
        again: how often it was sent again unasked, since somebody sent it last.
        jobs: all its jobs, oldest first.
        devices: this machine's GPUs that the newest job was given.
    """

    job: str | None = None
    event: Event = "sent"
    cluster: str = ""
    host: str = ""
    again: int = 0
    jobs: list[str] = field(default_factory=list)
    devices: list[int] = field(default_factory=list)


class Ledger:
    """The ledger of a sweep's directory."""

    def __init__(self, path: Path) -> None:
        """Nothing is written before the first event."""
        self.path = path

    def add(
        self,
        event: Event,
        cell: str,
        cluster: str,
        job: str | None = None,
        again: bool = False,
        devices: Sequence[int] = (),
    ) -> None:
        """Appends an event; `again` for a cell that is sent again unasked."""
        told: dict[str, object] = {"event": event, "cell": cell, "cluster": cluster, "job": job}
        told |= {"again": again, "devices": list(devices), "host": socket.gethostname()}
        # Behind a line that was torn, by a full disk say, this one begins a new one.
        line = "\n" + json.dumps(told | {"time": time.time()}) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # One write of a short line is not interleaved.
            whole = os.write(descriptor, line.encode()) == len(line.encode())
        finally:
            os.close(descriptor)
        if not whole:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def read(self) -> dict[str, Entry]:
        """The history of every cell that was ever sent."""
        entries: dict[str, Entry] = {}
        lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        for line in lines:
            try:
                told = json.loads(line)
            except ValueError:  # torn by a full disk or a machine that stopped
                continue
            entry = entries.setdefault(told["cell"], Entry())
            entry.event, entry.cluster, entry.host = told["event"], told["cluster"], told["host"]
            if told["event"] == "cancelled":
                continue
            entry.job = told["job"]
            if entry.job is not None:
                entry.jobs.append(entry.job)
            entry.devices = told.get("devices", [])  # not noted by versions before
            if told["event"] == "sent":
                entry.again = entry.again + 1 if told["again"] else 0
        return entries

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Inside, no other process both reads and adds: a cell is not started while cancelled.

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
