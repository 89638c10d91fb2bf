"""The game of one step as a module: a batch in, the loss out."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ctkd.distiller import Distiller, Outcome
from ctkd.engine.distributed.gather_rows import rows_of_all_ranks
from ctkd.engine.distributed.world import World
from ctkd.engine.hidden_rows import HiddenRows, play_in_blocks
from ctkd.engine.recorder import rows_with_features
from ctkd.engine.speed.compile import compile_student
from ctkd.engine.task import Batch, Rows, Task, TeacherFunction
from ctkd.engine.teacher.frozen import autocast
from ctkd.losses.fitting_parts import needs_whole_step

if TYPE_CHECKING:
    from ctkd.engine.config.run import Run


class Game(nn.Module):
    """Student and distiller as one module, so that DistributedDataParallel sees all that learns.

    Attributes:
        student: the network, whose parameters descend.
        distiller: temperature policy, gradient reversal and objective.
        not_summed: parameters whose gradients stay those of this rank; for `parallel`.
        rows: of the last call, how many rows the whole step has; None where it is the number of
            its samples.
    """

    def __init__(
        self,
        student: nn.Module,
        distiller: Distiller,
        task: Task,
        forward_student: Callable[..., Any],
        autocast: AbstractContextManager[object],
        world: World = World(),  # noqa: B008 - frozen
    ) -> None:
        """`forward_student` is the student as it is called: the student itself, or compiled.

        With feature losses it returns (logits, features).
        """
        super().__init__()
        self.student, self.distiller = student, distiller
        self.task, self.forward_student, self.autocast = task, forward_student, autocast
        self.rows: int | None = None
        self.not_summed: tuple[str, ...] = ()
        self.world = world
        self.gathers = world.size > 1 and needs_whole_step(distiller.objective)
        distiller.checks_rows = False  # `prepare` has: rows without a partner count in the total

    def forward(self, batch: Batch, teacher: TeacherFunction | None) -> Outcome:
        """The share that a batch, or a part of it, has in the loss of the step."""
        make_rows = self.task.rows
        if self.distiller.features:
            make_rows = functools.partial(rows_with_features, self.task)
        with self.autocast:  # the networks only: the losses are always in float32
            rows = make_rows(self.forward_student, teacher, batch)
        self.rows, shares = rows.total, 1
        if isinstance(rows, HiddenRows):
            return play_in_blocks(self.distiller, rows, rows.total or batch.samples, self.autocast)
        rows = in_float32(rows)
        if self.gathers:  # then each rank computes the loss of the whole step
            rows, shares = rows_of_all_ranks(self.world, rows, batch.samples), self.world.size
        outcome: Outcome = self.distiller(
            rows.student,
            rows.teacher,
            rows.targets,
            total_rows=(rows.total or batch.samples) * shares,
            other_losses=rows.other_losses,
            groups=rows.groups,
            group_names=rows.group_names,
            row_weights=rows.weights,
            features=rows.features,
            indices=batch.indices,
            strong=rows.strong,
            class_logits=rows.class_student,
        )
        if self.gathers and outcome.temperature is not None and outcome.temperature.dim():
            return outcome._replace(temperature=self.world.shard(outcome.temperature))
        return outcome


def in_float32(rows: Rows) -> Rows:
    """The rows with the student's logits in float32; the teacher's are already."""
    strong = rows.strong and (rows.strong[0].float(), rows.strong[1])
    of_class = None if rows.class_student is None else rows.class_student.float()
    return replace(rows, student=rows.student.float(), strong=strong, class_student=of_class)


def game_of(
    run: "Run",
    student: nn.Module,
    distiller: Distiller,
    task: Task,
    device: torch.device,
    world: World,
) -> Game:
    """The game of a run, with its student compiled and in the precision that the run says."""
    forward_student = compile_student(run, student, device, world)
    precision = autocast(device, run.runtime.precision)
    game = Game(student, distiller, task, forward_student, precision, world)
    if run.method is not None and run.method.temperature_per_rank:
        names = [name for name, _ in game.named_parameters() if "distiller.policy." in name]
        game.not_summed = tuple(names)
    return game
