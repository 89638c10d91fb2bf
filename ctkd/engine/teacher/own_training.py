"""Trains a teacher that has no weights: in a separate job, once for all runs."""

import hashlib
import os
import pathlib
from typing import TYPE_CHECKING

from ctkd.engine.config.gin_files import find, read_with_includes
from ctkd.engine.config.identity import identity_of
from ctkd.engine.config.run import Run
from ctkd.engine.output.console import Console
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.teacher.training_note import TrainingNote
from ctkd.errors import ConfigError, WorkdirError
from ctkd.files import cache_folder, user_path

if TYPE_CHECKING:
    from ctkd.engine.job import Job


def teacher_job(run: Run) -> "Job":
    """The job that trains the run's teacher.

    Raises:
        ConfigError: the configuration gives neither weights nor a way to train them.
    """
    from ctkd.engine.job import Job  # job imports this module, since it prepares teachers

    if run.teacher_gin is None:
        raise ConfigError(
            "the teacher's weights are not given: set the macro teacher_weights to a file, a URL, "
            "or a name of torchvision's (IMAGENET1K_V1, for networks that have it), "
            "--gin_param \"teacher_weights = '/path/to/teacher.pt'\""
        )
    # Only the macros that the teacher's files refer to: another data set may have no data_dir.
    text = "".join(file.text for file in read_with_includes(find(run.teacher_gin)))
    inherited = [f"{k} = {value!r}" for k, value in run.inherited.items() if f"%{k}" in text]
    if not run.runtime.figures:
        inherited.append("Runtime.figures = False")
    return Job([run.teacher_gin], inherited)


def teacher_home(run: Run, path: pathlib.Path) -> tuple[Run, Workdir]:
    """The run that trains the teacher of a run in the folder `path`, and the teacher's folder.

    All runs of a user share the teachers in the user's cache. There the folder's name also depends
    on the data, since the same command may use other images.
    """
    teacher_run = teacher_job(run).build()
    run.dataset.check_teacher(teacher_run.dataset)
    identity = identity_of(teacher_run.settings)
    name = f"{teacher_run.name}-{identity[:8]}"
    given, neighbor = run.runtime.teachers_dir, path.absolute().parent / "teachers" / name
    if given is not None:
        home = user_path(given, "Runtime.teachers_dir") / name
    elif (neighbor / "summary.json").is_file():  # where version 0.1 trained it
        home = neighbor
    else:
        data = teacher_run.settings["runtime"]["Dataset.folder"]
        key = hashlib.sha256(f"{identity} {data}".encode()).hexdigest()[:8]
        home = (
            _shared_folder(neighbor.parent) / f"{teacher_run.dataset_name}-{teacher_run.pair}-{key}"
        )
    return teacher_run, Workdir(home, setting="Runtime.teachers_dir")


def _shared_folder(otherwise: pathlib.Path) -> pathlib.Path:
    """The folder of teachers in the user's cache, or `otherwise` if it cannot be written."""
    try:
        folder = cache_folder() / "teachers"
        folder.mkdir(parents=True, exist_ok=True)
    except (ConfigError, OSError):
        return otherwise
    return folder if os.access(folder, os.W_OK) else otherwise


def trained_teacher(run: Run, path: pathlib.Path, console: Console) -> pathlib.Path:
    """The weights of the teacher that `Teacher.run` trains: once, then shared by all runs.

    Raises:
        ConfigError: there is no such Gin file.
        WorkdirError: the teacher's folder cannot be used.
    """
    from ctkd.engine.job import check_finished, train_in

    teacher_run, home = teacher_home(run, path)
    teacher_console = Console(prefix="  teacher | ")
    note = TrainingNote(path, home.path, teacher_run.recipe.epochs)

    def wait(text: str) -> None:
        note.write("waiting for the teacher")
        console.say(text)

    with note, home.owned(wait=wait) as locked:
        weights = home.path / "student_last.pt"
        if home.read_summary() is not None and weights.is_file():
            check_finished(home, teacher_run)
        elif not locked:
            raise WorkdirError(
                f"{home.path} lacks {weights.name}, and is not writable: give another "
                f"{home.setting}"
            )
        else:
            home.reopen()  # the last checkpoint restores missing weights
            note.write("training the teacher")
            console.say(f"training the teacher, once: {home.path}")
            train_in(home, teacher_run, teacher_console)
    return weights
