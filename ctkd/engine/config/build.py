"""From Gin's configuration to one Run: each configurable is called exactly once."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from ctkd.checks import expect
from ctkd.data.dataset import Dataset
from ctkd.distiller import Distiller
from ctkd.engine.config.compatibility import check_classes, check_effect, check_policy
from ctkd.engine.config.gin_files import GinFile, find_named
from ctkd.engine.config.identity import Settings
from ctkd.engine.config.parse import macros
from ctkd.engine.config.settings import Instrument, Method, Recipe, Runtime, Seed, Teacher, spell
from ctkd.engine.optim import SGDRecipe
from ctkd.engine.tasks.specs import spec_of
from ctkd.errors import ConfigError
from ctkd.registry import (
    COMPONENTS,
    DATASETS,
    MODELS,
    OBJECTIVES,
    SCHEDULES,
    TEMPERATURES,
    TRANSFORMS,
    Registry,
    gin,
    name_of,
)
from ctkd.seeds import seeded

T = TypeVar("T")
# Macros of a run that hold for the teacher it trains, too.
INHERITED = ("data_dir", "download", "device", "threads", "workers", "steps_per_epoch")


@dataclass(frozen=True)
class Run:
    """Everything a run consists of, built; what comes later is data, weights and time.

    Attributes:
        teacher_network: None where the objective needs no teacher.
        settings: every value that was used, in four sets, as `settings.json` holds it.
        config: Gin text that builds this run again.
        inherited: macros that hold for the teacher too, where this run trains one.
        gin_files: the Gin files that were read, in the order in which they take effect.
        teacher_gin: the path of `Teacher.run`, or its name where there is no such file.
        task_part: the further settings of the data set's kind, if it has any.
    """

    name: str
    recipe: Recipe
    seed: int
    runtime: Runtime
    instrument: Instrument
    optimizer: SGDRecipe
    teacher: Teacher
    dataset: Dataset
    student: nn.Module
    teacher_network: nn.Module | None
    distiller: Distiller
    settings: Settings
    config: str
    inherited: dict[str, Any]
    gin_files: tuple[GinFile, ...] = ()
    teacher_gin: str | None = None
    task_part: Any = None

    @property
    def recipe_epochs(self) -> int:
        """The epochs that the schedules' numbers refer to."""
        return self.recipe.recipe_epochs or self.recipe.epochs


def build(
    name: str,
    files: Sequence[GinFile] = (),
    bindings: Sequence[str] = (),
    *,
    meta: bool = False,
    known: "KnownNetworks | None" = None,
) -> Run:
    """Builds what Gin's configuration describes.

    Args:
        name: the method's label unless the configuration gives one.
        files: the Gin files that were read.
        bindings: those given on a command line; each must have an effect.
        meta: whether to build on the meta device: shapes only, no memory, no weights.
        known: with `meta`, the networks of earlier builds, not to be built and tried again.

    Raises:
        ConfigError: a setting is missing, of the wrong type or out of range, or parts do not fit.
    """
    call = _Builder(known)
    runtime = _named(call, name)
    method: Method = call.part(Method)
    recipe: Recipe = call.part(Recipe)
    teacher: Teacher = call.part(Teacher)
    seed: int = call.part(Seed).seed
    instrument: Instrument = call.part(Instrument)
    optimizer: SGDRecipe = call.part(SGDRecipe)
    dataset: Dataset = call.component(DATASETS, "Recipe.dataset", recipe.dataset)
    own_part = spec_of(dataset).settings
    task_part = None if own_part is None else call.part(own_part)
    offers = dataset.offers
    with seeded(seed, "objective"):
        objective = call.component(OBJECTIVES, "Method.objective", method.objective)
    if objective.needs_teacher and teacher.network is None:
        raise ConfigError(
            f"the objective {type(objective).__name__} needs a teacher: set Teacher.network "
            "(the macro `teacher`) to a network, such as @resnet56"
        )
    with _placed(meta), seeded(seed, "student"):
        student: nn.Module = call.component(MODELS, "Recipe.student", recipe.student, **offers)
    with _placed(meta or not objective.needs_teacher), seeded(seed, "teacher"):
        network = call.component(MODELS, "Teacher.network", teacher.network, **offers)
    teacher_network = network if objective.needs_teacher else None
    with seeded(seed, "policy"):  # small enough to be built for a dry run too
        distiller = Distiller(
            call.component(TEMPERATURES, "Method.policy", method.policy, **offers),
            call.component(SCHEDULES, "Method.schedule", method.schedule),
            objective,
            call.component(TRANSFORMS, "Method.transform", method.transform),
        )
    _check_networks({"student": student, "teacher": teacher_network}, dataset, meta, known)
    check_classes(distiller, dataset)
    check_policy(distiller.policy, dataset)
    check_effect(bindings, call.used)
    place = dataset.folder  # a setting may leave it to the environment
    call.settings["runtime"]["Dataset.folder"] = None if place is None else str(place.absolute())
    return Run(
        name=runtime.name or name,
        recipe=recipe,
        seed=seed,
        runtime=runtime,
        instrument=instrument,
        optimizer=optimizer.for_batches_of(recipe.batch_size),
        teacher=teacher,
        dataset=dataset,
        student=student,
        teacher_network=teacher_network,
        distiller=distiller,
        settings=call.settings,
        config=gin.operative_config_str(),
        inherited=macros(INHERITED),
        gin_files=tuple(files),
        teacher_gin=_teacher_gin(teacher, files, bindings),
        task_part=task_part,
    )


def _teacher_gin(teacher: Teacher, files: Sequence[GinFile], bindings: Sequence[str]) -> str | None:
    """The path of the Gin file that trains the teacher; its name where there is no such file."""
    if teacher.run is None:
        return None
    try:
        return str(find_named(teacher.run, files, bindings))
    except ConfigError:
        return teacher.run  # an error only for a run that trains its teacher


def _named(call: "_Builder", name: str) -> Runtime:
    """The runtime, its run named `name` unless the configuration gives a name."""
    runtime: Runtime = call.part(Runtime)
    if runtime.name is None:
        gin.parse_config(f"Runtime.name = {name!r}")  # so that config.gin keeps it
        runtime = call.part(Runtime)
    return runtime


def _check_networks(
    networks: dict[str, nn.Module | None],
    dataset: Dataset,
    meta: bool,
    known: "KnownNetworks | None",
) -> None:
    """Tries those of the networks that are there, and new, on the data set's kind of samples."""
    for role, model in networks.items():
        if model is not None and (known is None or known.is_new(model, dataset)):
            spec_of(dataset).check_network(role, model, dataset, meta)
            if known is not None:
                known.add(model, dataset)


class _Builder:
    """Calls configurables, and keeps the values they were called with."""

    def __init__(self, known: "KnownNetworks | None" = None) -> None:
        self.settings: Settings = {"method": {}, "recipe": {}, "seed": {}, "runtime": {}}
        self.used: set[str] = set()
        self._known = known

    def part(self, kind: type[T]) -> T:
        """One of the engine's own parts."""
        part: T = self._call(name_of(kind), {})
        return part

    def component(self, registry: Registry, role: str, reference: Any, **offers: Any) -> Any:
        """The component a setting refers to, or None; it is offered values it may have use for."""
        if reference is None:
            return None
        name = getattr(reference, "__name__", "")
        if callable(reference) and not name:
            raise ConfigError(
                f"{role} is a {type(reference).__name__} that was made already: write the "
                "reference without its (), as in @Name"
            )
        fine = callable(reference) and name in registry
        owner, parameter = role.split(".")
        article = "an" if registry.kind[0] in "aeiou" else "a"
        expected = f"{article} {registry.kind}: {registry.listed()}"
        expect(fine, owner, parameter, spell(reference), expected)
        registry.component(name)
        call = functools.partial(self._call, name, offers, reference)
        if self._known is None or registry is not MODELS:
            return call()
        self._record(name, offers)
        return self._known.get(f"{name} {offers} {gin.get_bindings(COMPONENTS[name].bound)}", call)

    def _call(self, name: str, offers: dict[str, Any], reference: Any = None) -> Any:
        given = self._record(name, offers)
        try:
            return (reference or COMPONENTS[name].bound)(**given)
        except ConfigError as error:  # without the lines that Gin adds about its own call
            raise ConfigError(str(error).split("\n  In call to")[0]) from error

    def _record(self, name: str, offers: dict[str, Any]) -> dict[str, Any]:
        """Keeps the values a component is called with; those of the offers that it takes."""
        component = COMPONENTS[name]
        parameters = inspect.signature(component.target).parameters
        bound = gin.get_bindings(component.bound)
        given = {k: v for k, v in offers.items() if k in parameters and k not in bound}
        for parameter, description in parameters.items():
            value = {**given, **bound}.get(parameter, description.default)
            if value is inspect.Parameter.empty or value is gin.REQUIRED:
                raise ConfigError(f"{name}.{parameter} must be set: it has no default")
            if parameter not in given:
                settings = self.settings[component.settings_of(parameter)]
                settings[f"{name}.{parameter}"] = spell(value)
        self.used.add(name)
        return given


class KnownNetworks:
    """Networks on the meta device, so that many runs of the same few are checked quickly."""

    def __init__(self) -> None:
        self._built: dict[str, nn.Module] = {}
        self._fitting: set[tuple[object, ...]] = set()

    def get(self, settings: str, make: Callable[[], nn.Module]) -> nn.Module:
        """The network of these settings, made if it is the first."""
        if settings not in self._built:
            self._built[settings] = make()
        return self._built[settings]

    def is_new(self, network: nn.Module, dataset: Dataset) -> bool:
        """Whether the network has yet to be tried on images like these."""
        return self._case(network, dataset) not in self._fitting

    def add(self, network: nn.Module, dataset: Dataset) -> None:
        """Remembers that the network was tried and fits."""
        self._fitting.add(self._case(network, dataset))

    @staticmethod
    def _case(network: nn.Module, dataset: Dataset) -> tuple[object, ...]:
        return (id(network), dataset.kind, getattr(dataset, "shape", None), dataset.num_classes)


@contextlib.contextmanager
def _placed(meta: bool) -> Iterator[None]:
    with torch.device("meta") if meta else contextlib.nullcontext():
        yield
