"""A job: from the names of Gin files to a finished run. It parses its own configuration."""

import contextlib
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ctkd.engine.config import parse as config
from ctkd.engine.config.build import KnownNetworks, Run, build
from ctkd.engine.device import device_of, prepare_device, to_device
from ctkd.engine.distributed.world import World, joined
from ctkd.engine.output.console import Console, as_text
from ctkd.engine.output.records import Summary
from ctkd.engine.output.workdir import DATA, TEACHER, Workdir, differences, identity_of
from ctkd.engine.task import Known, Task
from ctkd.engine.tasks.specs import make_task
from ctkd.engine.teacher.load import attach_cache, load_teacher, load_teacher_weights
from ctkd.engine.train import train
from ctkd.errors import ConfigError
from ctkd.memory import keep_freed_memory
from ctkd.models.weights.match import load_weights

# Of a run's macros, those that hold for the teacher it trains as well.
INHERITED = ("data_dir", "download", "device", "threads", "workers", "steps_per_epoch")


@dataclass(frozen=True)
class Job:
    """What a command line says; plain values only, so that it can be sent to another machine.

    Attributes:
        gin_files, gin_params: the configuration; later ones win.
        workdir: None for one derived from the configuration.
        fresh: whether to move an existing work directory aside and begin again.
    """

    gin_files: Sequence[str]
    gin_params: Sequence[str] = ()
    workdir: str | None = None
    fresh: bool = False

    @property
    def name(self) -> str:
        """The run's label where the configuration gives none: the first file's stem."""
        return pathlib.Path(self.gin_files[0]).stem

    def build(self, *, meta: bool = False, known: KnownNetworks | None = None) -> Run:
        """Parses the configuration and builds the run, see `build`. Raises ConfigError."""
        config.parse(self.gin_files, self.gin_params)
        return build(self.name, self.gin_params, meta=meta, known=known)

    def workdir_of(self, run: Run) -> Workdir:
        """The folder given, or runs/GROUP/NAME-seedN-HASH, the same for the same command."""
        if self.workdir is not None:
            return Workdir(pathlib.Path(self.workdir).expanduser())
        group = pathlib.Path(self.gin_files[0]).resolve().parent.name
        leaf = f"{run.name}-seed{run.seed}-{identity_of(run.settings)[:8]}"
        return Workdir(pathlib.Path("runs") / group / leaf)


def execute(job: Job, console: Console) -> Summary:
    """Trains the job's run to its end, or takes it up where it was left.

    Where the environment tells of several processes they share the run; the first one holds the
    folder, writes and speaks.

    Raises:
        UserError: something in the configuration, the data or the folder is wrong.
        NonFiniteError, Interrupted: see `train`.
    """
    keep_freed_memory()
    with joined() as world, contextlib.ExitStack() as held:
        run = job.build()
        workdir = job.workdir_of(run)

        def take_hold() -> None:
            if job.fresh and (old := workdir.move_aside()) is not None:
                console.say(f"{workdir.path} was moved to {old}")
            held.enter_context(workdir.owned())

        world.agree(take_hold)
        return _execute_in(workdir, run, console if world.is_main else Console(quiet=True), world)


def _execute_in(workdir: Workdir, run: Run, console: Console, world: World) -> Summary:
    """Trains in a folder that is held."""
    summary = world.agree(lambda: _begin(workdir, run, console))
    if summary is not None:
        return summary
    trains_teacher = run.teacher_network is not None and run.teacher.weights is None
    if trains_teacher:
        weights = world.agree(lambda: str(trained_teacher(run, workdir, console)))
        run.teacher = replace(run.teacher, weights=weights)
    prepare_device(run)  # after the teacher's training, which may have had other settings
    task = make_task(run, device_of(run), world)
    if trains_teacher and getattr(task, "is_cut", False):
        # A run cut short, for trying things out, cut its teacher's training too.
        run.teacher = replace(run.teacher, floor=None)
    for note in getattr(task, "notes", ()):
        console.say(note)
    world.agree(lambda: _claim_data(workdir, run, task))
    teacher = None
    if run.teacher_network is not None:
        teacher = load_teacher(run, device_of(run), world, console)
        fingerprint = teacher.fingerprint
        world.agree(lambda: workdir.claim_source(run.settings, TEACHER, fingerprint))
        attach_cache(run, teacher, task, device_of(run), workdir, console)
    return train(run, task, teacher, workdir, console, world)


def _begin(workdir: Workdir, run: Run, console: Console) -> Summary | None:
    """Claims the folder; the summary that it holds if the run is finished."""
    summary = workdir.read_summary()
    if summary is None:
        workdir.claim(run.settings, run.config)
        console.say(f"{run.name}: {workdir.path}")
        return None
    different = _check_finished(workdir, run)
    console.say(f"{workdir.path} holds this run, finished; nothing is left to train")
    for line in different:
        console.say(f"  it was made with {line}")
    console.summary(summary, workdir)
    return summary


def _claim_data(workdir: Workdir, run: Run, task: Task) -> None:
    if isinstance(task, Known):
        workdir.claim_source(run.settings, DATA, task.data_fingerprint())


def _check_finished(workdir: Workdir, run: Run) -> list[str]:
    """Refuses what was made of other data or of another teacher; in what else it differs.

    Nothing is read that lies where it lay then, and nothing of the finished run is rewritten.

    Raises:
        UserError: the data or the weights are others than those, or cannot be read.
    """
    saved = (workdir.read_settings() or run.settings)["runtime"]
    workdir.compare(run.settings)
    place, weights = run.settings["runtime"]["Dataset.folder"], run.teacher.weights
    if DATA in run.settings["recipe"] and place != saved.get("Dataset.folder"):
        task = make_task(run, torch.device("cpu"), World())
        assert isinstance(task, Known)
        workdir.compare_source(run.settings, DATA, task.data_fingerprint())
    moved = weights is not None and weights != saved.get("Teacher.weights")
    if TEACHER in run.settings["recipe"] and moved:
        fingerprint = load_teacher_weights(run).fingerprint
        workdir.compare_source(run.settings, TEACHER, fingerprint)
    return differences(run.settings, {"runtime": saved}, ("runtime",))


def teacher_job(run: Run) -> Job:
    """The job that trains the run's teacher; to be asked while Gin holds the run's configuration.

    Raises:
        ConfigError: the configuration neither gives weights nor says how to train them.
    """
    if run.teacher.run is None:
        raise ConfigError(
            "the teacher's weights are not given: set the macro teacher_weights to a file, a URL, "
            "or a name of torchvision's (IMAGENET1K_V1, for networks that have it), "
            "--gin_param \"teacher_weights = '/path/to/teacher.pt'\""
        )
    inherited = [f"{name} = {value!r}" for name, value in config.macros(INHERITED).items()]
    return Job([run.teacher.run], inherited)


def teacher_home(run: Run, workdir: Workdir) -> tuple[Run, Workdir]:
    """The run that trains the run's teacher, and the folder that it is kept in."""
    teacher_run = teacher_job(run).build()
    identity = identity_of(teacher_run.settings)
    folder = pathlib.Path(run.runtime.teachers_dir or workdir.path.absolute().parent / "teachers")
    folder = folder.expanduser()
    return teacher_run, Workdir(folder / f"{teacher_run.name}-{identity[:8]}")


def trained_teacher(run: Run, workdir: Workdir, console: Console) -> pathlib.Path:
    """The weights of the teacher that `Teacher.run` trains: once, however many runs ask for it.

    Raises:
        ConfigError: there is no such file.
    """
    teacher_run, home = teacher_home(run, workdir)
    teacher_console = Console(prefix="  teacher | ")
    with home.owned(wait=console.say):
        weights = home.path / "student_last.pt"
        if home.read_summary() is not None and weights.is_file():
            _check_finished(home, teacher_run)
        else:
            # Where only the weights are missing, the last checkpoint brings them back.
            (home.path / "summary.json").unlink(missing_ok=True)
            console.say(f"training the teacher, once: {home.path}")
            _execute_in(home, teacher_run, teacher_console, World())
    return weights


def evaluate(job: Job, checkpoint: str | None, console: Console) -> dict[str, float]:
    """The metrics of a trained student: of a work directory's last weights, or of a file.

    Raises:
        UserError: neither is given, or the file does not fit the network.
    """
    run = job.build()
    folder = job.workdir_of(run).path
    path = pathlib.Path(checkpoint or folder / "student_last.pt").expanduser()
    prepare_device(run)
    load_weights(run.student, str(path))
    task = make_task(run, device_of(run), World())
    for note in getattr(task, "notes", ()):
        console.say(note)
    metrics = task.evaluate(to_device(run.student, device_of(run)))
    console.say(f"{path}:")
    for name, value in metrics.items():
        console.say(f"{name} {as_text(name, value)}")
    return metrics
