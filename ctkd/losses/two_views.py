"""Objectives on two views of each image: a plain one and a strongly augmented one."""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from torch import Tensor

from ctkd.losses.objectives import Objective, Terms
from ctkd.losses.per_row import cross_entropy_rows, full_precision, prepare_rows
from ctkd.losses.two_temperatures import Temperatures


class StrongView(NamedTuple):
    """Further inputs of an objective with `needs_strong_view`, [N, C] each.

    Attributes:
        student, teacher: the strong view's logits, after the transform.
        raw_student, raw_teacher: the same before it.
        raw_plain_teacher: the teacher's logits of the plain view before it.
    """

    student: Tensor
    teacher: Tensor
    raw_student: Tensor
    raw_teacher: Tensor
    raw_plain_teacher: Tensor


class View(NamedTuple):
    """Both networks' logits of one view, [N, C] each, in full precision.

    Attributes:
        student, teacher: after the transform.
        raw_student, raw_teacher: before it.
    """

    student: Tensor
    teacher: Tensor
    raw_student: Tensor
    raw_teacher: Tensor

    @property
    def probabilities(self) -> Tensor:
        """The teacher's, at T = 1, [N, C]."""
        return self.raw_teacher.softmax(dim=1)

    @property
    def confidence(self) -> Tensor:
        """The teacher's largest probability of each row, [N]."""
        return self.probabilities.amax(dim=1)


def needs_strong_view(objective: object) -> bool:
    """Whether an objective must be called with `strong=`, a StrongView."""
    return bool(getattr(objective, "needs_strong_view", False))


def second_view(
    objective: object,
    strong: tuple[Tensor, Tensor] | None,
    raw_plain_teacher: Tensor | None,
    transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None,
) -> dict[str, StrongView]:
    """The argument `strong` of an objective that needs a strong view; nothing for any other.

    Args:
        strong: (student's, teacher's) logits of the strong view.
        raw_plain_teacher: the teacher's logits of the plain view.
        transform: of the logits; None for none.

    Raises:
        ValueError: the strong view or the teacher's logits are missing, or of other images.
    """
    if not needs_strong_view(objective):
        return {}
    if strong is None or raw_plain_teacher is None:
        name = type(objective).__name__
        raise ValueError(
            f"{name} needs both views: pass strong=(student's, teacher's logits of the strong view)"
        )
    rows = [len(each) for each in (*strong, raw_plain_teacher)]
    if len(set(rows)) > 1:
        raise ValueError(
            f"strong has {rows[0]} and {rows[1]} rows, the plain view {rows[2]}: expected the same "
            "images in the same order"
        )
    transformed = strong if transform is None else transform(*strong)
    return {"strong": StrongView(*transformed, *strong, raw_plain_teacher)}


class TwoViewObjective(Objective):
    """ce_weight · (CE on the plain view + CE on the strong view) + Σ weight · term.

    Row i of both views is the same image. The temperature is a policy's for the plain view; it
    serves both. A subclass implements `terms_of_views`.
    """

    needs_strong_view: ClassVar[bool] = True

    def __init__(self, ce_weight: float, **weights: float) -> None:
        self.check(ce_weight=ce_weight)
        super().__init__(ce_weight, ce_strong=ce_weight, **weights)

    def terms_of_views(self, plain: View, strong: View, temperature: float | Tensor) -> Terms:
        """The subclass's own terms, name -> [N] or 0-d, as in `Objective.terms`."""
        raise NotImplementedError

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        temperature: Temperatures | None,
        raw_student_logits: Tensor | None = None,
        strong: StrongView | None = None,
    ) -> Terms:
        """The named losses of each row: "ce", "ce_strong" and `terms_of_views`; see `Objective`.

        Raises:
            ValueError: a missing teacher, temperature or strong view, or shapes that do not fit.
        """
        if teacher_logits is None or temperature is None or strong is None:
            raise ValueError(
                f"{type(self).__name__} needs a teacher, a temperature and the strong view: pass "
                "teacher_logits, temperature and strong"
            )
        if isinstance(temperature, tuple):
            raise ValueError(f"two temperatures: {type(self).__name__} accepts one")
        raw = student_logits if raw_student_logits is None else raw_student_logits
        student, teacher, temperature = prepare_rows(student_logits, teacher_logits, temperature)
        strong_student, strong_teacher, _ = prepare_rows(strong.student, strong.teacher, 1.0)
        plain_raws = map(full_precision, (raw, strong.raw_plain_teacher))
        strong_raws = map(full_precision, (strong.raw_student, strong.raw_teacher))
        plain = View(student, teacher, *plain_raws)
        other = View(strong_student, strong_teacher, *strong_raws)
        return {
            "ce": cross_entropy_rows(raw, targets),
            "ce_strong": cross_entropy_rows(strong.raw_student, targets),
            **self.terms_of_views(plain, other, temperature),
        }
