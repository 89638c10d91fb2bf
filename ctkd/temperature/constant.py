"""A constant temperature: plain knowledge distillation."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ctkd.checks import expect, finite
from ctkd.registry import TEMPERATURES


@TEMPERATURES.register
class ConstantTemperature(nn.Module):
    """T = temperature for the whole run (Hinton et al. 2015; published for CIFAR-100: 4).

    Raises:
        ConfigError: the temperature is not a finite number > 0.
    """

    learned: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float] | None] = None
    value: Tensor

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        owner = type(self).__name__
        valid = finite(temperature) and temperature > 0
        expect(valid, owner, "temperature", temperature, "a finite number > 0")
        # A buffer moves to the device with the module, so no step copies a number there. The value
        # is in the configuration, so it is not saved.
        self.register_buffer("value", torch.tensor(float(temperature)), persistent=False)

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, progress: float | Tensor
    ) -> Tensor:
        """T, 0-d; the arguments are those of every policy, and have no effect."""
        return self.value
