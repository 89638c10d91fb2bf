"""Decoupled knowledge distillation, as functions of tensors (no Gin)."""

import torch
from torch import Tensor

from ctkd.losses.fused import DKDRows, closed_form
from ctkd.losses.kd import kl_rows
from ctkd.losses.per_row import (
    check_reduction,
    check_targets,
    explain_targets,
    prepare_rows,
    reduce_rows,
)


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    temperature: float | Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    reduction: str = "mean",
) -> Tensor:
    """T² · (alpha · TCKD + beta · NCKD) of each row (Zhao et al., CVPR 2022, arXiv 2203.08679).

    TCKD and NCKD are the terms of `dkd_terms`. KD is alpha = 1 with beta = 1 − p[target]: a weight
    that vanishes where the teacher is sure.

    Args:
        student_logits: [N, C], C >= 2.
        teacher_logits: [N, C].
        targets: [N], class indices.
        temperature: T > 0: a number, a tensor of one element, or one per row, [N, 1].
        alpha: weight of TCKD.
        beta: weight of NCKD (published: 0.25 to 8, by pair).
        reduction: "mean" over the rows, "sum", or "none".

    Returns:
        A 0-d tensor, or [N] for "none"; precision as in `kd_loss`.

    Raises:
        ValueError: shapes that do not fit, T a number that is not > 0, an unknown reduction.
    """
    check_reduction(reduction)
    tckd, nckd = dkd_terms(student_logits, teacher_logits, targets, temperature)
    return reduce_rows(alpha * tckd + beta * nckd, reduction)


def dkd_terms(
    student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """T² · TCKD and T² · NCKD of each row, without their weights; T² is part of the graph.

    TCKD is the KL between the two-way distributions (target, other classes). NCKD is the KL between
    the distributions over the other classes alone. With p the teacher's softened distribution,
    KL = TCKD + (1 − p[target]) · NCKD, exactly. With two classes NCKD is 0.

    Args:
        student_logits: [N, C], C >= 2.
        teacher_logits: [N, C].
        targets: [N], class indices.
        temperature: T > 0: a number, a tensor of one element, or one per row, [N, 1].

    Returns:
        (tckd [N], nckd [N]); precision as in `kd_loss`.

    Raises:
        ValueError: shapes that do not fit, fewer than two classes, T a number that is not > 0; on
            a CPU, a target that is no class.
    """
    student, teacher, temperature = prepare_rows(student_logits, teacher_logits, temperature)
    check_targets(student, targets)
    if student.shape[1] < 2:
        raise ValueError(f"the logits have {student.shape[1]} classes: DKD expects at least 2")
    try:
        return dkd_rows(student, teacher, targets.long().unsqueeze(1), temperature)
    except RuntimeError:
        explain_targets(targets, student.shape[1])
        raise


@closed_form(DKDRows)
def dkd_rows(
    student: Tensor, teacher: Tensor, target: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """The terms of arguments that `prepare_rows` returned; target is [N, 1]."""
    student_two, student_others = split_target(student / temperature, target)
    teacher_two, teacher_others = split_target(teacher / temperature, target)
    tckd = kl_rows(student_two, teacher_two) * temperature * temperature
    nckd = kl_rows(student_others, teacher_others) * temperature * temperature
    return tckd.squeeze(1), nckd.squeeze(1)


def split_target(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of (target, other classes) [N, 2], and of the other classes in order [N, C - 1].

    softmax([z[target], logsumexp(others)]) is (p[target], 1 − p[target]). The public code adds
    −1000 to the target's logit instead of removing it. The teacher's softmax then holds an exact 0,
    and the gradient of F.kl_div in the teacher's logits, and so in T, is NaN.
    """
    others = torch.arange(logits.shape[1] - 1, device=logits.device)
    # Columns from the target on move up by one. Indices do it, because a GPU would wait for the
    # size of a boolean mask's result, and a captured graph cannot hold that.
    others = others + (others >= target).long()
    own, others = logits.gather(1, target), logits.gather(1, others)
    return torch.cat([own, others.logsumexp(dim=1, keepdim=True)], dim=1), others
