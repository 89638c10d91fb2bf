"""The ranks that share a run: one process, or several under torch.distributed.

Ranks split a step's rows. Each rank divides its loss by the number of rows of the whole step, so
gradients are summed, not averaged, and every rank makes the same step.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ctkd.cores import processes_of_run
from ctkd.errors import UserError

T = TypeVar("T")
# Rank 0 may train a teacher while the others wait; the end of a rank is detected immediately.
CONTROL_PATIENCE = datetime.timedelta(days=2)


@dataclass(frozen=True)
class World:
    """A process's rank among the processes of a run; every method except `shard` is a collective.

    Attributes:
        control: the group for exchanges on the ranks' CPUs; None in a world of one process.
    """

    rank: int = 0
    size: int = 1
    control: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and prints."""
        return self.rank == 0

    def shard(self, samples: Tensor) -> Tensor:
        """The shard of this rank in the samples of a whole step."""
        return samples[self.rank :: self.size]

    def sum(self, tensor: Tensor) -> Tensor:
        """Sums over the ranks, in place, with the same bits on every rank."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """The ranks' values, in the order of the ranks."""
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
        """The result of `ask`, which only rank 0 calls; the others wait.

        Raises:
            UserError: `ask` raised it on rank 0; every rank raises it.
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
    """The world from the environment variables of torchrun or a cluster's launcher.

    It uses NCCL on GPUs, one GPU per rank of a node, and gloo on CPUs. Without RANK and WORLD_SIZE,
    or with one rank, the world is this process.
    """
    size = processes_of_run()
    if size == 1:
        yield World()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend)
    control = torch.distributed.new_group(backend="gloo", timeout=CONTROL_PATIENCE)
    yield World(torch.distributed.get_rank(), size, control)
    # Not after an error: NCCL would wait for ranks that may have ended.
    torch.distributed.destroy_process_group()
