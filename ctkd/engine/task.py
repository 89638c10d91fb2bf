"""The joints between the loop and a task: batches, rows, and what a task must offer."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """A step's samples on this rank, or a part of them.

    Attributes:
        inputs: what the networks take: [B, C, H, W] for a classifier.
        targets: [B] for a classifier.
        indices, views: [B], each sample's place in the data set and its discrete view, on the
            host, so that looking rows up does not wait for a device.
        samples: of the whole step (all ranks, all accumulated parts).
        coming: the indices and views of the epoch's later batches, or None where there are none.
    """

    inputs: Any
    targets: Any
    indices: Tensor
    views: Tensor
    samples: int
    coming: tuple[Tensor, Tensor] | None = None

    def parts(self, count: int) -> Iterator["Batch"]:
        """The batch in at most `count` parts of nearly equal size, for accumulated gradients."""
        if count == 1:
            yield self
            return
        count = min(count, len(self.targets))  # no part is empty
        wholes = (self.inputs, self.targets, self.indices, self.views)
        parts = (whole.tensor_split(count) for whole in wholes)
        for inputs, targets, indices, views in zip(*parts, strict=True):
            yield Batch(inputs, targets, indices, views, self.samples, self.coming)


class DeferredBatch(Batch):
    """A batch whose inputs and targets are made when they are first asked for.

    So a captured step makes them itself, and one whose rows are all remembered makes none too many.
    """

    def __init__(
        self,
        make: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        indices: Tensor,
        views: Tensor,
        samples: int,
        coming: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """`make` gives (inputs, targets) of indices and views; the rest is as in `Batch`."""
        vars(self).update(make=make, indices=indices, views=views, samples=samples, coming=coming)

    @functools.cached_property
    def _made(self) -> tuple[Tensor, Tensor]:
        made: tuple[Tensor, Tensor] = vars(self)["make"](self.indices, self.views)
        return made

    @property
    def inputs(self) -> Tensor:
        """See `Batch`."""
        return self._made[0]

    @property
    def targets(self) -> Tensor:
        """See `Batch`."""
        return self._made[1]


@dataclass(frozen=True)
class Rows:
    """What the game is played on: an image gives one row of logits, a proposal gives one.

    Attributes:
        student: logits [N, C] with gradient.
        teacher: logits [N, C] without, or None in a run that has no teacher.
        targets: classes [N].
        groups: [N] what each row is reported under, places in `group_names`; None for no groups.
        other_losses: scalars that ride along with weight 1 (box regression, say).
        weights: [N] what each row counts for in the loss; None for 1. Reported means are plain.
        total: rows of the whole step, where that is not the number of its samples.
    """

    student: Tensor
    teacher: Tensor | None
    targets: Tensor
    groups: Tensor | None = None
    other_losses: dict[str, Tensor] = field(default_factory=dict)
    total: int | None = None
    group_names: tuple[str, ...] = ()
    weights: Tensor | None = None


StudentFunction = Callable[..., Any]
TeacherFunction = Callable[[Batch], Tensor]  # takes the batch whole, to look its rows up or compute


class Task(Protocol):
    """A kind of problem: where its batches come from, what its rows are, how it is judged.

    Attributes:
        primary: the metric that "best" means, a key of what `evaluate` returns; higher is better.
        steps_per_epoch: how many batches an epoch has.

    Besides, a task may have: `labels` (the metrics that an epoch's line shows, and under which
    names; else the primary one under its own), `notes` (what was left out of the data, for the
    user), `files` (what its last evaluation leaves, by file name), `class_names` (of every target),
    and `is_cut` (whether an epoch was cut short, for trying things out).
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


@runtime_checkable
class Reads(Protocol):
    """What a task offers besides if it reads its samples from files as it goes."""

    def bad_samples(self) -> list[str]:
        """What is wrong with each file that could not be read so far; a collective."""


@runtime_checkable
class Stepped(Protocol):
    """What a task offers besides if it can say how few samples a step has.

    Attributes:
        smallest_batch: samples of an epoch's smallest step, all ranks.
    """

    smallest_batch: int

    def try_student(self, student: nn.Module) -> None:
        """A forward of the student in train mode on one blank sample, the smallest there is."""


@runtime_checkable
class Known(Protocol):
    """What a task offers besides if it can tell its data from any others."""

    def data_fingerprint(self) -> str:
        """Depends on the samples, of training and of judging, but not on where they lie.

        On all of them; of files that are only read as they are needed, on names and annotations.
        """


@runtime_checkable
class Viewed(Protocol):
    """What a task offers besides if each of its `samples` has so many discrete `views`.

    Then a teacher's rows can be remembered by (index, view), and a captured step can make its own
    batches.
    """

    samples: int
    views: int
    num_classes: int

    def batch_of(self, indices: Tensor, views: Tensor) -> Batch:
        """Any samples in any views, as a step of their own."""

    def data_key(self) -> dict[str, object]:
        """What determines the inputs that an index and a view stand for."""
