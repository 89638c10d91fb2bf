"""From Gin's configuration to one Run: each configurable is called exactly once."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from ctkd.data.dataset import Dataset
from ctkd.distiller import Distiller
from ctkd.engine.config import trial
from ctkd.engine.config.build_optimizers import optimizers_of
from ctkd.engine.config.builder import Builder, KnownNetworks
from ctkd.engine.config.compatibility import check_effect, check_policy
from ctkd.engine.config.feature_plan import (
    check_average,
    feature_losses,
    plan_features,
)
from ctkd.engine.config.gin_files import GinFile, find_or_name
from ctkd.engine.config.label import labeled, named
from ctkd.engine.config.parse import macros
from ctkd.engine.config.replayed_run import check_recorded, check_replayed
from ctkd.engine.config.run import Run
from ctkd.engine.config.run_name import name_of_run, several_methods, undone
from ctkd.engine.config.settings import Instrument, Method, Recipe, Seed, Teacher
from ctkd.engine.config.teacher_form import check_rows
from ctkd.engine.distributed.gather_rows import check_parts, check_whole_step
from ctkd.engine.speed.capturable import check_capturable
from ctkd.engine.tasks.alignment_settings import TeacherRowsSettings, align, check_shuffled
from ctkd.engine.tasks.augmentation import check_augmentation
from ctkd.engine.tasks.specs import spec_of
from ctkd.engine.tasks.strong_view import StrongViewSettings, check_strong_view
from ctkd.errors import ConfigError
from ctkd.losses.few_classes import check_classes
from ctkd.losses.two_views import needs_strong_view
from ctkd.models.distillation_token import use_distillation_token
from ctkd.registry import (
    DATASETS,
    MODELS,
    OBJECTIVES,
    SCHEDULES,
    TEMPERATURES,
    TRANSFORMS,
    gin,
)
from ctkd.seeds import seeded

# Macros of a run that hold for the teacher it trains, too.
_MACROS = "data_dir download num_classes device threads workers steps_per_epoch trial"
INHERITED = tuple(_MACROS.split())


def build(
    name: str | None = None,
    files: Sequence[GinFile] = (),
    bindings: Sequence[str] = (),
    *,
    meta: bool = False,
    known: KnownNetworks | None = None,
) -> Run:
    """Builds what Gin's configuration describes.

    Args:
        name: the label of the method, unless the configuration gives one; None for that of the
            method's Gin file.
        files: the Gin files that were read.
        bindings: those given on a command line; each must have an effect.
        meta: whether to build on the meta device: shapes only, no memory, no weights.
        known: with `meta`, the networks of earlier builds, not to be built and tried again.

    Raises:
        ConfigError: a setting is missing, of the wrong type or out of range, or parts do not fit.
    """
    call = Builder(known)
    runtime = named(call, name or name_of_run(files, bindings))
    method, recipe, teacher = call.part(Method), call.part(Recipe), call.part(Teacher)
    seed, instrument = call.part(Seed).seed, call.part(Instrument)
    dataset, teacher_rows = _dataset(call, recipe)
    recipe, runtime, instrument = trial.cut(recipe, runtime, instrument, dataset.kind)
    optimizers = optimizers_of(call, recipe, bindings)
    own_part = spec_of(dataset).settings
    task_part = None if own_part is None else call.part(own_part)
    try:
        distiller = _distiller(call, method, teacher, seed, dataset, meta)
    except ConfigError as error:
        raise ConfigError(f"{error}{several_methods(files)}") from error
    strong_view = _strong_view(call, distiller, dataset)
    student, teacher_network = _networks(
        call, recipe, teacher, seed, dataset, meta, distiller.needs_teacher
    )
    _check_networks({"student": student, "teacher": teacher_network}, dataset, meta, known)
    with _placed(meta):
        features = plan_features(call, distiller.features, student, teacher_network, dataset, seed)
    folder = dataset.folder  # a setting may leave it to the environment
    call.settings["runtime"]["Dataset.folder"] = None if folder is None else str(folder.absolute())
    run = Run(
        name=labeled(call, runtime, recipe),
        recipe=recipe,
        seed=seed,
        runtime=runtime,
        instrument=instrument,
        optimizers=optimizers,
        teacher=teacher,
        dataset=dataset,
        student=student,
        teacher_network=teacher_network,
        distiller=distiller,
        settings=call.settings,
        config=gin.operative_config_str(),
        inherited=macros(INHERITED),
        gin_files=tuple(files),
        teacher_gin=find_or_name(teacher.run, files, bindings),
        features=features,
        task_part=task_part,
        method=method,
        strong_view=strong_view,
        teacher_rows=teacher_rows,
        config_faults=_faults(files, recipe, dataset),
    )
    _check(run)
    check_effect(bindings, call.used)
    return run


def _dataset(call: Builder, recipe: Recipe) -> tuple[Dataset, TeacherRowsSettings | None]:
    """The data set, small in a trial, and what is done to the teacher's rows."""
    dataset: Dataset = call.component(DATASETS, "Recipe.dataset", recipe.dataset)
    align(dataset, call.part_if_bound("Alignment"))
    teacher_rows = call.part_if_bound("TeacherRows")
    check_shuffled(teacher_rows, dataset)
    if recipe.trial:
        dataset.shrink()
    return dataset, teacher_rows


def _strong_view(
    call: Builder, distiller: Distiller, dataset: Dataset
) -> StrongViewSettings | None:
    """The settings of the second view; None where the objective needs none."""
    if not needs_strong_view(distiller.objective):
        return None
    check_strong_view(distiller.objective, dataset)
    settings: StrongViewSettings = call.part(StrongViewSettings)
    return settings


def _check(run: Run) -> None:
    """Raises ConfigError where parts of a run do not fit one another."""
    distiller, dataset, runtime = run.distiller, run.dataset, run.runtime
    check_average(run.features, run.student, run.recipe)
    for loss in distiller.features:
        if loss.compares_rows:
            check_parts(loss.named, "it", runtime.accumulate)
    check_classes((distiller.objective, distiller.transform), dataset.num_classes)
    check_rows(distiller, dataset, run.teacher, run.instrument, run.task_part)
    check_whole_step(distiller.objective, dataset, runtime.accumulate, ranks=1)
    check_augmentation(run.task_part, distiller.objective, distiller.features)
    check_policy(distiller, dataset)
    check_recorded(run)
    check_replayed(run)
    views = run.strong_view is not None
    check_capturable(runtime, run.optimizers, dataset, run.task_part, views)


def _faults(files: Sequence[GinFile], recipe: Recipe, dataset: Dataset) -> tuple[str, ...]:
    """Warnings about the Gin files, and that a trial is one."""
    of_files = [warning for file in files for warning in file.warnings]
    return (*of_files, *undone(files), *trial.fault_of_trial(recipe, dataset.kind))


def _distiller(
    call: Builder, method: Method, teacher: Teacher, seed: int, dataset: Dataset, meta: bool
) -> Distiller:
    """The game of the method; its policy is small enough to be built for a dry run too."""
    with seeded(seed, "objective"):
        objective = call.component(OBJECTIVES, "Method.objective", method.objective)
    losses = feature_losses(call, method)
    if (objective.needs_teacher or losses) and teacher.network is None:
        needs = losses[0].named if losses else f"the objective {type(objective).__name__}"
        raise ConfigError(
            f"{needs} needs a teacher: set Teacher.network (the macro `teacher`) to a network, "
            "such as @resnet56"
        )
    offers = {**dataset.offers, "seed": seed, "dry": meta}
    with seeded(seed, "policy"):
        return Distiller(
            call.component(TEMPERATURES, "Method.policy", method.policy, **offers),
            call.component(SCHEDULES, "Method.schedule", method.schedule),
            objective,
            call.component(TRANSFORMS, "Method.transform", method.transform),
            losses,
            cooperative=method.cooperative,
        )


def _networks(
    call: Builder,
    recipe: Recipe,
    teacher: Teacher,
    seed: int,
    dataset: Dataset,
    meta: bool,
    needs_teacher: bool,
) -> tuple[nn.Module, nn.Module | None]:
    """Student and teacher with their first weights; on the meta device with `meta`.

    A teacher that is not needed is built there too, so that its settings are checked and recorded.
    """
    offers = dataset.offers
    with _placed(meta), seeded(seed, "student"):
        student = call.component(MODELS, "Recipe.student", recipe.student, **offers)
    use_distillation_token(student, needs_teacher)
    with _placed(meta or not needs_teacher), seeded(seed, "teacher"):
        theirs = dataset.teacher_offers
        network = call.component(MODELS, "Teacher.network", teacher.network, **theirs)
    return student, network if needs_teacher else None


def _check_networks(
    networks: dict[str, nn.Module | None],
    dataset: Dataset,
    meta: bool,
    known: KnownNetworks | None,
) -> None:
    """Checks each network that is new to `known` on samples of the data set's kind."""
    for role, model in networks.items():
        if model is not None and (known is None or known.is_new(model, dataset)):
            spec_of(dataset).check_network(role, model, dataset, meta)
            if known is not None:
                known.add(model, dataset)


@contextlib.contextmanager
def _placed(meta: bool) -> Iterator[None]:
    with torch.device("meta") if meta else contextlib.nullcontext():
        yield
