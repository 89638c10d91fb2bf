"""Closed-form backward passes of the KD and DKD losses (no Gin).

The readable forms are `ctkd.losses.kd.kd_rows` and `ctkd.losses.dkd.dkd_rows`. Here the forward
pass computes the gradients too, for a block of rows at a time. The table says how many times as
fast this is, for N = 64, 256 and 2048 rows (float32, forward and backward, one CPU thread, median
of interleaved rounds):

    classes     KD                DKD
    2           1.0  1.0  1.1     1.2  1.4  1.5
    10          1.1  1.1  1.4     1.5  2.4  2.7
    100         1.0  1.5  1.8     1.9  2.2  2.5
    1,000       1.2  2.1  3.0     1.6  3.1  4.5
    32,000      3.0  3.4  5.6     4.8  6.0  8.0

DKD pays from 2 classes on, and KD from 100 classes on; for fewer classes KD is as fast as its
readable form. Beyond the logits and the returned gradient, KD allocates one array of the logits'
size, DKD two; the readable form of KD allocates six. `ctkd benchmark --only losses`
measures both.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ctkd.losses.row_blocks import by_blocks

Rows = TypeVar("Rows", bound=Callable[..., Any])  # (student, teacher, *others) -> losses of rows


def closed_form(function: Any) -> Callable[[Rows], Rows]:
    """A decorator: a loss of rows gets the backward pass of `function`, KDRows or DKDRows.

    The decorated function is the readable form, `__wrapped__` of the result. It still computes the
    rows that `left_to_autograd` names, and derivatives of second order.
    """

    def decorate(readable: Rows) -> Rows:
        function.readable = staticmethod(readable)

        @functools.wraps(readable)
        def rows(student: Tensor, teacher: Tensor, *others: Any) -> Any:
            if left_to_autograd(student, teacher):
                return readable(student, teacher, *others)
            return function.apply(student, teacher, *others)

        return cast(Rows, rows)

    return decorate


def left_to_autograd(student: Tensor, teacher: Tensor) -> bool:
    """Whether the readable form computes these rows.

    It does so for a gradient in the teacher's logits (they are frozen in distillation), for logits
    of two precisions, and under `torch.func`, whose transforms accept no such Function.
    """
    transformed: bool = torch._C._are_functorch_transforms_active()
    return teacher.requires_grad or student.dtype != teacher.dtype or transformed


class KDRows(torch.autograd.Function):
    """`kd_rows`: the forward pass stores q − p and ∂L/∂T, which the backward pass scales."""

    readable: Callable[..., Tensor]

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
        """[N, C], [N, C] and T -> [N]."""
        moved, _, learned = ctx.needs_input_grad
        block = functools.partial(_kd_block, moved=moved, learned=learned)
        loss, *derivatives = by_blocks(block, student, teacher, temperature)
        _save(ctx, derivatives, (student, teacher, temperature))
        return loss.squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients in the student's logits and in T."""
        derivatives, inputs = _saved(ctx)
        if torch.is_grad_enabled():
            return _by_autograd(ctx, KDRows.readable, inputs, gradients)
        moved, _, learned = ctx.needs_input_grad
        temperature, gradient = inputs[2], gradients[0].unsqueeze(1)
        for_student = derivatives.pop(0) * (gradient * temperature) if moved else None
        for_temperature = None
        if learned:
            slope = derivatives.pop() * gradient
            for_temperature = slope if temperature.dim() else slope.sum()
        return for_student, None, for_temperature


def _kd_block(
    student: Tensor, teacher: Tensor, temperature: float | Tensor, *, moved: bool, learned: bool
) -> tuple[Tensor, ...]:
    """Of [n, C] rows: the loss [n, 1]; if `moved` q − p [n, C]; if `learned` ∂L/∂T [n, 1].

    E_q z − E_p z and Cov_p do not depend on a common offset of a row, so T · log-softmax stands in
    for the logits: its products with a probability that underflows are 0, not infinite.
    """
    log_q, log_p = F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)
    p, work = log_p.exp(), log_p - log_q  # with the two logarithms: four arrays are all the memory
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


class DKDRows(torch.autograd.Function):
    """`dkd_rows`: the forward pass stores what both terms' gradients are made of.

    With P, Q the target's probabilities, w, x their log odds, p̂, q̂ the distributions over the
    other classes (0 at the target), e the target's indicator, H the entropy, and KL without its T²:

        ∂TCKD/∂z_s = T (Q − P)(e − q̂)
        ∂TCKD/∂T   = T [2 KL − (Q − P)(x + H(q̂)) − P (1 − P)(w − x)(w + H(p̂))]
        ∂NCKD/∂z_s = T (q̂ − p̂)
        ∂NCKD/∂T   as for KD, of p̂ and q̂.
    """

    readable: Callable[..., tuple[Tensor, Tensor]]

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, target: Tensor, temperature: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """[N, C], [N, C], [N, 1] and T -> both terms, [N] each."""
        block = functools.partial(_dkd_block, derived=any(ctx.needs_input_grad))
        tckd, nckd, *derivatives = by_blocks(block, student, teacher, target, temperature)
        _save(ctx, derivatives, (student, teacher, target, temperature))
        return tckd.squeeze(1), nckd.squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients in the student's logits and in T."""
        (q, p, pull, slopes), inputs = _saved(ctx)
        if torch.is_grad_enabled():
            return _by_autograd(ctx, DKDRows.readable, inputs, gradients)
        moved, _, _, learned = ctx.needs_input_grad
        _, _, target, temperature = inputs
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
    student: Tensor, teacher: Tensor, target: Tensor, temperature: float | Tensor, *, derived: bool
) -> tuple[Tensor, ...]:
    """Of [n, C] rows: TCKD and NCKD [n, 1]; if `derived` q̂, p̂ [n, C], Q − P [n, 1], ∂/∂T [n, 2]."""
    x, log_q, q = _odds_and_others(student / temperature, target)
    minus_entropy_q = (q * log_q).sum(1, keepdim=True) if derived else None
    w, log_p, p = _odds_and_others(teacher / temperature, target)
    work = torch.sub(log_p, log_q, out=log_q).mul_(p)  # in place: four arrays are all the memory
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

    Overwrites `logits` [n, C]. −inf removes the target: its probability is then exactly 0. Autograd
    differentiates nothing here, and the −inf in the logarithms is replaced by 0 afterwards.
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


def _binary_kl(student_odds: Tensor, teacher_odds: Tensor) -> Tensor:
    """KL between two (target, other classes) distributions, given their log odds.

    The log odds z[target] − logsumexp(others) give log p = logsigmoid(odds) and log(1 − p) =
    logsigmoid(−odds). Both stay finite and precise where p rounds to 1; log1p(−p) is −inf in
    float32 from a gap of 25 on.
    """
    log_p, log_rest_p = F.logsigmoid(teacher_odds), F.logsigmoid(-teacher_odds)
    log_q, log_rest_q = F.logsigmoid(student_odds), F.logsigmoid(-student_odds)
    return log_p.exp() * (log_p - log_q) + log_rest_p.exp() * (log_rest_p - log_rest_q)


def _save(ctx: Any, derivatives: list[Tensor], inputs: tuple[Any, ...]) -> None:
    """Stores what the backward pass needs, if there is one; the temperature is the last input."""
    if any(ctx.needs_input_grad):
        *tensors, temperature = inputs
        number = not isinstance(temperature, Tensor)
        ctx.number, ctx.count = temperature if number else None, len(derivatives)
        ctx.save_for_backward(*derivatives, *tensors, *(() if number else (temperature,)))


def _saved(ctx: Any) -> tuple[list[Tensor], list[Any]]:
    """(derivatives, inputs) as `_save` got them."""
    derivatives, inputs = list(ctx.saved_tensors[: ctx.count]), list(ctx.saved_tensors[ctx.count :])
    return derivatives, inputs if ctx.number is None else [*inputs, ctx.number]


def _by_autograd(
    ctx: Any, readable: Callable[..., Any], inputs: list[Any], gradients: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients through the readable form, which autograd can differentiate again."""
    wanted = [x for x, needed in zip(inputs, ctx.needs_input_grad, strict=True) if needed]
    found = torch.autograd.grad(readable(*inputs), wanted, gradients, create_graph=True)
    each = iter(found)
    return tuple(next(each) if needed else None for needed in ctx.needs_input_grad)
