"""A temperature that follows a fixed curve over the run."""

import math
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from ctkd.checks import expect, finite
from ctkd.registry import TEMPERATURES

Shape = Literal["linear", "cosine", "exponential"]


@TEMPERATURES.register
class AnnealedTemperature(nn.Module):
    """T(x) from `start` to `end` as the progress x goes from 0 to 1: a schedule, not learned.

        linear       T = start + (end − start) · x
        cosine       T = start + (end − start) · (1 − cos(πx)) / 2
        exponential  T = start · (end / start)^x

    This is a T in the KD loss. Public code for language models has such schedules too: constant,
    linear and cosine in MaxText, a cosine decay in axolotl. "Annealing Knowledge Distillation"
    (Jafari et al. 2021) is another method: it regresses the teacher's logits, scaled by an annealed
    factor, and uses no KL. The defaults, 10 and 1, are the range of their temperature, from soft to
    unsoftened targets. With `start` below `end`, T rises.

    Raises:
        ConfigError: a temperature that is not a finite number > 0, an unknown shape.
    """

    learned: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float] | None] = None
    start: Tensor
    end: Tensor

    def __init__(self, start: float = 10.0, end: float = 1.0, shape: Shape = "linear") -> None:
        super().__init__()
        owner = type(self).__name__
        for name, value in (("start", start), ("end", end)):
            expect(finite(value) and value > 0, owner, name, value, "a finite number > 0")
        shapes = get_args(Shape)
        expect(shape in shapes, owner, "shape", shape, f"one of {', '.join(shapes)}")
        self.shape = shape
        self.register_buffer("start", torch.tensor(float(start)), persistent=False)
        self.register_buffer("end", torch.tensor(float(end)), persistent=False)

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, progress: float | Tensor
    ) -> Tensor:
        """T at `progress`, 0-d; a progress outside [0, 1] counts as the nearer end.

        In a captured graph only a tensor can change between steps; a float keeps its first value.
        """
        if isinstance(progress, Tensor):
            x = progress.to(self.start).reshape(())
        else:
            x = torch.full_like(self.start, progress)  # on the device: no copy from the host
        x = x.clamp(0.0, 1.0)
        if self.shape == "cosine":
            x = (1.0 - torch.cos(math.pi * x)) / 2.0
        if self.shape == "exponential":
            return torch.lerp(self.start.log(), self.end.log(), x).exp()
        return torch.lerp(self.start, self.end, x)
