"""Hard distillation: the teacher's decision as a second label, as in DeiT."""

from torch import Tensor

from ctkd.losses.objectives import Objective, Terms
from ctkd.losses.per_row import cross_entropy_rows
from ctkd.losses.two_temperatures import Temperatures
from ctkd.registry import OBJECTIVES


@OBJECTIVES.register
class HardKD(Objective):
    """ce_weight · CE(z_s, target) + hard_weight · CE(z_s, argmax z_t).

    Touvron et al., "Training data-efficient image transformers & distillation through attention",
    ICML 2021 (arXiv 2012.12877), with both weights ½. A student with a distillation token has two
    rows of logits: those of the class token meet the target, those of the distillation token the
    teacher. There is no temperature in it.
    """

    uses_temperature = False

    def __init__(self, ce_weight: float = 0.5, hard_weight: float = 0.5) -> None:
        super().__init__(ce_weight, hard=hard_weight)

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        temperature: Temperatures | None = None,
        raw_student_logits: Tensor | None = None,
    ) -> Terms:
        """See `Objective`; a temperature changes nothing."""
        return super().__call__(student_logits, teacher_logits, targets, 1.0, raw_student_logits)

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
    ) -> Terms:
        """{"hard" [N]}."""
        return {"hard": cross_entropy_rows(student, teacher.argmax(dim=1))}
