"""Which task a data set calls for: one module to each kind of samples."""

import importlib
from typing import Any, Protocol, cast

import torch
from torch import nn

from ctkd.checks import suggest
from ctkd.data.dataset import Dataset
from ctkd.engine.distributed.world import World
from ctkd.engine.task import Task
from ctkd.errors import ConfigError

MODULES = {
    "resident": "ctkd.engine.tasks.images_in_memory",
    "streamed": "ctkd.engine.tasks.images_from_files",
    "detection": "ctkd.engine.tasks.detection",
}


class Kind(Protocol):
    """What a module of `MODULES` offers.

    `run` is a `ctkd.engine.config.build.Run`; the networks are checked while it is built.
    """

    def make_task(self, run: Any, device: torch.device, world: World) -> Task:
        """Reads the data.

        Raises:
            DataError: it is missing or damaged.
            ConfigError: in the epoch's last batch a process would have nothing to do.
        """

    def check_network(self, role: str, model: nn.Module, dataset: Dataset, meta: bool) -> None:
        """Raises ConfigError where a network does not fit the data set's samples and classes."""


def register_kind(kind: str, module: str) -> None:
    """Says which module makes the tasks of data sets of this `kind`: for kinds from outside.

    Raises:
        ConfigError: another module does.
    """
    if MODULES.setdefault(kind, module) != module:
        raise ConfigError(f"tasks of the kind {kind!r} are made by {MODULES[kind]} already")


def kind_of(dataset: Dataset) -> Kind:
    """The module that makes tasks of such data sets, imported when it is asked for.

    Raises:
        ConfigError: no module does.
    """
    if dataset.kind not in MODULES:
        raise ConfigError(
            f"no task is known for data sets of the kind {dataset.kind!r}"
            f"{suggest(dataset.kind, MODULES)}; see ctkd.engine.tasks.specs.register_kind"
        )
    return cast("Kind", importlib.import_module(MODULES[dataset.kind]))


def make_task(run: Any, device: torch.device, world: World) -> Task:
    """The task of the run's data set, its data read; see `Kind`."""
    return kind_of(run.dataset).make_task(run, device, world)
