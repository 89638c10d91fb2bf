"""Runs that share a process: each ends with the bits that it has alone, and fails alone."""

import pytest

from ctkd.engine.interrupt import request_stop
from ctkd.engine.tasks.images import ImageTask
from ctkd.engine.train import Trainer

METHOD = "ctkd_instance"  # a policy with batch statistics and random first weights


@pytest.fixture
def stopped_at(monkeypatch):
    """Requests a stop, as a signal does, after the n-th step of the run with seed 1."""

    def stop(step):
        real = Trainer.train_step

        def train_step(self, batch):
            real(self, batch)
            if self.run.seed == 1 and self.progress.steps == step:
                assert request_stop()

        monkeypatch.setattr(Trainer, "train_step", train_step)

    return stop


def test_each_student_has_the_bits_of_its_run_alone(train, folder, same, stopped_at):
    """Also where the group was stopped in the middle of an epoch and started again."""
    alone = [train(METHOD, f"seed = {seed}", workdir=f"alone{seed}") for seed in range(3)]
    stopped_at(3)
    stopped = train(METHOD, workdir="group", flags=["--seeds=0,1,2"], status=130)
    assert "3 of 3 runs did not finish" in stopped.result.err
    group = train(METHOD, workdir="group", flags=["--seeds=0,1,2"])
    assert "seed 1 | resumed at step 3, epoch 2" in group.result.out
    for seed, run in enumerate(alone):
        member = folder(group.path / f"seed{seed}")
        assert same(member.tensors(), run.tensors())
        assert member.column("test_loss") == run.column("test_loss")


def test_a_run_that_is_not_finite_ends_alone(train):
    group = train("ctkd", "SGD.lr = 1e30", workdir="group", flags=["--seeds=0,1"], status=3)
    assert "2 of 2 runs did not finish" in group.result.err


@pytest.mark.parametrize(
    ("flags", "bindings", "message"),
    [
        (["--seeds=0,0"], (), "the same work directory"),
        (["--seeds=0,x"], (), "expected whole numbers, such as 0,1,2"),
    ],
)
def test_a_group_that_cannot_be(train, flags, bindings, message):
    assert message in train("ctkd", *bindings, flags=flags, status=2).result.err


def test_the_teacher_is_evaluated_once(train, monkeypatch):
    evaluated = []
    real = ImageTask.evaluate

    def evaluate(self, model):
        evaluated.append(model)
        return real(self, model)

    monkeypatch.setattr(ImageTask, "evaluate", evaluate)
    train("kd", "epochs = 1", workdir="group", flags=["--seeds=0,1"])
    assert len(evaluated) == 3  # the teacher, and each student after its epoch
