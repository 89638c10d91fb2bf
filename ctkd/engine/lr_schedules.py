"""Learning-rate schedules: the factor of the learning rate, a pure function of the progress.

`schedule(position) -> factor`, `position` in epochs of the published recipe, which has
`recipe_epochs` of them; a run of fewer epochs passes through the same curve faster. The student's
rate is `lr` times the factor, the policy's rate its own `lr` times the same factor.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ctkd.checks import expect, finite
from ctkd.registry import LR_SCHEDULES, name_of

LRSchedule = Callable[[float], float]
SMALLEST = 1e-3  # of a warm-up's factor: its first step, at position 0, already counts
ROUNDING = 1e-6  # 0.28 · 25 is 7.000000000000001, and the drop is meant for the step at 7


@dataclass(frozen=True)
class WarmedSchedule:
    """A curve that follows a linear warm-up from nearly 0.

    Attributes:
        warmup_epochs: recipe epochs of the warm-up; 0 for none.
        recipe_epochs: the epochs of the recipe. A run fills it in.
    """

    warmup_epochs: float = 0.0
    recipe_epochs: int = 240

    def __post_init__(self) -> None:
        warm, owner = self.warmup_epochs, name_of(type(self))
        fine = finite(warm) and warm >= 0
        expect(fine, owner, "warmup_epochs", warm, "a number of 0 or more")
        expect(self.recipe_epochs >= 1, owner, "recipe_epochs", self.recipe_epochs, "1 or more")
        fine = self._overlaps or warm < self.recipe_epochs
        expected = f"fewer than the {self.recipe_epochs} epochs of the recipe"
        expect(fine, owner, "warmup_epochs", warm, expected)

    _overlaps = False  # whether the curve goes on under the warm-up, instead of after it

    def __call__(self, position: float) -> float:
        """The factor of the learning rate at a position, >= 0."""
        warm = self.warmup_epochs
        if position < warm:
            return max(position / warm, SMALLEST)
        return self.curve(min(1.0, (position - warm) / (self.recipe_epochs - warm)))

    def curve(self, where: float) -> float:
        """The factor after the warm-up, `where` from 0 to 1 in what then remains."""
        raise NotImplementedError

    def check(self, **shares: float) -> None:
        """Raises ConfigError unless every value is a number from 0 to 1."""
        for name, value in shares.items():
            fine = finite(value) and 0 <= value <= 1
            expect(fine, name_of(type(self)), name, value, "a number from 0 to 1")


@LR_SCHEDULES.register
@dataclass(frozen=True)
class ConstantLR(WarmedSchedule):
    """1 after the warm-up."""

    def curve(self, where: float) -> float:
        """See `WarmedSchedule`."""
        return 1.0


@LR_SCHEDULES.register
@dataclass(frozen=True)
class LinearLR(WarmedSchedule):
    """1 + (end − 1) · where: falls linearly from 1 to `end`."""

    end: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(end=self.end)

    def curve(self, where: float) -> float:
        """See `WarmedSchedule`."""
        return 1.0 + (self.end - 1.0) * where


@LR_SCHEDULES.register
@dataclass(frozen=True)
class CosineLR(LinearLR):
    """end + ½ (1 − end) (1 + cos(π · where)): half a cosine from 1 to `end` (arXiv 1608.03983)."""

    def curve(self, where: float) -> float:
        """See `WarmedSchedule`."""
        return self.end + 0.5 * (1.0 - self.end) * (1.0 + math.cos(math.pi * where))


@LR_SCHEDULES.register
@dataclass(frozen=True)
class OneCycleLR(WarmedSchedule):
    """Half a cosine from `start` up to 1, then half a cosine down to `end` (arXiv 1708.07120).

    Attributes:
        rise: the share of the run in which the factor rises.
        start, end: the first and the last factor.
    """

    rise: float = 0.3
    start: float = 0.04
    end: float = 4e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(rise=self.rise, start=self.start, end=self.end)

    def curve(self, where: float) -> float:
        """See `WarmedSchedule`."""
        if where < self.rise:
            low, share = self.start, 1.0 - where / self.rise
        else:
            low, share = self.end, (where - self.rise) / max(1.0 - self.rise, ROUNDING)
        return low + 0.5 * (1.0 - low) * (1.0 + math.cos(math.pi * share))


@LR_SCHEDULES.register
@dataclass(frozen=True)
class MultiStepLR(WarmedSchedule):
    """gamma^(number of milestones reached); the milestones count through the warm-up.

    Attributes:
        milestones: in epochs of the recipe (after the 150th: 150), or all of them as fractions of
            the run (0.625).
        gamma: the factor of each milestone.
    """

    milestones: Sequence[float] = (0.5, 0.75)
    gamma: float = 0.1
    _overlaps = True

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = name_of(type(self))
        check_milestones(owner, self.milestones)
        fine = finite(self.gamma) and self.gamma > 0
        expect(fine, owner, "gamma", self.gamma, "a number above 0")

    def __call__(self, position: float) -> float:
        """See `WarmedSchedule`."""
        scale = [self.recipe_epochs if milestone < 1 else 1 for milestone in self.milestones]
        reached = position + ROUNDING
        passed = sum(reached >= m * s for m, s in zip(self.milestones, scale, strict=True))
        warm = min(1.0, position / self.warmup_epochs) if self.warmup_epochs else 1.0
        return self.gamma**passed * max(warm, SMALLEST)


def check_milestones(owner: str, milestones: Sequence[float]) -> None:
    """Raises ConfigError unless the milestones rise, and are all epochs or all fractions."""
    fractions = [0 < milestone < 1 for milestone in milestones]
    fine = all(m > 0 for m in milestones) and (all(fractions) or not any(fractions))
    fine = fine and all(a < b for a, b in itertools.pairwise(milestones))
    expected = "rising numbers, all of them epochs (1 or more) or all fractions (below 1)"
    expect(fine, owner, "milestones", milestones, expected)
