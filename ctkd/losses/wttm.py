"""Weighted Transformed Teacher Matching: a temperature for the teacher only."""

from torch import Tensor

from ctkd.losses.kd import kl_rows
from ctkd.losses.objectives import Objective, Terms
from ctkd.registry import OBJECTIVES


def wttm_rows(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """U(p) · KL(p^γ / U(p) ‖ q) of each row, γ = 1/T, p and q the softmaxes at T = 1.

    The power transform p^γ / Σ p^γ is softmax(z_t / T), so only its normalization, U(p) = Σ p^γ,
    needs p itself. For T ≥ 1, U is between 1 (a teacher that is sure, or γ = 1) and C^(1 − γ) (a
    uniform teacher): uncertain teachers weigh more. It is computed from logarithms, so all stays
    finite.

    Args:
        student, teacher: [N, C], as `prepare_rows` returns them.
        temperature: T, a number, 0-d, or [N, 1].

    Returns:
        [N].
    """
    power_sum = (teacher.log_softmax(dim=1) / temperature).logsumexp(dim=1, keepdim=True).exp()
    return (power_sum * kl_rows(student, teacher / temperature)).squeeze(1)


@OBJECTIVES.register
class WTTM(Objective):
    """ce_weight · CE + wttm_weight · U(p) · KL(softmax(z_t / T) ‖ softmax(z_s)).

    Zheng and Yang, "Knowledge Distillation Based on Transformed Teacher Matching", ICLR 2024 (arXiv
    2402.11148). The student's softmax has no temperature, and there is no T². U(p) = Σ_c p_c^(1/T),
    see `wttm_rows`; at T = 1 this is KD at T = 1.

    `temperature` is the teacher's T, the inverse of the exponent γ that the paper tabulates: γ =
    0.1 is T = 10. Published: CE 1, wttm_weight (their β) from 1.4 to 16 and γ from 0.1 to 0.4, by
    pair. U rewards a large T of a learned policy: it grows with T, up to the number of classes. For
    a trained student L(T) rises up to the upper bound of T; for an untrained one it has a minimum
    in between, and T may fall to its lower bound.
    """

    def __init__(self, ce_weight: float = 1.0, wttm_weight: float = 1.5) -> None:
        super().__init__(ce_weight, wttm=wttm_weight)

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
    ) -> Terms:
        """{"wttm" [N]}, the weight U included."""
        return {"wttm": wttm_rows(student, teacher, temperature)}
