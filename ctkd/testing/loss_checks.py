"""Checks of the loss of a training step: its value, and the student's gradient."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ctkd.testing.ctkd_faults import FAULTS, CtkdFault
from ctkd.testing.measured_step import Make, adversary, backward, close, temperature_of, vary
from ctkd.testing.training_step import (
    SyntheticRows,
    kd_rows_at,
    reversed_kd_rows_at,
    teacher_entropy,
)

EXACT = 2e-3  # relative tolerance of a value that is computed in float32


def of_value(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """The loss is ce_weight · CE + kd_weight · T² KL, the mean over the rows, at every λ."""
    step = vary(adversary(make))
    loss = float(step.loss(*rows.all).detach())
    double = SyntheticRows(*(torch.cat([part, part]) for part in rows.all))
    twice = float(step.loss(*double.all).detach()) / loss
    if twice > 1.05:  # with dropout in a policy, other rows have another T
        yield FAULTS["sum over rows"].with_value(f"{twice:.3g}")
        return
    if step.set_lambda is not None:
        other = float(vary(adversary(make, 0.25)).loss(*rows.all).detach())
        if not close(other, loss, EXACT):
            yield FAULTS["λ in the loss"].with_value(f"{other / loss:.3g}")
    ce = step.ce_weight * float(F.cross_entropy(rows.student, rows.targets))
    temperature = temperature_of(step, rows)
    entropy = float((temperature.squeeze(1) ** 2 * teacher_entropy(rows, temperature)).mean())
    for name, term in _terms(rows, temperature).items():
        if close(loss, ce + step.kd_weight * term, EXACT):
            if name in FAULTS:
                yield FAULTS[name].with_value(f"{step.kd_weight * entropy:.3g}")
            elif name:
                yield FAULTS["wrong loss"].with_value(f"that of {name}")
            return
    ratio = loss / (ce + step.kd_weight * _terms(rows, temperature)[""])
    yield FAULTS["wrong loss"].with_value(f"{ratio:.3g} times the right one")


def _terms(rows: SyntheticRows, temperature: Tensor) -> dict[str, float]:
    """The KD term, "", and what it is in faulty code: by the name of the fault or of the term."""
    one, square = torch.ones_like(temperature), temperature**2
    kd, kl = kd_rows_at(rows, temperature), kd_rows_at(rows, temperature, factor=one)
    terms = {
        "": kd,
        "no T²": kl,
        "mean before T²": kl.mean() * square.mean(),
        "cross-entropy to the teacher": kd + square.squeeze(1) * teacher_entropy(rows, temperature),
        "divided by the classes": kd / rows.student.shape[1],
        "KL(student ‖ teacher), the reverse direction": reversed_kd_rows_at(rows, temperature),
        "T · KL, without the square": kd_rows_at(rows, temperature, factor=temperature),
        "a teacher at T = 1": kd_rows_at(rows, temperature, of_teacher=one),
        "a student at T = 1": kd_rows_at(rows, temperature, of_student=one),
        "KL · mean(T)²": kl.mean() * temperature.mean() ** 2,
    }
    return {name: float(term.mean()) for name, term in terms.items()}


def of_student(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """The reversal leaves the student's gradient as it is in KD at the same T."""
    step = vary(adversary(make))
    loss, found, _ = backward(step, rows)
    temperature, student = temperature_of(step, rows), rows.student.double().requires_grad_()
    plain = SyntheticRows(student, rows.teacher, rows.targets)
    ce = step.ce_weight * F.cross_entropy(student, rows.targets)
    value = ce + step.kd_weight * kd_rows_at(plain, temperature).mean()
    if not close(loss, value.item(), EXACT):
        return  # the loss is another one, which another check says
    (expected,) = torch.autograd.grad(value, student)
    part = float((found - expected).norm() / expected.norm())
    if part > EXACT:
        yield FAULTS["student disturbed"].with_value(f"{100 * part:.2g} %")
