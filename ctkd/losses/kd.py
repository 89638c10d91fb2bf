"""The distillation loss of Hinton et al., as a function of tensors alone (no Gin)."""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ctkd.losses.per_row import (
    by_blocks,
    check_reduction,
    needs_plain_form,
    prepare_rows,
    reduce_rows,
)


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor,
    reduction: str = "mean",
) -> Tensor:
    """T² · KL(softmax(z_t / T) ‖ softmax(z_s / T)) of each row (Hinton et al., arXiv 1503.02531).

    T² is part of the graph, so that a learned temperature feels the whole loss. Per row, with p
    the teacher's and q the student's softened distribution,

        ∂L/∂z_s = T (q − p)
        ∂L/∂T   = 2T · KL − (E_q z_s − E_p z_s) + Cov_p(z_t, z_s − z_t) / T

    which are what the backward pass computes (a gradient in the teacher's logits, if asked for, and
    derivatives of second order are autograd's). Values and gradients (student, teacher and T) stay
    finite where the softmax underflows. Beside the logits and the gradient the loss holds one array
    of their size.

    Args:
        student_logits: [N, C].
        teacher_logits: [N, C].
        temperature: T > 0: a number, a tensor of one element, or one per row, [N, 1].
        reduction: "mean" over the rows, "sum", or "none".

    Returns:
        A 0-d tensor, or [N] for "none". Half precision is computed and returned in float32,
        float64 in float64. The unit is nats.

    Raises:
        ValueError: shapes that do not fit, T a number that is not > 0, an unknown reduction.
    """
    check_reduction(reduction)
    student, teacher, temperature = prepare_rows(student_logits, teacher_logits, temperature)
    return reduce_rows(kd_rows(student, teacher, temperature), reduction)


def kd_rows(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """The loss of each row, [N], of arguments that `prepare_rows` returned."""
    if needs_plain_form(student, teacher):
        return plain_kd_rows(student, teacher, temperature)
    rows: Tensor = _KDRows.apply(student, teacher, temperature)
    return rows


def plain_kd_rows(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """`kd_rows` as autograd differentiates it: the same values, slower and with more memory."""
    kl = kl_rows(student / temperature, teacher / temperature)
    return (kl * temperature * temperature).squeeze(1)


def kl_rows(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)) over the last dimension, which stays as 1.

    The difference of two log-softmaxes is finite for finite logits. F.kl_div takes log p of a p
    that may be 0 instead, and its gradient with respect to the teacher, hence to T, is then NaN.
    """
    log_p = F.log_softmax(teacher, dim=-1)
    log_q = F.log_softmax(student, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1, keepdim=True)


class _KDRows(torch.autograd.Function):
    """The closed form: the forward pass leaves q − p and dL/dT, which the backward only scales."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
        moved, _, learned = ctx.needs_input_grad
        function = functools.partial(_kd_block, moved=moved, learned=learned)
        loss, *derivatives = by_blocks(function, student, teacher, temperature)
        tensor = isinstance(temperature, Tensor)
        ctx.number = None if tensor else temperature
        if moved or learned:
            kept = (student, teacher, *([temperature] if tensor else []))
            ctx.save_for_backward(*derivatives, *kept)
        return loss.squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        moved, _, learned = ctx.needs_input_grad
        derivatives = list(ctx.saved_tensors[: moved + learned])
        student, teacher, *kept = ctx.saved_tensors[moved + learned :]
        temperature = kept[0] if kept else ctx.number
        if torch.is_grad_enabled():  # somebody wants derivatives of these derivatives
            inputs = [x for x, used in ((student, moved), (temperature, learned)) if used]
            rows = plain_kd_rows(student, teacher, temperature)
            found = list(torch.autograd.grad(rows, inputs, gradients, create_graph=True))
            return (found.pop(0) if moved else None, None, found.pop() if learned else None)
        gradient = gradients[0].unsqueeze(1)
        for_student = derivatives.pop(0) * (gradient * temperature) if moved else None
        for_temperature = None
        if learned:
            slope = derivatives.pop() * gradient
            for_temperature = slope if temperature.dim() else slope.sum()
        return for_student, None, for_temperature


def _kd_block(
    student: Tensor, teacher: Tensor, temperature: float | Tensor, *, moved: bool, learned: bool
) -> tuple[Tensor, ...]:
    """Of [n, C] rows: the loss [n, 1], and where asked for q − p [n, C] and dL/dT [n, 1].

    E_q z − E_p z and Cov_p take no notice of a row's common offset, so T · log-softmax stands in
    for the logits: its products with a probability that underflows are 0, not infinite.
    """
    log_q, log_p = F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)
    p, work = log_p.exp(), log_p - log_q  # with the two logarithms, all the room there is
    kl = work.mul_(p).sum(1, keepdim=True)
    found = [kl * temperature * temperature]
    if not (moved or learned):
        return tuple(found)
    if learned:
        covariance = work.addcmul_(p, kl, value=-1).mul_(log_p).sum(1, keepdim=True)
    difference = torch.exp(log_q, out=work).sub_(p)
    if moved:
        found.append(difference)
    if learned:
        expectations = torch.mul(difference, log_q, out=p).sum(1, keepdim=True)
        found.append((2 * kl - expectations - covariance) * temperature)
    return tuple(found)
