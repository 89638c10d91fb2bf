"""A constant temperature, written as its inverse γ = 1/T."""

from ctkd.checks import expect, finite
from ctkd.registry import TEMPERATURES
from ctkd.temperature.constant import ConstantTemperature


@TEMPERATURES.register
class InverseTemperature(ConstantTemperature):
    """T = 1/γ, constant: γ is the power that WTTM raises the teacher's probabilities to.

    Raises:
        ConfigError: γ is not a finite number > 0.
    """

    def __init__(self, gamma: float = 0.3) -> None:
        valid = finite(gamma) and gamma > 0
        expect(valid, type(self).__name__, "gamma", gamma, "a finite number > 0")
        super().__init__(1 / gamma)
