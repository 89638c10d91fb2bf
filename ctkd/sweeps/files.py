"""Small files that several processes share: written whole, appended under a lock.

Nothing here imports torch: a task writes its first note before that.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
    """Replaces `path` by `text`; a reader never meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none, or none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def locked(path: Path, seconds: float | None = None) -> Iterator[bool]:
    """Holds the lock `path`, waiting for it at most so long (None: forever); whether it does.

    It is the kernel's record lock, which goes with this process however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    end = None if seconds is None else time.monotonic() + seconds
    with open(path, "a+") as file:
        while not _try(file.fileno()):
            if end is not None and time.monotonic() >= end:
                yield False
                return
            time.sleep(0.05)
        yield True


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock `path`."""
    if not path.exists():
        return False
    with locked(path, 0) as ours:
        return not ours


def _try(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
