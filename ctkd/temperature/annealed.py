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
    """T(x) from `start` to `end` as the progress x goes from 0 to 1: a schedule, nothing learned.

        linear       T = start + (end − start) · x
        cosine       T = start + (end − start) · (1 − cos(πx)) / 2
        exponential  T = start · (end / start)^x

    This is T(t) in the KD loss. It is not "Annealing Knowledge Distillation" (Jafari et al. 2021),
    which regresses the teacher's logits, scaled by an annealed factor, and uses no KL. The default
    from 10 to 1 is the range which their temperature walks, from soft to unsoftened targets; a
    `start` below `end` anneals the other way.

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
        """T at `progress` in [0, 1] (beyond it T stays at the nearer end), 0-d.

        Only a progress that is a tensor moves on inside a captured graph: a float is frozen there.
        """
        if isinstance(progress, Tensor):
            x = progress.to(self.start).reshape(())
        else:
            x = torch.full_like(self.start, progress)  # fills on the device: no copy from the host
        x = x.clamp(0.0, 1.0)
        if self.shape == "cosine":
            x = (1.0 - torch.cos(math.pi * x)) / 2.0
        if self.shape == "exponential":
            return torch.lerp(self.start.log(), self.end.log(), x).exp()
        return torch.lerp(self.start, self.end, x)
