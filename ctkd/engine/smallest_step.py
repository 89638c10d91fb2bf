"""Whether the networks can be trained on an epoch's smallest step, found out before training."""

from collections.abc import Callable

import torch

from ctkd.data.dataset import Dataset
from ctkd.distiller import Distiller
from ctkd.engine.config.run import Run
from ctkd.engine.diagnostics.landscape import undisturbed
from ctkd.engine.distributed.world import World
from ctkd.engine.task import Task
from ctkd.errors import ConfigError
from ctkd.losses.features.feature_loss import Features, StepRows
from ctkd.losses.two_views import needs_strong_view


def check_smallest_step(run: Run, task: Task, world: World) -> None:
    """Tries the networks on one sample, if the run has a forward on one sample in training.

    A batch normalization cannot be trained on one value per channel. A step can have one sample:
    the last batch of an epoch, a rank's share of a batch, or an accumulated part of it. Any other
    run is not tried, and nothing of a run changes by the trial.

    Raises:
        ConfigError: a network or the objective cannot take one sample.
    """
    smallest = task.smallest_batch
    if smallest is None:
        return
    share = max(1, smallest // world.size)
    if share // min(run.runtime.accumulate, share) > 1:
        return
    trials: dict[str, Callable[[], object]] = {}
    # Where batch normalizations take the statistics of all ranks, they see several samples.
    if world.size == 1 or not run.recipe.sync_batch_norm:
        trials["student"] = lambda: task.try_student(run.student)
    if world.size == 1:
        trials |= _trials_of_one_row(run.distiller, run.dataset)
    if run.features is not None and (world.size == 1 or not run.recipe.sync_batch_norm):
        trials["feature losses"] = lambda: run.distiller.features(*_one_row_of_features(run))
    for whose, trial in trials.items():
        try:
            with undisturbed(run.student, run.distiller), torch.no_grad():
                trial()
        except (ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise ConfigError(
                f"{_smallest(run, smallest, world)}. The {whose} cannot be trained on "
                f"one sample: {reason}. {_advice(run, world)}"
            ) from error


def _trials_of_one_row(distiller: Distiller, dataset: Dataset) -> dict[str, Callable[[], object]]:
    """The parts of the distiller, tried on one row of logits."""
    row = torch.zeros(1, dataset.num_classes)
    target = torch.zeros(1, dtype=torch.int64)
    teacher = row if distiller.objective.needs_teacher else None
    strong = (row, row) if needs_strong_view(distiller.objective) else None
    trials: dict[str, Callable[[], object]] = {}
    if distiller.policy is not None:
        trials["temperature policy"] = lambda: distiller.temperature_of(row, row, target)
    return {**trials, "objective": lambda: distiller.terms(row, teacher, target, strong=strong)}


def _one_row_of_features(run: Run) -> tuple[tuple[Features, Features], StepRows]:
    """Blank features of one sample, and what else a feature loss may use."""
    plan = run.features
    assert plan is not None
    sides = plan.student_shapes, plan.teacher_shapes
    student, teacher = ({k: torch.zeros(s) for k, s in shapes.items()} for shapes in sides)
    one = torch.zeros(1, dtype=torch.int64)
    return (student, teacher), StepRows(one, torch.zeros(1, run.dataset.num_classes), one)


def _smallest(run: Run, samples: int, world: World) -> str:
    """The smallest step in words: "the last batch of an epoch has 3 samples, for 2 processes"."""
    which = "the last batch of an epoch" if samples < run.recipe.batch_size else "a batch"
    text = f"{which} has {samples} sample{'s' if samples > 1 else ''}"
    if world.size > 1:
        text += f", for {world.size} processes"
    parts = run.runtime.accumulate
    return text if parts == 1 else f"{text}, in {parts} parts (Runtime.accumulate)"


def _advice(run: Run, world: World) -> str:
    """What the user can change."""
    choices = [f"another batch_size than {run.recipe.batch_size}"]
    choices += ["a smaller Runtime.accumulate"] if run.runtime.accumulate > 1 else []
    choices += ["fewer processes"] if world.size > 1 else []
    return f"Choose {' or '.join(choices)}"
