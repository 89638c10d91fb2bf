"""What the losses of rows share: checks of the arguments, precision, reduction, cross-entropy.

A row is one decision: an image, a proposal of a detector, a token. Nothing here imports Gin.
"""

import contextlib
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor

NO_CLASS = -(2**31)  # a target that nobody gives
REDUCTIONS = ("mean", "sum", "none")


def check_reduction(reduction: str) -> None:
    """Raises ValueError for an unknown reduction."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction = {reduction!r}: expected one of {', '.join(REDUCTIONS)}")


def reduce_rows(rows: Tensor, reduction: str) -> Tensor:
    """[N] -> the mean over the rows, their sum, or the rows themselves."""
    check_reduction(reduction)
    if reduction == "none":
        return rows
    return rows.mean() if reduction == "mean" else rows.sum()


def full_precision(logits: Tensor) -> Tensor:
    """The logits in float32; float64 logits stay in float64.

    Differences of log-softmaxes in bf16 or fp16 lose most digits of a KL, and T² overflows fp16.
    Logits of torch.inference_mode are copied, since autograd cannot save them.
    """
    recorded = not (torch.compiler.is_compiling() or torch.is_inference_mode_enabled())
    if recorded and logits.is_inference():
        logits = logits.clone()
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast, whose matrix products would be in half precision."""
    has_autocast = torch.amp.is_autocast_available(device.type)  # the meta device has none
    if has_autocast and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()  # the context of torch costs 20 µs


def check_step(student: Tensor, teacher: Tensor | None, targets: Tensor, same: bool) -> None:
    """Raises ValueError unless all are rows of one step; with `same`, of the same columns."""
    check_logits("student_logits", student)
    if not isinstance(targets, Tensor):
        raise ValueError(f"targets is a {type(targets).__name__}: expected a tensor of classes [N]")
    rows = {"targets": len(targets)}
    if teacher is not None:
        check_logits("teacher_logits", teacher)
        rows["teacher_logits"] = len(teacher)
        if same:
            check_same(student, teacher)
    for name, count in rows.items():
        if count != len(student):
            raise ValueError(
                f"student_logits has {len(student)} rows and {name} {count}: expected one of each "
                "for every row"
            )


def check_same(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Raises ValueError unless both have the same shape."""
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student_logits has shape {list(student_logits.shape)}, teacher_logits "
            f"{list(teacher_logits.shape)}: expected the same rows and classes"
        )


def check_each_row(
    name: str, given: Tensor, terms: Mapping[str, Tensor], what: str = "one for each row"
) -> None:
    """Raises ValueError unless `given` has the shape of every term that is not 0-d."""
    for rows in terms.values():
        if rows.dim() and rows.shape != given.shape:
            raise ValueError(
                f"{name} has shape {list(given.shape)}: expected {what}, {list(rows.shape)}"
            )


def explain_targets(targets: Tensor, classes: int) -> None:
    """Raises ValueError for a class that there is not; called after an error, on a CPU.

    On a GPU a wrong class is an assertion of the device.
    """
    if targets.device.type != "cpu" or targets.is_floating_point():
        return
    wrong = ((targets < 0) | (targets >= classes)).nonzero()
    if len(wrong):
        row = int(wrong[0, 0])
        raise ValueError(
            f"targets[{row}] is {int(targets[row])}: expected a class from 0 to {classes - 1}. "
            "Leave out the rows without a class, with their logits: kept = targets >= 0"
        )


def check_logits(name: str, logits: Tensor) -> None:
    """Raises ValueError unless `logits` is a floating-point matrix [N, C]."""
    if not isinstance(logits, Tensor):
        kind = type(logits).__name__
        raise ValueError(f"{name} is a {kind}: expected a tensor of rows [N, C]")
    if logits.ndim != 2 or not logits.is_floating_point():
        raise ValueError(
            f"{name} is {logits.dtype} of shape {list(logits.shape)}: expected floating-point "
            "rows [N, C]; bring further dimensions into N with flatten"
        )


def check_targets(logits: Tensor, targets: Tensor) -> None:
    """Raises ValueError unless `targets` holds one class index for each row of `logits`.

    The range of the indices is not checked: on a GPU the check would wait for the device.
    """
    if targets.shape != logits.shape[:1] or targets.is_floating_point():
        raise ValueError(
            f"targets is {targets.dtype} of shape {list(targets.shape)}: expected "
            f"{logits.shape[0]} class indices, shape [{logits.shape[0]}]"
        )


def prepare_rows(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor, float | Tensor]:
    """Checks both networks' logits and the temperature, and converts them to full precision.

    Args:
        student_logits: [N, C].
        teacher_logits: [N, C].
        temperature: a number, a tensor of one element, or one temperature per row, [N, 1].

    Returns:
        Both logits and the temperature (a number, 0-d, or [N, 1]) in float32 or float64.

    Raises:
        ValueError: shapes that do not fit, or a number that is not > 0. The value of a tensor is
            not checked: the check would wait for the device.
    """
    check_logits("student_logits", student_logits)
    check_logits("teacher_logits", teacher_logits)
    check_same(student_logits, teacher_logits)
    student, teacher = full_precision(student_logits), full_precision(teacher_logits)
    if not isinstance(temperature, Tensor):
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature = {temperature!r}: expected a finite number > 0")
        return student, teacher, temperature
    rows = student.shape[0]
    if temperature.shape == (rows, 1):
        pass
    elif temperature.numel() == 1:
        temperature = temperature.reshape(())
    else:
        raise ValueError(
            f"temperature has shape {list(temperature.shape)}: expected a number, one element, "
            f"or one temperature per row, [{rows}, 1]; unsqueeze(1) makes that of [{rows}]"
        )
    return student, teacher, temperature.to(torch.promote_types(student.dtype, teacher.dtype))


def cross_entropy_rows(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each row, −Σ target · log softmax(z); half precision in float32.

    Args:
        logits: [N, C].
        targets: [N], class indices, or class probabilities [N, C].

    Returns:
        [N].

    Raises:
        ValueError: shapes or types that do not fit.
    """
    check_logits("logits", logits)
    logits = full_precision(logits)
    if targets.is_floating_point() and targets.shape == logits.shape:
        return F.cross_entropy(logits, targets.to(logits), reduction="none")
    check_targets(logits, targets)
    # By default −100 would be a class with the loss 0, in a mean over all rows.
    return F.cross_entropy(logits, targets.long(), reduction="none", ignore_index=NO_CLASS)
