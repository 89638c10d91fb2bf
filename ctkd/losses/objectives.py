"""Objectives: which losses a student is trained on, as named terms, and how much each weighs.

An objective gives unweighted losses of each row; who trains weights them, and divides by the number
of rows of the whole step, which only the trainer knows.
"""

import math
from typing import Protocol

from torch import Tensor

from ctkd.checks import expect, finite
from ctkd.losses.dkd import dkd_terms
from ctkd.losses.few_classes import SOFTMAX_CLASSES, temperature_without_maximum
from ctkd.losses.kd import kd_loss
from ctkd.losses.per_row import cross_entropy_rows
from ctkd.registry import OBJECTIVES


class Objective(Protocol):
    """What a class registered in OBJECTIVES offers; it need not inherit from this one.

    It may also have `min_classes` and `limits`, see `ctkd.losses.few_classes`.
    """

    @property
    def needs_teacher(self) -> bool:
        """Whether `teacher_logits` and `temperature` must be given."""
        ...

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        temperature: float | Tensor | None,
        raw_student_logits: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The named, unweighted losses of each row.

        Args:
            student_logits: [N, C], as the transform gave them.
            teacher_logits: [N, C], likewise; None without a teacher.
            targets: [N], class indices.
            temperature: a number, 0-d, or [N, 1]; None without a teacher.
            raw_student_logits: [N, C] before the transform, on which `ce` is taken (the public
                code of Logit Standardization does so); None where there is no transform.

        Returns:
            name -> [N]; a loss that is not made of rows would be 0-d.
        """
        ...

    def weights(self, position: float) -> dict[str, float]:
        """The weight of every term at `position`, the recipe's epochs done so far."""
        ...


@OBJECTIVES.register
class CrossEntropy:
    """ce_weight · CE: a student that learns without a teacher, the baseline of every table.

    Raises:
        ConfigError: a weight that is not a finite number >= 0.
    """

    needs_teacher = False
    min_classes = SOFTMAX_CLASSES

    def __init__(self, ce_weight: float = 1.0) -> None:
        check_weights(type(self).__name__, ce_weight=ce_weight)
        self.ce_weight = ce_weight

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        temperature: float | Tensor | None,
        raw_student_logits: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{"ce"}, each [N]."""
        raw = student_logits if raw_student_logits is None else raw_student_logits
        return {"ce": cross_entropy_rows(raw, targets)}

    def weights(self, position: float) -> dict[str, float]:
        """Constant."""
        return {"ce": self.ce_weight}


@OBJECTIVES.register
class KD:
    """ce_weight · CE + kd_weight · T² · KL (Hinton et al. 2015).

    The published weights are 0.1 and 0.9 on CIFAR-100, and 1 and 1 on ImageNet.

    Raises:
        ConfigError: a weight that is not a finite number >= 0.
        ValueError (when called): no teacher, or shapes that do not fit.
    """

    needs_teacher = True
    min_classes = SOFTMAX_CLASSES

    def __init__(self, ce_weight: float = 0.1, kd_weight: float = 0.9) -> None:
        check_weights(type(self).__name__, ce_weight=ce_weight, kd_weight=kd_weight)
        self.ce_weight = ce_weight
        self.kd_weight = kd_weight

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        temperature: float | Tensor | None,
        raw_student_logits: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{"ce", "kd"}, each [N], T² inside "kd"."""
        teacher, temperature = teacher_given(self, teacher_logits, temperature)
        raw = student_logits if raw_student_logits is None else raw_student_logits
        return {
            "ce": cross_entropy_rows(raw, targets),
            "kd": kd_loss(student_logits, teacher, temperature, reduction="none"),
        }

    def weights(self, position: float) -> dict[str, float]:
        """Constant."""
        return {"ce": self.ce_weight, "kd": self.kd_weight}

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes a learned T has no maximum."""
        return temperature_without_maximum(type(self).__name__, num_classes, learned)


@OBJECTIVES.register
class DKD:
    """ce_weight · CE + w(n) · dkd_weight · T² (alpha · TCKD + beta · NCKD) + kd_weight · T² · KL.

    Decoupled knowledge distillation (Zhao et al., CVPR 2022). w(n) = min(n / warmup_epochs, 1) in
    the whole n-th epoch, n from 1 (1 without warm-up). Published for CIFAR-100: alpha 1, beta 2 to
    8 by pair, 20 epochs of warm-up with a fixed T, none with a learned one. TCKD and NCKD are terms
    of their own, so that a log shows which of the two drives the temperature.

    Raises:
        ConfigError: a weight or `warmup_epochs` that is not a finite number >= 0.
        ValueError (when called): no teacher, or shapes that do not fit.
    """

    needs_teacher = True
    min_classes = SOFTMAX_CLASSES

    def __init__(
        self,
        ce_weight: float = 1.0,
        dkd_weight: float = 1.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        warmup_epochs: float = 0.0,
        kd_weight: float = 0.0,
    ) -> None:
        owner = type(self).__name__
        check_weights(owner, ce_weight=ce_weight, dkd_weight=dkd_weight, kd_weight=kd_weight)
        check_weights(owner, alpha=alpha, beta=beta, warmup_epochs=warmup_epochs)
        self.ce_weight = ce_weight
        self.tckd_weight = dkd_weight * alpha
        self.nckd_weight = dkd_weight * beta
        self.warmup_epochs = warmup_epochs
        self.kd_weight = kd_weight

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        temperature: float | Tensor | None,
        raw_student_logits: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{"ce", "tckd", "nckd"}, and "kd" if it weighs anything: each [N], T² inside."""
        teacher, temperature = teacher_given(self, teacher_logits, temperature)
        raw = student_logits if raw_student_logits is None else raw_student_logits
        tckd, nckd = dkd_terms(student_logits, teacher, targets, temperature)
        terms = {"ce": cross_entropy_rows(raw, targets), "tckd": tckd, "nckd": nckd}
        if self.kd_weight:
            terms["kd"] = kd_loss(student_logits, teacher, temperature, reduction="none")
        return terms

    def weights(self, position: float) -> dict[str, float]:
        """Rises over the first `warmup_epochs` epochs for "tckd" and "nckd", else constant."""
        warmup = warmup_share(position, self.warmup_epochs)
        weights = {
            "ce": self.ce_weight,
            "tckd": warmup * self.tckd_weight,
            "nckd": warmup * self.nckd_weight,
        }
        if self.kd_weight:
            weights["kd"] = self.kd_weight
        return weights

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes NCKD is 0 and TCKD is the KL; a learned T has no maximum."""
        owner = type(self).__name__
        found = temperature_without_maximum(owner, num_classes, learned)
        if num_classes == 2 and self.nckd_weight:
            found.append(
                f"{owner} with 2 classes: NCKD is exactly 0, because one class is left without the "
                "target, so beta has no effect. TCKD is then the plain KL. Use Method.objective = "
                f"@KD with KD.ce_weight = {self.ce_weight:g} and "
                f"KD.kd_weight = {self.tckd_weight + self.kd_weight:g}: it is the same loss"
            )
        return found


def warmup_share(position: float, warmup_epochs: float) -> float:
    """min(n / warmup_epochs, 1) in the whole n-th epoch, n from 1; 1 without warm-up."""
    # A position that is a whole number but for rounding belongs to the epoch it begins.
    epoch = math.floor(position + 1e-6) + 1
    return min(epoch / warmup_epochs, 1.0) if warmup_epochs else 1.0


def check_weights(owner: str, **weights: float) -> None:
    """Raises ConfigError unless every weight is a finite number >= 0."""
    for name, value in weights.items():
        expect(finite(value) and value >= 0, owner, name, value, "a finite number >= 0")


def teacher_given(
    objective: Objective, teacher_logits: Tensor | None, temperature: float | Tensor | None
) -> tuple[Tensor, float | Tensor]:
    """The arguments that only an objective without a teacher may lack."""
    if teacher_logits is None or temperature is None:
        missing = "teacher_logits" if teacher_logits is None else "temperature"
        raise ValueError(f"{missing} = None: {type(objective).__name__} needs a teacher")
    return teacher_logits, temperature
