"""The world of ranks that a run lives in; today always one of size 1."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class World:
    """A process's place among the processes of a run."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and speaks to the user."""
        return self.rank == 0

    def share(self, samples: Tensor) -> Tensor:
        """The rank's part of a whole step's samples."""
        return samples[self.rank :: self.size]
