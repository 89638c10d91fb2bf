"""check_ctkd passes on the Distiller and on a plain implementation, and finds each seeded fault."""

import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ctkd import Distiller
from ctkd.adversary.schedules import CosineLambda
from ctkd.losses.objectives import KD
from ctkd.temperature import GlobalTemperature, InstanceTemperature
from ctkd.testing import check_ctkd
from ctkd.testing.ctkd_contract import examine
from ctkd.testing.ctkd_faults import FAULTS
from ctkd.testing.training_step import TrainingStep

# What a fault brings with it besides itself.
ALSO = {
    "not in the optimizer": {"no movement"},
    "wrong direction": {"λ schedule", "T moves at λ = 0"},
    "cross-entropy to the teacher": {"wrong gradient", "wrong direction"},
    "divided by the classes": {"wrong gradient"},
    "sum over rows": {"wrong gradient"},
    "wrong loss": {"wrong gradient", "wrong direction"},
}


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.strength * gradient, None


def make(fault=""):
    """A step with the fault of this name, or with none."""
    raw = nn.Parameter(torch.tensor(1.0))
    other = nn.Parameter(torch.zeros(()))
    held = other if fault == "not in the optimizer" else raw
    decay = 5e-4 if fault == "T moves at λ = 0" else 0.0
    lr = 0.0 if fault == "no movement" else 0.05
    optimizer = torch.optim.SGD([held], lr=lr, momentum=0.9, weight_decay=decay)
    state = {"λ": 1.0}

    def temperature(student=None, teacher=None):
        return 1 + 20 * torch.sigmoid(raw)

    def set_epoch(n):
        x = min(n, 10) / 10
        rising = (1 - math.cos(math.pi * x)) / 2
        state["λ"] = 1 - rising if fault == "λ schedule" else rising

    def loss(student, teacher, targets):
        t = temperature()
        if fault == "no gradient":
            t = t.item()
        elif fault == "student disturbed":
            student, t = Reverse.apply(student, 0.5), Reverse.apply(t, state["λ"])
        elif fault != "wrong direction":
            t = Reverse.apply(t, state["λ"] * (0.9 if fault == "wrong gradient" else 1))
        kept = torch.ones_like(targets, dtype=torch.bool)
        if fault != "padding counts":
            kept = targets != -100
        student, teacher = student[kept], teacher[kept]
        ce = F.cross_entropy(student, targets[kept], ignore_index=-100)
        p, log_q = (teacher / t).softmax(1), (student / t).log_softmax(1)
        rows = (p * ((teacher / t).log_softmax(1) - log_q)).sum(1)
        if fault == "cross-entropy to the teacher":
            rows = -(p * log_q).sum(1)
        if fault == "not finite":
            rows = (p * (p.log() - log_q)).sum(1)
        if fault == "divided by the classes":
            rows = rows / student.shape[1]
        if fault == "wrong loss":
            rows = (log_q.exp() * (log_q - (teacher / t).log_softmax(1))).sum(1)
        square = t * t
        if fault == "T² detached":
            square = square.detach()
        if fault == "no T²":
            square = 1
        kd = (square * rows).sum() if fault == "sum over rows" else (square * rows).mean()
        return 0.1 * ce + 0.9 * kd

    return TrainingStep(
        loss,
        temperature,
        [raw],
        optimizer,
        set_lambda=lambda value: state.update({"λ": value}),
        set_epoch=set_epoch,
        ignore_index=-100,
    )


def of_distiller(policy_class, **settings):
    """Makes a step of our own Distiller."""

    def make_step():
        torch.manual_seed(0)
        distiller = Distiller(policy_class(**settings), CosineLambda(), KD())
        distiller.at(0)
        for name, parameter in distiller.named_parameters():
            if name.endswith("output.weight"):
                nn.init.normal_(parameter, std=0.1)  # at its first value, 0, T is one for all rows
        optimizer = torch.optim.SGD(distiller.parameters(), lr=0.05)
        return TrainingStep(
            lambda *rows: distiller(*rows).loss,
            lambda student, teacher: distiller.policy(student, teacher, 0.0),
            list(distiller.parameters()),
            optimizer,
            set_lambda=distiller.lambda_.fill_,
            set_epoch=lambda n: distiller.at(n - 1),
        )

    return make_step


def test_our_own_distiller_passes():
    check_ctkd(of_distiller(GlobalTemperature))


def test_a_policy_per_sample_passes():
    settings = {"num_classes": 20, "hidden": 8, "inputs": "probabilities"}
    check_ctkd(of_distiller(InstanceTemperature, **settings))


def test_a_plain_implementation_passes():
    check_ctkd(make)


@pytest.mark.parametrize("name", FAULTS)
def test_each_seeded_fault_is_found(name):
    found = {fault.name: fault for fault in examine(lambda: make(name))}
    assert name in found
    assert found.keys() - {name} <= ALSO.get(name, set())
    with pytest.raises(AssertionError, match=re.escape(f"{name}: ")) as error:
        check_ctkd(lambda: make(name))
    assert "{}" not in str(error.value)
    assert FAULTS[name].cure in str(error.value)
