"""Calls of the networks that keep their features for the feature losses."""

from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from ctkd.engine.task import Batch, Rows, StudentFunction, Task, TeacherFunction
from ctkd.models.extraction import Features


class TeacherWithFeatures(Protocol):
    """A teacher that gives features."""

    def with_features(self, batch: Batch) -> tuple[Tensor, Features]:
        """Logits [B, C] and features of a batch."""
        ...


class Recorder:
    """A function as a task calls it: it returns the logits, and keeps the first call's features."""

    def __init__(self, with_features: Any) -> None:
        """`with_features` returns (logits, features)."""
        self._with_features = with_features
        self.features: Features = {}

    def __call__(self, inputs: Any) -> Any:
        """The logits."""
        logits, features = self._with_features(inputs)
        self.features = self.features or features
        return logits


def rows_with_features(
    task: Task, student: StudentFunction, teacher: TeacherFunction | None, batch: Batch
) -> Rows:
    """The rows of a batch, with the features of both networks for the same samples.

    Args:
        student: returns (logits, features).
        teacher: a `TeacherWithFeatures`.
    """
    asked, taught = Recorder(student), Recorder(teacher.with_features)  # type: ignore[union-attr]
    rows = task.rows(asked, taught, batch)
    count = len(batch.indices)  # a task may append other views of the samples
    sides = [{k: f[:count] for k, f in side.features.items()} for side in (asked, taught)]
    return replace(rows, features=(sides[0], sides[1]))
