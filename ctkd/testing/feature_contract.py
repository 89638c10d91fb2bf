"""The contract of a feature loss."""

import copy
import math

import torch
from torch import Tensor

from ctkd.errors import ConfigError
from ctkd.losses.features.feature_loss import FeatureLoss, Features, StepRows
from ctkd.testing.checker import Checker

CLASSES, SAMPLES = 5, 12
# [C, H, W] of each stage, and the number of pooled features; student's and teacher's differ.
STUDENT = {"stage1": (3, 8, 8), "stage2": (4, 4, 4), "stage3": (6, 4, 4), "pooled": (6,)}
TEACHER = {"stage1": (4, 8, 8), "stage2": (6, 4, 4), "stage3": (8, 2, 2), "pooled": (8,)}


def check_feature_loss(loss: FeatureLoss) -> None:
    """Checks a feature loss, `loss(student, teacher, rows) -> 0-d`.

    - `build` makes its modules, from shapes alone; it is called on a copy, `loss` stays as it is.
    - The loss is 0-d, finite, float64 for float64 features, and the same in every call: a call
      changes neither the features nor its own result. Features of zeros give no NaN.
    - The gradients, in the student's features and in its parameters, are those of finite
      differences; every parameter has one. No gradient reaches the teacher's features through them.
    - `weights(position)` is {term: a finite number >= 0}.
    - Unless `compares_rows`, the loss of a batch is the mean over its parts (in eval mode).
    - A missing feature is a ConfigError. No value of a tensor is read: a GPU does not wait.

    Raises:
        AssertionError: the feature loss breaks the contract.
    """
    check, (student, teacher, rows) = Checker(loss), example_features(6)
    loss = copy.deepcopy(loss)
    loss.build(*({k: f.to("meta") for k, f in side.items()} for side in (student, teacher)))
    if "classifier" in loss.needs:
        loss.use_classifier(torch.nn.Linear(TEACHER["pooled"][0], CLASSES).double())
    if "samples" in loss.needs:
        loss.use_samples(torch.arange(SAMPLES) % CLASSES)
    loss = loss.double()
    loss(student, teacher, rows)  # a first step, in train mode
    loss = loss.eval()
    kept = [f.clone() for f in (*student.values(), *teacher.values())]
    first, again = loss(student, teacher, rows), loss(student, teacher, rows)
    check(first.dim() == 0 and first.dtype == torch.float64, f"gives {first.dtype} {first.shape}")
    check(bool(first.isfinite()), "the value is not finite")
    check(torch.equal(first, again), "a second call gives another value")
    check.unchanged(kept, (*student.values(), *teacher.values()))
    _check_gradients(check, loss, student, teacher, rows)
    _check_parts(check, loss, student, teacher, rows)
    for position in (0.0, 0.3, 19.999999, 240.0):
        found = loss.weights(position)
        fine = found.keys() == {loss.term} and 0 <= found[loss.term] < math.inf
        check(fine, f"weights({position}) = {found}: expected {{{loss.term!r}: a number >= 0}}")
    fault = "expected a ConfigError for a missing feature"
    check.raises(ConfigError, fault, loss, {}, teacher, rows)


def example_features(count: int) -> tuple[Features, Features, StepRows]:
    """Random features of `count` samples, float64, always the same."""
    drawn = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=drawn, dtype=torch.float64)

    sides = [{k: random(*shape) for k, shape in side.items()} for side in (STUDENT, TEACHER)]
    for side in sides:
        side["last"] = side["final"] = side["stage3"]
        side |= {f"before{k}": side[f"stage{k}"] for k in (1, 2, 3)}
    indices = torch.randperm(SAMPLES, generator=drawn)[:count]
    targets = indices % CLASSES
    return sides[0], sides[1], StepRows(targets, random(CLASSES), indices)


def _check_gradients(
    check: Checker, loss: FeatureLoss, student: Features, teacher: Features, rows: StepRows
) -> None:
    names, parameters = list(loss.names(student)), dict(loss.named_parameters())

    def value(*tensors: Tensor) -> Tensor:
        given = dict(zip(names, tensors, strict=False))
        weights = dict(zip(parameters, tensors[len(names) :], strict=False))
        arguments = ({**student, **given}, teacher, rows)
        found: Tensor = torch.func.functional_call(loss, weights, arguments)
        return found

    inputs = [student[name] for name in names]
    check.gradient(value, *inputs, *parameters.values(), what="the student and the parameters")
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    gradients = torch.autograd.grad(value(*leaves), leaves, allow_unused=True)
    reached = all(g is not None and bool(g.any()) for g in gradients)
    check(reached, "no gradient reaches a feature of the student")
    zeros = [torch.zeros_like(tensor).requires_grad_() for tensor in inputs]
    check.finite(value, tuple(zeros), "for features of zeros")
    check.waits_for_nothing(value, *leaves)


def _check_parts(
    check: Checker, loss: FeatureLoss, student: Features, teacher: Features, rows: StepRows
) -> None:
    if loss.compares_rows:
        return
    halves = []
    for part in (slice(0, 3), slice(3, 6)):
        sides = [{k: f[part] for k, f in side.items()} for side in (student, teacher)]
        given = StepRows(*(None if field is None else field[part] for field in rows))
        halves.append(loss(sides[0], sides[1], given))
    whole = {"loss": loss(student, teacher, rows)}
    check.equal({"loss": torch.stack(halves).mean()}, whole, "other rows change a row of the")
