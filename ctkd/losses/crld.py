"""CRLD: each view of the student learns from both views of the teacher, where it is sure."""

from torch import Tensor

from ctkd.checks import expect
from ctkd.losses.few_classes import temperature_without_maximum
from ctkd.losses.kd import kd_rows
from ctkd.losses.objectives import Terms
from ctkd.losses.two_views import TwoViewObjective, View
from ctkd.registry import OBJECTIVES


@OBJECTIVES.register
class CRLD(TwoViewObjective):
    """ce_weight · (CE_w + CE_g) + within_weight · within + across_weight · across.

    Zhang et al., "Cross-View Consistency Regularisation for Knowledge Distillation", ACM MM 2024.
    With w the plain view, g the strong view, and KD(s, t) = T² · KL of student s and teacher t:

        within = [KD(s_w, t_w) + KD(s_g, t_g)] · (confidence of t_w >= within_confidence)
        across = [KD(s_g, t_w) + KD(s_w, t_g)] · (confidence of t_g >= across_confidence)

    A confidence is the teacher's largest probability at T = 1, before any transform. Rows that are
    not sure enough count as 0, and the mean is over all rows, as in the public code.

    Published: T 4, the default weights and confidences on CIFAR-100; ce_weight 2 and T 1 on
    ImageNet. A learned T enters all four distillations.
    """

    def __init__(
        self,
        ce_weight: float = 1.0,
        within_weight: float = 2.0,
        across_weight: float = 0.5,
        within_confidence: float = 0.9,
        across_confidence: float = 0.2,
    ) -> None:
        super().__init__(ce_weight, within=within_weight, across=across_weight)
        bounds = {"within_confidence": within_confidence, "across_confidence": across_confidence}
        for name, value in bounds.items():
            expect(0 <= value <= 1, type(self).__name__, name, value, "a probability")
        self.within_confidence, self.across_confidence = within_confidence, across_confidence

    def terms_of_views(self, plain: View, strong: View, temperature: float | Tensor) -> Terms:
        """{"within", "across"}, each [N], T² included."""
        within = kd_rows(plain.student, plain.teacher, temperature) + kd_rows(
            strong.student, strong.teacher, temperature
        )
        across = kd_rows(strong.student, plain.teacher, temperature) + kd_rows(
            plain.student, strong.teacher, temperature
        )
        return {
            "within": within * (plain.confidence >= self.within_confidence),
            "across": across * (strong.confidence >= self.across_confidence),
        }

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes a learned T has no maximum."""
        return temperature_without_maximum(type(self).__name__, num_classes, learned)
