"""Decoupled knowledge distillation, as functions of tensors alone (no Gin)."""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ctkd.losses.kd import kl_rows
from ctkd.losses.per_row import (
    by_blocks,
    check_reduction,
    check_targets,
    needs_plain_form,
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
    # (the caller's own tensor is asked too: under no_grad its copy has forgotten)
    if teacher_logits.requires_grad or needs_plain_form(student, teacher):
        return plain_dkd_rows(student, teacher, target, temperature)
    terms: tuple[Tensor, Tensor] = _DKDRows.apply(student, teacher, target, temperature)
    return terms


def plain_dkd_rows(
    student: Tensor, teacher: Tensor, target: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """The terms as autograd differentiates them: the same, slower and with more memory."""
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


class _DKDRows(torch.autograd.Function):
    """The closed form of both terms.

    With P, Q the target's probabilities, w, x their log odds, p̂, q̂ the distributions over the
    others (0 at the target), e the target's indicator, H the entropy, and KL without its T²:

        ∂TCKD/∂z_s = T (Q − P)(e − q̂)
        ∂TCKD/∂T   = T [2 KL − (Q − P)(x + H(q̂)) − P (1 − P)(w − x)(w + H(p̂))]
        ∂NCKD/∂z_s = T (q̂ − p̂)
        ∂NCKD/∂T   as for the plain loss, of p̂ and q̂.
    """

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, target: Tensor, temperature: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        tensor = isinstance(temperature, Tensor)
        asked = any(ctx.needs_input_grad)
        function = functools.partial(_dkd_block, asked=asked)
        tckd, nckd, *derivatives = by_blocks(function, student, teacher, target, temperature)
        ctx.number = None if tensor else temperature
        if asked:
            kept = (student, teacher, target, *([temperature] if tensor else []))
            ctx.save_for_backward(*derivatives, *kept)
        return tckd.squeeze(1), nckd.squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        moved, learned = ctx.needs_input_grad[0], ctx.needs_input_grad[3]
        q, p, pull, slopes, student, teacher, target, *kept = ctx.saved_tensors
        temperature = kept[0] if kept else ctx.number
        if torch.is_grad_enabled():  # somebody wants derivatives of these derivatives
            inputs = [x for x, used in ((student, moved), (temperature, learned)) if used]
            terms = plain_dkd_rows(student, teacher, target, temperature)
            found = list(torch.autograd.grad(terms, inputs, gradients, create_graph=True))
            return (
                found.pop(0) if moved else None,
                None,
                None,
                found.pop() if learned else None,
            )
        for_tckd, for_nckd = (gradient.unsqueeze(1) for gradient in gradients)
        for_student = for_temperature = None
        if moved:
            along, across = for_tckd * pull * temperature, for_nckd * temperature
            for_student = q * (across - along)
            for_student.addcmul_(p, across, value=-1).scatter_(1, target, along)
        if learned:
            slope = slopes[:, :1] * for_tckd + slopes[:, 1:] * for_nckd
            for_temperature = slope if temperature.dim() else slope.sum()
        return for_student, None, None, for_temperature


def _dkd_block(
    student: Tensor, teacher: Tensor, target: Tensor, temperature: float | Tensor, *, asked: bool
) -> tuple[Tensor, ...]:
    """Of [n, C] rows: TCKD and NCKD [n, 1]; if asked q̂, p̂ [n, C], Q − P [n, 1], dL/dT [n, 2]."""
    x, log_q, q = _odds_and_others(student / temperature, target)
    minus_entropy_q = (q * log_q).sum(1, keepdim=True) if asked else None
    w, log_p, p = _odds_and_others(teacher / temperature, target)
    work = torch.sub(log_p, log_q, out=log_q).mul_(p)  # in place: four arrays are all the room
    nckd, tckd = work.sum(1, keepdim=True), _binary_kl(x, w)
    square = temperature * temperature
    found = (tckd * square, nckd * square)
    if minus_entropy_q is None:
        return found
    covariance = work.addcmul_(p, nckd, value=-1).mul_(log_p).sum(1, keepdim=True)
    minus_entropy_p = torch.mul(p, log_p, out=work).sum(1, keepdim=True)
    share, pull = w.sigmoid(), x.sigmoid() - w.sigmoid()
    spread = share * (-w).sigmoid() * (w - x)
    tckd_slope = 2 * tckd - pull * (x - minus_entropy_q) - spread * (w - minus_entropy_p)
    expectations = minus_entropy_q - (minus_entropy_p - nckd)  # E_q̂ log q̂ − E_p̂ log q̂
    slopes = torch.cat([tckd_slope, 2 * nckd - expectations - covariance], 1) * temperature
    return (*found, q, p, pull, slopes)


def _odds_and_others(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The target's log odds [n, 1], and log-softmax and softmax of the others, 0 at the target.

    Overwrites `logits` [n, C]. The target is taken out by −inf here, where nothing differentiates
    through it: its probability is exactly 0, and its place in the logarithms is then filled.
    """
    own = logits.gather(1, target)
    others = logits.scatter_(1, target, -torch.inf)
    top = others.amax(1, keepdim=True)
    others.sub_(top)
    softmax = others.exp()
    total = softmax.sum(1, keepdim=True)
    log_total = total.log()
    log_softmax = others.sub_(log_total).scatter_(1, target, 0.0)
    return own - top - log_total, log_softmax, softmax.div_(total)
