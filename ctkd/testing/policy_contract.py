"""The contract of a temperature policy."""

import copy
import math
from itertools import product

import torch
from torch import Tensor, nn

from ctkd.testing.checker import DTYPES, LARGE, Checker, Rows, hard_rows, ordinary_rows

PROGRESS = 0.25


def check_policy(policy: nn.Module, num_classes: int = 10) -> None:
    """Checks a temperature policy, `policy(student, teacher, progress) -> T`.

    A policy with the attribute `needs_targets = True` is called with the targets as well.

    - T is 0-d or [N, 1], or a tuple of two such if `two_temperatures` (the student's and the
      teacher's). It is float32 or float64, finite, > 0, and inside `bounds` if there are any: for
      every precision, for logits up to 1e4, for rows of equal logits, for a single row.
    - Half precision is computed in float32. `progress` may be a float or 0-d.
    - If `learned`, gradients reach the parameters and are those of finite differences, and T stays
      finite and inside `bounds` for parameters 1e4 times as large. If not, T has no gradient.
    - No gradient reaches the logits, unless the policy is not learned and has `detached` = False.
      No argument is overwritten. No value of a tensor is read.

    Args:
        policy: an nn.Module on the CPU; it stays as it is.
        num_classes: columns of the logits, >= 2.

    Raises:
        AssertionError: the policy breaks the contract.
    """
    policy, check = copy.deepcopy(policy), Checker(policy)
    learned = bool(getattr(policy, "learned", False))
    for dtype in DTYPES:
        rows = [ordinary_rows(count, num_classes, dtype) for count in (1, 6)]
        for given in (*rows, hard_rows(num_classes, dtype)):
            _check_temperature(check, policy, given, f"for {dtype} logits")
            _check_arguments(check, policy, given, learned)
    student, teacher, targets = ordinary_rows(6, num_classes)
    more = _targets_for(policy, targets)
    if learned:
        _check_parameters(check, policy, student, teacher)
        for factor, dtype in product((LARGE, -LARGE), DTYPES[:2]):
            extreme = copy.deepcopy(policy)
            for parameter in extreme.parameters():
                parameter.data.mul_(factor)
            given = (student.to(dtype), teacher.to(dtype), targets)
            _check_temperature(check, extreme, given, f"for parameters times {factor}")
    progress, single = torch.tensor(PROGRESS), (student.float(), teacher.float())
    check.waits_for_nothing(lambda s, t: _flat(policy(s, t, progress, *more)).sum(), *single)


def _targets_for(policy: nn.Module, targets: Tensor) -> tuple[Tensor, ...]:
    """The further argument of a policy that `needs_targets`."""
    return (targets,) if getattr(policy, "needs_targets", False) else ()


def _check_temperature(check: Checker, policy: nn.Module, given: Rows, when: str) -> None:
    student, teacher, targets = given
    low, high = getattr(policy, "bounds", None) or (0.0, math.inf)
    returned = policy(student, teacher, PROGRESS, *_targets_for(policy, targets))
    wanted = 2 if getattr(policy, "two_temperatures", False) else 1
    parts = returned if isinstance(returned, tuple) else (returned,)
    check(len(parts) == wanted, f"the policy returns {len(parts)} temperatures: expected {wanted}")
    for part in parts:
        shape = list(part.shape)
        check(shape in ([], [len(student), 1]), f"T has shape {shape}: expected 0-d or [N, 1]")
    found = _flat(returned)
    check(found.dtype in DTYPES[:2], f"T is {found.dtype} {when}: expected float32 or float64")
    inside = (found >= low) & (found <= high) & (found > 0) & found.isfinite()
    values = found.flatten().tolist()
    check(bool(inside.all()), f"T = {values} {when}: expected > 0 and from {low} to {high}")


def _check_arguments(check: Checker, policy: nn.Module, given: Rows, learned: bool) -> None:
    student, teacher = (logits.clone().requires_grad_() for logits in given[:2])
    more = _targets_for(policy, given[2])
    found = _flat(policy(student, teacher, PROGRESS, *more))
    check.unchanged([student.detach(), teacher.detach()], given[:2])
    attached = not learned and not getattr(policy, "detached", True)
    moved = learned or attached
    check(found.requires_grad == moved, f"T.requires_grad is not learned = {learned}")
    if moved:
        found.sum().backward()  # type: ignore[no-untyped-call]
        leaves = [*policy.parameters(), student]
        finite = all(bool(p.grad.isfinite().all()) for p in leaves if p.grad is not None)
        check(finite, f"a gradient of T is not finite for {student.dtype} logits")
    reached = student.grad is not None or teacher.grad is not None
    check(attached or not reached, "a gradient reaches the logits: detach them")
    again = _flat(policy(student, teacher, torch.tensor(PROGRESS), *more))
    check.equal({"T": again}, {"T": found}, "a float progress and a 0-d progress differ in")
    if student.dtype.itemsize == 2:
        exact = _flat(policy(student.float(), teacher.float(), PROGRESS, *more))
        check.equal({"T": found}, {"T": exact}, f"{student.dtype} is not computed in float32: see")


def _flat(temperature: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """All temperatures, [K]."""
    parts = temperature if isinstance(temperature, tuple) else (temperature,)
    return torch.cat([part.flatten() for part in parts])


def _check_parameters(check: Checker, policy: nn.Module, student: Tensor, teacher: Tensor) -> None:
    policy = copy.deepcopy(policy).double()
    policy.zero_grad()
    names = [name for name, _ in policy.named_parameters()]

    def temperature(*values: Tensor) -> Tensor:
        parameters = dict(zip(names, values, strict=True))
        given = (student, teacher, PROGRESS)
        return _flat(torch.func.functional_call(policy, parameters, given)).sum()

    temperature(*policy.parameters()).backward()  # type: ignore[no-untyped-call]
    reached = any(p.grad is not None and bool(p.grad.any()) for p in policy.parameters())
    check(reached, "no gradient reaches the parameters")
    check.gradient(temperature, *policy.parameters(), what="the parameters")
