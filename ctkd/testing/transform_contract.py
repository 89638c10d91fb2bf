"""The contract of a transform of the logits."""

import torch
from torch import Tensor

from ctkd.distiller import Transform
from ctkd.testing.checker import DTYPES, Checker, hard_rows, ordinary_rows


def check_transform(transform: Transform, num_classes: int = 10) -> None:
    """Checks a transform, `transform(student, teacher) -> (student, teacher)`, of logits [N, C].

    - The shapes stay the same. float64 stays float64; half precision may become float32.
    - Values and gradients are finite for logits up to 1e4 and for rows of equal logits.
    - A gradient reaches the student, equal to finite differences. No argument is overwritten.
    - A row depends on that row of both logits only. No value of a tensor is read.

    Raises:
        AssertionError: the transform breaks the contract.
    """
    check = Checker(transform)

    def total(student: Tensor, teacher: Tensor) -> Tensor:
        # Uneven weights: the sum of standardized rows would be 0.
        return torch.stack([(z.sigmoid() * z).mean() for z in transform(student, teacher)]).sum()

    for dtype in DTYPES:
        rows = [ordinary_rows(count, num_classes, dtype) for count in (1, 6)]
        for student, teacher, _ in (*rows, hard_rows(num_classes, dtype)):
            given, kept = (student, teacher), [student.clone(), teacher.clone()]
            found = transform(student, teacher)
            check.unchanged(kept, given)
            for z in found:
                same = z.shape == student.shape
                check(same, f"the shape {list(student.shape)} becomes {list(z.shape)}")
                kinds = {dtype, torch.promote_types(dtype, torch.float32)}
                check(z.dtype in kinds, f"{dtype} becomes {z.dtype}")
                check(bool(z.isfinite().all()), f"a {dtype} result is not finite")
            check.finite(total, (student.requires_grad_(), teacher), f"for {dtype} logits")
    student, teacher, _ = ordinary_rows(6, num_classes)
    whole = dict(zip(("student", "teacher"), transform(student, teacher), strict=True))
    part = dict(zip(whole, transform(student[2:4], teacher[2:4]), strict=True))
    check.equal(part, {k: z[2:4] for k, z in whole.items()}, "other rows change a row of the")
    check.gradient(total, student, teacher, what="the logits")
    single = (student.float().requires_grad_(), teacher.float())
    (found_gradient,) = torch.autograd.grad(total(*single), single[:1])
    reached = num_classes == 2 or bool(found_gradient.any())
    check(reached, "no gradient reaches the student")
    check.waits_for_nothing(total, *single)
