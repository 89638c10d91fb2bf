"""Temperatures from the spread of each row's logits, one for each network or one for both."""

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from ctkd.checks import expect, finite
from ctkd.registry import TEMPERATURES

Measure = Literal["std", "maximum"]
# A smaller spread counts as this one: T stays positive for a row of equal logits.
SMALLEST_SPREAD = 1e-2


def spread(logits: Tensor, measure: Measure = "std") -> Tensor:
    """The spread of each row, [N, C] -> [N, 1], at least 0.01; half precision in float32.

    "std" is the standard deviation (with C − 1, as torch and NormKD have it). "maximum" is the
    largest logit above the row's mean: with T in proportion to it, all rows have the same largest
    softened logit, and so nearly the same entropy.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if measure == "std":
        found = logits.std(dim=1, keepdim=True)
    else:
        found = (logits - logits.mean(dim=1, keepdim=True)).amax(dim=1, keepdim=True)
    return found.clamp(min=SMALLEST_SPREAD)


@TEMPERATURES.register
class SpreadTemperature(nn.Module):
    """(T_s, T_t) = factor · (spread of the student's row, spread of the teacher's row).

    Each network has its own temperature, so the objective must accept two, as KD does. KD with it
    is NormKD (arXiv 2308.00520); factor is its T_norm.
    With `shared` the teacher's is the temperature of both, and every objective accepts it. measure
    = "maximum" is a rule on the ratio of the largest logit to T, as in CIST (arXiv 2605.20357),
    which also weighs the rows.

    The gradient passes through the student's spread into the student, as in NormKD. If it were
    detached, the student's logits would grow without bound, because T_s grows with them.

    Attributes:
        detached: False: a gradient reaches the student's logits. No T is learned, so it is not a
            reversed one.

    Raises:
        ConfigError: a factor that is not a finite number > 0, an unknown measure, or a `shared`
            that is not True or False.
    """

    learned: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float] | None] = None

    def __init__(self, factor: float = 2.0, measure: Measure = "std", shared: bool = False) -> None:
        super().__init__()
        owner = type(self).__name__
        expect(finite(factor) and factor > 0, owner, "factor", factor, "a finite number > 0")
        known = get_args(Measure)
        expect(measure in known, owner, "measure", measure, f"one of {', '.join(known)}")
        expect(isinstance(shared, bool), owner, "shared", shared, "True or False")
        self.factor, self.measure, self.shared = factor, measure, shared
        self.two_temperatures, self.detached = not shared, shared

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, progress: float | Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(T_s, T_t), [N, 1] each, or T of [N, 1] if `shared`; `progress` has no effect."""
        teacher_t = self.factor * spread(teacher_logits.detach(), self.measure)
        if self.shared:
            return teacher_t
        return self.factor * spread(student_logits, self.measure), teacher_t
