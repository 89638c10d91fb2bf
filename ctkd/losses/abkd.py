"""ABKD: the α-β divergence, which is between KL and reverse KL."""

from torch import Tensor

from ctkd.checks import expect, finite
from ctkd.losses.divergences import Divergence
from ctkd.registry import OBJECTIVES


@OBJECTIVES.register
class ABKD(Divergence):
    """ce_weight · CE + kd_weight · D(p ‖ q), without T².

        D = −1/(αβ) Σ [p^α q^β − α/(α+β) p^(α+β) − β/(α+β) q^(α+β)]

    Wang et al., "ABKD: Pursuing a Proper Allocation of the Probability Mass in Knowledge
    Distillation via α-β-Divergence", ICML 2025 (arXiv 2505.04560). α → 1 with β → 0 is KL(p ‖ q),
    α → 0 with β → 1 is KL(q ‖ p). A large α lets the loss follow the classes where p and q differ
    most, a large β those where the student is sure. Published for ResNet-56 -> ResNet-20 on
    CIFAR-100: α = 0.8, β = 0.3, kd_weight 32.

    Without T² the loss vanishes as T grows, so L(T) has its maximum at a small T: with ResNet-56 as
    teacher on CIFAR-100 at 0.5 or less for an untrained ResNet-20, and at 2.2 for a trained one. A
    learned T falls to its lower bound first.

    Raises:
        ConfigError: α or β is not a finite number > 0.
    """

    def __init__(
        self,
        ce_weight: float = 1.0,
        kd_weight: float = 32.0,
        alpha: float = 0.8,
        beta: float = 0.3,
    ) -> None:
        super().__init__(ce_weight, kd_weight)
        for name, value in (("alpha", alpha), ("beta", beta)):
            valid = finite(value) and value > 0
            expect(valid, type(self).__name__, name, value, "a finite number > 0")
        self.alpha, self.beta = alpha, beta

    def factor(self, temperature: float | Tensor) -> float:
        """1: the divergence has no T²."""
        return 1.0

    def divergence(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """D(p ‖ q) of each row, [N, 1]; powers are exponentials of logarithms, so all is finite."""
        a, b = self.alpha, self.beta
        both = (a * log_p + b * log_q).exp()
        own = (a * ((a + b) * log_p).exp() + b * ((a + b) * log_q).exp()) / (a + b)
        return (own - both).sum(dim=1, keepdim=True) / (a * b)
