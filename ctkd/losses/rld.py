"""Refined logit distillation, and two baselines that correct a teacher's mistakes: SWAP and RC."""

from torch import Tensor

from ctkd.checks import expect, finite
from ctkd.losses.dkd import split_target
from ctkd.losses.few_classes import temperature_without_maximum
from ctkd.losses.kd import kd_rows, kl_rows
from ctkd.losses.objectives import Objective, Terms
from ctkd.registry import OBJECTIVES

# Replaces the logit of a removed class. Its probability is exactly 0, its log-softmax is finite.
REMOVED = -1e30


def confidence_rows(
    student: Tensor, teacher: Tensor, target: Tensor, temperature: float | Tensor
) -> Tensor:
    """T² · KL between (p_top, 1 − p_top) and (q_y, 1 − q_y) of each row, [N].

    p_top is the probability of the teacher's own first class, q_y the student's of the true class:
    the student becomes as sure of the truth as the teacher is of its choice. `target` is [N, 1].
    """
    top = teacher.argmax(dim=1, keepdim=True)
    student_two, _ = split_target(student / temperature, target)
    teacher_two, _ = split_target(teacher / temperature, top)
    return (kl_rows(student_two, teacher_two) * temperature * temperature).squeeze(1)


def below_target_rows(
    student: Tensor, teacher: Tensor, target: Tensor, temperature: float | Tensor
) -> Tensor:
    """T² · KL over the classes that the teacher ranks below the true class, [N].

    The true class, and those with a logit at least as large, are removed from both networks. A row
    where no class or one class is left has the loss 0.
    """
    removed = teacher >= teacher.gather(1, target)
    student, teacher = (logits.masked_fill(removed, REMOVED) for logits in (student, teacher))
    return kd_rows(student, teacher, temperature)


@OBJECTIVES.register
class RLD(Objective):
    """ce_weight · CE + w(n) · (alpha · confidence + beta · below_target).

    Sun et al., "Knowledge Distillation with Refined Logits", ICCV 2025 (arXiv 2408.07703). The
    terms are those of `confidence_rows`, at alpha_temperature, and of `below_target_rows`, at T.
    w(n) = min(n / warmup_epochs, 1) during the whole n-th epoch, n from 1. Published for
    CIFAR-100, all pairs: CE 1, alpha 1 at alpha_temperature 1, beta 8 at T = 4, 20 epochs of
    warm-up. alpha_temperature = None takes T for both (the public code's --same-t).

    A learned T moves "below_target" alone, unless alpha_temperature is None.

    Raises:
        ConfigError: an alpha_temperature that is neither None nor a finite number > 0.
    """

    needs_class = True
    warmed = ("confidence", "below_target")

    def __init__(
        self,
        ce_weight: float = 1.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        alpha_temperature: float | None = 1.0,
        warmup_epochs: float = 0.0,
    ) -> None:
        self.check(alpha=alpha, beta=beta)
        valid = alpha_temperature is None or (finite(alpha_temperature) and alpha_temperature > 0)
        expected = "None or a finite number > 0"
        expect(valid, type(self).__name__, "alpha_temperature", alpha_temperature, expected)
        super().__init__(ce_weight, warmup_epochs, confidence=alpha, below_target=beta)
        self.alpha_temperature = alpha_temperature

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
    ) -> Terms:
        """{"confidence", "below_target"}, each [N], the squares of the temperatures included."""
        target = targets.long().unsqueeze(1)
        alpha_t = temperature if self.alpha_temperature is None else self.alpha_temperature
        return {
            "confidence": confidence_rows(student, teacher, target, alpha_t),
            "below_target": below_target_rows(student, teacher, target, temperature),
        }

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes at most one class is below the true one."""
        if num_classes != 2:
            return []
        return [
            f"{type(self).__name__} with 2 classes: below_target is exactly 0, because at most one "
            "class is left below the true one, so beta has no effect. Use Method.objective = @KD"
        ]


def swap_top_and_target(teacher: Tensor, target: Tensor) -> Tensor:
    """The teacher's logits, its largest one exchanged with the true class's; `target` is [N, 1]."""
    top, index = teacher.max(dim=1, keepdim=True)
    return teacher.scatter(1, index, teacher.gather(1, target)).scatter(1, target, top)


@OBJECTIVES.register
class SWAP(Objective):
    """ce_weight · CE + kd_weight · T² · KL to a teacher whose first class is always the true one.

    The teacher's largest logit and that of the true class are exchanged (Wen et al., "Preparing
    Lessons: Improve Knowledge Distillation with Better Supervision", arXiv 1911.07471). The
    settings are those of RLD's public code for CIFAR-100: T = 4, no CE, kd_weight 1.
    """

    needs_class = True

    def __init__(self, ce_weight: float = 0.0, kd_weight: float = 1.0) -> None:
        super().__init__(ce_weight, kd=kd_weight)

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
    ) -> Terms:
        """{"kd" [N]}, T² included."""
        swapped = swap_top_and_target(teacher, targets.long().unsqueeze(1))
        return {"kd": kd_rows(student, swapped, temperature)}

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes a learned T has no maximum."""
        return temperature_without_maximum(type(self).__name__, num_classes, learned)


@OBJECTIVES.register
class RC(Objective):
    """ce_weight · CE + kd_weight · T² · KL + rc_weight · T² · KL to corrected logits c at T.

    c is the student's own logits, detached, with the largest one added to that of the true class:
    the student also learns from its own corrected answer (a baseline of RLD's
    public code). Published there for CIFAR-100: CE 1, kd_weight 1, rc_weight 0.1, T = 4. Where the
    largest logit is negative the correction lowers the true class's logit, as in the public code.
    """

    needs_class = True
    detaches = True

    def __init__(
        self, ce_weight: float = 1.0, kd_weight: float = 1.0, rc_weight: float = 0.1
    ) -> None:
        super().__init__(ce_weight, kd=kd_weight, rc=rc_weight)

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
    ) -> Terms:
        """{"kd", "rc"}, each [N], T² included."""
        own = student.detach()
        added = own.amax(dim=1, keepdim=True)
        corrected = own.scatter_add(1, targets.long().unsqueeze(1), added)
        return {
            "kd": kd_rows(student, teacher, temperature),
            "rc": kd_rows(student, corrected, temperature),
        }

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes a learned T has no maximum."""
        return temperature_without_maximum(type(self).__name__, num_classes, learned)
