"""Decoupled knowledge distillation, as functions of tensors alone (no Gin)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ctkd.losses.kd import kl_rows
from ctkd.losses.rows import check_reduction, check_targets, prepare_rows, reduce_rows


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

    The plain loss is alpha = 1 with beta = 1 − p_t[target], a weight that fades just where the
    teacher is sure. The terms are those of `dkd_terms`; T² is part of the graph.

    Args:
        student_logits: [N, C], C >= 2.
        teacher_logits: [N, C].
        targets: [N], class indices.
        temperature: T > 0: a number, a tensor of one element, or one per row, [N, 1].
        alpha: weight of the target class against all others.
        beta: weight of the other classes among themselves (published: 0.25 to 8, by pair).
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
    """T² · TCKD and T² · NCKD of each row, unweighted.

    TCKD is the KL between the two-way distributions (target, rest), NCKD the KL between the
    distributions over the other classes alone. With p the teacher's softened distribution,
    KL = TCKD + (1 − p[target]) · NCKD, exactly. With two classes NCKD is identically 0.

    The public code masks the target by −1000 instead of dropping it: the teacher's softmax then
    holds an exact 0, and F.kl_div's gradient with respect to it, hence to T, is NaN.

    Args:
        student_logits: [N, C], C >= 2.
        teacher_logits: [N, C].
        targets: [N], class indices.
        temperature: T > 0: a number, a tensor of one element, or one per row, [N, 1].

    Returns:
        (tckd [N], nckd [N]); precision as in `kd_loss`.

    Raises:
        ValueError: shapes that do not fit, fewer than two classes, T a number that is not > 0.
    """
    student, teacher, temperature = prepare_rows(student_logits, teacher_logits, temperature)
    check_targets(student, targets)
    if student.shape[1] < 2:
        raise ValueError(f"the logits have {student.shape[1]} classes: DKD expects at least 2")
    target = targets.long().unsqueeze(1)
    student_target, student_others = _split(student / temperature, target)
    teacher_target, teacher_others = _split(teacher / temperature, target)
    nckd = kl_rows(student_others, teacher_others)
    tckd = _binary_kl(
        student_target - student_others.logsumexp(dim=1, keepdim=True),
        teacher_target - teacher_others.logsumexp(dim=1, keepdim=True),
    )
    return (
        (tckd * temperature * temperature).squeeze(1),
        (nckd * temperature * temperature).squeeze(1),
    )


def _split(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """[N, C] and [N, 1] -> the target's logit [N, 1] and the others in their order [N, C - 1]."""
    others = torch.arange(logits.shape[1] - 1, device=logits.device)
    # Columns from the target on move up by one: indices, since a boolean mask would make a GPU
    # wait for the size of its result, and no captured graph could hold it.
    others = others + (others >= target).long()
    return logits.gather(1, target), logits.gather(1, others)


def _binary_kl(student_odds: Tensor, teacher_odds: Tensor) -> Tensor:
    """KL between two (target, rest) distributions, given their log odds.

    The log odds z[target] − logsumexp(others) give log p = logsigmoid(odds), and log(1 − p), which
    is logsumexp(others) − logsumexp(all), as logsigmoid(−odds). Both stay finite and precise
    where p rounds to 1; log1p(−p) is −inf in float32 from a gap of 25 on.
    """
    log_p, log_rest_p = F.logsigmoid(teacher_odds), F.logsigmoid(-teacher_odds)
    log_q, log_rest_q = F.logsigmoid(student_odds), F.logsigmoid(-student_odds)
    return log_p.exp() * (log_p - log_q) + log_rest_p.exp() * (log_rest_p - log_rest_q)
