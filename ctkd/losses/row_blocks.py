"""Functions of rows, computed for a block of rows at a time (no Gin)."""

from collections.abc import Callable

import torch
from torch import Tensor

# Elements of a block of rows. On a CPU the arrays of a block then stay in the caches, which makes
# large losses several times faster. On a GPU a block limits memory only.
CPU_BLOCK, GPU_BLOCK = 2**15, 2**22


def by_blocks(
    function: Callable[..., tuple[Tensor, ...]], rows: Tensor, *others: float | Tensor
) -> tuple[Tensor, ...]:
    """`function(rows, *others)`, computed for a block of rows at a time: small temporaries.

    Args:
        function: returns tensors with one entry, or one row, for each row.
        rows: [N, C].
        others: cut into blocks like `rows`, unless they are numbers or 0-d.
    """
    if torch.compiler.is_compiling():  # a compiler fuses the rows anyway, and would unroll the loop
        return function(rows, *others)
    total, per_row = rows.shape[0], max(1, rows.shape[1])
    on_cpu = rows.device.type == "cpu"
    block = CPU_BLOCK * torch.get_num_threads() if on_cpu else GPU_BLOCK
    height = max(1, block // per_row)
    if total <= height:
        return function(rows, *others)
    height = min(
        height, -(-total // 4)
    )  # temporaries of half the rows would be as large as results
    whole: tuple[Tensor, ...] = ()
    for start in range(0, total, height):
        cut = slice(start, start + height)
        taken = [x[cut] if isinstance(x, Tensor) and x.dim() else x for x in others]
        parts = function(rows[cut], *taken)
        whole = whole or tuple(part.new_empty(total, *part.shape[1:]) for part in parts)
        for target, part in zip(whole, parts, strict=True):
            target[cut] = part
        del parts, part  # before the next block allocates
    return whole
