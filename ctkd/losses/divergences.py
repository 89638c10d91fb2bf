"""Reverse KL, the Jensen-Shannon divergence and skewed KL in place of the KL of distillation.

p is the teacher's and q the student's softened distribution, softmax(z_t / T) and softmax(z_s / T).
With two temperatures each network has its own, and T² is the square of the teacher's.
"""

import math

import torch
from torch import Tensor

from ctkd.checks import expect, finite
from ctkd.losses.few_classes import temperature_without_maximum
from ctkd.losses.objectives import Objective, Terms
from ctkd.losses.two_temperatures import Temperatures, student_and_teacher
from ctkd.registry import OBJECTIVES


def kl_of_logs(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p (log p − log q) of each row, [N, 1], of logarithms [N, C]."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=1, keepdim=True)


def log_mixture(log_p: Tensor, log_q: Tensor, share: float) -> Tensor:
    """log(share · p + (1 − share) · q), 0 < share < 1, of logarithms [N, C]."""
    return torch.logaddexp(log_p + math.log(share), log_q + math.log1p(-share))


class Divergence(Objective):
    """ce_weight · CE + kd_weight · T² · D(p, q): a subclass implements `divergence`.

    The default weights are those of KD on CIFAR-100. None are published for the divergences there.
    """

    two_temperatures = True

    def __init__(self, ce_weight: float = 0.1, kd_weight: float = 0.9) -> None:
        super().__init__(ce_weight, kd=kd_weight)

    def divergence(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """D(p, q) of each row, [N, 1], from the logarithms of p and q, [N, C]."""
        raise NotImplementedError

    def factor(self, temperature: float | Tensor) -> float | Tensor:
        """T², of the teacher's temperature."""
        return temperature * temperature

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: Temperatures
    ) -> Terms:
        """{"kd" [N]}, the factor included."""
        student_t, teacher_t = student_and_teacher(temperature)
        log_q, log_p = (student / student_t).log_softmax(1), (teacher / teacher_t).log_softmax(1)
        return {"kd": (self.divergence(log_p, log_q) * self.factor(teacher_t)).squeeze(1)}

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes a learned T has no maximum."""
        return temperature_without_maximum(type(self).__name__, num_classes, learned)


@OBJECTIVES.register
class ReverseKL(Divergence):
    """ce_weight · CE + kd_weight · T² · KL(q ‖ p).

    Reverse KL punishes mass that the student puts where the teacher has none; KL(p ‖ q) punishes
    the opposite. Language models are distilled with it (MiniLLM, Gu et al., ICLR 2024, arXiv
    2306.08543). ∂/∂z_s = T · q (log q − log p − KL).
    """

    def divergence(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """KL(q ‖ p)."""
        return kl_of_logs(log_q, log_p)


@OBJECTIVES.register
class JSD(Divergence):
    """ce_weight · CE + kd_weight · T² · [β KL(p ‖ m) + (1 − β) KL(q ‖ m)], m = β p + (1 − β) q.

    The generalized Jensen-Shannon divergence (GKD, Agarwal et al., ICLR 2024, arXiv 2306.13649).
    β = 0.5 is the symmetric one. Divided by β it approaches KL(p ‖ q) as β falls to 0, and divided
    by 1 − β it approaches KL(q ‖ p) as β rises to 1. It is bounded, by ln 2 for β = 0.5.

    Raises:
        ConfigError: β is not strictly between 0 and 1.
    """

    def __init__(self, ce_weight: float = 0.1, kd_weight: float = 0.9, beta: float = 0.5) -> None:
        super().__init__(ce_weight, kd_weight)
        self.beta = between_0_and_1(self, "beta", beta)

    def divergence(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """β KL(p ‖ m) + (1 − β) KL(q ‖ m)."""
        log_m = log_mixture(log_p, log_q, self.beta)
        return self.beta * kl_of_logs(log_p, log_m) + (1 - self.beta) * kl_of_logs(log_q, log_m)


@OBJECTIVES.register
class SkewedKL(Divergence):
    """ce_weight · CE + kd_weight · T² · KL(p ‖ α p + (1 − α) q), or the reverse of it.

    DistiLLM (Ko et al., ICML 2024, arXiv 2402.03898): a share α of p in the second distribution
    bounds the KL by −ln α and its gradient with it. With `reverse` the divergence is
    KL(q ‖ α q + (1 − α) p). α = 0.1 is DistiLLM's; α → 0 is KL or reverse KL.

    Raises:
        ConfigError: α is not strictly between 0 and 1, or `reverse` is not True or False.
    """

    def __init__(
        self,
        ce_weight: float = 0.1,
        kd_weight: float = 0.9,
        alpha: float = 0.1,
        reverse: bool = False,
    ) -> None:
        super().__init__(ce_weight, kd_weight)
        expect(isinstance(reverse, bool), type(self).__name__, "reverse", reverse, "True or False")
        self.alpha, self.reverse = between_0_and_1(self, "alpha", alpha), reverse

    def divergence(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """KL(p ‖ α p + (1 − α) q), with p and q exchanged for `reverse`."""
        first, second = (log_q, log_p) if self.reverse else (log_p, log_q)
        return kl_of_logs(first, log_mixture(first, second, self.alpha))


def between_0_and_1(owner: object, name: str, value: float) -> float:
    """The value; a ConfigError unless it is a number strictly between 0 and 1."""
    valid = finite(value) and 0 < value < 1
    expect(valid, type(owner).__name__, name, value, "a number strictly between 0 and 1")
    return value
