"""Makes the teacher from the settings of a run: weights, folding, compilation, cache."""

import hashlib
import os
import pathlib

import torch
from torch import nn

from ctkd.data.dataset import ImageDataset
from ctkd.engine.config.run import Run
from ctkd.engine.distributed.world import World
from ctkd.engine.output.console import Console
from ctkd.engine.speed.compile import compiles_teacher
from ctkd.engine.task import Task, ViewedTask
from ctkd.engine.tasks.alignment_settings import TeacherRowsSettings
from ctkd.engine.tasks.specs import spec_of
from ctkd.engine.teacher.fold_batch_norm import fold
from ctkd.engine.teacher.frozen import FrozenTeacher
from ctkd.engine.teacher.frozen_language import FrozenLanguageModel
from ctkd.engine.teacher.token_rows import token_rows
from ctkd.files import expand_user, user_path
from ctkd.models.language_model import LanguageModel
from ctkd.models.weights.match import WeightsInfo, fingerprint, load_weights
from ctkd.seeds import generator

FOLDER = "teacher_cache"


def load_teacher(
    run: Run, weights: str, device: torch.device, world: World, console: Console
) -> FrozenTeacher:
    """The teacher with its weights, ready to be called, without a cache.

    Args:
        weights: a file, a URL, or the name of torchvision's weights.

    Raises:
        ConfigError: `Runtime.compile` is True and compiling is not possible.
        DataError: the weights are missing or do not fit.
    """
    assert run.teacher_network is not None
    info = load_teacher_weights(run, weights)
    console.say(f"teacher: weights from {info}")
    network: nn.Module = run.teacher_network.eval()
    with_features = None
    if isinstance(run.dataset, ImageDataset):
        example = torch.randn(2, *run.dataset.shape, generator=generator("folding"))
        paths = None if run.features is None else run.features.teacher
        network, with_features, reason = fold(network, example, paths)
        if reason is not None:
            console.say(f"the teacher's batch normalizations are not folded: {reason}")
    kind = spec_of(run.dataset).teacher
    return kind(
        network,
        device,
        run.runtime.precision,
        info.fingerprint,
        batch_size=_batch_size(run, world),
        compiled=compiles_teacher(run, device),
        half_rows=run.teacher.rows == "float16",
        **({} if run.features is None else {"with_features": with_features}),
    )


def _batch_size(run: Run, world: World) -> int:
    """The images of one part of a step on one rank."""
    share = -(-run.recipe.batch_size // world.size)
    return -(-share // run.runtime.accumulate)


def load_teacher_weights(run: Run, weights: str) -> WeightsInfo:
    """Loads `weights` into the teacher's network; see `load_weights`."""
    assert run.teacher_network is not None
    name = run.settings["recipe"]["Teacher.network"].removeprefix("@")
    if run.teacher.weights is None and weights == given_weights(run):
        return WeightsInfo(
            weights, fingerprint(run.teacher_network.state_dict()), "built with its weights"
        )
    source = expand_user(weights, "Teacher.weights")
    return load_weights(run.teacher_network, source, network=name, setting="teacher_weights")


def given_weights(run: Run) -> str | None:
    """The source of the teacher's weights: the setting, or the weights that its network has."""
    network = run.teacher_network
    own = network.loaded_from if isinstance(network, LanguageModel) else None
    return own if run.teacher.weights is None else run.teacher.weights


def attach_cache(
    run: Run,
    teacher: FrozenTeacher,
    task: Task,
    device: torch.device,
    workdir: pathlib.Path,
    console: Console,
    *,
    fill: bool = False,
) -> None:
    """Gives the teacher a cache of its rows, if the settings and the task allow one.

    Args:
        workdir: the work directory of the run.
        fill: whether the cache is to be filled now. Otherwise "auto" on a GPU takes only a complete
            cache, since copying rows to the GPU costs more than computing them.
    """
    from ctkd.engine.teacher.cache import open_cache

    windows = None
    if isinstance(teacher, FrozenLanguageModel):
        draws = TeacherRowsSettings.draws if run.teacher_rows is None else run.teacher_rows.draws
        windows = teacher.windows = token_rows(run.teacher.rows, draws, teacher, task)
    root = cache_root(run, workdir)
    widths = {} if run.features is None else run.features.teacher_widths
    samples = windows or (task if isinstance(task, ViewedTask) and task.remembers else None)
    if root is None or widths is None or samples is None:
        return
    teacher.widths = widths
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
    if run.features is not None:
        key["features"] = run.features.teacher
    teacher.cache = open_cache(
        root,
        key,
        windows or teacher,
        samples,
        dtype=run.teacher.rows if windows is None else windows.dtype,
        limit=int(run.runtime.teacher_cache_gb * 2**30),
        features=sum(widths.values()),
        device=device,
        say=console.say,
        warn=console.warn,
        only_whole=run.runtime.teacher_cache == "auto" and device.type == "cuda" and not fill,
    )


def structure(teacher: FrozenTeacher) -> str:
    """A hash of the network's modules, and of its forward if it was traced for folding."""
    return hashlib.sha256(str(teacher.network).encode()).hexdigest()[:16]


def cache_root(run: Run, workdir: pathlib.Path) -> pathlib.Path | None:
    """The folder of all caches: the setting, or for "auto" a folder in the images' folder.

    "auto" means None in a shortened run or a trial, and if the folder of the images is read-only
    and has no caches yet. For images from a package the caches are next to the work directory.
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
        return workdir.absolute().parent / FOLDER
    root = images / FOLDER
    return root if os.access(images, os.W_OK) or root.is_dir() else None
