"""Universal logit distillation: the distance of two sorted distributions."""

from torch import Tensor

from ctkd.losses.objectives import Objective, Terms
from ctkd.registry import OBJECTIVES


@OBJECTIVES.register
class ULD(Objective):
    """ce_weight · CE + kd_weight · T · Σ_i |p_(i) − q_(i)|, p_(i) the i-th largest probability.

    Boizard et al. 2024 (arXiv 2402.12030): the Wasserstein distance of two vocabularies in which
    every pair of different tokens is equally far apart. p and q are softmax(z / T) of teacher and
    student. Published at T = 1 without a factor.

    The factor is T, not T². For large T a probability is (1 + (z − mean z) / T) / C, so that the
    sum falls as 1 / T. T times the sum has a limit, the mean difference of the sorted centered
    logits; T² times the sum grows without limit, and would drive a learned T to its bound.
    """

    def __init__(self, ce_weight: float = 0.5, kd_weight: float = 0.5) -> None:
        super().__init__(ce_weight, kd=kd_weight)

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
    ) -> Terms:
        """{"kd" [N]}, the factor T included."""
        q = (student / temperature).softmax(1).sort(1, descending=True).values
        p = (teacher / temperature).softmax(1).sort(1, descending=True).values
        distance = (p - q).abs().sum(1, keepdim=True)
        return {"kd": (distance * temperature).squeeze(1)}
