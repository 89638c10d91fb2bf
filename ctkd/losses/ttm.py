"""Transformed teacher matching: a temperature for the teacher only."""

from torch import Tensor

from ctkd.losses.kd import kl_rows
from ctkd.losses.objectives import Objective, Terms
from ctkd.registry import OBJECTIVES


@OBJECTIVES.register
class TTM(Objective):
    """ce_weight · CE + ttm_weight · KL(softmax(z_t / T) ‖ softmax(z_s)).

    Zheng and Yang, "Knowledge Distillation Based on Transformed Teacher Matching", ICLR 2024 (arXiv
    2402.11148). The teacher's softmax at T is its distribution to the power γ = 1/T, normalized.
    The student's softmax has no temperature, and there is no T². WTTM also weighs the rows.

    `temperature` is the teacher's T: γ = 0.1 is T = 10. Published: CE 1, and for VGG-13 -> VGG-8
    γ = 0.1 with ttm_weight (their β) 45.

    KL is smallest where the softened teacher is like the student, and grows on both sides. For an
    untrained student, which is nearly uniform, it falls with T; for a trained one it rises, up to
    the KL from a uniform teacher. So a learned T goes to its lower bound first, then to its upper.
    """

    def __init__(self, ce_weight: float = 1.0, ttm_weight: float = 45.0) -> None:
        super().__init__(ce_weight, ttm=ttm_weight)

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
    ) -> Terms:
        """{"ttm" [N]}."""
        return {"ttm": kl_rows(student, teacher / temperature).squeeze(1)}
