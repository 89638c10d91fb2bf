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
    decay = 5e-4 if fault == "weight decay" else 0.0
    lr = 0.0 if fault == "no movement" else 0.05
    optimizer = torch.optim.SGD([held], lr=lr, momentum=0.9, weight_decay=decay)
    if fault == "λ hidden":
        optimizer = torch.optim.Adam([held], lr=1e-3)
    state = {"λ": 1.0}

    def temperature(student, teacher):
        if fault == "T is not bounded":
            return 4 * raw
        first = 30 if fault == "T is constant" else 0
        of_row = student.detach()[:, :1] if fault == "mean before T²" else 0
        return 1 + 20 * torch.sigmoid(raw + first + of_row)

    def set_epoch(n):
        x = min(n, 10) / 10
        rising = (1 - math.cos(math.pi * x)) / 2
        state["λ"] = 1 - rising if fault == "λ schedule" else rising

    def loss(student, teacher, targets):
        kept = torch.ones_like(targets, dtype=torch.bool)
        if fault != "padding counts":
            kept = targets != -100
        student, teacher = student[kept], teacher[kept]
        t = temperature(student, teacher)
        if fault == "λ in the loss":
            t = t * state["λ"]
        if fault == "no gradient":
            t = t.item()
        elif fault == "student disturbed":
            student, t = Reverse.apply(student, 0.5), Reverse.apply(t, state["λ"])
        elif fault != "wrong direction":
            factor = {"wrong gradient": 0.9, "λ strength": state["λ"]}.get(fault, 1)
            t = Reverse.apply(t, state["λ"] * factor)
        ce = F.cross_entropy(student, targets[kept], ignore_index=-100)
        of_teacher = t.detach() if fault == "teacher detached" else t
        of_student = t.detach() if fault == "student detached" else t
        log_p, log_q = (teacher / of_teacher).log_softmax(1), (student / of_student).log_softmax(1)
        p = log_p.exp()
        rows = (p * (log_p - log_q)).sum(1)
        if fault == "cross-entropy to the teacher":
            rows = -(p * log_q).sum(1)
        if fault == "not finite":
            p = (teacher / t).softmax(1)
            rows = (p * (p.log() - log_q)).sum(1)
        if fault == "divided by the classes":
            rows = rows / student.shape[1]
        if fault == "wrong loss":
            rows = (log_q.exp() * (log_q - log_p)).sum(1)
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
    assert list(found) == ["wrong direction", "λ strength"] if name == "wrong direction" else [name]
    with pytest.raises(AssertionError, match=re.escape(f"{name}: ")) as error:
        check_ctkd(lambda: make(name))
    assert "{}" not in str(error.value)
    assert FAULTS[name].cure in str(error.value)


def other(fault="", *, maximize=False, set_lambda=True):
    """A step in another style: a T per sample of an unseeded network, negated by a hook."""
    network = nn.Sequential(
        nn.Linear(40, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1)
    )
    nn.init.zeros_(network[-1].weight)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, maximize=maximize)
    state = {"λ": 1.0}

    def pull(*_):
        for parameter in network.parameters():
            parameter.grad *= state["λ"] if maximize else -state["λ"]

    optimizer.register_step_pre_hook(pull)

    def temperature(student, teacher):
        inputs = torch.cat([student.softmax(1), teacher.softmax(1)], dim=1)
        inputs = inputs if fault == "student disturbed" else inputs.detach()
        with torch.set_grad_enabled(fault != "no gradient"):
            hidden = network[:-1](inputs)
        return 1 + 20 * torch.sigmoid(network[-1](hidden))

    def loss(student, teacher, targets):
        t = temperature(student, teacher)
        if fault == "not finite":  # a logarithm given as a target that is none
            log_p = (teacher / t).log_softmax(1)
            return F.kl_div((student / t).log_softmax(1), log_p, reduction="batchmean")
        log_p, log_q = (teacher / t).log_softmax(1), (student / t).log_softmax(1)
        rows = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
        # [N, 1] times [N] is [N, N]: each T with the KL of every row.
        kd = (t**2 * rows).mean() if fault == "mean before T²" else (t[:, 0] ** 2 * rows).mean()
        smoothing = 0.1 if fault == "smoothed" else 0.0
        return 0.1 * F.cross_entropy(student, targets, label_smoothing=smoothing) + 0.9 * kd

    def set_epoch(n):
        state["λ"] = (1 - math.cos(math.pi * min(n, 10) / 10)) / 2

    set_lambda = (lambda value: state.update({"λ": value})) if set_lambda else None
    parameters = list(network.parameters())
    return TrainingStep(loss, temperature, parameters, optimizer, 0.1, 0.9, set_lambda, set_epoch)


@pytest.mark.parametrize("given", [{}, {"maximize": True}, {"set_lambda": False}])
def test_other_ways_to_reverse_the_gradient_pass(given):
    check_ctkd(lambda: other(**given))


@pytest.mark.parametrize(
    ("fault", "name", "text"),
    [
        ("student disturbed", "student disturbed", "by "),
        ("no gradient", "no gradient", "reaches 3 of the 5 parameters"),
        ("not finite", "not finite", "for ordinary logits"),
        ("mean before T²", "mean before T²", "averaged over the rows before"),
        ("smoothed", "wrong loss", "it is 1."),
    ],
)
def test_a_fault_that_the_first_values_of_a_network_hide_is_found(fault, name, text):
    found = examine(lambda: other(fault))
    assert [each.name for each in found] == [name]
    assert text in found[0].wrong


def test_steps_that_are_not_made_anew_or_differ_are_errors():
    step = make()
    with pytest.raises(ValueError, match="the same parameters at each call"):
        check_ctkd(lambda: step)
    numbers = iter(range(9))

    def drawn():
        step = make()
        step.parameters[0].data.fill_(next(numbers))
        return step

    with pytest.raises(ValueError, match="other values at each call"):
        check_ctkd(drawn)
