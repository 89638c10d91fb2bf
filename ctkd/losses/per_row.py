"""What the row losses share: the checks of their arguments, their precision and their reduction.

A row is one decision: an image, a detector's proposal, a token. Nothing here imports Gin.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

REDUCTIONS = ("mean", "sum", "none")
# Elements of a block of rows. On a CPU the handful of arrays that a closed form works with then
# stay in the caches, which makes large losses several times faster; a GPU only needs its memory.
CPU_BLOCK, GPU_BLOCK = 2**15, 2**22


def check_reduction(reduction: str) -> None:
    """Raises ValueError for a reduction that is not known, before anything is computed."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction = {reduction!r}: expected one of {', '.join(REDUCTIONS)}")


def reduce_rows(rows: Tensor, reduction: str) -> Tensor:
    """[N] -> the mean over rows, their sum, or the rows themselves."""
    check_reduction(reduction)
    if reduction == "none":
        return rows
    return rows.mean() if reduction == "mean" else rows.sum()


def by_blocks(
    function: Callable[..., tuple[Tensor, ...]], rows: Tensor, *others: float | Tensor
) -> tuple[Tensor, ...]:
    """`function(rows, *others)`, some rows at a time, so that its temporaries are small.

    Args:
        function: gives tensors with one entry, or one row, for each row.
        rows: [N, C].
        others: cut like `rows`, unless they are numbers or 0-d.
    """
    if torch.compiler.is_compiling():  # a compiler fuses by itself, and would unroll the loop
        return function(rows, *others)
    total, per_row = rows.shape[0], max(1, rows.shape[1])
    on_cpu = rows.device.type == "cpu"
    block = CPU_BLOCK * torch.get_num_threads() if on_cpu else GPU_BLOCK
    height = max(1, block // per_row)
    if total <= height:
        return function(rows, *others)
    height = min(height, -(-total // 4))  # a half's temporaries would be as large as the results
    whole: tuple[Tensor, ...] = ()
    for start in range(0, total, height):
        cut = slice(start, start + height)
        taken = [x[cut] if isinstance(x, Tensor) and x.dim() else x for x in others]
        parts = function(rows[cut], *taken)
        whole = whole or tuple(part.new_empty(total, *part.shape[1:]) for part in parts)
        for target, part in zip(whole, parts, strict=True):
            target[cut] = part
        del parts, part  # before the next block's
    return whole


def needs_plain_form(student: Tensor, teacher: Tensor) -> bool:
    """Whether a loss is left to autograd instead of its closed form.

    That is for a gradient in the teacher's logits (which are frozen in distillation), for logits of
    two precisions, and under `torch.func`, whose transforms take no such Function.
    """
    transformed: bool = torch._C._are_functorch_transforms_active()
    return teacher.requires_grad or student.dtype != teacher.dtype or transformed


def full_precision(logits: Tensor) -> Tensor:
    """The logits in float32, or as they are where that is at least as precise.

    Softmax differences of bf16 or fp16 logits lose most of a KL's digits, and T² overflows fp16.
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def check_targets(logits: Tensor, targets: Tensor) -> None:
    """Raises ValueError unless `targets` holds one class index for each row of `logits`.

    The range of the indices is not looked at: on a GPU that would wait for the device.
    """
    if targets.shape != logits.shape[:1] or targets.is_floating_point():
        raise ValueError(
            f"targets is {targets.dtype} of shape {list(targets.shape)}: expected "
            f"{logits.shape[0]} class indices, shape [{logits.shape[0]}]"
        )


def check_logits(name: str, logits: Tensor) -> None:
    """Raises ValueError unless `logits` is a floating-point matrix [N, C]."""
    if logits.ndim != 2 or not logits.is_floating_point():
        raise ValueError(
            f"{name} is {logits.dtype} of shape {list(logits.shape)}: expected floating-point "
            "rows [N, C]; bring further dimensions into N with flatten"
        )


def prepare_rows(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor, float | Tensor]:
    """Checks both networks' rows and the temperature, and brings them to one precision.

    Args:
        student_logits: [N, C].
        teacher_logits: [N, C].
        temperature: a number, a tensor of one element, or one temperature per row, [N, 1].

    Returns:
        Both logits and the temperature (a number, 0-d, or [N, 1]) in float32 or float64.

    Raises:
        ValueError: shapes that do not fit, or a number that is not a temperature. A tensor's
            value is not looked at: that would wait for the device.
    """
    check_logits("student_logits", student_logits)
    check_logits("teacher_logits", teacher_logits)
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student_logits has shape {list(student_logits.shape)}, teacher_logits "
            f"{list(teacher_logits.shape)}: expected the same rows and classes"
        )
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
    """Cross-entropy of each row, −log softmax(z)[target], half precision computed in float32.

    Args:
        logits: [N, C].
        targets: [N], class indices.

    Returns:
        [N].

    Raises:
        ValueError: shapes or types that do not fit.
    """
    check_logits("logits", logits)
    check_targets(logits, targets)
    return F.cross_entropy(full_precision(logits), targets.long(), reduction="none")
