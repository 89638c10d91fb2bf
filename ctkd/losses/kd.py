"""The distillation loss of Hinton et al., as a function of tensors (no Gin)."""

import torch.nn.functional as F
from torch import Tensor

from ctkd.losses.fused import KDRows, closed_form
from ctkd.losses.per_row import check_reduction, prepare_rows, reduce_rows


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor,
    reduction: str = "mean",
) -> Tensor:
    """T² · KL(softmax(z_t / T) ‖ softmax(z_s / T)) of each row (Hinton et al., arXiv 1503.02531).

    T² is part of the graph: the gradient in a learned T is that of the whole loss. Values and
    gradients (student, teacher and T) stay finite where the softmax underflows.

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


@closed_form(KDRows)
def kd_rows(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """T² · KL of each row, [N], of arguments that `prepare_rows` returned.

    With p the teacher's and q the student's softened distribution, the gradients are

        ∂L/∂z_s = T (q − p)
        ∂L/∂T   = 2T · KL − (E_q z_s − E_p z_s) + Cov_p(z_t, z_s − z_t) / T
    """
    kl = kl_rows(student / temperature, teacher / temperature)
    return (kl * temperature * temperature).squeeze(1)


def kl_rows(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)) = Σ p (log p − log q) of each row, [N, 1].

    The difference of two log-softmaxes is finite for finite logits. F.kl_div computes log p of a p
    that may be 0, and its gradient in the teacher's logits, and so in T, is then NaN.
    """
    log_p = F.log_softmax(teacher, dim=-1)
    log_q = F.log_softmax(student, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1, keepdim=True)
