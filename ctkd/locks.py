"""Locks that end with their process, even if it is killed: the record locks of the kernel.

Nothing here imports torch: the task of a sweep takes a lock before that.
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
    """Takes the lock `path` and yields whether it got it.

    Args:
        seconds: the longest wait; None for no limit.

    Raises:
        WorkdirError: the file system has no locks.
        OSError: the file cannot be created or opened for writing.
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
    """Whether another process holds the lock `path`; to read the file is enough to know it.

    Raises:
        WorkdirError: the file system has no locks, or the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return not try_lock(file, fcntl.LOCK_SH)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise WorkdirError(f"the lock {path} cannot be read: {error.strerror}") from error


def try_lock(file: IO[Any], kind: int = fcntl.LOCK_EX) -> bool:
    """Takes the lock on an open file until it is closed, if no other process holds it.

    Forked children do not inherit it. An exclusive lock needs a file that is open for writing, a
    shared one a file that is open for reading.

    Raises:
        WorkdirError: the file system has no locks.
    """
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX leaves the choice between the two
        return False
    except OSError as error:
        raise WorkdirError(
            f"{file.name} cannot be locked ({error.strerror}): choose a folder on a file system "
            "that has locks (Lustre has them if mounted with -o flock)"
        ) from error
    return True
