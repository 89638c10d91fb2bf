"""The kinds of data sets, and how the task of each kind is made."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ctkd.checks import suggest
from ctkd.data.dataset import Dataset
from ctkd.engine.distributed.world import World
from ctkd.engine.task import Task
from ctkd.engine.teacher.frozen import FrozenTeacher
from ctkd.errors import ConfigError


@dataclass(frozen=True)
class TaskSpec:
    """How the engine handles one kind of data set.

    Attributes:
        make: `make(run, device, world)` reads the data and returns the task. Raises DataError where
            the data are missing or damaged, ConfigError where the settings do not fit them.
        check_network: `check_network(role, network, dataset, meta)` raises ConfigError where a
            network does not fit the samples and classes. `meta` says that the network is on the
            meta device, which has shapes only.
        settings: a class of further settings, registered in `ctkd.engine.config.settings.PARTS`;
            `run.task_part` holds it.
        teacher: the class of frozen teachers.
        shared: whether runs in one process can share the data, see `Task.for_run`.
    """

    make: Callable[[Any, torch.device, World], Task]
    check_network: Callable[..., None]
    settings: type[Any] | None = None
    teacher: type[FrozenTeacher] = FrozenTeacher
    shared: bool = False


# The kind of a data set -> its spec, or the module whose SPEC it is: imported on first use.
TASKS: dict[str, TaskSpec | str] = {
    "resident": "ctkd.engine.tasks.images_in_memory",
    "streamed": "ctkd.engine.tasks.images_from_files",
    "detection": "ctkd.engine.tasks.detection",
    "text": "ctkd.engine.tasks.language",
}


def register_task(kind: str, spec: TaskSpec) -> None:
    """Registers the task of data sets whose `kind` is `kind`.

    Raises:
        ConfigError: the kind has another task.
    """
    if TASKS.setdefault(kind, spec) != spec:
        raise ConfigError(f"data sets of the kind {kind!r} have a task already: use another kind")


def spec_of(dataset: Dataset) -> TaskSpec:
    """The spec for a data set.

    Raises:
        ConfigError: no task is registered for its kind.
    """
    found = TASKS.get(dataset.kind)
    if found is None:
        raise ConfigError(
            f"no task is registered for data sets of the kind {dataset.kind!r}"
            f"{suggest(dataset.kind, TASKS)}: call ctkd.engine.tasks.specs.register_task"
        )
    if isinstance(found, TaskSpec):
        return found
    spec: TaskSpec = importlib.import_module(found).SPEC
    return spec
