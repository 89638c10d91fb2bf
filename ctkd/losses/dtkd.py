"""Dynamic Temperature Knowledge Distillation: both networks' temperatures from their logits."""

from torch import Tensor

from ctkd.losses.few_classes import temperature_without_maximum
from ctkd.losses.kd import kd_rows, kl_rows
from ctkd.losses.objectives import Objective, Terms
from ctkd.registry import OBJECTIVES

# A smaller maximum is replaced by this one. The formula divides by the sum of two maxima, and its
# temperatures are positive only if the maxima are; the public code does not check.
SMALLEST_MAXIMUM = 1e-2


def dtkd_temperatures(
    student: Tensor, teacher: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """T_s = 2y / (x + y) · T0 and T_t = 2x / (x + y) · T0, x = max z_t, y = max z_s of a row.

    They make the two softened maxima equal, both (x + y) / (2 T0), and T_s + T_t = 2 T0. A maximum
    below 0.01 is replaced by 0.01. If neither maximum is positive, both temperatures are T0. If one
    is, its network gets nearly 2 T0, and the other network a temperature slightly above 0.

    Args:
        student, teacher: [N, C], as `prepare_rows` returns them.
        temperature: T0, a number, 0-d, or [N, 1].

    Returns:
        (T_s, T_t), each [N, 1]; differentiable in both logits and in T0.
    """
    y, x = (
        logits.max(dim=1, keepdim=True).values.clamp(min=SMALLEST_MAXIMUM)
        for logits in (student, teacher)
    )
    shared = 2.0 * temperature / (x + y)
    return y * shared, x * shared


@OBJECTIVES.register
class DTKD(Objective):
    """ce_weight · CE + w(n) · (dtkd_weight · T_s T_t KL_dynamic + kd_weight · T0² KL).

    Wei and Bai, "Dynamic Temperature Knowledge Distillation", 2024 (arXiv 2404.12711). KL_dynamic =
    KL(softmax(z_t / T_t) ‖ softmax(z_s / T_s)) with the temperatures of `dtkd_temperatures`, one
    pair per row; KL is that of plain distillation at T0. w(n) = min(n / warmup_epochs, 1) during
    the whole n-th epoch, n from 1 (1 without warm-up).

    The paper and its code differ. The authors' README declares equations 4 and 5 of the paper
    wrong: there the maxima alone decide that the vectors z_t / T_t and z_s / T_s agree. But the
    code, and so the published results, use what those equations lead to: T0 ± δ with δ = (x − y) /
    (x + y) · T0. This class does the same, with x and y the maxima of the logits as in the code
    (the paper writes |·|_max). As in the code, the gradient passes through T_s into the student.

    `temperature` is the reference T0 (published: 4). A learned or annealed policy changes T0, and
    so both temperatures in proportion. Published dtkd_weight and kd_weight (their α and β): 3 and 1
    by default, by pair from 1 to 3 and from 0.5 to 2; CE 1, 20 epochs of warm-up.
    """

    warmed = ("dtkd", "kd")

    def __init__(
        self,
        ce_weight: float = 1.0,
        dtkd_weight: float = 3.0,
        kd_weight: float = 1.0,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(ce_weight, warmup_epochs, dtkd=dtkd_weight, kd=kd_weight)
        self.dtkd_weight = dtkd_weight

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
    ) -> Terms:
        """{"dtkd", "kd"}, each [N], the products of temperatures included."""
        student_t, teacher_t = dtkd_temperatures(student, teacher, temperature)
        dynamic = kl_rows(student / student_t, teacher / teacher_t) * student_t * teacher_t
        return {"dtkd": dynamic.squeeze(1), "kd": kd_rows(student, teacher, temperature)}

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes the two temperatures make the rows equal; a learned T has no maximum."""
        owner = type(self).__name__
        found = temperature_without_maximum(owner, num_classes, learned)
        if num_classes == 2 and self.dtkd_weight:
            found.append(
                f"{owner} with 2 classes: the two temperatures make the maxima of both rows equal, "
                "and two logits of mean 0 are then equal too, so the dynamic term "
                f"(dtkd_weight = {self.dtkd_weight:g}) is almost 0 where both networks prefer the "
                "same class. Use Method.objective = @KD, or DTKD.dtkd_weight = 0"
            )
        return found
