"""The contract of an objective."""

import functools
import math
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ctkd.losses.objectives import ObjectiveLike
from ctkd.losses.two_views import needs_strong_view
from ctkd.testing.checker import DTYPES, Checker, hard_rows, ordinary_rows, strong_view_of

POSITIONS = (0.0, 0.3, 1.0, 9.999999, 10.0, 77.7, 240.0, 1e4)  # epochs done


def check_objective(objective: ObjectiveLike, num_classes: int = 10) -> None:
    """Checks an objective, `objective(student, teacher, targets, temperature, raw) -> terms`.

    - A term is [N] or 0-d. It is float64 for float64 logits, else float32, and half precision is
      computed in float32. The temperature may be a number, 0-d, or [N, 1]. N may be 1.
    - Values and gradients are finite for logits up to 1e4 and for rows of equal logits. A gradient
      that float32 holds and float16 does not, of float16 logits, is not a fault.
    - The gradients, in the student's logits and in T, are those of finite differences; in the
      student's not if the objective has `detaches` = True.
    - If `two_temperatures`, T may be a tuple: two equal ones are one T, and the gradient in each is
      that of finite differences.
    - A row of a term depends on that row of the arguments only. No argument is overwritten.
    - "ce", if there is one, is computed from the raw logits, as are `raw_terms` and no other term.
    - If it has `needs_strong_view`, it takes `strong`, a `ctkd.losses.two_views.StrongView`.
    - Class probabilities [N, C] as targets: a ValueError if it has `needs_class`, otherwise those
      that are 1 for the target change nothing, and others give finite terms.
    - `weights(position)` has the names of the terms, with finite numbers >= 0.
    - A missing teacher, or temperature, is a ValueError if `needs_teacher`.
    - No value of a tensor is read: a GPU does not wait.

    Args:
        objective: it need not inherit from `Objective`.
        num_classes: columns of the logits, >= 2. Check 2 classes too.

    Raises:
        AssertionError: the objective breaks the contract.
    """
    call = _Call(objective)
    for dtype, rows in product(DTYPES, (1, 6)):
        _check_terms(call, rows, num_classes, dtype)
    _check_large_logits(call, num_classes)
    _check_rows(call, num_classes)
    _check_gradients(call, num_classes)
    if getattr(objective, "two_temperatures", False):
        _check_two_temperatures(call, num_classes)
    _check_weights(call, num_classes)
    _check_soft_targets(call, num_classes)
    if objective.needs_teacher:
        student, teacher, targets = ordinary_rows(6, num_classes)
        cases = [(student, None, targets, 4.0), (student, teacher, targets, None)]
        for missing in cases if getattr(objective, "uses_temperature", True) else cases[:1]:
            fault = "expected a ValueError for a missing teacher or temperature"
            more = call.second_view(student, teacher)
            call.check.raises(ValueError, fault, functools.partial(objective, **more), *missing)


class _Call:
    """The objective, called with a teacher only if it needs one, and its weighted loss."""

    def __init__(self, objective: ObjectiveLike) -> None:
        self.objective, self.check = objective, Checker(objective)

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, heat: Any, raw: Any = None
    ) -> dict[str, Tensor]:
        if self.objective.needs_teacher:
            more = self.second_view(student, teacher)
            return self.objective(student, teacher, targets, heat, raw, **more)
        return self.objective(student, None, targets, None, raw)

    def second_view(self, student: Tensor, teacher: Tensor) -> dict[str, Any]:
        """The argument `strong`, for an objective that needs it."""
        needed = needs_strong_view(self.objective)
        return {"strong": strong_view_of(student, teacher)} if needed else {}

    def loss(self, *arguments: Any) -> Tensor:
        weights = self.objective.weights(POSITIONS[-1])
        terms = self.terms(*arguments)
        return torch.stack([weights.get(k, 1.0) * term.mean() for k, term in terms.items()]).sum()


def _check_terms(call: _Call, rows: int, num_classes: int, dtype: torch.dtype) -> None:
    check, given = call.check, ordinary_rows(rows, num_classes, dtype)
    kept = [tensor.clone() for tensor in given]
    found = call.terms(*given, 4.0)
    check.unchanged(kept, given)
    wanted = torch.promote_types(dtype, torch.float32)
    for name, term in found.items():
        shape = list(term.shape)
        check(shape in ([rows], []), f"{name} has shape {shape}: expected [{rows}] or 0-d")
        check(term.dtype == wanted, f"{name} is {term.dtype} for {dtype}: expected {wanted}")
    for shape in ([], [rows, 1]):
        same = call.terms(*given, torch.full(shape, 4.0))
        check.equal(same, found, f"a number T, and a tensor T of shape {shape}, differ in")
    if dtype.itemsize == 2:
        student, teacher, targets = given
        exact = call.terms(student.float(), teacher.float(), targets, 4.0)
        check.equal(found, exact, f"{dtype} is not computed in float32: see")


def _check_large_logits(call: _Call, num_classes: int) -> None:
    for dtype, value, per_row in product(DTYPES, (1.0, 21.0), (False, True)):
        student, teacher, targets = hard_rows(num_classes, dtype)
        heat = torch.full((len(student), 1) if per_row else (), value, requires_grad=True)
        when = f"for {dtype} logits of 1e4, or equal ones, T = {value}"
        call.check(
            bool(call.loss(student, teacher, targets, heat).isfinite()),
            f"the value is not finite {when}",
        )
        if _exceeds_half(call, (student, teacher, targets, heat)):
            student, teacher = student.float(), teacher.float()
        call.check.finite(call.loss, (student.requires_grad_(), teacher, targets, heat), when)


def _exceeds_half(call: _Call, inputs: tuple[Tensor, ...]) -> bool:
    """Whether the logits are float16 and the gradient in the student is larger than it can hold."""
    student, teacher, targets, heat = inputs
    if student.dtype != torch.float16:
        return False
    exact = student.float().requires_grad_()
    loss = call.loss(exact, teacher.float(), targets, heat)
    if not loss.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(loss, exact, materialize_grads=True)
    return bool(gradient.abs().max() > torch.finfo(torch.float16).max)


def _check_rows(call: _Call, num_classes: int) -> None:
    check, (student, teacher, targets) = call.check, ordinary_rows(6, num_classes)
    given = (student, teacher, targets, torch.linspace(2, 20, 6, dtype=torch.float64)[:, None])
    whole = call.terms(*given)
    part = call.terms(*(tensor[2:4] for tensor in given))
    cut = {name: term[2:4] for name, term in whole.items() if term.dim()}
    check.equal(part, cut, "other rows change a row of")
    raw_terms = getattr(call.objective, "raw_terms", ("ce",))
    wanted = {name: term for name, term in whole.items() if name not in raw_terms}
    if "ce" in whole:
        wanted["ce"] = F.cross_entropy(5 * student, targets, reduction="none")
    found = call.terms(*given, 5 * student)
    check.equal(found, wanted, "raw_student_logits are for ce, and for ce only: see")


def _check_gradients(call: _Call, num_classes: int) -> None:
    check, (student, teacher, targets) = call.check, ordinary_rows(6, num_classes)
    heat = torch.linspace(2, 20, 6, dtype=torch.float64)[:, None]
    if not getattr(call.objective, "detaches", False):
        check.gradient(lambda s: call.loss(s, teacher, targets, heat), student, what="the student")
    for each in (heat, heat[1, 0]):
        check.gradient(lambda t: call.loss(student, teacher, targets, t), each, what="T")
    student.requires_grad_()
    (found,) = torch.autograd.grad(call.loss(student, teacher, targets, heat), student)
    check(bool(found.any()), "no gradient reaches the student")
    single = (student.detach().float().requires_grad_(), teacher.float(), targets)
    check.waits_for_nothing(call.loss, *single, heat.float().requires_grad_())


def _check_two_temperatures(call: _Call, num_classes: int) -> None:
    check, given = call.check, ordinary_rows(6, num_classes)
    heat = torch.linspace(2, 20, 6, dtype=torch.float64)[:, None]
    once, twice = call.terms(*given, heat), call.terms(*given, (heat, heat))
    check.equal(twice, once, "two equal temperatures, and one, differ in")
    for pair in ((heat, 0.7 * heat), (heat[1, 0], heat[2, 0])):
        check.gradient(lambda s, t: call.loss(*given, (s, t)), *pair, what="two temperatures")


def _check_weights(call: _Call, num_classes: int) -> None:
    names = call.terms(*ordinary_rows(6, num_classes), 4.0).keys()
    for position in POSITIONS:
        found = call.objective.weights(position)
        call.check(found.keys() == names, f"weights has {list(found)}, the terms are {list(names)}")
        valid = all(math.isfinite(weight) and weight >= 0 for weight in found.values())
        call.check(valid, f"weights({position}) = {found}: expected finite numbers >= 0")


def _check_soft_targets(call: _Call, num_classes: int) -> None:
    check, (student, teacher, targets) = call.check, ordinary_rows(6, num_classes)
    sure = F.one_hot(targets, num_classes).to(student)
    if getattr(call.objective, "needs_class", False):
        fault = "it has needs_class: expected a ValueError for class probabilities as targets"
        check.raises(ValueError, fault, call.terms, student, teacher, sure, 4.0)
        return
    found, wanted = (call.terms(student, teacher, t, 4.0) for t in (sure, targets))
    check.equal(found, wanted, "targets as probabilities (or set needs_class = True) change")
    mixed = call.terms(student, teacher, 0.7 * sure + 0.3 / num_classes, 4.0)
    finite = all(bool(term.isfinite().all()) for term in mixed.values())
    check(finite, "a term is not finite for class probabilities: set needs_class = True")
