"""The map from an unbounded parameter to a bounded temperature, and its inverse."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ctkd.checks import expect, finite


@dataclass(frozen=True)
class Bounds:
    """T = tau_init + tau_range · sigmoid(raw), so that T is between `lower` and `upper`.

    CTKD (arXiv 2211.16231) uses 1 and 20. In float32 a raw below about −20 or above 17 saturates: T
    equals a bound, and its gradient is nearly 0. `lower` and `upper` let a log report that.

    Attributes:
        owner: the name of the component in an error.

    Raises:
        ConfigError: tau_init or tau_range is not a finite number > 0.
    """

    tau_init: float = 1.0
    tau_range: float = 20.0
    owner: str = "Bounds"

    def __post_init__(self) -> None:
        for name, value in (("tau_init", self.tau_init), ("tau_range", self.tau_range)):
            expect(finite(value) and value > 0, self.owner, name, value, "a finite number > 0")

    @property
    def lower(self) -> float:
        """The infimum of T."""
        return self.tau_init

    @property
    def upper(self) -> float:
        """The supremum of T."""
        return self.tau_init + self.tau_range

    def temperature(self, raw: Tensor) -> Tensor:
        """raw, of any shape -> T of that shape, in float32 (float64 for a raw in float64)."""
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        return self.tau_init + self.tau_range * raw.sigmoid()

    def raw(self, temperature: float) -> float:
        """The raw value at which T equals `temperature`.

        Raises:
            ValueError: `temperature` is not strictly between the bounds.
        """
        if not self.lower < temperature < self.upper:
            raise ValueError(
                f"temperature = {temperature!r}: expected a number strictly between "
                f"{self.lower} and {self.upper}"
            )
        return math.log((temperature - self.lower) / (self.upper - temperature))
