"""NormKD: each row of each network has a temperature in proportion to the spread of its logits."""

from torch import Tensor

from ctkd.losses.kd import kl_rows
from ctkd.losses.objectives import Objective, Terms
from ctkd.registry import OBJECTIVES

# A smaller spread counts as this one: a row of equal logits has none.
SMALLEST_SPREAD = 1e-2


def normkd_temperatures(
    student: Tensor, teacher: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """(T · std of the student's row, T · std of the teacher's row), each [N, 1].

    The std is the unbiased one, and at least 0.01. The gradient passes through it.
    """
    student_std, teacher_std = (
        logits.std(dim=1, keepdim=True).clamp(min=SMALLEST_SPREAD) for logits in (student, teacher)
    )
    return temperature * student_std, temperature * teacher_std


@OBJECTIVES.register
class NormKD(Objective):
    """ce_weight · CE + kd_weight · T_t² · KL(softmax(z_t / T_t) ‖ softmax(z_s / T_s)).

    Chi et al., "NormKD: Normalized Logits for Knowledge Distillation", 2023 (arXiv 2308.00520).
    T_s and T_t are those of `normkd_temperatures`. As in the public code, the gradient passes
    through T_s. The scale of the student's logits then has no effect: this is KD on standardized
    logits, each row weighed by the square of the teacher's spread. With T_s detached the student's
    logits would grow without bound, because T_s grows with them.

    `temperature` is T_norm. A learned T is a learned T_norm. Published: T_norm = 2 and weights 0.1
    and 0.9 on CIFAR-100; 1, and 0.5 and 0.5, on ImageNet.
    """

    def __init__(self, ce_weight: float = 0.1, kd_weight: float = 0.9) -> None:
        super().__init__(ce_weight, kd=kd_weight)

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
    ) -> Terms:
        """{"kd" [N]}, T_t² included."""
        student_t, teacher_t = normkd_temperatures(student, teacher, temperature)
        kl = kl_rows(student / student_t, teacher / teacher_t)
        return {"kd": (kl * teacher_t * teacher_t).squeeze(1)}
