"""Two temperatures of a row, the student's and the teacher's, as functions of tensors (no Gin).

A policy returns one temperature, or a tuple (student_temperature, teacher_temperature) if it has
the attribute `two_temperatures = True`, as `SpreadTemperature` has. An objective that accepts a
tuple has the same attribute. The two may be learned: both then pass through the gradient reversal.
A rule that derives both from one T, so that this T can be learned, belongs in the objective: DTKD
and NormKD are such rules.
"""

import torch
from torch import Tensor

from ctkd.losses.kd import kd_rows, kl_rows
from ctkd.losses.per_row import prepare_rows

TwoTemperatures = tuple[Tensor, Tensor]
Temperatures = float | Tensor | TwoTemperatures


def student_and_teacher(
    temperature: Temperatures,
) -> tuple[float | Tensor, float | Tensor]:
    """(student's, teacher's) temperature; one temperature is both."""
    return temperature if isinstance(temperature, tuple) else (temperature, temperature)


def prepare_temperatures(
    student_logits: Tensor, teacher_logits: Tensor, temperature: Temperatures
) -> tuple[Tensor, Tensor, Temperatures]:
    """`prepare_rows` for one temperature, or for a tuple of two, each 0-d or [N, 1]."""
    if not isinstance(temperature, tuple):
        return prepare_rows(student_logits, teacher_logits, temperature)
    found = [prepare_rows(student_logits, teacher_logits, each) for each in temperature]
    (student, teacher, student_t), (_, _, teacher_t) = found
    return student, teacher, (torch.as_tensor(student_t), torch.as_tensor(teacher_t))


def kd_rows_of_two(student: Tensor, teacher: Tensor, temperature: Temperatures) -> Tensor:
    """T_t² · KL(softmax(z_t / T_t) ‖ softmax(z_s / T_s)) of each row, [N].

    With T_s = T_t this is `kd_rows`. The factor is the square of the teacher's temperature, as in
    NormKD: where T_s is computed from the student's logits, a factor T_s would reward a student
    that makes its logits small.
    """
    if not isinstance(temperature, tuple):
        return kd_rows(student, teacher, temperature)
    student_t, teacher_t = temperature
    kl = kl_rows(student / student_t, teacher / teacher_t)
    return (kl * teacher_t * teacher_t).squeeze(1)
