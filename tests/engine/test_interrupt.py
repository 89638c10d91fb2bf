"""Ctrl-C and SIGTERM: one line, the state saved, and the same end as if undisturbed."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ctkd.engine import interrupt
from ctkd.engine.interrupt import StopRequests, request_stop
from ctkd.engine.train import Trainer

BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def signal_at(monkeypatch):
    """Sends this process a signal in the middle of its n-th step."""

    def arm(number, step, times=1):
        count, real = [], Trainer.train_step

        def stepped(self, batch):
            count.append(1)
            if len(count) == step:
                for _ in range(times):
                    os.kill(os.getpid(), number)
            real(self, batch)

        monkeypatch.setattr(Trainer, "train_step", stepped)
        return lambda: monkeypatch.setattr(Trainer, "train_step", real)

    return arm


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_signal_ends_the_run_after_the_step_with_its_state_saved(
    train, same, signal_at, number, step
):
    """Two steps an epoch: in the middle of one, at the end of one, and at the very end."""
    disarm = signal_at(number, step)
    stopped = train("ctkd", status=130)
    disarm()
    assert stopped.result.err == (
        f"ctkd: interrupted after step {step}; the state is saved; "
        "the same command goes on from there\n"
    )
    assert not (stopped.path / "summary.json").exists()
    assert [int(path.name[5:15]) for path in stopped.checkpoints][-1] == step
    resumed = train("ctkd")
    assert f"resumed at step {step}" in resumed.result.out
    reference = train("ctkd", workdir="reference")
    assert same(resumed.tensors(), reference.tensors())
    assert resumed.column("epoch") == [1, 2, 3]
    assert resumed.column("train_loss") == reference.column("train_loss")


def test_a_second_signal_ends_it_at_once_in_one_line_too(train, signal_at):
    signal_at(signal.SIGINT, 4, times=2)
    stopped = train("ctkd", status=130)
    assert stopped.result.err == (
        "ctkd: interrupted; what was saved stays; the same command goes on from there\n"
    )
    assert [int(path.name[5:15]) for path in stopped.checkpoints] == [2]


def test_before_and_after_a_run_signals_mean_what_they_meant(train):
    previous = [signal.getsignal(number) for number in BOTH]
    train("vanilla")
    assert [signal.getsignal(number) for number in BOTH] == previous


def test_inside_a_signal_only_sets_a_mark_and_outside_nothing_is_left():
    with StopRequests() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not interrupt._LISTENING


def test_a_program_can_ask_its_loops_to_stop_too():
    assert not request_stop()
    with StopRequests() as stop:
        assert request_stop()
        assert stop.requested
    assert not request_stop()


def test_in_another_thread_no_handlers_are_set():
    seen = []

    def body():
        with StopRequests() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGINT)))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_a_process_that_is_signalled_leaves_one_line(arguments, environment, tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ctkd.main",
            *arguments("ctkd", "epochs = 4000", workdir="run"),
        ],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stdout:
            if line.lstrip().startswith("epoch"):
                break
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert err.startswith("ctkd: interrupted after step ")
    assert list((tmp_path / "run/checkpoints").glob("*.pt"))


@pytest.mark.slow
def test_a_signal_before_the_first_step_is_one_line_too(arguments, environment, tmp_path):
    """While Python still imports: nothing was begun, so there is nothing to save."""
    for wait, number in itertools.product((0.3, 1.0, 1.8), (signal.SIGINT, signal.SIGTERM)):
        process = subprocess.Popen(
            [sys.executable, "-m", "ctkd.main", *arguments("ctkd", "epochs = 4000", workdir="r")],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(wait)
        process.send_signal(number)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
        if "Fatal Python error" in err:  # Python itself was only starting
            continue
        assert process.returncode in (130, -number)
        if process.returncode == 130:
            assert err.startswith("ctkd: interrupted")
            assert err.count("\n") == 1
