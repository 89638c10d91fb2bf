"""Locks between processes, and file systems that have none."""

import errno
import fcntl

import pytest

from ctkd.errors import WorkdirError
from ctkd.locks import is_locked, locked


def test_what_one_process_holds_another_does_not_get(tmp_path, python):
    path = tmp_path / "a.lock"
    assert not is_locked(path)
    with locked(path) as ours:
        assert ours
        done = python(
            "from pathlib import Path\nfrom ctkd.locks import is_locked, locked\n"
            f"path = Path({str(path)!r})\n"
            "with locked(path, 0.1) as ours:\n    print(is_locked(path), ours)\n"
        )
        assert done.out.split() == ["True", "False"], done.err
    assert not is_locked(path)


def test_a_file_system_without_locks_is_reported_and_not_taken_for_a_lock_that_is_held(
    tmp_path, monkeypatch
):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(WorkdirError, match=r"cannot be locked \(No locks available\): choose a"):
        locked(tmp_path / "a.lock").__enter__()
