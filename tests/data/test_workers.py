"""Workers: they outlive signals that are meant for the run, and do not outlive the run.

Every batch comes, or the reason why it does not come.
"""

import os
import signal
import time

import pytest
import torch

from ctkd.data import workers as module
from ctkd.data.workers import stream, while_waiting
from ctkd.errors import DataError, Interrupted

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


def large(index, view):
    return torch.full((2**20,), index, dtype=torch.uint8)


def slow(index, view):
    time.sleep(view)
    return os.getpid()


def suicidal(index, view):
    if index == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def collate_badly(samples):
    """As where the file system for batches is full."""
    module.Parcel = no_room
    return samples


def no_room(batch):
    raise OSError(28, "No space left on device")


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
    """This module by its name, for workers to find its functions in."""
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    return __import__("test_workers")


def test_signals_to_a_whole_group_leave_workers_at_work(importable):
    batches = stream(importable.who, [[(k, 0)] for k in range(40)], 1, list)
    (worker,) = next(batches)
    assert worker != os.getpid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        os.kill(worker, number)
    assert [pid for batch in batches for pid in batch] == [worker] * 39
    assert ends(worker)


@pytest.mark.slow(traced=True)
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
    """At the end of a process its workers are killed, and no other process."""
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


@pytest.mark.slow(traced=True)
def test_batches_pass_a_full_shared_memory(environment, small_shm, tmp_path):
    """Batches of 4 MiB, and 1 MiB in /dev/shm. A container has 64 MiB for batches of 38 MB."""
    (tmp_path / "parent.py").write_text(
        "import test_workers, torch\n"
        "from ctkd.data.workers import stream\n"
        "if __name__ == '__main__':\n"
        "    items = [[(k, 0)] * 4 for k in range(12)]\n"
        "    for batch in stream(test_workers.large, items, 2, torch.stack):\n"
        "        print(*batch.float().mean(1).tolist(), *batch.shape)\n"
    )
    path = os.pathsep.join([os.path.dirname(__file__), environment["PYTHONPATH"]])
    done = small_shm("parent.py", cwd=tmp_path, env={**environment, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    expected = [" ".join(4 * [f"{k}.0"] + ["4", f"{2**20}"]) for k in range(12)]
    assert done.stdout.split("\n")[:-1] == expected
    assert done.stderr == ""


def test_a_worker_that_is_killed_ends_the_run_with_an_error(importable):
    batches = stream(importable.suicidal, [[(k, 0)] for k in range(8)], 1, list)
    with pytest.raises(DataError, match="a worker process .* has ended.*fewer workers"):
        list(batches)


def test_a_batch_that_cannot_be_sent_ends_the_run_with_an_error(importable):
    batches = stream(importable.who, [[(0, 0)]], 1, importable.collate_badly)
    with pytest.raises(DataError, match="cannot pass a batch to the run: .*No space left"):
        next(batches)


def test_workers_that_cannot_be_started_are_an_error(importable, monkeypatch):
    """As where /dev/shm has no room at all, which their locks need a little of."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.utils.data.DataLoader.__iter__", full)
    with pytest.raises(DataError, match="2 worker processes cannot be started: .*workers = 0"):
        next(stream(importable.who, [[(0, 0)]], 2, list))


def test_a_batch_may_be_late(importable, monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.1)
    waits = []
    with while_waiting(waits.append):
        assert len(list(stream(importable.slow, [[(0, 1)], [(1, 0)]], 1, list))) == 2
    assert len(waits) > 3
    assert waits[:4] == sorted(waits[:4])
    assert waits[0] < 1


def test_a_wait_can_be_broken_off_though_the_workers_hang(importable, monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.1)

    def check(seconds):
        if time.monotonic() > end:
            raise Interrupted

    batches = stream(importable.slow, [[(0, 0)], [(1, 600)]], 1, list)
    (worker,) = next(batches)
    end = time.monotonic() + 0.3
    with while_waiting(check), pytest.raises(Interrupted):
        next(batches)
    assert time.monotonic() < end + 3
    assert ends(worker)
    assert not module._CHECKS
