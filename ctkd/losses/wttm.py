"""Weighted Transformed Teacher Matching: temperature on the teacher's side only."""

from torch import Tensor

from ctkd.losses.few_classes import SOFTMAX_CLASSES
from ctkd.losses.kd import kl_rows
from ctkd.losses.objectives import check_weights, teacher_given
from ctkd.losses.per_row import cross_entropy_rows, prepare_rows
from ctkd.registry import OBJECTIVES


def wttm_rows(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """U(p) · KL(p^γ / U(p) ‖ q) of each row, γ = 1/T, p and q the softmaxes at T = 1.

    The power transform p^γ / Σ p^γ is softmax(z_t / T), so only its normalisation, U(p) = Σ p^γ,
    needs p itself. For T ≥ 1, U lies between 1, for a teacher that is sure (or γ = 1), and
    C^(1 − γ), for a uniform one, so that uncertain teachers weigh more. Taken in logarithms, all
    stays finite.

    Args:
        student, teacher: [N, C], as `prepare_rows` gives them.
        temperature: T, a number, 0-d, or [N, 1].

    Returns:
        [N].
    """
    power_sum = (teacher.log_softmax(dim=1) / temperature).logsumexp(dim=1, keepdim=True).exp()
    return (power_sum * kl_rows(student, teacher / temperature)).squeeze(1)


@OBJECTIVES.register
class WTTM:
    """ce_weight · CE + wttm_weight · U(p) · KL(softmax(z_t / T) ‖ softmax(z_s)).

    Zheng and Yang, "Knowledge Distillation Based on Transformed Teacher Matching", ICLR 2024 (arXiv
    2402.11148). The student's softmax has no temperature, and there is no T². U(p) = Σ_c p_c^(1/T),
    see `wttm_rows`; at T = 1 this is KD at T = 1.

    `temperature` is the teacher's T, the inverse of the exponent γ that the paper tabulates: γ =
    0.1 is T = 10. Published: CE 1, wttm_weight (their β) from 1.4 to 16 and γ from 0.1 to 0.4, by
    pair. For a learned policy U is a reward for a large T: it grows with T, to the number of
    classes, and in place of a T* between its bounds the policy may find the upper one.

    Raises:
        ConfigError: a weight that is not a finite number >= 0.
        ValueError (when called): no teacher, or shapes that do not fit.
    """

    needs_teacher = True
    min_classes = SOFTMAX_CLASSES

    def __init__(self, ce_weight: float = 1.0, wttm_weight: float = 1.5) -> None:
        check_weights(type(self).__name__, ce_weight=ce_weight, wttm_weight=wttm_weight)
        self.ce_weight = ce_weight
        self.wttm_weight = wttm_weight

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        temperature: float | Tensor | None,
        raw_student_logits: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{"ce", "wttm"}, each [N], the weight U inside "wttm"."""
        teacher_logits, temperature = teacher_given(self, teacher_logits, temperature)
        raw = student_logits if raw_student_logits is None else raw_student_logits
        rows = prepare_rows(student_logits, teacher_logits, temperature)
        return {"ce": cross_entropy_rows(raw, targets), "wttm": wttm_rows(*rows)}

    def weights(self, position: float) -> dict[str, float]:
        """Constant."""
        return {"ce": self.ce_weight, "wttm": self.wttm_weight}
