"""Locks that go with their process however it ends: the kernel's record locks.

Nothing here imports torch: a sweep's task takes one before that.
"""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ctkd.errors import WorkdirError


@contextlib.contextmanager
def locked(path: Path, seconds: float | None = None) -> Iterator[bool]:
    """Holds the lock `path`, waiting for it at most so long (None: forever); whether it does.

    Raises:
        WorkdirError: the file system has no locks.
        OSError: the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    end = None if seconds is None else time.monotonic() + seconds
    with open(path, "a+") as file:
        while not try_lock(file):
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


def try_lock(file: IO[Any]) -> bool:
    """Takes the lock on an open file until it is closed, if no other process holds it.

    Children that are forked do not inherit it.

    Raises:
        WorkdirError: the file system has no locks.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX leaves the choice between the two
        return False
    except OSError as error:
        raise WorkdirError(
            f"{file.name} cannot be locked ({error.strerror}): choose a place on a file system "
            "that has locks (Lustre has them if mounted with -o flock)"
        ) from error
    return True
