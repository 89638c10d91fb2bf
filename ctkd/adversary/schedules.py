"""Schedules of the gradient reversal's strength: `schedule(position) -> lambda_ >= 0`.

`position` is the number of the recipe's epochs done, a float. By default λ is λ(n) during the whole
n-th epoch, n from 1, as in published runs, so the first epoch has λ(1) > 0. `smooth=True` evaluates
the same curve at the position itself, from λ(0) on.
"""

import math

from ctkd.checks import expect, finite
from ctkd.registry import SCHEDULES


@SCHEDULES.register
class ConstantLambda:
    """λ = value for the whole run. With 0 a learned temperature keeps its first value.

    Raises:
        ConfigError: the value is not a finite number >= 0.
    """

    def __init__(self, value: float = 1.0) -> None:
        _check_lambda(type(self).__name__, value=value)
        self.value = value

    def __call__(self, position: float) -> float:
        """λ at `position`, in epochs."""
        return self.value


class _Rise:
    """λ = start + (end − start) · curve(min(n, epochs) / epochs), with the curve of a subclass."""

    def __init__(
        self, start: float = 0.0, end: float = 1.0, epochs: float = 10.0, smooth: bool = False
    ) -> None:
        owner = type(self).__name__
        _check_lambda(owner, start=start, end=end)
        expect(finite(epochs) and epochs > 0, owner, "epochs", epochs, "a finite number > 0")
        self.start, self.end, self.epochs, self.smooth = start, end, epochs, smooth

    def __call__(self, position: float) -> float:
        """λ at `position`, in epochs; `end` from the `epochs`-th epoch on.

        Raises:
            ValueError: a position that is negative or NaN.
        """
        if not position >= 0:
            raise ValueError(f"position = {position!r}: expected the epochs done, >= 0")
        # A position that is a whole number except for rounding belongs to the epoch that it begins.
        n = position if self.smooth else math.floor(position + 1e-6) + 1
        share = self._curve(min(n / self.epochs, 1.0))
        return (1.0 - share) * self.start + share * self.end  # exact at both ends

    def _curve(self, x: float) -> float:
        """Rises from 0 to 1 with x."""
        raise NotImplementedError


@SCHEDULES.register
class LinearLambda(_Rise):
    """λ(n) = start + (end − start) · min(n, epochs) / epochs.

    `epochs` is called loops in the CTKD paper. (The public code's linear schedule ignores its
    maximum and ends at 0.9; this one reaches `end`.)

    Raises:
        ConfigError: start or end is not a finite number >= 0, or epochs is not > 0.
    """

    def _curve(self, x: float) -> float:
        return x


@SCHEDULES.register
class CosineLambda(_Rise):
    """λ(n) = start + ½ (end − start) (1 + cos((1 + min(n, epochs) / epochs) π)).

    The schedule of CTKD (arXiv 2211.16231). `epochs` is called loops in the paper: 10 on CIFAR-100,
    5 on ImageNet. The defaults give .0245 .0955 .2061 .3455 .5 .6545 .7939 .9045 .9755
    and 1 in the first ten epochs, then 1.

    Raises:
        ConfigError: start or end is not a finite number >= 0, or epochs is not > 0.
    """

    def _curve(self, x: float) -> float:
        return (1.0 - math.cos(math.pi * x)) / 2.0


def _check_lambda(owner: str, **values: float) -> None:
    for name, value in values.items():
        expect(finite(value) and value >= 0, owner, name, value, "a finite number >= 0")
