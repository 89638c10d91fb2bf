"""The exponential moving average (EMA) of a student's weights, on the device."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ctkd.engine.device import to_device
from ctkd.engine.distributed.batch_norm import average_statistics
from ctkd.engine.distributed.world import World
from ctkd.engine.output.records import write_weights
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.task import Task


class Average:
    """Σ decay^age · weights / Σ decay^age over all steps, of parameters and statistics.

    The division makes short runs possible: a plain moving average of decay 0.9999 consists of the
    first weights for thousands of steps. Buffers of whole numbers are copied.

    Attributes:
        network: the averaged network; None where nothing is averaged.
    """

    def __init__(self, student: nn.Module | None = None, decay: float | None = None) -> None:
        """Copies the student, before its batch normalizations are synchronized."""
        self.network = None if decay is None else copy.deepcopy(student)
        self._decay = decay or 0.0
        self._pairs: list[tuple[Tensor, Tensor]] = []  # the average's tensors and the student's

    def follow(self, student: nn.Module, device: torch.device) -> None:
        """Takes the network on the device whose weights are averaged."""
        # A tensor, so that a captured step sees it change.
        self._weight = torch.ones((), device=device)
        if self.network is not None:
            self.network = to_device(self.network, device).requires_grad_(False)
            theirs = student.state_dict(keep_vars=True)
            self._pairs = [(mine, theirs[k]) for k, mine in self.network.state_dict().items()]

    def at(self, step: int) -> None:
        """Sets the weight that the student has in the average after a step (from 0)."""
        if self.network is not None:
            self._weight.fill_((1 - self._decay) / (1 - self._decay ** (step + 1)))

    @torch.no_grad()
    def update(self) -> None:
        """Takes the student's weights after a step into the average."""
        moving = [pair for pair in self._pairs if pair[0].is_floating_point()]
        if moving:
            mine, theirs = map(list, zip(*moving, strict=True))
            moved = torch._foreach_sub(theirs, mine)
            torch._foreach_mul_(moved, self._weight)
            torch._foreach_add_(mine, moved)
        for counter, theirs_now in self._pairs:
            if not counter.is_floating_point():
                counter.copy_(theirs_now)

    def evaluate(self, task: Task, world: World) -> dict[str, float]:
        """The metrics of the averaged network, each under `ema_NAME`."""
        if self.network is None:
            return {}
        average_statistics(self.network, world)
        return {f"ema_{name}": value for name, value in task.evaluate(self.network).items()}

    def write(self, folder: Workdir) -> None:
        """Writes the weights next to those of the student."""
        if self.network is not None:
            write_weights(folder, "student_ema_last.pt", self.network)

    def state(self) -> dict[str, Any]:
        """The state that `load` restores."""
        return {} if self.network is None else self.network.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Restores the average."""
        if self.network is not None:
            self.network.load_state_dict(state)
