"""From a run's settings to what training needs: device, task, and teacher with its cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ctkd.engine.config.compatibility import check_one_part
from ctkd.engine.config.run import Run
from ctkd.engine.config.sharing import teacher_features
from ctkd.engine.config.trial import evaluated
from ctkd.engine.device import prepare_device
from ctkd.engine.distributed.gather_rows import check_whole_step
from ctkd.engine.distributed.reduce import RowGatherer
from ctkd.engine.distributed.world import World
from ctkd.engine.feature_setup import give_classifier, give_samples
from ctkd.engine.output.console import Console
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.smallest_step import check_smallest_step
from ctkd.engine.task import Task
from ctkd.engine.tasks.specs import spec_of
from ctkd.engine.teacher.frozen import FrozenTeacher
from ctkd.engine.teacher.load import attach_cache, given_weights, load_teacher
from ctkd.engine.teacher.own_training import teacher_job, trained_teacher


@dataclass(frozen=True)
class Prepared:
    """What a run needs in addition to its settings.

    Attributes:
        task: its data set is read.
        teacher: its weights are loaded; None where the objective needs no teacher.
        min_accuracy: the test accuracy in percent below which the run is refused, or None.
    """

    run: Run
    device: torch.device
    world: World
    task: Task
    teacher: FrozenTeacher | None = None
    min_accuracy: float | None = None


def prepare(
    run: Run,
    folder: Workdir,
    console: Console,
    *,
    train: bool = True,
    fill_cache: bool = False,
    earlier: Sequence[Prepared] = (),
) -> Prepared:
    """Reads the data and loads the teacher, which is trained first where it has no weights.

    Args:
        folder: the work directory; trained teachers and caches may be next to it.
        train: False to evaluate a student, which needs no teacher.
        fill_cache: whether the teacher's cache is about to be filled: an incomplete one is opened
            too.
        earlier: other runs of this process, whose data and teacher are used again.

    Raises:
        UserError: data, weights or the device are missing, or do not fit.
    """
    check_one_part(run.distiller.policy, run.runtime.accumulate * folder.world.size)
    needs_teacher = train and run.teacher_network is not None
    if needs_teacher and given_weights(run) is None:
        teacher_job(run)  # an error where no weights are to be had, before any data are read
    parts, objective = run.runtime.accumulate, run.distiller.objective
    has_features = bool(run.distiller.features)
    check_whole_step(objective, run.dataset, parts, folder.world.size, has_features)
    device = prepare_device(run)
    if earlier:
        task = earlier[0].task.for_run(run)
    else:
        with console.phase("reading the data"):
            task = spec_of(run.dataset).make(run, device, folder.world)
    task.evaluated_samples = evaluated(run.recipe, run.dataset.kind)
    for note in task.notes:
        console.say(note)
    if train:
        give_samples(run, task)
        give_classifier(run, run.teacher_network)  # without its weights, for a trial
        check_smallest_step(run, task, folder.world)  # before hours of training a teacher
    if not needs_teacher:
        return Prepared(run, device, folder.world, task)
    teacher = _shared_teacher(run, earlier, console)
    if teacher is None:
        teacher = _new_teacher(run, task, device, folder, console, fill_cache)
    give_classifier(run, teacher.network)
    if folder.world.size > 1:
        run.distiller.features.gather = RowGatherer(folder.world)
    # A run that is cut short, for a trial, cuts the training of its teacher too.
    is_trial = run.recipe.trial or (run.teacher.weights is None and task.is_cut)
    return Prepared(
        run, device, folder.world, task, teacher, None if is_trial else run.teacher.min_accuracy
    )


def _shared_teacher(
    run: Run, earlier: Sequence[Prepared], console: Console
) -> FrozenTeacher | None:
    """The teacher of an earlier run, with its rows, if a row holds what this run needs."""
    for other in earlier:
        if other.teacher is not None and teacher_features(other.run) == teacher_features(run):
            console.say(f"teacher: shared with {other.run.name}, seed {other.run.seed}")
            return other.teacher
    return None


def _new_teacher(
    run: Run, task: Task, device: torch.device, folder: Workdir, console: Console, fill: bool
) -> FrozenTeacher:
    """The teacher of a run, trained first where it has no weights, with its cache."""
    weights = given_weights(run)
    if weights is None:
        weights = folder.on_rank_0(lambda: str(trained_teacher(run, folder.path, console)))
        prepare_device(run)  # again: the teacher's training may have had other settings
    with console.phase("loading the teacher"):
        teacher = load_teacher(run, weights, device, folder.world, console)
    attach_cache(run, teacher, task, device, folder.path, console, fill=fill)
    return teacher
