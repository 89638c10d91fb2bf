"""The contracts of ctkd.testing find faults, and accept components from outside the package."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ctkd.checks import expect
from ctkd.losses.kd import kd_loss
from ctkd.testing import (
    check_objective,
    check_policy,
    check_schedule,
    check_settings,
    check_transform,
)


class Outside:
    """CE + KD, without the base class."""

    needs_teacher = True

    def __call__(self, student, teacher, targets, temperature, raw=None):
        if teacher is None or temperature is None:
            raise ValueError("Outside needs a teacher")
        ce = F.cross_entropy(self.full(student if raw is None else raw), targets, reduction="none")
        return {"ce": ce, "kd": self.kd(self.full(student), self.full(teacher), temperature)}

    def full(self, logits):
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def kd(self, student, teacher, temperature):
        return kd_loss(student, teacher, temperature, "none")

    def weights(self, position):
        return {"ce": 0.1, "kd": 0.9}


class DetachedSquare(Outside):
    def kd(self, student, teacher, temperature):
        heat = torch.as_tensor(temperature, dtype=student.dtype)
        square = heat.flatten() ** 2
        return super().kd(student, teacher, heat) / square * square.detach()


class PublicForm(Outside):
    def kd(self, student, teacher, temperature):
        p, log_q = (teacher / temperature).softmax(1), (student / temperature).log_softmax(1)
        kl = F.kl_div(log_q, p, reduction="none").sum(1, keepdim=True)
        return (kl * temperature**2).squeeze(1)


class OverTheBatch(Outside):
    def kd(self, student, teacher, temperature):
        rows = super().kd(student, teacher, temperature)
        return rows / rows.detach().mean()


class Reads(Outside):
    def kd(self, student, teacher, temperature):
        rows = super().kd(student, teacher, temperature)
        return rows if float(rows.detach().sum()) >= 0 else -rows


class Masks(Outside):
    def kd(self, student, teacher, temperature):
        rows = super().kd(student, teacher, temperature)
        return rows + 0 * rows[rows > 0].sum()


class Overwrites(Outside):
    def full(self, logits):
        return super().full(logits.sub_(1.0) if not logits.requires_grad else logits)


class HalfPrecision(Outside):
    def full(self, logits):
        return logits


class NotRaw(Outside):
    def __call__(self, student, teacher, targets, temperature, raw=None):
        return super().__call__(student, teacher, targets, temperature)


class OtherNames(Outside):
    def weights(self, position):
        return {"ce": 0.1, "distillation": 0.9}


class Negative(Outside):
    def weights(self, position):
        return {"ce": 0.1, "kd": 9.0 - position}


class NoTeacherNoError(Outside):
    def __call__(self, student, teacher, targets, temperature, raw=None):
        if teacher is None:
            return {"ce": torch.zeros(len(student)), "kd": torch.zeros(len(student))}
        return super().__call__(student, teacher, targets, temperature, raw)


class NoStudent(Outside):
    def full(self, logits):
        return super().full(logits).detach()


def test_an_objective_without_the_base_class_keeps_the_contract():
    for num_classes in (2, 10):
        check_objective(Outside(), num_classes)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (DetachedSquare, "the gradient in T is"),
        (PublicForm, "a gradient is not finite for torch.float64 logits of 1e4"),
        (OverTheBatch, "other rows change a row of kd"),
        (Reads, "a GPU would wait for _local_scalar_dense"),
        (Masks, "a GPU would wait for index"),
        (Overwrites, "the call overwrites its arguments"),
        (HalfPrecision, "ce is torch.bfloat16 for torch.bfloat16: expected torch.float32"),
        (NotRaw, "raw_student_logits are for ce, and for ce only: see ce"),
        (OtherNames, "weights has"),
        (Negative, "weights(9.999999) = "),
        (NoTeacherNoError, "expected a ValueError for a missing teacher or temperature"),
        (NoStudent, "the gradient in the student is"),
    ],
)
def test_faulty_objectives(kind, fault):
    with pytest.raises(AssertionError) as caught:
        check_objective(kind())
    assert str(caught.value).startswith(f"{kind.__name__}: ")
    assert fault in str(caught.value)


class Learned(nn.Module):
    """T = 1 + softplus(raw + sum of detached probabilities · weight)."""

    learned, bounds = True, None

    def __init__(self):
        super().__init__()
        self.raw = nn.Parameter(torch.tensor(1.0))
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, student, teacher, progress):
        tops = self.see(teacher).to(self.raw.dtype).softmax(1).amax(1, keepdim=True)
        return self.bound(self.raw + self.weight * tops)

    def see(self, logits):
        return logits.detach()

    def bound(self, raw):
        return 1 + F.softplus(raw)


class Attached(Learned):
    def see(self, logits):
        return logits


class OutOfBounds(Learned):
    bounds = (1.0, 2.0)


class NotPositive(Learned):
    def bound(self, raw):
        return raw


class HalfTemperature(Learned):
    def bound(self, raw):
        return super().bound(raw).bfloat16()


class NotLearned(Learned):
    learned = False


class Unreached(Learned):
    def bound(self, raw):
        return 1 + F.softplus(raw.detach() + 0 * self.raw)


class WrongShape(Learned):
    def bound(self, raw):
        return super().bound(raw).squeeze(1)


class FromTheHost(Learned):
    def bound(self, raw):
        return torch.tensor(1.0) + F.softplus(raw)


def test_a_policy_from_outside_keeps_the_contract():
    check_policy(Learned())


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Attached, "a gradient reaches the logits: detach them"),
        (OutOfBounds, "from 1.0 to 2.0"),
        (NotPositive, "for parameters times -10000.0: expected > 0"),
        (HalfTemperature, "T is torch.bfloat16"),
        (NotLearned, "T.requires_grad is not learned = False"),
        (Unreached, "no gradient reaches the parameters"),
        (WrongShape, "T has shape [1]: expected 0-d or [N, 1]"),
        (FromTheHost, "a GPU would wait for lift_fresh"),
    ],
)
def test_faulty_policies(kind, fault):
    with pytest.raises(AssertionError) as caught:
        check_policy(kind())
    assert fault in str(caught.value)


def test_faulty_schedules():
    check_schedule(lambda position: 0.0 if position < 2 else 1)
    for schedule, fault in {
        (lambda position: 1.0 - position): "λ = -8.999999 at position 9.999999",
        (lambda position: math.inf): "λ = inf at position 0.0: expected a finite number >= 0",
    }.items():
        with pytest.raises(AssertionError, match=fault):
            check_schedule(schedule)
    calls = []
    with pytest.raises(AssertionError, match="λ depends on earlier calls"):
        check_schedule(lambda position: float(len(calls) or calls.append(1) or 0))


def naive(z):
    return (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)


@pytest.mark.parametrize(
    ("transform", "fault"),
    [
        (lambda s, t: (naive(s), naive(t)), "not finite"),
        (lambda s, t: (s - s.mean(), t), "other rows change a row of the student"),
        (lambda s, t: (s.detach(), t), "the gradient in the logits is"),
        (lambda s, t: (s[:, 1:], t[:, 1:]), "the shape [1, 10] becomes [1, 9]"),
        (lambda s, t: (s, t.mul_(2)), "the call overwrites its arguments"),
        (lambda s, t: (s.float(), t.float()), "torch.float64 becomes torch.float32"),
        (lambda s, t: (s / max(1.0, s.abs().max().item()), t), "other rows change a row"),
        (lambda s, t: (s * 1.0 if s.sum().item() else s, t), "a GPU would wait for"),
    ],
)
def test_faulty_transforms(transform, fault):
    with pytest.raises(AssertionError) as caught:
        check_transform(transform)
    assert fault in str(caught.value)


def test_a_transform_from_outside_keeps_the_contract():
    check_transform(lambda s, t: (s - s.mean(1, keepdim=True), t - t.mean(1, keepdim=True)))


def test_faulty_settings():
    def made(size: int = 2, share: float = 0.5, offset: float = 0.0):
        expect(size > 0, "made", "size", size, "a whole number > 0")
        expect(0 <= share < math.inf, "made", "share", share, "a finite number >= 0")
        expect(math.isfinite(offset), "made", "offset", offset, "a finite number")

    check_settings(made, signed=["offset"])
    with pytest.raises(AssertionError, match=r"made: offset = -0.5 is accepted"):
        check_settings(made)
    with pytest.raises(AssertionError, match=r"made: share = 0.0 is accepted"):
        check_settings(made, signed=["offset"], positive=["share"])

    def misnamed(share: float = 0.5):
        expect(share >= 0, "misnamed", "part", share, "a number >= 0")

    with pytest.raises(AssertionError, match="does not name it"):
        check_settings(misnamed)
