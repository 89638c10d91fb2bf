"""Workers: they outlive signals that are meant for the run, and do not outlive the run."""

import os
import signal
import time

import pytest

from ctkd.data.workers import stream

PARENT = """
import sys, time
from ctkd.data.workers import stream
import test_workers
if __name__ == "__main__":
    batches = stream(test_workers.who, [[(k, 0)] for k in range(50)], 1, list)
    print(next(batches)[0], flush=True)
    time.sleep(600)
"""


def who(index, view):
    return os.getpid()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ends(pid, seconds=60):
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_alive(pid)


@pytest.fixture
def importable(monkeypatch):
    """This module by its name, for workers to find `who` in."""
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    return __import__("test_workers").who


def test_signals_to_a_whole_group_leave_workers_at_work(importable):
    batches = stream(importable, [[(k, 0)] for k in range(40)], 1, list)
    (worker,) = next(batches)
    assert worker != os.getpid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        os.kill(worker, number)
    assert [pid for batch in batches for pid in batch] == [worker] * 39
    assert ends(worker)


def test_a_worker_ends_with_a_run_that_is_killed(environment, tmp_path):
    import subprocess
    import sys

    (tmp_path / "parent.py").write_text(PARENT)
    path = os.pathsep.join([os.path.dirname(__file__), environment["PYTHONPATH"]])
    process = subprocess.Popen(
        [sys.executable, "parent.py"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    worker = int(process.stdout.readline())
    assert is_alive(worker)
    process.kill()
    process.communicate()
    assert ends(worker)


def test_the_users_own_processes_are_left_to_end_by_themselves(python, tmp_path):
    """At the end of a process its workers are killed; nobody else's children are."""
    (tmp_path / "own.py").write_text(
        "import multiprocessing, pathlib, time\n"
        "import ctkd.data.workers\n"
        "def work():\n"
        "    time.sleep(1.0)\n"
        "    pathlib.Path('done').touch()\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.get_context('fork').Process(target=work).start()\n"
    )
    ended = python("import runpy; runpy.run_path('own.py', run_name='__main__')")
    assert ended.status == 0, ended.err
    assert (tmp_path / "done").exists()
