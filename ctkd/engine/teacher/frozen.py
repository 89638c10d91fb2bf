"""The frozen teacher: it computes or caches the rows of whole batches, and is evaluated."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ctkd.engine.config.settings import Teacher
from ctkd.engine.task import Batch, Task
from ctkd.engine.teacher.fold_batch_norm import WithFeatures
from ctkd.errors import DataError
from ctkd.models.extraction import Features

if TYPE_CHECKING:
    from ctkd.engine.teacher.cache import TeacherCache


class FrozenTeacher:
    """A network in eval mode without gradients that gives logits, and features if they are used.

    A row has the logits, followed by the features if each feature is one vector per sample.

    Attributes:
        fingerprint: of the weights that it was loaded with.
        batch_size: the only batch size in which it computes, or None for any size.
        cache: reads and keeps rows; None if all rows are computed.
        metrics: those of its evaluation, after `judge`.
        widths: the numbers of features in a row, by name; None if a feature is a map.
    """

    widths: Mapping[str, int] | None = None
    metrics: dict[str, float] | None = None

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        precision: str,
        fingerprint: str,
        *,
        batch_size: int | None = None,
        compiled: bool = False,
        half_rows: bool = False,
        with_features: WithFeatures | None = None,
    ) -> None:
        """Takes the network with its loaded (and perhaps folded) weights.

        Args:
            precision: of the network's computations.
            compiled: whether to compile the network for `batch_size`.
            half_rows: whether to round the logits to 16 bits, as in a cache of half the size;
                inexact.
            with_features: the network as a function that returns (logits, features).
        """
        self.fingerprint, self.batch_size, self.half_rows = fingerprint, batch_size, half_rows
        self.network = network.requires_grad_(False).eval()
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.cache: TeacherCache | None = None
        self._autocast = autocast(device, precision)
        self._forward: Callable[[Tensor], Any] = with_features or self.network
        if isinstance(with_features, nn.Module):
            with_features.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._has_features = with_features is not None
        if compiled:
            from ctkd.engine.speed.compile import compile_frozen

            self._forward = compile_frozen(self._forward)

    def __call__(self, batch: Batch) -> Tensor:
        """Logits [B, C], float32, of a batch."""
        return self.split(self.rows(batch))[0]

    def rows(self, batch: Batch) -> Tensor:
        """Rows [B, C + features], float32, of a batch: logits, and features that are vectors."""
        if self.cache is not None and batch.has_views:
            return self.cache.rows(batch)
        return self.compute(batch.inputs)

    def with_features(self, batch: Batch) -> tuple[Tensor, Features]:
        """Logits [B, C] and features of a batch, float32."""
        if self.cache is not None and batch.has_views:
            return self.split(self.cache.rows(batch))
        return self._compute(batch.inputs)

    def compute(self, inputs: Any) -> Tensor:
        """Rows [B, C + features], float32, in calls of `batch_size`.

        A convolution or a matrix product may sum in another order for another batch size, but it
        does not read the other rows of a batch. So a row has the same bits in every batch.
        """
        logits, features = self._compute(inputs)
        return torch.cat([logits, *features.values()], 1) if self.widths else logits

    def split(self, rows: Tensor) -> tuple[Tensor, Features]:
        """Logits and features of rows."""
        widths = self.widths
        if not widths:
            return rows, {}
        classes = rows.shape[1] - sum(widths.values())
        logits, *features = torch.split(rows, [classes, *widths.values()], dim=1)
        return logits, dict(zip(widths, features, strict=True))

    def _compute(self, inputs: Any) -> tuple[Tensor, Features]:
        """Logits and features of inputs."""
        size = self.batch_size or len(inputs)
        # Filled outside: for a compiled network a tensor from inference mode has another type.
        batches = [_filled(part, size) for part in torch.split(inputs, size)]
        with torch.inference_mode(), self._autocast:
            made = [self._forward(part) for part in batches]
            if self._has_features:
                made = [{"": logits, **features} for logits, features in made]
            else:
                made = [{"": logits} for logits in made]
            wholes = {k: self._whole([part[k] for part in made], len(inputs)) for k in made[0]}
        # An inference tensor could not be kept for the temperature's gradient; a copy can.
        copies = {name: tensor.clone() for name, tensor in wholes.items()}
        return copies.pop(""), copies

    def _whole(self, parts: Sequence[Tensor], count: int) -> Tensor:
        """The first `count` rows of all parts, in float32."""
        rows = torch.cat(list(parts))[:count].float()
        return rows.half().float() if self.half_rows else rows


def _filled(inputs: Tensor, size: int) -> Tensor:
    """`inputs` followed by zeros up to `size` samples; images always in the same layout.

    With one channel a layout has several possible strides, and a network that was compiled for some
    strides would be compiled again for others.
    """
    strides = inputs.stride()
    if inputs.dim() == 4:
        _, channels, height, width = inputs.shape
        strides = (height * width * channels, 1, width * channels, channels)
    if len(inputs) == size and inputs.stride() == strides:
        return inputs
    whole = inputs.new_empty_strided((size, *inputs.shape[1:]), strides).zero_()
    whole[: len(inputs)] = inputs
    return whole


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """A context in which a network computes in the given precision."""
    if precision == "float32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def judge(teacher: FrozenTeacher, settings: Teacher, task: Task, cause: str) -> dict[str, float]:
    """The teacher's metrics, each with `teacher_` before its name.

    Args:
        cause: the likely cause of a low score, for the message.

    Raises:
        DataError: the monitor is below `Teacher.min_accuracy`, or undefined.
    """
    if teacher.metrics is None:  # runs that share the teacher evaluate it once
        teacher.metrics = task.evaluate_teacher(teacher.network)
        task.files = {}  # an evaluation writes files of the student only
    metrics = teacher.metrics
    measured = metrics[task.monitor]
    if settings.min_accuracy is not None and math.isnan(measured):
        raise DataError(
            f"the teacher's {task.monitor} is undefined, since the test data have nothing to find, "
            f"and Teacher.min_accuracy = {settings.min_accuracy} cannot be checked. Give test data "
            "with something to find, or set Teacher.min_accuracy = None"
        )
    least, published = settings.min_accuracy, settings.published_accuracy
    sign, side = (-1, "above") if task.lower_is_better else (1, "below")
    if least is not None and sign * measured < sign * least:
        unit = "" if task.lower_is_better else " %"
        claim = "" if published is None else f" (published: {published:.2f}{unit})"
        raise DataError(
            f"the teacher scores {measured:.2f}{unit}{claim}, {side} Teacher.min_accuracy = "
            f"{least}: too low to teach. {cause}. If the score is right, set "
            "Teacher.min_accuracy = None"
        )
    return {f"teacher_{name.removeprefix('test_')}": value for name, value in metrics.items()}
