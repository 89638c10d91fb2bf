"""The contract of CTKD: checks of anybody's training step, on synthetic rows, in a second."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ctkd.testing.checker import LARGE
from ctkd.testing.ctkd_faults import FAULTS, CtkdFault
from ctkd.testing.training_step import (
    SyntheticRows,
    TrainingStep,
    kd_rows_at,
    rows_of,
    slope_along,
    teacher_entropy,
)

NEAR = 0.02  # relative tolerance: finite differences of a T in float32
LATE = 1000  # an epoch in which every schedule has reached its last value
EXTREME = 30.0  # a raw parameter at which a bounded T is at its bound

Make = Callable[[], TrainingStep]


def check_ctkd(make_step: Make) -> None:
    """Checks a training step of CTKD against the paper's equations.

    - T's parameters are in the optimizer, get a gradient, and move.
    - The gradient is −λ times the derivative of the loss, T² included. So T moves up the loss.
    - The loss is ce_weight · CE + kd_weight · T² KL, the mean over rows: zero KL where both agree.
    - λ has the expected values, epoch by epoch; λ = 0 freezes T.
    - The student's gradient is that of plain KD at the same T.
    - Value and gradients are finite for logits of 1e4 and for T at its bounds.
    - Rows with `ignore_index` do not count.

    Args:
        make_step: makes a new step at each call, always the same; see `TrainingStep`.

    Raises:
        AssertionError: a check failed; the message has all faults, one on each line.
    """
    faults = examine(make_step)
    if faults:
        raise AssertionError("\n".join(map(str, faults)))


def examine(make_step: Make) -> list[CtkdFault]:
    """All faults of a training step, each once, in the order of the checks."""
    rows = SyntheticRows.draw()
    found = [fault for check in CHECKS for fault in check(make_step, rows)]
    return list({fault.name: fault for fault in found}.values())


def _adversary(make: Make) -> TrainingStep:
    """A new step, at λ = 1 as far as its λ can be set."""
    step = make()
    if step.set_epoch is not None:
        step.set_epoch(LATE)
    if step.set_lambda is not None:
        step.set_lambda(1.0)
    return step


def _backward(step: TrainingStep, rows: SyntheticRows) -> tuple[float, Tensor, list[Tensor]]:
    """The loss, the student's gradient, and those of T's parameters (0 where none arrived)."""
    for parameter in step.parameters:
        parameter.grad = None
    student = rows.student.clone().requires_grad_()
    loss = step.loss(student, rows.teacher, rows.targets)
    loss.backward()  # type: ignore[no-untyped-call]
    zeros = torch.zeros_like(student)
    own = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in step.parameters]
    return float(loss.detach()), zeros if student.grad is None else student.grad, own


def _norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def _close(found: float, expected: float) -> bool:
    return abs(found - expected) <= NEAR * max(abs(expected), 1e-3)


def _temperature(step: TrainingStep, rows: SyntheticRows) -> Tensor:
    return rows_of(step.temperature(rows.student, rows.teacher), len(rows.targets)).clone()


def _of_optimizer(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """The optimizer holds T's parameters, and its step moves them, up the loss."""
    step = _adversary(make)
    held = {id(p) for group in step.optimizer.param_groups for p in group["params"]}
    if not step.parameters or any(id(p) not in held for p in step.parameters):
        yield FAULTS["not in the optimizer"]
    size, moved = _norm(_backward(step, rows)[2]), _moved(step)
    if not size > 0:
        yield FAULTS["no gradient"]
    elif not _norm(moved) > 0:
        yield FAULTS["no movement"]
    else:
        along = [m / _norm(moved) for m in moved]
        if slope_along(step, rows, along, lambda t: kd_rows_at(rows, t)) <= 0:
            yield FAULTS["wrong direction"]


def _moved(step: TrainingStep) -> list[Tensor]:
    """How far a step of the optimizer moves T's parameters; they are put back."""
    before = [p.detach().clone() for p in step.parameters]
    step.optimizer.step()
    moved = [p.detach() - b for p, b in zip(step.parameters, before, strict=True)]
    with torch.no_grad():
        for parameter, value in zip(step.parameters, before, strict=True):
            parameter.copy_(value)
    return moved


def _of_gradient(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """The gradient of T's parameters is −λ times the derivative of the loss, with T² in it."""
    step = _adversary(make)
    scheduled = step.set_epoch is not None and step.set_lambda is None
    expected = step.lambdas[-1] if scheduled else 1.0
    found = _strength(step, rows, lambda t: kd_rows_at(rows, t))
    if found is None or _close(found, expected):
        return
    now = _temperature(step, rows).squeeze(1) ** 2
    others: dict[str, Callable[[Tensor], Tensor]] = {
        "T² detached": lambda t: now * kd_rows_at(rows, t) / t.squeeze(1) ** 2,
        "no T²": lambda t: kd_rows_at(rows, t) / t.squeeze(1) ** 2,
    }
    for name, function in others.items():
        other = _strength(step, rows, function)
        if other is not None and _close(other, expected):
            yield FAULTS[name]
            return
    if not _close(-found, expected):  # a wrong sign alone is found by the step's direction
        yield FAULTS["wrong gradient"].with_value(f"{found / expected:.3g}")


def _strength(
    step: TrainingStep, rows: SyntheticRows, function: Callable[[Tensor], Tensor]
) -> float | None:
    """λ, if the loss of T were mean(function(T)); None where no gradient arrives."""
    gradients = _backward(step, rows)[2]
    size = _norm(gradients)
    if not size > 0:
        return None
    slope = slope_along(step, rows, [g / size for g in gradients], function)
    return -size / (step.kd_weight * slope) if slope else math.inf


def _of_value(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """The loss is ce_weight · CE + kd_weight · T² KL, the mean over the rows."""
    step = _adversary(make)
    loss = float(step.loss(*rows.all).detach())
    double = SyntheticRows(*(torch.cat([part, part]) for part in rows.all))
    twice = float(step.loss(*double.all).detach()) / loss
    if not _close(twice, 1.0):
        yield FAULTS["sum over rows"].with_value(f"{twice:.3g}")
        return
    ce = step.ce_weight * float(F.cross_entropy(rows.student, rows.targets))
    temperature = _temperature(step, rows)
    square, kd = temperature.squeeze(1) ** 2, kd_rows_at(rows, temperature)
    entropy = square * teacher_entropy(rows, temperature)
    candidates = {
        "": kd,
        "no T²": kd / square,
        "cross-entropy to the teacher": kd + entropy,
        "divided by the classes": kd / rows.student.shape[1],
    }
    for name, term in candidates.items():
        if _close(loss, ce + step.kd_weight * float(term.mean())):
            if name:
                agreeing = step.kd_weight * float(entropy.mean())
                yield FAULTS[name].with_value(f"{agreeing:.3g}")
            return
    yield FAULTS["wrong loss"].with_value(f"{loss / (ce + step.kd_weight * float(kd.mean())):.3g}")


def _of_student(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """The reversal leaves the student's gradient as it is in KD at the same T."""
    for step in (make(), _adversary(make)):
        loss, found, _ = _backward(step, rows)
        temperature, student = _temperature(step, rows), rows.student.double().requires_grad_()
        plain = SyntheticRows(student, rows.teacher, rows.targets)
        ce = step.ce_weight * F.cross_entropy(student, rows.targets)
        value = ce + step.kd_weight * kd_rows_at(plain, temperature).mean()
        if not _close(loss, value.item()):
            return  # the loss is another one, which another check says
        (expected,) = torch.autograd.grad(value, student)
        share = float((found - expected).norm() / expected.norm())
        if share > NEAR:
            yield FAULTS["student disturbed"].with_value(f"{100 * share:.2g} %")
            return


def _of_lambda(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """λ has its values epoch by epoch."""
    step = make()
    if step.set_epoch is not None and _norm(_backward(_adversary(make), rows)[2]) > 0:
        found = []
        expected = [*step.lambdas, step.lambdas[-1], step.lambdas[-1]]
        for epoch in range(1, len(expected) + 1):
            step.set_epoch(epoch)
            found.append(_norm(_backward(step, rows)[2]))
        whole = _norm(_backward(_adversary(make), rows)[2])
        last = 1.0 if step.set_lambda is not None else step.lambdas[-1]
        shares = [last * size / whole for size in found]
        if any(abs(a - b) > NEAR * max(b, 0.05) for a, b in zip(shares, expected, strict=True)):
            listed = ", ".join(f"{share:.3g}" for share in shares)
            yield FAULTS["λ schedule"].with_value(listed)


def _of_no_lambda(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """λ = 0 freezes T."""
    step = make()
    if step.set_lambda is None:
        return
    step.set_lambda(0.0)
    _backward(step, rows)
    size = _norm(_moved(step))
    if size > 0:
        yield FAULTS["T moves at λ = 0"].with_value(f"{size:.2g}")


def _of_extremes(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """Value and gradients are finite for sure networks, and for T at its bounds."""
    sure = SyntheticRows(LARGE * rows.student, LARGE * rows.teacher, rows.targets)
    agreeing = SyntheticRows(sure.teacher, sure.teacher, rows.targets)
    cases: list[tuple[SyntheticRows, float | None, str]] = [
        (sure, None, "logits of 1e4"),
        (agreeing, None, "equal logits of 1e4"),
        (rows, -EXTREME, "T at its lower bound"),
        (rows, EXTREME, "T at its upper bound"),
    ]
    for given, raw, when in cases:
        step = _adversary(make)
        if raw is not None:
            with torch.no_grad():
                for parameter in step.parameters:
                    parameter.fill_(raw)
        loss, student, own = _backward(step, given)
        if not all(bool(t.isfinite().all()) for t in (torch.tensor(loss), student, *own)):
            yield FAULTS["not finite"].with_value(when)
            return


def _of_padding(make: Make, rows: SyntheticRows) -> Iterator[CtkdFault]:
    """Rows with `ignore_index` change neither the loss nor its mean."""
    step = _adversary(make)
    if step.ignore_index is None:
        return
    padding = torch.full_like(rows.targets, step.ignore_index)
    padded = SyntheticRows(
        torch.cat([rows.student, rows.teacher]),
        torch.cat([rows.teacher, rows.student]),
        torch.cat([rows.targets, padding]),
    )
    plain, found = (float(step.loss(*given.all).detach()) for given in (rows, padded))
    if not _close(found, plain):
        yield FAULTS["padding counts"].with_value(f"{100 * abs(found / plain - 1):.2g} %")


CHECKS = (
    _of_optimizer,
    _of_gradient,
    _of_value,
    _of_student,
    _of_lambda,
    _of_no_lambda,
    _of_extremes,
    _of_padding,
)
