"""What is pickled: small, without torch, and how it answers the cluster's signals."""

import json
import os
import pickle
import signal
import time

import pytest

from ctkd.engine.interrupt import StopRequests, request_stop
from ctkd.errors import Interrupted
from ctkd.sweeps.cell_job import CellJob, Preemption


@pytest.fixture
def task(tmp_path):
    return CellJob(
        ("gin/digits/kd.gin",), ("epochs = 2",), str(tmp_path / "run"), str(tmp_path / "n")
    )


@pytest.fixture
def in_job(monkeypatch):
    """As if in a job of submitit, which has set its own handler; the signals that it answers."""
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_PROCID", "0")
    answers = []

    def answer(number, frame):
        answers.append(number)
        raise SystemExit(144)

    before = signal.signal(signal.SIGUSR2, answer)
    yield answers
    signal.signal(signal.SIGUSR2, before)


def send(*numbers, wait):
    """Sends this process signals one after the other; a handler that raises ends the wait."""
    for number in numbers:
        os.kill(os.getpid(), number)
        time.sleep(0.05)
    time.sleep(wait)


def test_the_pickle_is_small_and_needs_no_torch(task, python, tmp_path):
    data = pickle.dumps(task)
    assert len(data) < 1000
    (tmp_path / "task.pkl").write_bytes(data)
    done = python(
        "import pickle, sys\n"
        "import submitit, submitit.core.submission\n"
        "loaded = pickle.load(open('task.pkl', 'rb'))\n"
        "print('torch' in sys.modules)\n"
        "print(type(loaded.checkpoint()).__name__)"
    )
    assert done.out.split() == ["False", "DelayedSubmission"], done.err


def test_what_is_sent_again_is_the_same_task(task, tmp_path):
    submission = task.checkpoint()
    assert submission.function is task
    assert json.loads((tmp_path / "n").read_text())["state"] == "requeued"


def test_without_a_loop_the_answer_is_immediate(in_job):
    with Preemption(90), pytest.raises(SystemExit):
        send(signal.SIGUSR2, wait=1)
    assert in_job == [signal.SIGUSR2]


def test_a_loop_is_asked_to_save_before_the_answer(in_job):
    with Preemption(90) as preemption:
        with StopRequests() as stop:
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(0.05)
            assert stop.requested
            assert in_job == []
        with pytest.raises(SystemExit):
            preemption.hand_over()
    assert in_job == [signal.SIGUSR2]


def test_a_loop_that_does_not_stop_is_not_waited_for_beyond_half_the_grace(in_job):
    with Preemption(grace=2), StopRequests(), pytest.raises(SystemExit):
        send(signal.SIGUSR2, wait=5)
    assert in_job == [signal.SIGUSR2]


def test_a_second_signal_is_answered_at_once(in_job):
    with Preemption(90), StopRequests(), pytest.raises(SystemExit):
        send(signal.SIGUSR2, signal.SIGUSR2, wait=5)
    assert in_job == [signal.SIGUSR2]


def test_sigterm_after_the_clusters_signal_does_not_end_the_saving(in_job):
    with Preemption(90), StopRequests() as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        assert stop.requested
    assert in_job == []


def test_only_the_first_process_of_a_run_answers(in_job, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    with Preemption(90), StopRequests() as stop, pytest.raises(SystemExit):
        send(signal.SIGUSR2, wait=1)  # to submitit's own handler, which only logs there
    assert not stop.requested


def test_a_request_reaches_nobody_where_no_loop_runs():
    assert not request_stop()


@pytest.mark.parametrize(
    ("params", "state", "message"),
    [
        (("epohcs = 2",), "failed", "did you mean epochs?"),
        (("digits.train_images = -3",), "failed", "digits.train_images"),
    ],
)
def test_a_failed_task_notes_its_error(tmp_path, params, state, message):
    note = tmp_path / "note.json"
    with pytest.raises(Exception, match=r"epochs|digits"):
        CellJob(("gin/digits/kd.gin",), params, str(tmp_path / "run"), str(note))()
    noted = json.loads(note.read_text())
    assert noted["state"] == state
    assert message in noted["error"]


def test_an_interrupted_task_says_so(task, monkeypatch, tmp_path):
    def interrupted(*_):
        raise Interrupted("interrupted after step 3")

    monkeypatch.setattr("ctkd.engine.job.execute", interrupted)
    with pytest.raises(Interrupted):
        task()
    assert json.loads((tmp_path / "n").read_text())["state"] == "interrupted"


def test_a_fault_of_ours_is_noted_with_its_kind(task, monkeypatch, tmp_path):
    def broken(*_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("ctkd.engine.job.execute", broken)
    with pytest.raises(ZeroDivisionError):
        task()
    assert (
        json.loads((tmp_path / "n").read_text())["error"] == "ZeroDivisionError: division by zero"
    )
