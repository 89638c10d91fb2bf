"""What `check_ctkd` measures of a training step: gradients, derivatives, and how far T moves."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from ctkd.testing.training_step import SyntheticRows, TrainingStep

LATE = 1000  # an epoch in which every schedule has reached its last value
NUDGE = 1e-2  # of a parameter, for finite differences in its own precision, usually float32
SPREAD = 0.3  # of the values that `vary` adds to the parameters

P = ParamSpec("P")
R = TypeVar("R")
Make = Callable[[], TrainingStep]
Value = Callable[[Tensor], Tensor]  # T [N, 1] -> the loss of T, 0-d


def same_each_time(make_step: Make) -> Make:
    """`make_step` with the same random numbers at each call of it, of its loss and of its T.

    So first values and dropout are the same every time.

    Raises:
        ValueError: two calls share parameters, or give them different values.
    """

    def make() -> TrainingStep:
        step = _seeded(make_step)()
        return replace(step, loss=_seeded(step.loss), temperature=_seeded(step.temperature))

    one, other = make(), make()
    for ours, theirs in zip(one.parameters, other.parameters, strict=True):
        if ours is theirs:
            raise ValueError(
                "make_step returns the same parameters at each call: make parameters and optimizer "
                "inside of the function"
            )
        if not torch.equal(ours, theirs):
            raise ValueError(
                "make_step returns parameters with other values at each call: set the seed of "
                "their random numbers inside of the function"
            )
    return make


def _seeded(function: Callable[P, R]) -> Callable[P, R]:
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return function(*arguments, **named)

    return call


def adversary(make: Make, strength: float = 1.0) -> TrainingStep:
    """A new step in a late epoch, at λ = `strength` if its λ can be set."""
    step = make()
    if step.set_epoch is not None:
        step.set_epoch(LATE)
    if step.set_lambda is not None:
        step.set_lambda(strength)
    return step


def vary(step: TrainingStep) -> TrainingStep:
    """The step with parameters off their first values, at which a T per row is often one T."""
    drawn = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in step.parameters:
            noise = torch.randn(parameter.shape, generator=drawn)
            parameter.add_(noise.to(parameter), alpha=SPREAD)
    return step


def temperature_of(step: TrainingStep, rows: SyntheticRows) -> Tensor:
    """T of each row, [N, 1] in float64, detached."""
    found = torch.as_tensor(step.temperature(rows.student, rows.teacher))
    return found.detach().double().reshape(-1, 1).expand(len(rows.targets), 1).clone()


def backward(step: TrainingStep, rows: SyntheticRows) -> tuple[float, Tensor, list[Tensor]]:
    """The loss, the student's gradient, and those of T's parameters (0 where none arrived)."""
    for parameter in step.parameters:
        parameter.grad = None
    student = rows.student.clone().requires_grad_()
    loss = step.loss(student, rows.teacher, rows.targets)
    loss.backward()  # type: ignore[no-untyped-call]
    zeros = torch.zeros_like(student)
    own = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in step.parameters]
    return float(loss.detach()), zeros if student.grad is None else student.grad, own


def moves(step: TrainingStep, gradients: Sequence[Tensor]) -> list[Tensor]:
    """How far a step of the optimizer with these gradients moves T's parameters; call it once.

    In float64, since a step is often small compared with the rounding of a float32 parameter.
    """
    before = [parameter.data for parameter in step.parameters]
    for parameter, gradient in zip(step.parameters, gradients, strict=True):
        parameter.grad = None
        parameter.data = parameter.data.double()
        parameter.grad = gradient.double()
    step.optimizer.step()
    moved = [p.data - b.double() for p, b in zip(step.parameters, before, strict=True)]
    for parameter, value in zip(step.parameters, before, strict=True):
        parameter.grad = None
        parameter.data = value
    return moved


def pull(step: TrainingStep, rows: SyntheticRows, idle: Sequence[Tensor]) -> list[Tensor]:
    """How far the loss moves T's parameters: a step of the optimizer without its `idle` part."""
    moved = moves(step, backward(step, rows)[2])
    return [m - i for m, i in zip(moved, idle, strict=True)]


def idle_moves(step: TrainingStep) -> list[Tensor]:
    """How far a step of the optimizer moves T's parameters without a gradient: weight decay."""
    return moves(step, [torch.zeros_like(parameter) for parameter in step.parameters])


def slope_along(
    step: TrainingStep, rows: SyntheticRows, direction: Sequence[Tensor], value: Value
) -> float:
    """The derivative of `value` along a unit direction of the parameters, by central differences.

    The gradient reversal does not change it. `value` may also ignore T, and evaluate the step.
    """
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            _move(step.parameters, direction, sign * NUDGE)
            values.append(float(value(temperature_of(step, rows))))
            _move(step.parameters, direction, -sign * NUDGE)
    return (values[0] - values[1]) / (2 * NUDGE)


def _move(parameters: Sequence[nn.Parameter], direction: Sequence[Tensor], length: float) -> None:
    for parameter, along in zip(parameters, direction, strict=True):
        parameter.add_(along.to(parameter), alpha=length)


def close(found: float, expected: float, tolerance: float) -> bool:
    """Whether they agree up to a relative tolerance; near 0, an absolute one."""
    return abs(found - expected) <= tolerance * max(abs(expected), 1e-3)


def norm(tensors: Sequence[Tensor]) -> float:
    """The Euclidean norm of all of them together."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def unit(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Their direction, of norm 1."""
    size = norm(tensors)
    return [tensor.double() / size for tensor in tensors]


def share(part: Sequence[Tensor], whole: Sequence[Tensor]) -> float:
    """The multiple of `whole` that is nearest to `part`."""
    products = (float((p.double() * w.double()).sum()) for p, w in zip(part, whole, strict=True))
    return sum(products) / norm(whole) ** 2
