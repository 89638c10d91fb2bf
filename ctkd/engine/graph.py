"""A whole step as one CUDA graph: views, teacher, student, loss, reversal, backward, optimizer.

A small network's step is some thousand kernels of a few microseconds, and a GPU waits for the
processor that launches them; a captured step is launched at once. What changes from step to step
(λ, learning rate, weights, indices, views) lies in tensors that a replay reads anew; metrics are
accumulated outside.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ctkd.engine.distiller import Outcome
from ctkd.engine.task import Batch, Samples, TeacherFunction

WARM_UP = 3  # steps taken as usual before the capture: libraries set themselves up in them
Norms = tuple[Tensor, Tensor]
Step = Callable[[Batch, TeacherFunction | None], tuple[Outcome, Norms]]


class GraphedStep:
    """Takes steps as `step` does, whole batches by replaying a capture of it.

    The first steps and an epoch's short last batch are taken as usual. The steps are all real: none
    is taken for the capture's sake. What a replay returns is overwritten by the next.
    """

    def __init__(self, step: Step, samples: Samples, size: int, device: torch.device) -> None:
        """Captures nothing yet; `size` is that of a whole batch."""
        self._step, self._samples, self._size, self._device = step, samples, size, device
        self._indices = torch.zeros(size, dtype=torch.int64, device=device)
        self._views = torch.zeros_like(self._indices)
        self._rows: Tensor | None = None  # the teacher's, where they are looked up
        self._warm = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._taken: tuple[Outcome, Norms] | None = None

    def __call__(self, batch: Batch, teacher: TeacherFunction | None) -> tuple[Outcome, Norms]:
        """The step's outcome and gradient norms."""
        if len(batch.indices) != self._size or self._warm < WARM_UP:
            self._warm += 1
            return self._as_usual(batch, teacher)
        self._indices.copy_(batch.indices, non_blocking=True)
        self._views.copy_(batch.views, non_blocking=True)
        remembered = getattr(teacher, "cache", None) is not None
        if remembered and teacher is not None:
            rows = teacher(batch)
            self._rows = torch.empty_like(rows) if self._rows is None else self._rows
            self._rows.copy_(rows)
        if self._graph is None:
            self._capture(self._given if remembered else teacher)
        assert self._graph is not None
        assert self._taken is not None
        self._graph.replay()
        return self._taken

    def _given(self, batch: Batch) -> Tensor:
        """The teacher's rows that were looked up before the replay."""
        assert self._rows is not None
        return self._rows

    def _as_usual(self, batch: Batch, teacher: TeacherFunction | None) -> tuple[Outcome, Norms]:
        """On a stream of its own, so that nothing of it is tied to the default stream."""
        current, side = torch.cuda.current_stream(), torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            taken = self._step(batch, teacher)
        current.wait_stream(side)
        return taken

    def _capture(self, teacher: TeacherFunction | None) -> None:
        """Records the step; nothing is computed by that."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            batch = self._samples.batch_of(self._indices, self._views)
            self._taken = self._step(batch, teacher)
        self._graph = graph
