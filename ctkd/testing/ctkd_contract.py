"""The contract of CTKD: checks of anybody's training step, on synthetic rows, in a second."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ctkd.testing.checker import LARGE
from ctkd.testing.ctkd_faults import FAULTS, CtkdFault
from ctkd.testing.lambda_checks import of_decay, of_lambda
from ctkd.testing.loss_checks import of_student, of_value
from ctkd.testing.measured_step import (
    Make,
    Value,
    adversary,
    backward,
    close,
    moves,
    norm,
    same_each_time,
    slope_along,
    temperature_of,
    unit,
    vary,
)
from ctkd.testing.training_step import SyntheticRows, TrainingStep, kd_rows_at

NEAR = 0.02  # relative tolerance: finite differences of a T in float32
EXTREME = 30.0  # a raw parameter at which a bounded T is at its bound


def check_ctkd(make_step: Make) -> None:
    """Checks a training step of CTKD against the paper's equations.

    - T's parameters are in the optimizer, get a gradient, and move.
    - The gradient is −λ times the derivative of the loss, T² included. So T moves up the loss.
    - The loss is ce_weight · CE + kd_weight · T² KL, the mean over rows: zero KL where both agree.
    - λ has the expected values, epoch by epoch; the step of T is proportional to it.
    - The optimizer does not move T without a gradient.
    - The student's gradient is that of plain KD at the same T.
    - Value and gradients are finite for logits of 1e4 and for T at its bounds; T stays above 0.
    - Rows with `ignore_index` do not count.

    Args:
        make_step: makes a new step at each call, always the same; see `TrainingStep`.

    Raises:
        AssertionError: a check failed; the message has all faults, one on each line.
        ValueError: the steps of two calls differ, or share parameters.
    """
    faults = examine(make_step)
    if faults:
        raise AssertionError("\n".join(map(str, faults)))


def examine(make_step: Make) -> list[CtkdFault]:
    """All faults of a training step, each once, in the order of the checks.

    Raises:
        ValueError: see `check_ctkd`.
    """
    make, rows = same_each_time(make_step), SyntheticRows.draw()
    if not _is_finite(adversary(make), rows):  # then nothing else can be measured
        return [FAULTS["not finite"].with_value("ordinary logits")]
    of_loss = [*of_value(make, rows)]
    found = [*_of_temperature(make, rows, loss_is_right=not of_loss), *of_loss]
    if "λ in the loss" not in {fault.name for fault in of_loss}:
        found += of_lambda(make, rows)
    for check in (of_student, of_decay, _of_extremes, _of_bounds, _of_padding):
        found += check(make, rows)
    return list({fault.name: fault for fault in found}.values())


def _is_finite(step: TrainingStep, rows: SyntheticRows) -> bool:
    loss, student, own = backward(step, rows)
    return math.isfinite(loss) and all(bool(t.isfinite().all()) for t in (student, *own))


def _of_temperature(make: Make, rows: SyntheticRows, loss_is_right: bool) -> Iterator[CtkdFault]:
    """T's parameters get −λ times the derivative of the loss, and move up the loss."""
    step = vary(adversary(make))
    gradients = backward(step, rows)[2]
    held = {id(p) for group in step.optimizer.param_groups for p in group["params"]}
    is_held = bool(step.parameters) and all(id(p) in held for p in step.parameters)
    if not is_held:
        yield FAULTS["not in the optimizer"]
    of_reach = [*_of_reach(make, rows, gradients)]
    yield from of_reach
    if not norm(gradients) > 0:
        return
    forms = _forms(step, rows) if loss_is_right else {"": _own_loss(step, rows)}
    slopes = {n: slope_along(step, rows, unit(gradients), form) for n, form in forms.items()}
    strengths = {n: -norm(gradients) / s if s else math.inf for n, s in slopes.items()}
    expected = _last_lambda(step)
    name = next((n for n, found in strengths.items() if close(abs(found), expected, NEAR)), None)
    if name:
        yield FAULTS[name]
    elif name is None and not of_reach:
        yield FAULTS["wrong gradient"].with_value(f"{strengths[''] / expected:.3g}")
    if is_held:
        moved = moves(step, gradients)
        if not norm(moved) > 0:
            yield FAULTS["no movement"]
        elif slope_along(step, rows, unit(moved), forms[name or ""]) <= 0:
            yield FAULTS["wrong direction"]


def _of_reach(make: Make, rows: SyntheticRows, gradients: list[Tensor]) -> Iterator[CtkdFault]:
    """A gradient reaches every parameter that T depends on."""
    first = temperature_of(make(), rows)
    if not norm(gradients) > 0 and torch.equal(temperature_of(vary(make()), rows), first):
        yield FAULTS["T is constant"].with_value(f"{first.mean().item():.4g}")
        return
    felt = _felt(make, rows)
    without = [k for k in felt if not norm([gradients[k]]) > 0]
    if without:
        yield FAULTS["no gradient"].with_value(f"{len(without)} of the {len(felt)}")


def _felt(make: Make, rows: SyntheticRows) -> list[int]:
    """The indices of the parameters that T depends on."""
    found = []
    for k in range(len(make().parameters)):
        step = vary(make())
        before = temperature_of(step, rows)
        with torch.no_grad():
            step.parameters[k].mul_(0.5)
        if not torch.allclose(temperature_of(step, rows), before, rtol=1e-6):
            found.append(k)
    return found


def _last_lambda(step: TrainingStep) -> float:
    """λ of `adversary`'s step: the schedule's last value if λ itself cannot be set."""
    scheduled = step.set_epoch is not None and step.set_lambda is None
    return step.lambdas[-1] if scheduled else 1.0


def _forms(step: TrainingStep, rows: SyntheticRows) -> dict[str, Value]:
    """The loss of T: the right one, "", and those of faults with the same value."""
    now = temperature_of(step, rows)

    def form(**fixed: Tensor) -> Value:
        return lambda t: step.kd_weight * kd_rows_at(rows, t, **fixed).mean()

    return {
        "": form(),
        "T² detached": form(factor=now**2),
        "teacher detached": form(of_teacher=now),
        "student detached": form(of_student=now),
    }


def _own_loss(step: TrainingStep, rows: SyntheticRows) -> Value:
    return lambda _: step.loss(*rows.all).detach()


def _of_extremes(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """Value and gradients are finite for sure networks, and for T at its bounds."""
    sure = SyntheticRows(LARGE * rows.student, LARGE * rows.teacher, rows.targets)
    agreeing = SyntheticRows(sure.teacher, sure.teacher, rows.targets)
    cases = [
        (adversary(make), sure, "logits of 1e4"),
        (adversary(make), agreeing, "equal logits of 1e4"),
        (_at_raw(make, -EXTREME), rows, "T at its lower bound"),
        (_at_raw(make, EXTREME), rows, "T at its upper bound"),
    ]
    for step, given, when in cases:
        if not _is_finite(step, given):
            yield FAULTS["not finite"].with_value(when)
            return


def _of_bounds(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """T is positive whatever its parameters are."""
    step = _at_raw(make, -EXTREME)
    for parameter, gradient in zip(step.parameters, backward(step, rows)[2], strict=True):
        parameter.grad = gradient
    step.optimizer.step()  # a hook of the optimizer may clamp T
    lowest = temperature_of(step, rows).min().item()
    if lowest <= 0:
        yield FAULTS["T is not bounded"].with_value(f"{lowest:.3g}")


def _at_raw(make: Make, value: float) -> TrainingStep:
    """A new step with all parameters of T at this value."""
    step = adversary(make)
    with torch.no_grad():
        for parameter in step.parameters:
            parameter.fill_(value)
    return step


def _of_padding(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """Rows with `ignore_index` change neither the loss nor its mean."""
    step = adversary(make)
    if step.ignore_index is None:
        return
    padding = torch.full_like(rows.targets, step.ignore_index)
    padded = SyntheticRows(
        torch.cat([rows.student, rows.teacher]),
        torch.cat([rows.teacher, rows.student]),
        torch.cat([rows.targets, padding]),
    )
    plain, found = (float(step.loss(*given.all).detach()) for given in (rows, padded))
    if not close(found, plain, NEAR):
        yield FAULTS["padding counts"].with_value(f"{100 * abs(found / plain - 1):.2g} %")
