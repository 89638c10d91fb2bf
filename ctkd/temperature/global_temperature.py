"""One learned temperature for all samples: CTKD's Global-T."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ctkd.checks import expect, finite
from ctkd.registry import TEMPERATURES
from ctkd.temperature.bounds import Bounds


@TEMPERATURES.register
class GlobalTemperature(nn.Module):
    """T = tau_init + tau_range · sigmoid(raw), with one parameter `raw` (CTKD, arXiv 2211.16231).

    With the published 1 and 20, and raw_init = 1 as in the public code, T starts at 15.6212. The
    logits have no effect. Give the parameter to the optimizer in a group without weight decay:
    decay pulls raw to 0, and so T to the middle of its range.

    Attributes:
        learned: True: the temperature passes through a gradient reversal.
        bounds: (lower, upper) of T.

    Raises:
        ConfigError: tau_init or tau_range not > 0, or a raw_init that is not finite.
    """

    learned: ClassVar[bool] = True

    def __init__(
        self, tau_init: float = 1.0, tau_range: float = 20.0, raw_init: float = 1.0
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        expect(finite(raw_init), owner, "raw_init", raw_init, "a finite number")
        self._map = Bounds(tau_init, tau_range, owner)
        self.bounds: tuple[float, float] | None = (self._map.lower, self._map.upper)
        self.raw = nn.Parameter(torch.tensor(float(raw_init)))

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, progress: float | Tensor
    ) -> Tensor:
        """T, 0-d; the arguments are those of every policy, and have no effect."""
        return self._map.temperature(self.raw)
