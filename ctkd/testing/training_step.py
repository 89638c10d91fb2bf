"""Anybody's training step of CTKD, as `check_ctkd` calls it, and what it should compute."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# λ of the first ten epochs, as published: (1 + cos((1 + n/10) π)) / 2; then 1.
PUBLISHED_LAMBDAS = (0.0245, 0.0955, 0.2061, 0.3455, 0.5, 0.6545, 0.7939, 0.9045, 0.9755, 1.0)


@dataclass(frozen=True)
class TrainingStep:
    """The parts of a training step that concern the temperature.

    Attributes:
        loss: `loss(student_logits, teacher_logits, targets) -> 0-d`, of logits [N, C] and class
            indices [N]: the whole loss, with the gradient reversal in its graph.
        temperature: `temperature(student_logits, teacher_logits) -> T`, the current T: one element,
            or [N] or [N, 1].
        parameters: what T is computed from and is learned.
        optimizer: the one whose step moves them.
        ce_weight, kd_weight: of cross-entropy and of T² KL in the loss.
        set_lambda: `set_lambda(value)` sets the strength λ >= 0; None if it cannot be set.
        set_epoch: `set_epoch(n)` sets λ for the n-th epoch, from 1; None without a schedule.
        lambdas: λ of the first epochs; the last one holds from there on.
        ignore_index: the target of a row that does not count; None if there is none.
    """

    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    temperature: Callable[[Tensor, Tensor], Tensor | float]
    parameters: Sequence[nn.Parameter]
    optimizer: torch.optim.Optimizer
    ce_weight: float = 0.1
    kd_weight: float = 0.9
    set_lambda: Callable[[float], None] | None = None
    set_epoch: Callable[[int], None] | None = None
    lambdas: Sequence[float] = PUBLISHED_LAMBDAS
    ignore_index: int | None = None


@dataclass(frozen=True)
class SyntheticRows:
    """Logits of a teacher that is sure of one class and of a student that has learned a share."""

    student: Tensor
    teacher: Tensor
    targets: Tensor

    @classmethod
    def draw(cls, rows: int = 32, classes: int = 20) -> "SyntheticRows":
        """The same rows at every call, in float32."""
        drawn = torch.Generator().manual_seed(0)
        targets = torch.randint(classes, (rows,), generator=drawn)
        teacher, other = torch.randn(2, rows, classes, generator=drawn)
        teacher = teacher + 10 * F.one_hot(targets, classes)
        return cls(0.2 * teacher + 0.5 * other, teacher, targets)

    @property
    def all(self) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments of a loss."""
        return self.student, self.teacher, self.targets


def kd_rows_at(
    rows: SyntheticRows,
    temperature: Tensor,
    *,
    of_teacher: Tensor | None = None,
    of_student: Tensor | None = None,
    factor: Tensor | None = None,
) -> Tensor:
    """T² KL(teacher ‖ student) of each row, [N], in float64; `temperature` is [N, 1].

    `of_teacher`, `of_student` and `factor` replace T in a softmax, and T² in front of KL.
    """
    log_p = _log_softmax(rows.teacher, temperature if of_teacher is None else of_teacher)
    log_q = _log_softmax(rows.student, temperature if of_student is None else of_student)
    square = temperature**2 if factor is None else factor
    return (square * log_p.exp() * (log_p - log_q)).sum(1)


def reversed_kd_rows_at(rows: SyntheticRows, temperature: Tensor) -> Tensor:
    """T² KL(student ‖ teacher) of each row, [N]."""
    return kd_rows_at(SyntheticRows(rows.teacher, rows.student, rows.targets), temperature)


def teacher_entropy(rows: SyntheticRows, temperature: Tensor) -> Tensor:
    """The entropy of the teacher's softened probabilities of each row, [N]."""
    log_p = _log_softmax(rows.teacher, temperature)
    return -(log_p.exp() * log_p).sum(1)


def _log_softmax(logits: Tensor, temperature: Tensor) -> Tensor:
    return (logits.double() / temperature).log_softmax(1)
