"""Runs on this machine: scripts in their place, and signals to the launcher."""

import os
import signal
import sys
import threading
import time

import pytest

HEAD = """#!/bin/sh
for word; do case $word in --workdir=*) W="${word#--workdir=}";; esac; done
mkdir -p "$W"
finish() { echo '{"finished": true, "last_top1": 50.0}' > "$W/summary.json"; exit 0; }
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Lines of a shell script that a run executes; $W is its work directory."""

    def write(*lines):
        path = tmp_path / "python"
        path.write_text(HEAD + "\n".join(lines) + "\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return write


@pytest.fixture
def when():
    """Sends this process a signal as soon as a condition holds."""
    threads = []

    def start(condition, number):
        def watch():
            end = time.monotonic() + 120
            while not condition() and time.monotonic() < end:
                time.sleep(0.02)
            os.kill(os.getpid(), number)

        threads.append(threading.Thread(target=watch))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join()


@pytest.fixture(autouse=True)
def _signals_arrive():
    """Undoes nohup and a background shell, which ignore SIGHUP and SIGINT."""
    numbers = (signal.SIGINT, signal.SIGHUP)
    ignored = [number for number in numbers if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
