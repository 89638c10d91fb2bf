"""The frozen teacher: loaded, judged, and called with whole batches."""

import contextlib

import torch
from torch import Tensor, nn

from ctkd.engine.settings import Teacher
from ctkd.engine.task import Batch, Task
from ctkd.errors import DataError


class FrozenTeacher:
    """A network that only gives logits: no gradient, eval mode, channels last."""

    def __init__(
        self, network: nn.Module, device: torch.device, precision: str, fingerprint: str
    ) -> None:
        """Takes the network, its weights loaded, and their fingerprint."""
        self.fingerprint = fingerprint
        self.network = network.requires_grad_(False).eval()
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._autocast = autocast(device, precision)

    def __call__(self, batch: Batch) -> Tensor:
        """Logits [B, C], float32, of a batch."""
        with torch.inference_mode(), self._autocast:
            logits = self.network(batch.inputs)
        # An inference tensor could not be kept for the temperature's gradient; a copy can.
        copied: Tensor = logits.float().clone()
        return copied


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """The context in which a network computes at the given precision."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def judge(teacher: FrozenTeacher, settings: Teacher, task: Task) -> dict[str, float]:
    """The teacher's metrics, under their names with `teacher_` before.

    Raises:
        DataError: the primary one is below the configured floor.
    """
    metrics = task.evaluate(teacher.network)
    measured = metrics[task.primary]
    if settings.floor is not None and measured < settings.floor:
        claim = "" if settings.claimed is None else f" (claimed: {settings.claimed:.2f} %)"
        raise DataError(
            f"the teacher scores {measured:.2f} %{claim}, below Teacher.floor = {settings.floor}: "
            "are these the right weights, the right normalisation, the right data?"
        )
    return {f"teacher_{name.removeprefix('test_')}": value for name, value in metrics.items()}
