"""check_objective finds faults, and accepts an objective without the base class."""

import pytest
import torch
from torch.nn import functional as F

from ctkd.losses.kd import kd_loss
from ctkd.testing import check_objective


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
