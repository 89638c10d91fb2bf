"""Dynamic Temperature Knowledge Distillation: both networks' temperatures from their logits."""

from torch import Tensor

from ctkd.losses.few_classes import SOFTMAX_CLASSES, temperature_without_maximum
from ctkd.losses.kd import kd_rows, kl_rows
from ctkd.losses.objectives import check_weights, teacher_given, warmup_share
from ctkd.losses.per_row import cross_entropy_rows, prepare_rows
from ctkd.registry import OBJECTIVES

# A maximum below this counts as this. The formula divides by the sum of two maxima and makes a
# temperature of each, which only positive ones can be; the public code has no such guard.
SMALLEST_MAXIMUM = 1e-2


def dtkd_temperatures(
    student: Tensor, teacher: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """T_s = 2y / (x + y) · T0 and T_t = 2x / (x + y) · T0, x = max z_t, y = max z_s of a row.

    They make the two softened maxima equal, both (x + y) / (2 T0), and T_s + T_t = 2 T0. A maximum
    below 0.01 counts as 0.01: where neither is positive both temperatures are T0; where only one
    is, its network gets nearly 2 T0 and the other next to 0, but above it.

    Args:
        student, teacher: [N, C], as `prepare_rows` gives them.
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
class DTKD:
    """ce_weight · CE + w(n) · (dtkd_weight · T_s T_t KL_dynamic + kd_weight · T0² KL).

    Wei and Bai, "Dynamic Temperature Knowledge Distillation", 2024 (arXiv 2404.12711). KL_dynamic =
    KL(softmax(z_t / T_t) ‖ softmax(z_s / T_s)) with the temperatures of `dtkd_temperatures`, one
    pair per row; KL is that of plain distillation at T0. w(n) = min(n / warmup_epochs, 1) in the
    whole n-th epoch, n from 1 (1 without warm-up).

    Which form this is: the authors' README declares equations 4 and 5 of the paper wrong (they let
    the maxima alone decide that the vectors z_t / T_t and z_s / T_s agree), but their code, and
    hence their results, use what those arrive at: T0 ± δ with δ = (x − y) / (x + y) · T0. That is
    what is built, with x and y the maxima of the logits as in the code (the paper writes |·|_max).
    As there, the gradient runs through T_s into the student.

    `temperature` is the reference T0 (published: 4). A learned or annealed policy moves T0, hence
    both temperatures in proportion. Published dtkd_weight and kd_weight (their α and β): 3 and 1 by
    default, by pair from 1 to 3 and from 0.5 to 2; CE 1, 20 epochs of warm-up.

    Raises:
        ConfigError: a weight or `warmup_epochs` that is not a finite number >= 0.
        ValueError (when called): no teacher, or shapes that do not fit.
    """

    needs_teacher = True
    min_classes = SOFTMAX_CLASSES

    def __init__(
        self,
        ce_weight: float = 1.0,
        dtkd_weight: float = 3.0,
        kd_weight: float = 1.0,
        warmup_epochs: float = 0.0,
    ) -> None:
        owner = type(self).__name__
        check_weights(owner, ce_weight=ce_weight, dtkd_weight=dtkd_weight, kd_weight=kd_weight)
        check_weights(owner, warmup_epochs=warmup_epochs)
        self.ce_weight = ce_weight
        self.dtkd_weight = dtkd_weight
        self.kd_weight = kd_weight
        self.warmup_epochs = warmup_epochs

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        temperature: float | Tensor | None,
        raw_student_logits: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{"ce", "dtkd", "kd"}, each [N], the products of temperatures inside."""
        teacher_logits, temperature = teacher_given(self, teacher_logits, temperature)
        raw = student_logits if raw_student_logits is None else raw_student_logits
        student, teacher, temperature = prepare_rows(student_logits, teacher_logits, temperature)
        student_t, teacher_t = dtkd_temperatures(student, teacher, temperature)
        dynamic = kl_rows(student / student_t, teacher / teacher_t) * student_t * teacher_t
        return {
            "ce": cross_entropy_rows(raw, targets),
            "dtkd": dynamic.squeeze(1),
            "kd": kd_rows(student, teacher, temperature),
        }

    def weights(self, position: float) -> dict[str, float]:
        """Rises over the first `warmup_epochs` epochs for "dtkd" and "kd", else constant."""
        warmup = warmup_share(position, self.warmup_epochs)
        return {
            "ce": self.ce_weight,
            "dtkd": warmup * self.dtkd_weight,
            "kd": warmup * self.kd_weight,
        }

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
