"""A temperature of each row that is low where student and teacher differ, without learning."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ctkd.checks import expect, finite
from ctkd.registry import TEMPERATURES

SMALLEST_DIFFICULTY = 1e-6  # the logarithm of a difficulty of 0 is not finite


def hellinger(student: Tensor, teacher: Tensor) -> Tensor:
    """‖√p − √q‖ / √2 of each row, [N, 1], in [0, 1], of the softmaxes at T = 1."""
    root_q, root_p = (0.5 * student.log_softmax(1)).exp(), (0.5 * teacher.log_softmax(1)).exp()
    return (root_p - root_q).square().sum(dim=1, keepdim=True).div(2).sqrt()


@TEMPERATURES.register
class InverseDifficultyTemperature(nn.Module):
    """T = temperature · exp(−strength · tanh(log(d / median d))), d the difficulty of a row.

    Inverse difficulty temperature scaling (AdaKD, arXiv 2510.11615): hard rows get a low T, which
    points at the teacher's first choice, and easy rows a high T, which shows all its choices. d is
    the Hellinger distance of the two predictions at T = 1, and the median is that of the given
    rows: those of one rank, and of one part of an accumulated step. T lies between
    temperature · e^(−strength) and temperature · e^strength.

    The logits are detached: no gradient passes through T. A negative strength is the opposite rule,
    a high T for hard rows. strength = 0.5 is our choice.

    Raises:
        ConfigError: a temperature that is not a finite number > 0, or a strength that is not
            finite.
    """

    learned: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float] | None] = None

    def __init__(self, temperature: float = 4.0, strength: float = 0.5) -> None:
        super().__init__()
        owner = type(self).__name__
        valid = finite(temperature) and temperature > 0
        expect(valid, owner, "temperature", temperature, "a finite number > 0")
        expect(finite(strength), owner, "strength", strength, "a finite number")
        self.temperature, self.strength = temperature, strength

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, progress: float | Tensor
    ) -> Tensor:
        """[N, C] and [N, C] -> T, [N, 1]; `progress` has no effect."""
        student, teacher = (
            logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
            for logits in (student_logits, teacher_logits)
        )
        log_difficulty = hellinger(student, teacher).clamp(min=SMALLEST_DIFFICULTY).log()
        centered = log_difficulty - log_difficulty.median()
        return self.temperature * (-self.strength * centered.tanh()).exp()
