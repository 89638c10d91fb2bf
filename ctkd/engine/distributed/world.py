"""The ranks that share a run: one process, or several under torch.distributed.

Ranks split a step's rows, and each has its share of a loss that is divided by the whole step's
rows; so gradients are summed, not averaged, and every rank takes the same step.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ctkd.errors import UserError

T = TypeVar("T")
# The first rank may train a teacher while the others wait; a rank that dies is noticed at once.
CONTROL_PATIENCE = datetime.timedelta(days=2)


@dataclass(frozen=True)
class World:
    """A process's place among the processes of a run; every method but `share` is a collective.

    Attributes:
        control: the group in which ranks talk on their CPUs; None in a world of one.
    """

    rank: int = 0
    size: int = 1
    control: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and speaks to the user."""
        return self.rank == 0

    def share(self, samples: Tensor) -> Tensor:
        """The rank's part of a whole step's samples."""
        return samples[self.rank :: self.size]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place, the same bits on every rank."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """The ranks' values, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value, group=self.control)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.size == 1:
            return flag
        votes = torch.tensor(float(flag))
        torch.distributed.all_reduce(votes, group=self.control)
        return bool(votes > 0)

    def agree(self, ask: Callable[[], T]) -> T:
        """What `ask` returns on the first rank, which alone calls it; the others wait.

        Raises:
            UserError: what it raises there, on every rank.
        """
        if self.size == 1:
            return ask()
        answer: list[Any] = [None, None]
        error: UserError | None = None
        if self.is_main:
            try:
                answer[0] = ask()
            except UserError as caught:
                error = caught
                answer[1] = (type(caught), str(caught))
        torch.distributed.broadcast_object_list(answer, src=0, group=self.control)
        if error is not None:
            raise error
        if answer[1] is not None:
            kind, message = answer[1]
            raise kind(message)
        result: T = answer[0]
        return result


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """The world that environment variables describe, as torchrun or a cluster's launcher sets them.

    NCCL on GPUs, one for each rank of a node, gloo on CPUs. Without RANK and WORLD_SIZE, or where
    there is one rank, the world is this process.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend)
    control = torch.distributed.new_group(backend="gloo", timeout=CONTROL_PATIENCE)
    yield World(torch.distributed.get_rank(), size, control)
    # Not after an error: NCCL would wait for ranks that may have gone.
    torch.distributed.destroy_process_group()
