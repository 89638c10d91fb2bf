"""Several runs in one process: they share data set and teacher, and take turns step by step.

Each run has its own student, optimizer, policy, work directory and checkpoints, and ends with the
same bits as alone: a step draws random numbers from its own (seed, step) only. On a GPU each run
has its own stream, so that the steps of a turn overlap. On a CPU the gain is what is shared: the
start of the process, the data set, and the teacher with its rows.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from ctkd.data.workers import while_waiting
from ctkd.engine.config.build import Run
from ctkd.engine.config.identity import differences
from ctkd.engine.diagnostics.warnings import faults_of_run
from ctkd.engine.interrupt import StopRequests
from ctkd.engine.job import Job, begin, claim_sources
from ctkd.engine.output import records
from ctkd.engine.output.console import Console
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.prepare import prepare
from ctkd.engine.tasks.specs import spec_of
from ctkd.engine.train import Trainer
from ctkd.errors import ConfigError, Interrupted, NonFiniteError, UserError
from ctkd.memory import keep_freed_memory
from ctkd.standard_output import safe_output

OWN = ("Runtime.name",)  # the runtime settings in which the runs of a group may differ
Member = tuple[Run, Workdir, Console]
Failure = tuple[Run, Exception]


def execute_group(jobs: Sequence[Job]) -> None:
    """Trains the runs of all jobs to their ends. A run that fails ends alone.

    Raises:
        ConfigError: the runs cannot share data and teacher, or have the same work directory.
        UserError, NonFiniteError: a run failed; the other runs are finished.
        Interrupted: a stop was requested; the state of every run is saved.
    """
    keep_freed_memory()
    with safe_output(), contextlib.ExitStack() as held:
        members = [_member(job) for job in jobs]
        _check(members)
        for job, (_, folder, console) in zip(jobs, members, strict=True):
            if job.fresh and (old := folder.move_aside()) is not None:
                console.say(f"{folder.path} was moved to {old}")
            held.enter_context(folder.owned())
        waiting = [(r, f, c) for r, f, c in members if begin(f, r, c) is None]
        failures = _take_turns(_trainers(waiting)) if waiting else []
    if failures:
        raise _one_error(failures, len(jobs))


def _member(job: Job) -> Member:
    run = job.build()
    console = Console(prefix=f"{run.name}, seed {run.seed} | ", live=False)
    return run, Workdir(job.workdir_of(run)), console


def _check(members: Sequence[Member]) -> None:
    (first, *_), *others = members
    if not spec_of(first.dataset).shared:
        raise ConfigError(
            f"the data set of {first.name} is read from files while a run trains: its runs do not "
            "share a process. Start one command for each seed, or a sweep"
        )
    for run, *_ in others:
        found = differences(run.settings, first.settings, ("recipe", "runtime"))
        found = [line for line in found if not line.startswith(OWN)]
        if found:
            raise ConfigError(
                "the runs of a group share data and teacher, so their recipes must be equal; "
                f"{run.name} and {first.name} differ: {found[0]}"
            )
    paths = [folder.path for _, folder, _ in members]
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise ConfigError(f"two runs of the group have the same work directory: {twice[0]}")


def _trainers(members: Sequence[Member]) -> list[Trainer]:
    """A trainer for each run, with data and teacher that are read and loaded once for all."""
    for run, _, console in members:
        for fault in faults_of_run(run):
            console.warn(fault)
    needs_teacher = [member for member in members if member[0].teacher_network is not None]
    owner = (needs_teacher or list(members))[0]
    shared = prepare(*owner)
    trainers = []
    for run, folder, console in members:
        teacher = shared.teacher if run.teacher_network is not None else None
        prepared = replace(shared, run=run, task=shared.task.for_seed(run.seed), teacher=teacher)
        claim_sources(prepared, folder)
        trainers.append(Trainer(prepared, folder, console))
    return trainers


def _take_turns(trainers: Sequence[Trainer]) -> list[Failure]:
    """Trains all runs to their ends, a step of each in turn; returns what failed or stopped."""
    failures: list[Failure] = []
    with StopRequests() as stop, while_waiting(stop.check):
        going = [(trainer, _on_own_stream(trainer.turns(stop))) for trainer in trainers]
        while going:
            going = [(t, turn) for t, turn in going if _goes_on(t, turn, failures)]
    return failures


def _goes_on(trainer: Trainer, turn: Callable[[], bool], failures: list[Failure]) -> bool:
    """Takes a run's next step, or writes its summary; whether the run goes on."""
    try:
        if turn():
            return True
        records.finish(trainer.prepared, trainer.progress, trainer.folder, trainer.console)
    except (UserError, NonFiniteError, Interrupted) as error:
        failures.append((trainer.run, error))
    return False


def _on_own_stream(turns: Iterator[None]) -> Callable[[], bool]:
    """A call that takes one turn, on a GPU in a stream of its own; False after the last turn."""
    stream = torch.cuda.Stream() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]

    def turn() -> bool:
        with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
            return next(turns, False) is None

    return turn


def _one_error(failures: Sequence[Failure], runs: int) -> Exception:
    """One error for all: a stop comes first, then a quantity that was not finite."""
    lines = [f"{run.name}, seed {run.seed}: {error}" for run, error in failures]
    text = "\n  ".join([f"{len(failures)} of {runs} runs did not finish:", *lines])
    kinds = [type(error) for _, error in failures]
    kind = next((k for k in (Interrupted, NonFiniteError) if k in kinds), UserError)
    return kind(text)
