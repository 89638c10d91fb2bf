"""Checks of λ in a training step: how much of the gradient moves T, and what else moves it."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from ctkd.testing.ctkd_faults import FAULTS, CtkdFault
from ctkd.testing.measured_step import (
    Make,
    adversary,
    backward,
    idle_moves,
    norm,
    pull,
    share,
    vary,
)
from ctkd.testing.training_step import SyntheticRows, TrainingStep

NEAR = 0.02  # of λ, published with four digits
SMALLEST = 0.05  # a λ below it has an absolute tolerance
STRENGTHS = (0.0, 0.25)  # at which λ is compared with λ = 1


def of_lambda(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """The step of T is proportional to λ, and λ has its values epoch by epoch."""
    of_strength = [*_of_strength(make, rows)]
    yield from of_strength or _of_schedule(make, rows)


def _of_schedule(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """λ has its values epoch by epoch.

    It may be in the gradient, or in the step of the optimizer.
    """
    if make().set_epoch is None or (whole := _Whole.of(make, rows)) is None:
        return
    last = 1.0 if make().set_lambda is not None else make().lambdas[-1]
    expected = [*make().lambdas, make().lambdas[-1], make().lambdas[-1]]
    steps = [_at_epoch(make, n) for n in range(1, len(expected) + 1)]
    of_gradient = [last * whole.gradient_of(step) for step in steps]
    of_moves = [last * whole.move_of(step) for step in steps]
    if not _agree(of_moves, expected):
        if _agree(of_gradient, expected):
            yield FAULTS["λ hidden"].with_value(_listed(of_moves))
        else:
            varies = max(of_gradient) - min(of_gradient) > NEAR
            yield FAULTS["λ schedule"].with_value(_listed(of_gradient if varies else of_moves))


def _of_strength(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """The step of T is proportional to λ."""
    if make().set_lambda is None or (whole := _Whole.of(make, rows)) is None:
        return
    found = [whole.move_of(vary(adversary(make, strength))) for strength in STRENGTHS]
    if not _agree(found, STRENGTHS):
        of_gradient = [whole.gradient_of(vary(adversary(make, s))) for s in STRENGTHS]
        name = "λ hidden" if _agree(of_gradient, STRENGTHS) else "λ strength"
        yield FAULTS[name].with_value(_listed(found))


def of_decay(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """The optimizer does not move T without a gradient."""
    size = norm(idle_moves(vary(make())))
    if size > 0:
        yield FAULTS["weight decay"].with_value(f"{size:.2g}")


class _Whole:
    """The gradient of T's parameters at the full λ, and how far it moves them."""

    def __init__(
        self,
        rows: SyntheticRows,
        gradients: Sequence[Tensor],
        idle: Sequence[Tensor],
        step: TrainingStep,
    ) -> None:
        self._rows, self._gradients, self._idle = rows, gradients, idle
        self._moves = pull(step, rows, idle)

    @classmethod
    def of(cls, make: Make, rows: SyntheticRows) -> "_Whole | None":
        """That of a step; None where nothing moves, which another check says."""
        gradients = backward(vary(adversary(make)), rows)[2]
        whole = cls(rows, gradients, idle_moves(vary(make())), vary(adversary(make)))
        return whole if norm(gradients) > 0 and norm(whole._moves) > 0 else None

    def gradient_of(self, step: TrainingStep) -> float:
        """The share that the gradient at another λ has in it."""
        return share(backward(step, self._rows)[2], self._gradients)

    def move_of(self, step: TrainingStep) -> float:
        """The share that a step at another λ has in it."""
        return share(pull(step, self._rows, self._idle), self._moves)


def _at_epoch(make: Make, epoch: int) -> TrainingStep:
    step = vary(make())
    assert step.set_epoch is not None
    step.set_epoch(epoch)
    return step


def _agree(found: Sequence[float], expected: Sequence[float]) -> bool:
    return all(abs(a - b) <= NEAR * max(b, SMALLEST) for a, b in zip(found, expected, strict=True))


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
