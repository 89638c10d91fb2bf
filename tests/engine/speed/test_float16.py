"""float16: the loss is scaled for the gradients' sake, and what overflows moves nothing."""

import pytest
import torch
from torch import nn

from ctkd.engine.optim import Optimizer
from ctkd.engine.optimizer_recipes import SGDRecipe
from ctkd.engine.teacher.frozen import autocast
from ctkd.errors import NonFiniteError


def make(scaled, **settings):
    torch.manual_seed(0)
    student, policy = nn.Linear(4, 2), nn.Linear(1, 1)
    return student, policy, Optimizer(SGDRecipe(lr=0.1, **settings), student, policy, scaled=scaled)


def loss_of(student, policy, factor=1.0):
    return factor * (student(torch.ones(3, 4)).square().sum() + policy(torch.ones(1, 1)).sum())


@pytest.mark.parametrize("settings", [{}, {"clip_norm": 0.5, "policy_clip_norm": 0.1}])
def test_a_scaled_step_is_the_ordinary_one(settings):
    weights, norms = [], []
    for scaled in (False, True):
        student, policy, optimizer = make(scaled, **settings)
        for _ in range(3):
            optimizer.backward(loss_of(student, policy))
            norms.append([norm.item() for norm in optimizer.step()])
        weights.append([p.detach().clone() for p in (*student.parameters(), *policy.parameters())])
    # the scale is a power of two, which changes no bit
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert norms[:3] == norms[3:]


def test_a_step_that_overflows_moves_nothing_and_halves_the_scale():
    student, policy, optimizer = make(True)
    before = [p.detach().clone() for p in (*student.parameters(), *policy.parameters())]
    scale = optimizer.scaler.get_scale()
    optimizer.backward(loss_of(student, policy, 1e38))  # its gradient times 2^16 is infinite
    assert [norm.item() for norm in optimizer.step()] == [0, 0]
    assert optimizer.scaler.get_scale() == scale / 2
    after = [*student.parameters(), *policy.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    momenta = [state["momentum_buffer"] for state in optimizer.torch[0].state.values()]
    assert len(momenta) == len(after)
    assert not any(momentum.any() for momentum in momenta)
    optimizer.check()
    optimizer.backward(loss_of(student, policy))
    optimizer.step()
    assert not torch.equal(before[0], after[0])


def test_gradients_that_no_scale_keeps_finite_end_the_run():
    student, policy, optimizer = make(True)
    for _ in range(60):
        optimizer.backward(loss_of(student, policy, float("nan")))
        optimizer.step()
    with pytest.raises(NonFiniteError, match="bfloat16"):
        optimizer.check()


def test_the_precision_of_the_networks():
    network, inputs = nn.Linear(3, 2), torch.ones(1, 3)
    for name in ("float16", "bfloat16", "float32"):
        with autocast(torch.device("cpu"), name):
            assert network(inputs).dtype == getattr(torch, name)


def test_a_run_in_float16_keeps_its_scale_when_it_is_resumed(train, folder, same, monkeypatch):
    half = ("precision = 'float16'",)
    whole = train("ctkd", *half, workdir="whole")
    assert all(row["train_loss"] == row["train_loss"] for row in whole.metrics)
    state = torch.load(whole.checkpoints[-1], weights_only=True)
    assert state["scaler"]["scale"] == 2.0**16
    from ctkd.engine.train import Trainer

    step = Trainer.train_step

    def interrupted(self, batch):
        step(self, batch)
        if self.progress.steps == 3:
            from ctkd.engine.interrupt import request_stop

            self.optimizer.scaler.update(2.0**10)  # not the one that a new process begins with
            request_stop()

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    train("ctkd", *half, workdir="stopped", status=130)
    monkeypatch.setattr(Trainer, "train_step", step)
    stopped = train("ctkd", *half, workdir="stopped")
    assert torch.load(stopped.checkpoints[-1], weights_only=True)["scaler"]["scale"] == 2.0**10
    assert same(stopped.tensors(), whole.tensors())  # a power of two changes no bit
    plain = train("ctkd", workdir="plain")
    assert plain.metrics[0]["train_loss"] == pytest.approx(whole.metrics[0]["train_loss"], rel=0.02)
    assert torch.load(plain.checkpoints[-1], weights_only=True)["scaler"] == {}
