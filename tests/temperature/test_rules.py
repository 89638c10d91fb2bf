"""Temperatures by rule: their values, and two temperatures in the game."""

import math

import pytest
import torch

from ctkd import Distiller
from ctkd.adversary.schedules import ConstantLambda
from ctkd.errors import ConfigError
from ctkd.losses.normkd import NormKD
from ctkd.losses.objectives import DKD, KD
from ctkd.temperature.inverse_difficulty import InverseDifficultyTemperature
from ctkd.temperature.spread import SpreadTemperature
from ctkd.testing import check_policy


def logits(rows=6, classes=7):
    drawn = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, rows, classes, generator=drawn, dtype=torch.float64)
    return student, 2 * teacher, torch.randint(classes, (rows,), generator=drawn)


def test_the_spread_of_each_network_is_its_temperature():
    student, teacher, _ = logits()
    student_t, teacher_t = SpreadTemperature(factor=2.0)(student, teacher, 0.0)
    for found, rows in ((student_t, student), (teacher_t, teacher)):
        for value, row in zip(found.flatten().tolist(), rows.tolist(), strict=True):
            mean = math.fsum(row) / len(row)
            variance = math.fsum((z - mean) ** 2 for z in row) / (len(row) - 1)
            assert value == pytest.approx(2.0 * math.sqrt(variance))
    shared = SpreadTemperature(factor=2.0, shared=True)(student, teacher, 0.0)
    assert torch.equal(shared, teacher_t)
    _, by_maximum = SpreadTemperature(factor=0.5, measure="maximum")(student, teacher, 0.0)
    softened = ((teacher - teacher.mean(1, keepdim=True)) / by_maximum).amax(dim=1)
    torch.testing.assert_close(softened, torch.full_like(softened, 2.0))


def test_the_scale_of_the_student_has_no_effect_on_its_loss_or_on_its_gradients_direction():
    student, teacher, targets = logits()
    student.requires_grad_()
    game = Distiller(SpreadTemperature(factor=3.0), None, KD(ce_weight=0.0, kd_weight=1.0))
    found = game(student, teacher, targets, position=0.0)
    (gradient,) = torch.autograd.grad(found.loss, student)
    assert (gradient * student).sum(dim=1).abs().max().item() < 1e-12
    student_t, teacher_t = (3.0 * z.detach().std(dim=1, keepdim=True) for z in (student, teacher))
    torch.testing.assert_close(found.terms["temperature_teacher"], teacher_t.mean())
    torch.testing.assert_close(found.temperature, student_t)
    rows = NormKD()(student, teacher, targets, 3.0)["kd"]  # computes the same two temperatures
    torch.testing.assert_close(found.loss, rows.mean())


def test_a_hard_row_gets_a_low_temperature():
    student, teacher, _ = logits()
    policy = InverseDifficultyTemperature(temperature=4.0, strength=0.5)
    found = policy(student, teacher, 0.0).flatten().tolist()
    distances = []
    for s, t in zip(student.softmax(1).tolist(), teacher.softmax(1).tolist(), strict=True):
        squares = ((math.sqrt(a) - math.sqrt(b)) ** 2 for a, b in zip(s, t, strict=True))
        distances.append(math.sqrt(math.fsum(squares) / 2))
    median = sorted(distances)[2]  # torch's median of six values is the third
    for temperature, distance in zip(found, distances, strict=True):
        assert temperature == pytest.approx(
            4.0 * math.exp(-0.5 * math.tanh(math.log(distance / median)))
        )
    assert distances.index(max(distances)) == found.index(min(found))


class TwoLearned(torch.nn.Module):
    """One learned T for each network."""

    learned, two_temperatures = True, True

    def __init__(self):
        super().__init__()
        self.raw = torch.nn.Parameter(torch.tensor([-1.0, 0.5], dtype=torch.float64))

    def forward(self, student, teacher, progress):
        return tuple((1 + 9 * self.raw.sigmoid()).unbind())


def test_both_temperatures_of_a_learned_policy_are_reversed():
    student, teacher, targets = logits()
    policy = TwoLearned()
    check_policy(policy)
    game = Distiller(policy, ConstantLambda(0.25), KD())
    (found,) = torch.autograd.grad(game(student, teacher, targets, position=0.0).loss, policy.raw)
    terms = KD()(student, teacher, targets, policy(student, teacher, 0.0))
    (plain,) = torch.autograd.grad(0.9 * terms["kd"].mean(), policy.raw)
    torch.testing.assert_close(found, -0.25 * plain)
    assert plain.all()


def test_an_objective_of_one_temperature_refuses_a_policy_of_two():
    with pytest.raises(ConfigError, match="SpreadTemperature returns two .* DKD accepts one"):
        Distiller(SpreadTemperature(), None, DKD())
    with pytest.raises(ValueError, match="DKD accepts one"):
        DKD()(*logits(), (torch.tensor(2.0), torch.tensor(3.0)))
    Distiller(SpreadTemperature(shared=True), None, DKD())
