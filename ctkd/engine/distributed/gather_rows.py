"""The rows of all ranks on every rank, for objectives that compare a step's rows."""

from dataclasses import replace

import torch
from torch import Tensor

from ctkd.data.dataset import Dataset, ImageDataset
from ctkd.engine.distributed.batch_norm import SumOverRanks
from ctkd.engine.distributed.world import World
from ctkd.engine.task import Rows
from ctkd.errors import ConfigError
from ctkd.losses.fitting_parts import needs_whole_step


def check_whole_step(
    objective: object, dataset: Dataset, parts: int, ranks: int, features: bool = False
) -> None:
    """Refuses to divide a step whose rows the objective compares with one another.

    Raises:
        ConfigError: the step is computed in parts; or several ranks share it, and there are
            feature losses or each rank's number of rows is unknown to the others.
    """
    if not needs_whole_step(objective):
        return
    name = type(objective).__name__
    check_parts(f"the objective {name}", name, parts)
    if ranks > 1 and features:
        raise ConfigError(
            f"the objective {name} with {ranks} processes and feature losses: a process computes "
            f"the whole of {name}, but only its share of the feature losses. Use one process, or "
            "one of the two"
        )
    if ranks > 1 and not isinstance(dataset, ImageDataset):
        raise ConfigError(
            f"the objective {name} with {ranks} processes: {name} compares the rows of a step with "
            "one another, and processes exchange rows only where each image gives one. Use one "
            "process, or another objective"
        )


def check_parts(loss: str, subject: str, parts: int) -> None:
    """Raises ConfigError where a step is in parts, and `loss` compares its rows with one another.

    `subject` names the loss in the error's sentence.
    """
    if parts > 1:
        raise ConfigError(
            f"Runtime.accumulate = {parts} with {loss}: {subject} compares the rows of a step with "
            "one another, and the rows of one part are all that a part can compare. Set "
            "Runtime.accumulate = 1; if memory is short, choose a smaller batch_size, a lower "
            "precision, or more processes, which exchange their rows"
        )


def rows_of_all_ranks(world: World, rows: Rows, total: int) -> Rows:
    """The step's rows, in their order, with the gradient to each rank's own student.

    Every rank computes the whole loss from them, and contributes it divided by the number of
    ranks. This takes one all-reduce forward and one backward of [total, columns of all logits]
    numbers. Each number is nonzero on one rank only, so the sum is exact.

    Args:
        rows: this rank's rows, one per sample.
        total: the number of samples of the whole step.
    """
    assert rows.teacher is not None
    if rows.class_student is not None:
        raise ConfigError(
            "an objective that compares the rows of a whole step has no form for a student with a "
            "distillation token on several ranks: use one process"
        )
    parts = [rows.student, rows.teacher, *(rows.strong or ())]
    parts.append(rows.targets.reshape(len(rows.targets), -1).to(rows.student.dtype))
    mine = torch.cat([part.to(rows.student.dtype) for part in parts], dim=1)
    spread = mine.new_zeros(total, mine.shape[1])
    world.shard(spread).copy_(mine)
    whole: Tensor = SumOverRanks.apply(spread, world)
    student, teacher, *strong, targets = torch.split(
        whole, [part.shape[1] for part in parts], dim=1
    )
    return replace(
        rows,
        student=student,
        teacher=teacher.detach(),
        targets=targets.detach().to(rows.targets.dtype).reshape(total, *rows.targets.shape[1:]),
        strong=(strong[0], strong[1].detach()) if strong else None,
    )
