"""What a task is: where batches come from, what their rows are, how a network is evaluated."""

import abc
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """The samples of a step on this rank, or a part of them.

    Attributes:
        inputs: what the networks take: [B, C, H, W] for a classifier.
        targets: [B] for a classifier.
        indices, views: [B], each sample's index in the data set and its discrete view; on the CPU,
            so that looking up teacher rows does not wait for a device.
        samples: number of samples of the whole step (all ranks, all accumulated parts).
        coming: indices and views of the later batches of the epoch, or None.
        strong: the inputs of the samples' strong view; None in a run without one.
        has_views: whether `views` name the inputs, so that teacher rows may be remembered.
        rows: number of rows of the whole step, where it is known before the forward pass and is
            not the number of samples.
    """

    inputs: Any
    targets: Any
    indices: Tensor
    views: Tensor
    samples: int
    coming: tuple[Tensor, Tensor] | None = None
    strong: Any = None
    has_views: bool = True
    rows: int | None = None

    def parts(self, count: int) -> Iterator["Batch"]:
        """The batch in at most `count` parts of nearly equal size, for accumulated gradients."""
        if count == 1:
            yield self
            return
        count = min(count, len(self.targets))  # no part is empty
        wholes = (self.inputs, self.targets, self.indices, self.views)
        parts = (whole.tensor_split(count) for whole in wholes)
        strong = [None] * count if self.strong is None else self.strong.tensor_split(count)
        for inputs, targets, indices, views, other in zip(*parts, strong, strict=True):
            yield Batch(inputs, targets, indices, views, self.samples, self.coming, other)

    def of_strong_view(self) -> "Batch":
        """The strong view as a batch of its own. A teacher computes its rows anew each time."""
        kept = (self.targets, self.indices, self.views, self.samples)
        return Batch(self.strong, *kept, has_views=False)


class DeferredBatch(Batch):
    """A batch that makes its inputs and targets when they are first used.

    A captured step then makes them itself, and a step whose teacher rows are all cached makes no
    inputs for the teacher.
    """

    def __init__(
        self,
        make: Callable[[Tensor, Tensor], tuple[Any, Tensor]],
        indices: Tensor,
        views: Tensor,
        samples: int,
        coming: tuple[Tensor, Tensor] | None = None,
        make_strong: Callable[[], Tensor] | None = None,
        rows: int | None = None,
    ) -> None:
        """`make` returns (inputs, targets) for indices and views; the rest is as in `Batch`.

        `make_strong` returns the inputs of the strong view; None without one.
        """
        vars(self).update(make=make, indices=indices, views=views, samples=samples, coming=coming)
        vars(self).update(make_strong=make_strong, rows=rows)

    @functools.cached_property
    def _made(self) -> tuple[Any, Tensor]:
        made: tuple[Any, Tensor] = vars(self)["make"](self.indices, self.views)
        return made

    @property
    def inputs(self) -> Any:
        """See `Batch`."""
        return self._made[0]

    @property
    def targets(self) -> Tensor:
        """See `Batch`."""
        return self._made[1]

    @functools.cached_property
    def strong(self) -> Tensor | None:
        """See `Batch`."""
        make_strong: Callable[[], Tensor] | None = vars(self)["make_strong"]
        return None if make_strong is None else make_strong()


@dataclass(frozen=True)
class Rows:
    """What the game is played on: an image gives one row of logits, a proposal gives one.

    Attributes:
        student: logits [N, C] with gradient.
        teacher: logits [N, C] without gradient; None in a run without a teacher.
        targets: classes [N].
        groups: [N], the group of each row in reports, an index into `group_names`; None for none.
        other_losses: scalars that are added with weight 1 (box regression, say).
        weights: [N], the weight of each row in the loss; None for 1. Reported means are unweighted.
        total: number of rows of the whole step, where it is not the number of samples.
        features: the student's and the teacher's features by name, where feature losses need them.
        strong: (student's, teacher's) logits of the strong view, [N, C] each, row by row the same
            samples; None in a run without one.
        class_student: the student's logits [N, C] for cross-entropy, where `student` are those of a
            distillation token.
        teacher_targets: [N], the classes in the teacher's columns, where it has other columns.
        is_sampled: whether `teacher` holds drawn tokens, see `ctkd.losses.sampled`.
    """

    student: Tensor
    teacher: Tensor | None
    targets: Tensor
    groups: Tensor | None = None
    other_losses: dict[str, Tensor] = field(default_factory=dict)
    total: int | None = None
    group_names: tuple[str, ...] = ()
    weights: Tensor | None = None
    features: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None
    strong: tuple[Tensor, Tensor] | None = None
    class_student: Tensor | None = None
    teacher_targets: Tensor | None = None
    is_sampled: bool = False

    def blocks(self) -> Iterator["Rows"]:
        """The rows with their logits, in parts that fit in memory; here as one part."""
        yield self


class Kind(NamedTuple):
    """A way to sort rows into groups: `groups` [N], indices into `names`, −1 for none."""

    groups: Tensor
    names: tuple[str, ...]


StudentFunction = Callable[..., Any]
TeacherFunction = Callable[[Batch], Tensor]  # takes the whole batch, to look its rows up or compute


class Task(abc.ABC):
    """A kind of problem. A subclass defines the abstract methods; the rest has defaults.

    Attributes:
        monitor: the metric that "best" means, a key of what `evaluate` returns.
        lower_is_better: whether a lower `monitor` is better.
        unit: what the speed counts, "images" or "tokens".
        steps_per_epoch: number of batches of an epoch.
        is_cut: whether `steps_per_epoch` is less than the whole data set, for a trial.
        labels: metrics of the console line of an epoch, with their short names; empty for
            `monitor` under its own name.
        notes: sentences about the data for the user, such as what was left out.
        files: text files that the last evaluation produced, by name.
        class_names: the name of each class, where names exist.
        smallest_batch: samples of the smallest step of an epoch, all ranks; None if not known.
        evaluated_samples: how many samples of each part `evaluate` takes, the first ones; None for
            all.
        watch: called after each batch of an evaluation, with the batches done and their number.
    """

    monitor: str
    lower_is_better: bool = False
    unit: Literal["images", "tokens"] = "images"
    steps_per_epoch: int
    is_cut: bool = False
    labels: ClassVar[Mapping[str, str]] = {}
    notes: Sequence[str] = ()
    files: Mapping[str, str] = {}
    class_names: Mapping[int, str] = {}
    smallest_batch: int | None = None
    evaluated_samples: int | None = None
    watch: Callable[[int, int], None] | None = None

    def counted(self, batches: Iterable[T], count: int) -> Iterator[T]:
        """The `count` batches of an evaluation on this rank; `watch` counts them."""
        for done, batch in enumerate(batches, 1):
            yield batch
            if self.watch is not None:
                self.watch(done, count)

    @abc.abstractmethod
    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """The batches of an epoch (from 1), without the first `skip`."""

    @abc.abstractmethod
    def rows(self, student: StudentFunction, teacher: TeacherFunction | None, batch: Batch) -> Rows:
        """The rows of both networks for a batch."""

    @abc.abstractmethod
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The metrics of a network, accuracies in percent; the network's mode is restored."""

    def evaluate_teacher(self, teacher: nn.Module) -> dict[str, float]:
        """The metrics of the teacher, which a task may judge on inputs of its own."""
        return self.evaluate(teacher)

    def evaluate_student(self, student: nn.Module, teacher: Any) -> dict[str, float]:
        """The metrics of a student; a task may add its agreement with the frozen teacher."""
        return self.evaluate(student)

    @abc.abstractmethod
    def probe(self, size: int) -> Batch:
        """A fixed batch of `size` training samples, for the landscape."""

    def for_run(self, run: Any) -> "Task":
        """The same task on the same data for another run of the process; see `engine.group`."""
        raise NotImplementedError

    def kinds(self, batch: Batch) -> Mapping[str, Kind]:
        """The kinds of the rows of a batch, for the landscape by kind; none by default."""
        return {}

    def try_student(self, student: nn.Module) -> None:
        """Calls the student in train mode on one blank sample, the smallest there is."""
        return None

    def bad_samples(self) -> list[str] | None:
        """One sentence for each file that could not be read so far; a collective.

        None where a task reads no files while it trains.
        """
        return None

    def data_fingerprint(self) -> str | None:
        """A hash of the samples, of training and of evaluation, independent of their folder.

        Of files that are read while the run trains, the names and annotations are hashed. None
        where a data set has no fingerprint.
        """
        return None


class ViewedTask(Task):
    """A task whose samples have a finite number of views: teacher rows can be cached.

    Attributes:
        num_classes: columns of a row of logits.
    """

    num_classes: int

    @property
    @abc.abstractmethod
    def samples(self) -> int:
        """The number of training samples."""

    @property
    def remembers(self) -> bool:
        """Whether the views are few enough for a teacher's rows to be remembered."""
        return True

    @property
    @abc.abstractmethod
    def views(self) -> int:
        """The number of views of each sample."""

    @abc.abstractmethod
    def batch_of(self, indices: Tensor, views: Tensor) -> Batch:
        """Any samples in any views, as the batch of a step."""

    @abc.abstractmethod
    def data_key(self) -> dict[str, object]:
        """What determines the input that an index and a view stand for."""
