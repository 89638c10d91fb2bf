"""The joints between the loop and a task: batches, rows, and what a task must offer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """A step's samples on this rank, or a part of them.

    Attributes:
        inputs: what the networks take.
        targets: [B] for a classifier.
        indices, views: [B], each sample's place in the data set and its discrete view.
        rows: rows of the whole step (all ranks, all accumulated parts), where known beforehand.
    """

    inputs: Tensor
    targets: Tensor
    indices: Tensor
    views: Tensor
    rows: int

    def parts(self, count: int) -> Iterator["Batch"]:
        """The batch in at most `count` parts of nearly equal size, for accumulated gradients."""
        if count == 1:
            yield self
            return
        chunks = [tensor.chunk(count) for tensor in (self.inputs, self.targets, self.indices)]
        for inputs, targets, indices, views in zip(*chunks, self.views.chunk(count), strict=True):
            yield Batch(inputs, targets, indices, views, self.rows)


@dataclass(frozen=True)
class Rows:
    """What the game is played on: an image gives one row of logits, a proposal gives one.

    Attributes:
        student: logits [N, C] with gradient.
        teacher: logits [N, C] without, or None in a run that has no teacher.
        targets: classes [N].
        groups: [N] what each row is reported under (background, foreground), or None.
        other_losses: scalars that ride along with weight 1 (box regression, say).
    """

    student: Tensor
    teacher: Tensor | None
    targets: Tensor
    groups: Tensor | None = None
    other_losses: dict[str, Tensor] = field(default_factory=dict)


StudentFunction = Callable[[Tensor], Tensor]
TeacherFunction = Callable[[Batch], Tensor]  # takes the batch whole, to look its rows up or compute


class Task(Protocol):
    """A kind of problem: where its batches come from, what its rows are, how it is judged.

    Attributes:
        primary: the metric that "best" means, a key of what `evaluate` returns; higher is better.
        steps_per_epoch: how many batches an epoch has.
    """

    primary: str
    steps_per_epoch: int

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """The batches of the epoch (counted from 1) from the skip-th on."""

    def rows(self, student: StudentFunction, teacher: TeacherFunction | None, batch: Batch) -> Rows:
        """Both networks' rows for a batch."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The metrics of a network, in percent where they are accuracies; its mode is restored."""

    def probe(self, size: int) -> Batch:
        """A fixed batch of training samples, for the instrument."""
