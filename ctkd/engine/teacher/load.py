"""From a run's settings to its teacher: weights, folding, compilation, the cache of its rows."""

import hashlib
import os
import pathlib
from collections.abc import Callable

import torch
from torch import nn

from ctkd.data.dataset import ImageDataset
from ctkd.engine.config.build import Run
from ctkd.engine.distributed.world import World
from ctkd.engine.output.console import Console
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.speed.compile import compiles_teacher
from ctkd.engine.task import Task, Viewed
from ctkd.engine.tasks.specs import kind_of
from ctkd.engine.teacher.fold_batch_norm import fold
from ctkd.engine.teacher.frozen import FrozenTeacher
from ctkd.files import expand_user, user_path
from ctkd.models.weights.match import WeightsInfo, load_weights
from ctkd.seeds import generator

FOLDER = "teacher_cache"


def load_teacher(run: Run, device: torch.device, world: World, console: Console) -> FrozenTeacher:
    """The teacher with its weights, ready to be called; it remembers nothing yet.

    Raises:
        ConfigError: compiling was asked for and cannot be done.
        DataError: the weights are missing or do not fit.
    """
    assert run.teacher_network is not None
    info = load_teacher_weights(run)
    console.say(f"teacher: weights out of {info.source} ({info.container})")
    own: Callable[[], type[FrozenTeacher]] | None
    own = getattr(kind_of(run.dataset), "teacher_class", None)
    if own is not None:
        half, precision = run.teacher.rows == "float16", run.runtime.precision
        kind: type[FrozenTeacher] = own()
        return kind(run.teacher_network, device, precision, info.fingerprint, half_rows=half)
    network: nn.Module = run.teacher_network.eval()
    if isinstance(run.dataset, ImageDataset):
        example = torch.randn(2, *run.dataset.shape, generator=generator("folding"))
        network, reason = fold(network, example)
        if reason is not None:
            console.say(f"the teacher's batch normalisations stay as they are: {reason}")
    share = -(-run.recipe.batch_size // world.size)
    return FrozenTeacher(
        network,
        device,
        run.runtime.precision,
        info.fingerprint,
        batch_size=-(-share // run.runtime.accumulate),
        compiled=compiles_teacher(run, device),
        half_rows=run.teacher.rows == "float16",
    )


def load_teacher_weights(run: Run) -> WeightsInfo:
    """Loads the weights that the run's settings name; see `load_weights`."""
    assert run.teacher_network is not None
    assert run.teacher.weights is not None
    name = run.settings["recipe"]["Teacher.network"].removeprefix("@")
    source = expand_user(run.teacher.weights, "Teacher.weights")
    return load_weights(run.teacher_network, source, network=name)


def attach_cache(
    run: Run,
    teacher: FrozenTeacher,
    task: Task,
    device: torch.device,
    workdir: Workdir,
    console: Console,
) -> None:
    """Lets the teacher remember its rows, where the settings and the task allow it."""
    from ctkd.engine.teacher.cache import open_cache

    root = cache_root(run, workdir)
    if root is None or not isinstance(task, Viewed):
        return
    recipe = run.settings["recipe"]
    name = recipe["Teacher.network"].removeprefix("@")
    key = {
        "teacher": {k: v for k, v in recipe.items() if k.startswith(f"{name}.")}
        | {"network": name, "weights": teacher.fingerprint, "structure": structure(teacher)},
        "precision": run.runtime.precision,
        "batch_size": teacher.batch_size,
        "compiled": compiles_teacher(run, device),
        "folded": isinstance(teacher.network, torch.fx.GraphModule),
        "layout": "channels last",
    }
    teacher.cache = open_cache(
        root,
        key,
        teacher,
        task,
        dtype=run.teacher.rows,
        limit=int(run.runtime.teacher_cache_gb * 2**30),
        device=device,
        say=console.say,
        warn=console.warn,
        only_whole=run.runtime.teacher_cache == "auto" and device.type == "cuda",
    )


def structure(teacher: FrozenTeacher) -> str:
    """A hash of the network's modules, and of its forward where that was traced for folding."""
    return hashlib.sha256(str(teacher.network).encode()).hexdigest()[:16]


def cache_root(run: Run, workdir: Workdir) -> pathlib.Path | None:
    """The folder of all caches: the one that is set, or for "auto" one beside the images.

    "auto" gives no cache to a run that is cut short, nor where the folder of the images is
    read-only and has no caches yet. Images that come with a package have the caches next to the
    work directory.
    """
    wish = run.runtime.teacher_cache
    if wish is None:
        return None
    if wish != "auto":
        return user_path(wish, "Runtime.teacher_cache")
    if run.recipe.steps_per_epoch is not None:
        return None
    images = run.dataset.folder
    if images is None:
        return workdir.path.absolute().parent / FOLDER
    root = images / FOLDER
    return root if os.access(images, os.W_OK) or root.is_dir() else None
