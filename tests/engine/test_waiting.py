"""A run whose batch does not come still answers a signal, and saves its state."""

import os
import shutil
import signal

import pytest
import torch

from ctkd.data import workers as stream
from ctkd.data.workers import while_waiting
from ctkd.engine import interrupt
from ctkd.engine.train import Trainer
from ctkd.seeds import generator

SAVED = "ctkd: interrupted after step {}; the state is saved; the same command goes on from there\n"
STAYS = "ctkd: interrupted; what was saved stays; the same command goes on from there\n"


@pytest.fixture
def arguments(own_images):
    """The command line of a run on 24 images of its own, two epochs of the steps 7, 7, 7, 3."""
    root = own_images()

    def given(workdir, workers=1):
        bindings = [
            f"data_dir = {str(root)!r}",
            *("imagenet.num_classes = 3", "imagenet.size = 16", "imagenet.resize = 18"),
            *("student = @resnet8", "batch_size = 7", "epochs = 2", f"workers = {workers}"),
            *(
                "Runtime.tensorboard = False",
                "Runtime.figures = False",
                "Runtime.checkpoint_steps = 3",
            ),
        ]
        parameters = [f"--gin_param={binding}" for binding in bindings]
        return ["--gin_file=gin/imagenet/vanilla.gin", *parameters, f"--workdir={workdir}"]

    given.root = root
    return given


@pytest.fixture
def hanging(arguments, monkeypatch):
    """Makes reads of a file hang, as on a file system that does not answer."""
    monkeypatch.setattr(stream, "POLL", 0.1)
    monkeypatch.setattr(interrupt, "PATIENCE", 0.3)

    def hang(name):
        path = arguments.root / name
        shutil.move(path, f"{path}.kept")
        os.mkfifo(path)  # nothing ever writes into it
        return path

    yield hang
    for kept in arguments.root.rglob("*.kept"):
        shutil.move(kept, kept.with_suffix(""))


@pytest.fixture
def signal_in_wait(monkeypatch):
    """Sends this process a signal while it waits for a batch, once so many steps are done."""
    taken, sent, real = [], [], Trainer.train_step

    def step(self, batch):
        real(self, batch)
        taken.append(1)

    monkeypatch.setattr(Trainer, "train_step", step)

    def arm(number, steps):
        def check(seconds):
            if len(taken) == steps and seconds > 0.2 and not sent:
                sent.append(1)
                os.kill(os.getpid(), number)

        return while_waiting(check)

    return arm


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wait_for_a_batch_that_does_not_come(
    arguments, hanging, signal_in_wait, command, tmp_path, number
):
    index = int(torch.randperm(24, generator=generator(0, "order", 1))[7])  # the second step's
    path = hanging(f"train/n{index // 8:08}/train_{index % 8}.JPEG")
    with signal_in_wait(number, steps=1):
        stopped = command(*arguments("run"))
    assert (stopped.status, stopped.err.splitlines(True)[-1]) == (130, SAVED.format(1))
    shutil.move(f"{path}.kept", path)
    resumed = command(*arguments("run", workers=0))
    assert "resumed at step 1" in resumed.out
    assert command(*arguments("whole", workers=0)).status == 0
    one, other = (
        torch.load(tmp_path / folder / "student_last.pt", weights_only=True)
        for folder in ("run", "whole")
    )
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_wait_in_an_evaluation(arguments, hanging, signal_in_wait, command, tmp_path):
    hanging("val/n00000001/val_2.JPEG")
    with signal_in_wait(signal.SIGTERM, steps=4):
        stopped = command(*arguments("run"))
    assert (stopped.status, stopped.err.splitlines(True)[-1]) == (130, STAYS)
    (saved,) = (tmp_path / "run" / "checkpoints").glob("*.pt")
    assert int(saved.name[5:15]) == 3


@pytest.mark.slow
def test_a_wait_for_the_first_batch(arguments, hanging, signal_in_wait, command, tmp_path):
    """Nothing is trained yet, so nothing is saved."""
    index = int(torch.randperm(24, generator=generator(0, "order", 1))[0])
    hanging(f"train/n{index // 8:08}/train_{index % 8}.JPEG")
    with signal_in_wait(signal.SIGTERM, steps=0):
        stopped = command(*arguments("run"))
    assert (stopped.status, stopped.err.splitlines(True)[-1]) == (130, STAYS)
    assert not list((tmp_path / "run").rglob("*.pt"))


@pytest.mark.slow
def test_a_run_with_workers_in_a_container_of_little_shared_memory(
    arguments, environment, small_shm, tmp_path
):
    """Batches of 1.1 MB, of which each worker reads four ahead, and 1 MiB in /dev/shm."""
    size = ["--gin_param=imagenet.size = 224", "--gin_param=imagenet.resize = 224"]
    command = ["-m", "ctkd.main", *arguments("run", workers=2), *size]
    done = small_shm(*command, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "summary.json").exists()
