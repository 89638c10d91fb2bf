"""Objectives: the named losses that train a student, and their weights.

An objective returns losses of each row without their weights. The training loop weights them and
divides by the number of rows of the whole step, which it alone knows.
"""

import math
from typing import Any, ClassVar, Protocol

from torch import Tensor

from ctkd.checks import expect, finite
from ctkd.losses.dkd import dkd_terms
from ctkd.losses.few_classes import SOFTMAX_CLASSES, temperature_without_maximum
from ctkd.losses.kd import kd_rows
from ctkd.losses.per_row import check_targets, cross_entropy_rows
from ctkd.losses.two_temperatures import Temperatures, kd_rows_of_two, prepare_temperatures
from ctkd.registry import OBJECTIVES

Terms = dict[str, Tensor]


class ObjectiveLike(Protocol):
    """What the Distiller calls; any object with these three works.

    It may also have `min_classes` and `limits`, see `ctkd.losses.few_classes`, and `raw_terms`,
    `whole_step` and `needs_strong_view`, see `Objective`.
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
        temperature: Temperatures | None,
        raw_student_logits: Tensor | None = None,
    ) -> Terms:
        """The named losses of each row, without their weights; see `Objective.__call__`."""
        ...

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """Warnings about what the objective loses with so few classes; see `few_classes`."""
        return []

    def weights(self, position: float) -> dict[str, float]:
        """The weight of every term at `position`, the number of the recipe's epochs done."""
        ...


class Objective:
    """ce_weight · CE + Σ weight · term: cross-entropy, and the terms that a subclass adds.

    A subclass implements `terms`, and passes the weights of its terms to this constructor, under
    the names of the terms.

    Attributes:
        needs_teacher: whether teacher's logits and temperature must be given. If False, there are
            no terms but cross-entropy.
        min_classes: with fewer classes a run is refused.
        same_columns: whether student's and teacher's rows have the same columns.
        two_temperatures: whether the temperature may be a tuple, (student's, teacher's).
        needs_class: whether the equation needs one class for each row: a run whose targets are
            class probabilities is refused.
        detaches: whether a weight or a target that is computed from the student's logits is
            detached: the gradient is then not the derivative of the value.
        uses_temperature: whether T has a part in any term.
        warmed: the terms whose weights rise during the first `warmup_epochs` epochs.
        raw_terms: the terms that are computed from the logits before the transform.
        whole_step: whether a term compares the rows of a step with one another, so that it needs
            all of them together: of every rank, and in one part.
        needs_strong_view: whether it is called with the rows of a second view too; see `two_views`.

    Raises:
        ConfigError: a weight or `warmup_epochs` that is not a finite number >= 0.
    """

    needs_teacher: bool = True
    min_classes: ClassVar[int] = SOFTMAX_CLASSES
    same_columns: ClassVar[bool] = True
    two_temperatures: ClassVar[bool] = False
    detaches: ClassVar[bool] = False
    needs_class: ClassVar[bool] = False
    uses_temperature: ClassVar[bool] = True
    warmed: ClassVar[tuple[str, ...]] = ()
    raw_terms: ClassVar[tuple[str, ...]] = ("ce",)
    whole_step: ClassVar[bool] = False
    needs_strong_view: ClassVar[bool] = False

    def __init__(self, ce_weight: float, warmup_epochs: float = 0.0, **weights: float) -> None:
        parameters = {f"{term}_weight": weight for term, weight in weights.items()}
        self.check(ce_weight=ce_weight, **parameters, warmup_epochs=warmup_epochs)
        self.ce_weight, self.warmup_epochs = ce_weight, warmup_epochs
        self._weights = {"ce": ce_weight, **weights}

    def check(self, **parameters: float) -> None:
        """Raises ConfigError unless every parameter is a finite number >= 0."""
        for name, value in parameters.items():
            valid = finite(value) and value >= 0
            expect(valid, type(self).__name__, name, value, "a finite number >= 0")

    def terms(self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: Any) -> Terms:
        """The subclass's own terms, name -> [N]; arguments as `prepare_rows` returns them.

        The temperature is a number, 0-d or [N, 1]; it may be a tuple if `two_temperatures`.

        A term that is not made of rows is 0-d: a mean over the given rows.
        """
        raise NotImplementedError

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        temperature: Temperatures | None,
        raw_student_logits: Tensor | None = None,
    ) -> Terms:
        """The named losses of each row, without their weights: "ce" and `terms`.

        Args:
            student_logits: [N, C], after the transform.
            teacher_logits: [N, C], after the transform; None without a teacher.
            targets: [N], class indices, or class probabilities [N, C].
            temperature: a number, 0-d, or [N, 1]; None without a teacher. A tuple of two, the
                student's and the teacher's, if `two_temperatures`.
            raw_student_logits: [N, C] before the transform. "ce" is computed from them, as in the
                public code of Logit Standardization. None if there is no transform.

        Returns:
            name -> [N], or 0-d for a loss that is not made of rows.

        Raises:
            ValueError: a missing teacher or temperature, or shapes that do not fit.
        """
        own = {}
        if self.needs_teacher:
            if teacher_logits is None or temperature is None:
                missing = "teacher_logits" if teacher_logits is None else "temperature"
                raise ValueError(f"{missing} = None: {type(self).__name__} needs a teacher")
            if isinstance(temperature, tuple) and not self.two_temperatures:
                raise ValueError(f"two temperatures: {type(self).__name__} accepts one")
            if self.needs_class:
                check_targets(student_logits, targets)
            prepared = prepare_temperatures(student_logits, teacher_logits, temperature)
            student, teacher, prepared_temperature = prepared
            own = self.terms(student, teacher, targets, prepared_temperature)
        raw = student_logits if raw_student_logits is None else raw_student_logits
        return {"ce": cross_entropy_rows(raw, targets), **own}

    def weights(self, position: float) -> dict[str, float]:
        """The weight of every term at `position`, the number of the recipe's epochs done.

        The weight of a warmed term is multiplied by min(n / warmup_epochs, 1) during the whole n-th
        epoch, n from 1.
        """
        share = warmup_share(position, self.warmup_epochs)
        return {k: share * w if k in self.warmed else w for k, w in self._weights.items()}


@OBJECTIVES.register
class CrossEntropy(Objective):
    """ce_weight · CE: a student without a teacher, the baseline of every table."""

    needs_teacher = False

    def __init__(self, ce_weight: float = 1.0) -> None:
        super().__init__(ce_weight)


@OBJECTIVES.register
class KD(Objective):
    """ce_weight · CE + kd_weight · T² · KL (Hinton et al. 2015).

    The published weights are 0.1 and 0.9 on CIFAR-100, and 1 and 1 on ImageNet. With two
    temperatures T² is the square of the teacher's, see `kd_rows_of_two`.
    """

    two_temperatures = True

    def __init__(self, ce_weight: float = 0.1, kd_weight: float = 0.9) -> None:
        super().__init__(ce_weight, kd=kd_weight)
        self.kd_weight = kd_weight

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: Temperatures
    ) -> Terms:
        """{"kd" [N]}, T² included."""
        return {"kd": kd_rows_of_two(student, teacher, temperature)}

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes a learned T has no maximum."""
        return temperature_without_maximum(type(self).__name__, num_classes, learned)


@OBJECTIVES.register
class DKD(Objective):
    """ce_weight · CE + w(n) · dkd_weight · T² (alpha · TCKD + beta · NCKD) + kd_weight · T² · KL.

    Decoupled knowledge distillation (Zhao et al., CVPR 2022). w(n) = min(n / warmup_epochs, 1)
    during the whole n-th epoch, n from 1 (1 without warm-up). Published for CIFAR-100: alpha 1,
    beta 2 to 8 by pair, 20 epochs of warm-up with a fixed T, none with a learned T. TCKD and NCKD
    are two terms, so that a log shows which of them drives the temperature.
    """

    needs_class = True  # TCKD is about the target against the rest
    warmed = ("tckd", "nckd")

    def __init__(
        self,
        ce_weight: float = 1.0,
        dkd_weight: float = 1.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        warmup_epochs: float = 0.0,
        kd_weight: float = 0.0,
    ) -> None:
        self.check(dkd_weight=dkd_weight, alpha=alpha, beta=beta, kd_weight=kd_weight)
        weights = {"tckd": dkd_weight * alpha, "nckd": dkd_weight * beta}
        super().__init__(
            ce_weight, warmup_epochs, **weights, **({"kd": kd_weight} if kd_weight else {})
        )
        self.kd_weight = kd_weight

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
    ) -> Terms:
        """{"tckd", "nckd"}, and "kd" if its weight is not 0: each [N], T² included."""
        tckd, nckd = dkd_terms(student, teacher, targets, temperature)
        terms = {"tckd": tckd, "nckd": nckd}
        if self.kd_weight:
            terms["kd"] = kd_rows(student, teacher, temperature)
        return terms

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes NCKD is 0 and TCKD is the KL; a learned T has no maximum."""
        owner = type(self).__name__
        found = temperature_without_maximum(owner, num_classes, learned)
        weights = {"kd": 0.0, **self._weights}
        if num_classes == 2 and weights["nckd"]:
            found.append(
                f"{owner} with 2 classes: NCKD is exactly 0, because one class is left without the "
                "target, so beta has no effect. TCKD is then the plain KL. Use Method.objective = "
                f"@KD with KD.ce_weight = {self.ce_weight:g} and "
                f"KD.kd_weight = {weights['tckd'] + weights['kd']:g}: it is the same loss"
            )
        return found


def warmup_share(position: float, warmup_epochs: float) -> float:
    """min(n / warmup_epochs, 1) during the whole n-th epoch, n from 1; 1 without warm-up."""
    # A position that is a whole number except for rounding belongs to the epoch that it begins.
    epoch = math.floor(position + 1e-6) + 1
    return min(epoch / warmup_epochs, 1.0) if warmup_epochs else 1.0
