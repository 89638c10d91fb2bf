"""Entropy-based adaptive distillation: rows about which the networks are unsure weigh more."""

import math

from torch import Tensor

from ctkd.checks import expect, finite
from ctkd.losses.few_classes import temperature_without_maximum
from ctkd.losses.objectives import Objective, Terms
from ctkd.losses.two_temperatures import Temperatures, kd_rows_of_two
from ctkd.registry import OBJECTIVES


def entropy(logits: Tensor, temperature: float) -> Tensor:
    """The entropy of softmax(z / T) of each row, [N], in nats."""
    log_p = (logits / temperature).log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


@OBJECTIVES.register
class EAKD(Objective):
    """ce_weight · CE + kd_weight · w · T² · KL, w = ½ (H_t + H_t · H_s / H_max) of each row.

    Su et al., "EA-KD: Entropy-based Adaptive Knowledge Distillation", ICCV 2025 (arXiv 2311.13621).
    H_t and H_s are the entropies of both networks at entropy_temperature, and w is detached.

    H_max is the largest entropy, ln(number of classes). The public code for CIFAR-100 has 100
    there, the number of classes, so that the student's entropy has almost no effect: published
    results need max_entropy = 100. None is the logarithm, as described and as in the code for
    ImageNet. Published: weights 0.1 and 0.9, T = 4, entropy_temperature 3 on CIFAR-100; 1 and 0.5,
    T = 1, entropy_temperature 2 on ImageNet.

    Raises:
        ConfigError: an entropy_temperature or a max_entropy that is not a finite number > 0.
    """

    two_temperatures = True
    detaches = True

    def __init__(
        self,
        ce_weight: float = 0.1,
        kd_weight: float = 0.9,
        entropy_temperature: float = 3.0,
        max_entropy: float | None = None,
    ) -> None:
        super().__init__(ce_weight, kd=kd_weight)
        owner, expected = type(self).__name__, "a finite number > 0"
        valid = finite(entropy_temperature) and entropy_temperature > 0
        expect(valid, owner, "entropy_temperature", entropy_temperature, expected)
        valid = max_entropy is None or (finite(max_entropy) and max_entropy > 0)
        expect(valid, owner, "max_entropy", max_entropy, f"None or {expected}")
        self.entropy_temperature, self.max_entropy = entropy_temperature, max_entropy

    def row_weights(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The weights w, [N], detached."""
        largest = self.max_entropy or math.log(student.shape[1])
        of_student, of_teacher = (
            entropy(logits.detach(), self.entropy_temperature) for logits in (student, teacher)
        )
        return 0.5 * of_teacher * (1.0 + of_student / largest)

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: Temperatures
    ) -> Terms:
        """{"kd" [N]}, w and T² included."""
        rows = kd_rows_of_two(student, teacher, temperature)
        return {"kd": rows * self.row_weights(student, teacher)}

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes a learned T has no maximum."""
        return temperature_without_maximum(type(self).__name__, num_classes, learned)
