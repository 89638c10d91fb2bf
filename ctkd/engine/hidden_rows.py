"""Rows whose logits are never all in memory: hidden states, and a head applied to a few at a time.

With a vocabulary of 152,000 the logits of 4,096 rows take 2.5 GB for each network, and their
gradient as much again. The loss of a row needs the logits of that row only. So the rows are gone
through in blocks: logits, loss and gradient of a block, before those of the next one.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ctkd.distiller import Distiller, Outcome
from ctkd.engine.distributed.reduce import merge
from ctkd.engine.task import Rows


class Head(NamedTuple):
    """A linear layer that makes logits: weight [C, width], bias [C] or None."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        """[N, width] -> logits [N, C], float32."""
        return F.linear(hidden, *self).float()


@dataclass(frozen=True)
class HiddenRows(Rows):
    """Rows of which `student` and `teacher` hold the states [N, width] before the head.

    Attributes:
        student_head, teacher_head: the heads; the teacher's is None without a teacher.
        block: the number of rows of a block.
    """

    student_head: Head | None = None
    teacher_head: Head | None = None
    block: int = 64

    def cuts(self) -> Iterator[slice]:
        """The rows of each block."""
        for start in range(0, len(self.targets), self.block):
            yield slice(start, start + self.block)

    def of(self, cut: slice) -> Rows:
        """The rows of a block, without the student's logits."""
        teacher = None
        if self.teacher is not None and self.teacher_head is not None:
            with torch.no_grad():
                teacher = self.teacher_head(self.teacher[cut])
        return Rows(self.student[cut], teacher, self.targets[cut])

    def blocks(self) -> Iterator[Rows]:
        """See `Rows`; without gradients, for the landscape."""
        assert self.student_head is not None
        for cut in self.cuts():
            block = self.of(cut)
            with torch.no_grad():
                logits = self.student_head(block.student)
            yield replace(block, student=logits)


def play_in_blocks(
    distiller: Distiller, rows: HiddenRows, total: int, autocast: AbstractContextManager[object]
) -> Outcome:
    """The outcome of the Distiller on all rows; `outcome.loss.backward()` does what it always does.

    Peak memory: about five arrays [block, C] and one gradient of the student's head, for any number
    of rows. The gradients are computed with the loss, so a forward takes the time of both.
    """
    assert rows.student_head is not None
    outcomes: list[Outcome] = []
    game = (distiller, rows, total, autocast, outcomes)
    learned = [parameter for parameter in distiller.parameters() if parameter.requires_grad]
    loss = _InBlocks.apply(game, rows.student, *rows.student_head, *learned)
    return merge(outcomes)._replace(loss=loss)


class _InBlocks(torch.autograd.Function):
    """The loss, with the gradients of hidden states, head, and the distiller's parameters."""

    @staticmethod
    def forward(
        ctx: Any, game: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, *learned: Tensor
    ) -> Tensor:
        distiller, rows, total, autocast, outcomes = game
        wanted = any(ctx.needs_input_grad)
        sums = [torch.zeros_like(each, dtype=torch.float32) for each in (hidden, weight)]
        of_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        of_learned = [torch.zeros_like(each) for each in learned]
        for cut in rows.cuts():
            with autocast:
                logits = F.linear(hidden[cut], weight, bias)
            logits = logits.float().requires_grad_(wanted)
            block = rows.of(cut)
            with torch.set_grad_enabled(wanted):
                outcome = distiller(logits, block.teacher, block.targets, total_rows=total)
            del block  # the teacher's logits, before gradients are allocated
            if wanted:
                found = torch.autograd.grad(outcome.loss, [logits, *learned], allow_unused=True)
                gradient, *others = found
                torch.mm(gradient, weight.to(gradient), out=sums[0][cut])
                sums[1].addmm_(gradient.T, hidden[cut].to(gradient))  # no second array as large
                if of_bias is not None:
                    of_bias += gradient.sum(0)
                for each, other in zip(of_learned, others, strict=True):
                    if other is not None:
                        each += other
                del found, gradient
            outcomes.append(outcome._replace(loss=outcome.loss.detach()))
            del logits, outcome  # before the next block allocates
        ctx.gradients = (*sums, of_bias, *of_learned)
        ctx.kinds = [hidden.dtype, weight.dtype]
        return torch.stack([each.loss for each in outcomes]).sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        scaled = [None if each is None else each.mul_(upstream) for each in ctx.gradients]
        for index, kind in enumerate(ctx.kinds):  # the sums are in float32
            scaled[index] = scaled[index].to(kind)  # type: ignore[union-attr]
        return (None, *scaled)
