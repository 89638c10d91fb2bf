"""A run that was stopped, however it was, ends as the undisturbed one: bit by bit."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from ctkd.engine.train import Trainer
from ctkd.main import main
from ctkd.registry import MODELS


class Killed(BaseException):
    """Stands for SIGKILL: nothing that handles errors sees it."""


@pytest.fixture
def kill_at(monkeypatch):
    """Makes the n-th call of owner.name end the process, before it or after it."""

    def arm(owner, name, number, after=False):
        calls, real = [], getattr(owner, name)

        def counted(*arguments, **keywords):
            calls.append(arguments)
            if len(calls) == number and not after:
                raise Killed
            result = real(*arguments, **keywords)
            if len(calls) == number:
                raise Killed
            return result

        monkeypatch.setattr(owner, name, counted)
        return calls, lambda: monkeypatch.setattr(owner, name, real)

    return arm


def epochs_once(run, epochs):
    return run.column("epoch") == list(range(1, epochs + 1))


def untimed(rows):
    return [
        {k: v for k, v in row.items() if k not in ("images_per_s", "data_wait")} for row in rows
    ]


def agree(run, reference, same):
    weights = ("student_last.pt", "student_best.pt")
    return (
        all(same(run.tensors(name), reference.tensors(name)) for name in weights)
        and untimed(run.metrics) == untimed(reference.metrics)
        and run.summary["last_top1"] == reference.summary["last_top1"]
    )


@pytest.mark.parametrize("method", ["ctkd_instance", "dkd_ctkd"])
def test_killed_at_any_step_it_ends_bit_identical(train, same, kill_at, method):
    """Two steps an epoch: within the first epoch, at an epoch's end, and within the last."""
    often = "Runtime.checkpoint_steps = 1"
    reference = train(method, often, workdir="reference")
    for step in (1, 2, 4, 6):
        _, disarm = kill_at(Trainer, "train_step", step, after=True)
        with pytest.raises(Killed):
            train(method, often, workdir=f"run{step}")
        disarm()
        run = train(method, often, workdir=f"run{step}")
        assert agree(run, reference, same), step
        assert run.landscape == reference.landscape
        csv = (run.path / "temperature.csv").read_bytes()
        assert csv == (reference.path / "temperature.csv").read_bytes()


@MODELS.register("forgetful_network_of_test_resume")
def forgetful_network(num_classes: int) -> nn.Module:
    """With dropout, which draws from the global generator."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, num_classes)
    )


def test_dropout_too_is_the_same_after_a_resumption(train, same, kill_at):
    settings = ["student = @forgetful_network_of_test_resume", "Runtime.checkpoint_steps = 1"]
    reference = train("ctkd", *settings, workdir="reference")
    _, disarm = kill_at(Trainer, "train_step", 3, after=True)
    with pytest.raises(Killed):
        train("ctkd", *settings)
    disarm()
    torch.rand(17)
    assert agree(train("ctkd", *settings), reference, same)


@pytest.mark.parametrize("after", [False, True])
def test_killed_between_any_two_files_it_ends_bit_identical(train, same, kill_at, after):
    reference = train("vanilla", "epochs = 2", workdir="reference")
    calls, disarm = kill_at(os, "replace", 10**9)
    train("vanilla", "epochs = 2", workdir="counted")
    disarm()
    assert len(calls) > 8  # settings, best, checkpoint, last, metrics, summary among them
    for number in range(1, len(calls) + 1):
        _, disarm = kill_at(os, "replace", number, after)
        with pytest.raises(Killed):
            train("vanilla", "epochs = 2", workdir=f"run{number}")
        disarm()
        run = train("vanilla", "epochs = 2", workdir=f"run{number}")
        assert agree(run, reference, same), calls[number - 1]
        assert epochs_once(run, 2)
        assert not list(run.path.rglob(".*.tmp"))


def start(arguments):
    """The command in a forked process, which needs no time to import anything; its id."""
    child = os.fork()
    if child == 0:
        try:
            for descriptor in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            os._exit(main(arguments))
        finally:
            os._exit(70)
    return child


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_sigkills_at_random_moments_leave_a_bit_identical_student(
    train, arguments, same, folder, tmp_path
):
    """A checkpoint after every step, so that many of the kills fall into the writing of one."""
    settings = ["epochs = 30", "digits.train_images = 1000", "Runtime.checkpoint_steps = 1"]
    begun = time.monotonic()
    reference = train("ctkd", *settings, workdir="reference")
    # Twenty waits add up to less than the undisturbed run takes, however fast the machine is, and
    # also where it was busy while that one ran.
    longest = (time.monotonic() - begun) / 25
    waits, kills, status, reached = random.Random(0), 0, None, set()
    while status is None:
        child = start(arguments("ctkd", *settings, workdir="run"))
        # After the twentieth kill it is left to itself.
        deadline = time.monotonic() + (waits.uniform(0.02, longest) if kills < 20 else 600)
        while status is None and time.monotonic() < deadline:
            done, ended = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(ended) if done else None
            time.sleep(0.002)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
            reached |= {path.name for path in (tmp_path / "run/checkpoints").glob("step-*.pt")}
    assert status == 0
    assert kills == 20, "the run was over too soon"
    assert len(reached) >= 5, "nearly all kills fell before the first step"
    run = folder(tmp_path / "run")
    assert agree(run, reference, same)
    assert epochs_once(run, 30)
    assert run.landscape == reference.landscape


@pytest.mark.slow
def test_a_process_killed_while_it_writes_a_checkpoint(
    train, arguments, same, folder, tmp_path, environment
):
    """sitecustomize makes the n-th os.replace the last thing the process does."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "real, left = os.replace, [int(os.environ['REPLACES'])]\n"
        "def replace(*paths):\n"
        "    left[0] -= 1\n"
        "    if left[0] == 0:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(*paths)\n"
        "os.replace = replace\n"
    )
    reference = train("ctkd", workdir="reference")
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    codes = []
    for number in (5, 6, 4, 10**6):
        done = subprocess.run(
            [sys.executable, "-m", "ctkd.main", *arguments("ctkd", workdir="run")],
            cwd=tmp_path,
            env=environment | {"REPLACES": str(number)},
            capture_output=True,
            timeout=300,
        )
        codes.append(done.returncode)
    assert codes == [-signal.SIGKILL] * 3 + [0], done.stderr
    assert agree(folder(tmp_path / "run"), reference, same)
