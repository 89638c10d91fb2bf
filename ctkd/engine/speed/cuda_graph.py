"""A whole step as one CUDA graph: views, teacher, student, loss, reversal, backward, optimizer.

A small network's step has about a thousand kernels of a few microseconds, and the GPU waits for the
CPU to launch them; a captured step is one launch. Values that change from step to step (λ,
learning rate, weights, indices, views) are in tensors that each replay reads again; metrics are
accumulated outside.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ctkd.distiller import Outcome
from ctkd.engine.config.run import Run
from ctkd.engine.distributed.world import World
from ctkd.engine.task import Batch, Task, TeacherFunction, ViewedTask
from ctkd.engine.teacher.frozen import FrozenTeacher
from ctkd.errors import ConfigError
from ctkd.models.extraction import Features

WARM_UP = 3  # eager steps before the capture, in which libraries initialize themselves
Norms = tuple[Tensor, Tensor]
Step = Callable[[Batch, TeacherFunction | None], tuple[Outcome, Norms]]
WholeStep = Callable[[Batch, FrozenTeacher | None], tuple[Outcome, Norms]]


def capture(
    run: Run,
    step: Step,
    task: Task,
    device: torch.device,
    world: World,
    warn: Callable[[str], None],
) -> WholeStep:
    """`step` captured as a CUDA graph if `Runtime.cuda_graph` is set, otherwise `step` itself.

    Settings that prevent a capture were refused when the run was built, see `check_capturable`.
    """
    if not run.runtime.cuda_graph:
        return step
    reasons = {
        "there is no GPU": device.type != "cuda",
        "several processes share the run": world.size > 1,
        "its batches cannot be made on the device": not isinstance(task, ViewedTask),
    }
    for reason, holds in reasons.items():
        if holds:
            warn(f"Runtime.cuda_graph has no effect: {reason}")
            return step
    assert isinstance(task, ViewedTask)
    return GraphedStep(step, task, run.recipe.batch_size, device)


class GraphedStep:
    """Makes the steps of `step`; whole batches replay a capture of it.

    The first steps and an epoch's short last batch run eagerly. The capture itself makes no step.
    The next replay overwrites a replay's result.
    """

    def __init__(self, step: Step, samples: ViewedTask, size: int, device: torch.device) -> None:
        """Captures nothing yet; `size` is the size of a whole batch."""
        self._step, self._samples, self._size, self._device = step, samples, size, device
        self._indices = torch.zeros(size, dtype=torch.int64, device=device)
        self._views = torch.zeros_like(self._indices)
        self._rows: Tensor | None = None  # the teacher's rows, if a cache gives them
        self._side: torch.cuda.Stream | None = None
        self._warm = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._taken: tuple[Outcome, Norms] | None = None

    def __call__(self, batch: Batch, teacher: FrozenTeacher | None) -> tuple[Outcome, Norms]:
        """The step's outcome and gradient norms."""
        if len(batch.indices) != self._size or self._warm < WARM_UP:
            self._warm += 1
            return self._as_usual(batch, teacher)
        self._indices.copy_(batch.indices, non_blocking=True)
        self._views.copy_(batch.views, non_blocking=True)
        given: TeacherFunction | None = teacher
        if teacher is not None and teacher.cache is not None:
            rows = teacher.rows(batch)
            self._rows = torch.empty_like(rows) if self._rows is None else self._rows
            self._rows.copy_(rows)
            given = _Given(self._rows, teacher)
        if self._graph is None:
            self._capture(given)
        assert self._graph is not None
        assert self._taken is not None
        self._graph.replay()
        return self._taken

    def _as_usual(self, batch: Batch, teacher: TeacherFunction | None) -> tuple[Outcome, Norms]:
        """Runs a step on a separate stream, so that no part of it depends on the default stream."""
        if self._side is None:
            self._side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream()
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side):
            taken = self._step(batch, teacher)
        current.wait_stream(self._side)
        return taken

    def _capture(self, teacher: TeacherFunction | None) -> None:
        """Records the step without computing it."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                batch = self._samples.batch_of(self._indices, self._views)
                outcome, norms = self._step(batch, teacher)
        except RuntimeError as error:  # CUDA refuses what waits for the device, or depends on it
            reason = str(error).split("\n")[0]
            raise ConfigError(
                f"Runtime.cuda_graph = True: the step cannot be captured ({reason}). Network, "
                "objective or policy may read a value from the device. Set Runtime.cuda_graph = "
                "False"
            ) from error
        # Drop the tensors for backward: they would tie later steps to the capture's stream.
        self._taken = outcome._replace(loss=outcome.loss.detach()), norms
        self._graph = graph


class _Given:
    """A teacher whose rows were read before the replay; each part of the batch takes its rows.

    It is called during a capture, in the order of the parts.
    """

    def __init__(self, rows: Tensor, teacher: FrozenTeacher) -> None:
        self._rows, self._teacher, self._taken = rows, teacher, 0

    def __call__(self, batch: Batch) -> Tensor:
        """Logits of a batch."""
        return self.with_features(batch)[0]

    def with_features(self, batch: Batch) -> tuple[Tensor, Features]:
        """Logits and features of a batch."""
        start, self._taken = self._taken, self._taken + len(batch.indices)
        return self._teacher.split(self._rows[start : self._taken])
