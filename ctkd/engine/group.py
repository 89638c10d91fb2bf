"""Several runs in one process: they share data set and teacher, and take turns step by step.

Each run has its own student, optimizer, policy, work directory and checkpoints, and ends with the
same bits as alone: a step draws random numbers from its own (seed, step) only. On a GPU each run
has its own stream, so that the steps of a turn overlap. On a CPU the gain is what is shared: the
start of the process, the data set, and the teacher with its rows.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from ctkd.cores import processes_of_run
from ctkd.data.workers import while_waiting
from ctkd.engine.config.identity import differences
from ctkd.engine.config.run import Run
from ctkd.engine.config.sharing import shared_settings
from ctkd.engine.diagnostics.warnings import faults_of_run
from ctkd.engine.interrupt import StopRequests
from ctkd.engine.job import Job, begin, claim_sources
from ctkd.engine.output import records
from ctkd.engine.output.console import Console
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.prepare import Prepared, prepare
from ctkd.engine.tasks.specs import spec_of
from ctkd.engine.train import Trainer
from ctkd.errors import ConfigError, Interrupted, NonFiniteError, UserError
from ctkd.memory import keep_freed_memory
from ctkd.standard_output import safe_output

Ended = Callable[[int, Exception | None], None]
Turn = Callable[[], bool]


@dataclass(frozen=True)
class GroupRun:
    """A run of the group; `number` is the index of its job."""

    number: int
    job: Job
    run: Run
    folder: Workdir
    console: Console

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.run.name}, seed {self.run.seed}"


@dataclass
class Results:
    """What the runs have come to; `ended` is called with a job's index when its run ends."""

    ended: Ended
    failures: list[tuple[GroupRun, Exception]] = field(default_factory=list)

    @contextlib.contextmanager
    def of(self, member: GroupRun) -> Iterator[None]:
        """A context in which an error ends this run alone."""
        try:
            yield
        except (UserError, NonFiniteError, Interrupted) as error:
            self.failures.append((member, error))
            if not isinstance(error, Interrupted):
                member.console.warn(f"this run ends: {error}")  # the others may take hours
            self.ended(member.number, error)

    def finished(self, member: GroupRun) -> None:
        """Takes note of a finished run."""
        self.ended(member.number, None)


def execute_group(
    jobs: Sequence[Job],
    consoles: Sequence[Console] = (),
    ended: Ended = lambda number, error: None,
) -> None:
    """Trains the runs of all jobs to their ends. A run that fails ends alone.

    Args:
        consoles: one for each job; by default all print to standard output.
        ended: is called with a job's index, and its error or None, as soon as its run ends.

    Raises:
        ConfigError: the runs cannot share data and teacher, or have the same work directory.
        UserError, NonFiniteError: a run failed; the other runs are finished.
        Interrupted: a stop was requested; the state of every run is saved.
    """
    keep_freed_memory()
    with safe_output(), contextlib.ExitStack() as held:
        members = [_member(k, job, consoles) for k, job in enumerate(jobs)]
        _check(members)
        results = Results(ended)
        waiting = [member for member in members if _begins(member, held, results)]
        _take_turns(_trainers(waiting, results), results)
    if results.failures:
        raise _one_error(results.failures, len(jobs))


def check_group(jobs: Sequence[Job]) -> None:
    """Raises ConfigError where the runs cannot be a group; reads neither data nor weights."""
    if len(jobs) > 1:
        _check([_member(k, job, meta=True) for k, job in enumerate(jobs)])


def _member(
    number: int, job: Job, consoles: Sequence[Console] = (), *, meta: bool = False
) -> GroupRun:
    """Builds the run of a job."""
    run = job.build(meta=meta)
    prefix = f"{run.name}, seed {run.seed} | "
    console = consoles[number] if consoles else Console(prefix=prefix, live=False)
    return GroupRun(number, job, run, Workdir(job.workdir_of(run)), console)


def _check(members: Sequence[GroupRun]) -> None:
    """Raises ConfigError where the runs cannot be one group."""
    first = members[0].run
    if not spec_of(first.dataset).shared:
        raise ConfigError(
            f"the data set of {first.name} is read from files while a run trains: its runs do not "
            "share a process. Start one command for each run, or a sweep"
        )
    if processes_of_run() > 1:
        raise ConfigError(
            "the runs of a group are trained by one process: leave --seeds and --methods out "
            "under torchrun"
        )
    expected = {"shared": shared_settings(first)}
    for member in members[1:]:
        found = differences({"shared": shared_settings(member.run)}, expected, ("shared",))
        if found:
            raise ConfigError(
                "the runs of a group share data and teacher, so these settings must be equal; "
                f"{member.title} and {members[0].title} differ: {found[0]}"
            )
    paths = [member.folder.path for member in members]
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise ConfigError(f"two runs of the group have the same work directory: {twice[0]}")


def _begins(member: GroupRun, held: contextlib.ExitStack, results: Results) -> bool:
    """Locks the folder of a run; whether there is something to train."""
    with results.of(member):
        if member.job.fresh and (old := member.folder.move_aside()) is not None:
            member.console.say(f"{member.folder.path} was moved to {old}")
        held.enter_context(member.folder.owned())
        if begin(member.folder, member.run, member.console) is None:
            return True
        results.finished(member)
    return False


def _trainers(members: Sequence[GroupRun], results: Results) -> list[tuple[GroupRun, Trainer]]:
    """A trainer for each run, with data and teacher that are read and loaded once for all."""
    for member in members:
        for fault in faults_of_run(member.run):
            member.console.warn(fault)
    ready: list[Prepared] = []
    trainers = []
    for member in members:
        with results.of(member):
            ready.append(prepare(member.run, member.folder, member.console, earlier=ready))
            claim_sources(ready[-1], member.folder)
            trainers.append((member, Trainer(ready[-1], member.folder, member.console)))
    return trainers


def _take_turns(trainers: Sequence[tuple[GroupRun, Trainer]], results: Results) -> None:
    """Trains all runs to their ends, a step of each in turn."""
    with StopRequests() as stop, while_waiting(stop.check):
        going = [(member, _on_own_stream(_whole(trainer, stop))) for member, trainer in trainers]
        while going:
            going = [(member, turn) for member, turn in going if _goes_on(member, turn, results)]


def _whole(trainer: Trainer, stop: StopRequests) -> Iterator[None]:
    """A whole run, from its latest checkpoint to its summary; pauses after every step."""
    yield from trainer.turns(stop)
    records.finish(trainer.prepared, trainer.progress, trainer.folder, trainer.console)


def _goes_on(member: GroupRun, turn: Turn, results: Results) -> bool:
    """Takes a run's next step; whether the run goes on."""
    with results.of(member):
        if turn():
            return True
        results.finished(member)
    return False


def _on_own_stream(turns: Iterator[None]) -> Turn:
    """A call that takes one turn, on a GPU in a stream of its own; False after the last turn."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return lambda: next(turns, False) is None
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    # Data and weights may still be on their way, in the stream that prepared them.
    stream.wait_stream(torch.cuda.current_stream())

    def turn() -> bool:
        with torch.cuda.stream(stream):
            return next(turns, False) is None

    return turn


def _one_error(failures: Sequence[tuple[GroupRun, Exception]], runs: int) -> Exception:
    """One error for all: a stop comes first, then a quantity that was not finite."""
    titles: dict[str, list[str]] = {}
    for member, error in failures:
        titles.setdefault(str(error), []).append(member.title)
    lines = [f"{'; '.join(titled)}: {error}" for error, titled in titles.items()]
    text = "\n  ".join([f"{len(failures)} of {runs} runs did not finish:", *lines])
    kinds = [type(error) for _, error in failures]
    kind = next((k for k in (Interrupted, NonFiniteError) if k in kinds), UserError)
    return kind(text)
