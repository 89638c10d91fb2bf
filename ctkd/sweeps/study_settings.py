"""The settings in a sweep's Gin file: the cells of the study, and the resources of one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctkd.checks import expect
from ctkd.registry import Registry

PARTS = Registry("sweep part", "runtime")
FASTEST_TIMEOUT = 11  # submitit takes every signal for a time-out in jobs of up to 10 minutes


@PARTS.register
@dataclass(frozen=True)
class Sweep:
    """The cells: every combination of `grid`, `zipped` and `cells`, each run with every seed.

    An axis is a name and its values. The name of a binding ("CosineLambda.end") or macro
    ("epochs") takes the values that a Gin file could give it. Any other name takes whole
    alternatives: Gin files, or lists of Gin files and bindings, which come after `base`.

    Attributes:
        name: of the sweep; None for its file's name.
        base, after: the first and last Gin files of every run.
        params: bindings of every run.
        grid: axes that are combined with each other, {axis: values}; values of alternatives may
            be {label: alternative}.
        zipped: axes whose first values belong together, then their second values, and so on.
        cells: explicit combinations, [{axis: value}]; their axes may differ.
        seeds: of every cell.
        more_seeds: additional seeds of some cells, [({axis: value or list of values}, [seed])],
            for a small difference.
        skip: combinations to leave out, [{axis: value or list of values}]; a cell is left out if
            it has all of one entry's values.
        only: {axis: {axis: value or list of values}}: the first axis exists only if the others
            have these values, and is dropped from other cells (a constant T in runs that learn T).
        baseline: {axis: value}: each cell is compared with the cell that has these values.
        unnamed: axes left out of a run's name, since runs are compared within a pair of networks.
    """

    name: str | None = None
    base: Sequence[str] = ()
    after: Sequence[str] = ()
    params: Sequence[str] = ()
    grid: Mapping[str, Any] = field(default_factory=dict)
    zipped: Mapping[str, Any] = field(default_factory=dict)
    cells: Sequence[Any] = ()
    seeds: Sequence[int] = (0,)
    more_seeds: Sequence[Any] = ()
    skip: Sequence[Any] = ()
    only: Mapping[str, Any] = field(default_factory=dict)
    baseline: Mapping[str, Any] = field(default_factory=dict)
    unnamed: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("grid", "zipped", "only", "baseline"):
            value = getattr(self, name)
            fine = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
            expect(fine, "Sweep", name, value, "a dictionary from axes, {'Name.parameter': …}")
        for name in ("cells", "skip"):
            for entry in getattr(self, name):
                fine = isinstance(entry, Mapping) and bool(entry)
                expect(fine, "Sweep", name, entry, "a list of dictionaries {axis: value}")
        for name in ("grid", "zipped"):
            for axis, values in getattr(self, name).items():
                fine = isinstance(values, (list, tuple, Mapping)) and len(values) > 0
                expect(fine, "Sweep", name, {axis: values}, "a list of at least one value")
        lengths = {axis: len(values) for axis, values in self.zipped.items()}
        same = len(set(lengths.values())) <= 1
        expect(same, "Sweep", "zipped", lengths, "as many values on every one of these axes")
        expect(len(self.seeds) > 0, "Sweep", "seeds", self.seeds, "at least one seed")
        fine = len(set(self.seeds)) == len(self.seeds) and min(self.seeds) >= 0
        expect(fine, "Sweep", "seeds", self.seeds, "different whole numbers of 0 or more")
        expect(self.name != "", "Sweep", "name", self.name, "None or a name")
        for entry in self.more_seeds:
            fine = isinstance(entry, (list, tuple)) and len(entry) == 2
            fine = fine and isinstance(entry[0], Mapping) and bool(entry[0]) and _seeds(entry[1])
            expected = "pairs ({axis: value}, [seed, …]) of cells and whole numbers of 0 or more"
            expect(fine, "Sweep", "more_seeds", entry, expected)


def _seeds(value: Any) -> bool:
    """Whether the value is a list of seeds."""
    return isinstance(value, (list, tuple)) and all(type(s) is int and s >= 0 for s in value)


@PARTS.register
@dataclass(frozen=True)
class Resources:
    """The resources of one run, and how runs are sent.

    Attributes:
        minutes: the longest job on SLURM; a run that needs more continues in its next job.
        gpus: per node.
        cpus: per task.
        mem_gb: per node; None for the cluster's default.
        nodes, tasks: nodes, and tasks per node; more than one task make a distributed run.
        partition, account, qos, constraint: SLURM's options; None for the cluster's default.
        parallel: the number of runs at once; None for as many as this machine's cores and GPUs
            allow, or as many as SLURM starts.
        group: how many runs with equal data and teacher one process of this machine trains; it
            reads data and teacher once. Each run ends with the same bits as alone.
        timeouts: how often a run may reach its limit of minutes.
        grace: seconds before the end of a job on SLURM at which it is signaled to save and exit.
        retries: how often a run that was killed without an error is sent again: on SLURM by
            `--wait`, on this machine always.
        other: other options of submitit's SLURM executor: {'exclude': 'node7'}, and in
            'additional_parameters' any option of sbatch.
    """

    minutes: int = 240
    gpus: int = 0
    cpus: int = 1
    mem_gb: float | None = None
    nodes: int = 1
    tasks: int = 1
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    parallel: int | None = None
    group: int = 1
    timeouts: int = 20
    grace: int = 90
    retries: int = 2
    other: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        leasts = dict.fromkeys(("cpus", "nodes", "tasks", "group"), 1)
        for name, least in {"minutes": FASTEST_TIMEOUT, **leasts}.items():
            value = getattr(self, name)
            expect(value >= least, "Resources", name, value, f"a number of {least} or more")
        for name in ("gpus", "timeouts", "grace", "retries"):
            value = getattr(self, name)
            expect(value >= 0, "Resources", name, value, "a number of 0 or more")
        fine = self.parallel is None or self.parallel >= 1
        expect(fine, "Resources", "parallel", self.parallel, "None or a number of 1 or more")
        fine = self.mem_gb is None or self.mem_gb > 0
        expect(fine, "Resources", "mem_gb", self.mem_gb, "None or a number above 0")
        fine = self.group == 1 or self.processes == 1
        expect(fine, "Resources", "group", self.group, "1 for runs of several tasks or nodes")
        expect(isinstance(self.other, Mapping), "Resources", "other", self.other, "a dictionary")

    @property
    def processes(self) -> int:
        """Processes of one run."""
        return self.nodes * self.tasks
