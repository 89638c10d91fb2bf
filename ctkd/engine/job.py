"""A job: from the names of Gin files to a finished run."""

import contextlib
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ctkd.engine.config import parse as config
from ctkd.engine.config.build import build
from ctkd.engine.config.builder import KnownNetworks
from ctkd.engine.config.identity import DATA, TEACHER, differences, identity_of
from ctkd.engine.config.run import Run
from ctkd.engine.device import to_device
from ctkd.engine.diagnostics.warnings import faults_of_run
from ctkd.engine.distributed.world import World, joined
from ctkd.engine.output.console import Console, as_text
from ctkd.engine.output.provenance import write_provenance
from ctkd.engine.output.records import Summary
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.prepare import Prepared, prepare
from ctkd.engine.tasks.specs import spec_of
from ctkd.engine.teacher.load import load_teacher_weights
from ctkd.engine.train import train
from ctkd.files import expand_user, user_path
from ctkd.memory import keep_freed_memory
from ctkd.models.weights.match import load_weights
from ctkd.renamed import bindings_with_new_names
from ctkd.standard_output import safe_output


@dataclass(frozen=True)
class Job:
    """What a command line says; plain values only, so that it can be sent to another machine.

    Attributes:
        gin_files, gin_params: the configuration; later ones win.
        workdir: None for a folder derived from the configuration.
        fresh: whether to move an existing work directory aside and begin again.
    """

    gin_files: Sequence[str]
    gin_params: Sequence[str] = ()
    workdir: str | None = None
    fresh: bool = False

    def build(self, *, meta: bool = False, known: KnownNetworks | None = None) -> Run:
        """Parses the configuration and builds the run, see `build`. Raises ConfigError."""
        params, warnings = bindings_with_new_names(self.gin_params)
        files = config.parse(self.gin_files, params)
        run = build(files=files, bindings=params, meta=meta, known=known)
        return replace(run, config_faults=(*warnings, *run.config_faults))

    def for_seed(self, seed: int) -> "Job":
        """The job of the same configuration with another seed, in a folder of its own."""
        folder = None if self.workdir is None else f"{self.workdir}/seed{seed}"
        return replace(self, gin_params=[*self.gin_params, f"seed = {seed}"], workdir=folder)

    def for_method(self, file: str) -> "Job":
        """The job of another method's Gin file, which comes first, in a folder of its own."""
        name = pathlib.Path(file).stem
        folder = None if self.workdir is None else f"{self.workdir}/{name}"
        return replace(self, gin_files=[file, *self.gin_files], workdir=folder)

    def workdir_of(self, run: Run) -> pathlib.Path:
        """The folder given, or runs/DATA/PAIR/NAME-seedN-HASH, the same for the same command."""
        if self.workdir is not None:
            return user_path(self.workdir, "--workdir")
        end = f"seed{run.seed}-{identity_of(run.settings)[:8]}"
        earlier = pathlib.Path(self.gin_files[0]).resolve()  # as version 0.1 named the folder
        old = pathlib.Path("runs") / earlier.parent.name / f"{earlier.stem}-{end}"
        if (old / "settings.json").is_file():
            return old
        return pathlib.Path("runs") / run.dataset_name / run.pair / f"{run.name}-{end}"


def execute(job: Job, console: Console) -> Summary:
    """Trains the run of a job to its end, from the last checkpoint if there is one.

    Several processes that the environment describes (torchrun, SLURM) share the run. Rank 0 alone
    locks the folder, writes, and prints.

    Raises:
        UserError: something in the configuration, the data or the folder is wrong.
        NonFiniteError, Interrupted: see `train`.
    """
    keep_freed_memory()
    with safe_output(), joined() as world, contextlib.ExitStack() as held:
        run = job.build()
        folder = Workdir(job.workdir_of(run), world)
        if not folder.writes:
            console = Console(quiet=True)

        def lock() -> None:
            if job.fresh and (old := folder.move_aside()) is not None:
                console.say(f"{folder.path} was moved to {old}")
            held.enter_context(folder.owned())

        folder.on_rank_0(lock)
        return train_in(folder, run, console)


def train_in(folder: Workdir, run: Run, console: Console) -> Summary:
    """Trains a run in a folder that this process, or its rank 0, has locked."""
    summary = folder.on_rank_0(lambda: begin(folder, run, console))
    if summary is not None:
        return summary
    for fault in faults_of_run(run):  # before a teacher is trained, which may take hours
        console.warn(fault)
    prepared = prepare(run, folder, console)
    claim_sources(prepared, folder)
    return train(prepared, folder, console)


def claim_sources(prepared: Prepared, folder: Workdir) -> None:
    """Records the fingerprints of data and teacher, which must be those of an earlier start."""
    teacher = prepared.teacher
    fingerprint = None if teacher is None else teacher.fingerprint
    folder.claim_sources(prepared.task.data_fingerprint(), fingerprint)


def begin(folder: Workdir, run: Run, console: Console) -> Summary | None:
    """Claims the folder of a run; returns its summary if the run is finished."""
    summary = folder.read_summary()
    if summary is None:
        folder.claim(run.settings, run.config)
        write_provenance(folder.path)
        console.say(f"Gin files, later ones win: {', '.join(map(str, run.gin_files))}")
        console.say(f"{run.name}, work directory: {folder.path}")
        return None
    different = check_finished(folder, run)
    console.say(f"{folder.path} holds this run, finished; nothing is left to train")
    for line in different:
        console.say(f"  it was made with {line}")
    console.summary(summary, folder)
    return summary


def check_finished(folder: Workdir, run: Run) -> list[str]:
    """The runtime settings in which a finished run differs from `run`, which it must equal.

    Data and weights are read only where their paths have changed. Nothing of the folder is written.

    Raises:
        UserError: the run was made with other data or another teacher, or they cannot be read.
    """
    saved = (folder.read_settings() or run.settings)["runtime"]
    folder.compare(run.settings)
    if DATA in folder.sources and run.settings["runtime"]["Dataset.folder"] != saved.get(
        "Dataset.folder"
    ):
        task = spec_of(run.dataset).make(run, torch.device("cpu"), World())
        folder.compare_source(DATA, task.data_fingerprint() or "unknown")
    weights = run.teacher.weights
    if TEACHER in folder.sources and weights not in (None, saved.get("Teacher.weights")):
        folder.compare_source(TEACHER, load_teacher_weights(run, str(weights)).fingerprint)
    return differences(run.settings, {"runtime": saved}, ("runtime",))


def evaluate(job: Job, checkpoint: str | None, console: Console) -> dict[str, float]:
    """The metrics of a trained student: the last weights of a work directory, or a file.

    Raises:
        UserError: neither is given, or the file does not fit the network.
    """
    run = job.build()
    folder = Workdir(job.workdir_of(run))
    source = expand_user(checkpoint or folder.path / "student_last.pt", "--checkpoint")
    load_weights(run.deployed, source, setting="--checkpoint")
    prepared = prepare(run, folder, console, train=False)
    with console.phase("evaluating the student"):
        metrics = prepared.task.evaluate(to_device(run.deployed, prepared.device))
    console.say(f"{source}:")
    for name, value in metrics.items():
        console.say(f"{name} {as_text(name, value)}")
    return metrics
