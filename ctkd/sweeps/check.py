"""Parses, builds and checks every cell before it is sent; errors name the cell and the line."""

import collections
import json
from dataclasses import dataclass
from typing import Any

from ctkd.engine.config.builder import KnownNetworks
from ctkd.engine.config.identity import identity_of
from ctkd.engine.config.run import Run
from ctkd.engine.config.sharing import sharing_key
from ctkd.engine.diagnostics.warnings import faults_of_run
from ctkd.engine.job import Job
from ctkd.engine.tasks.specs import spec_of
from ctkd.engine.teacher.own_training import teacher_job
from ctkd.errors import ConfigError
from ctkd.results.compare.tables import Cell as TableCell
from ctkd.results.compare.tables import Column, Table
from ctkd.sweeps.study import Cell, Study


@dataclass(frozen=True)
class Plan:
    """The training of a cell: networks without their @, epochs, the identity of its run.

    Attributes:
        faults: the warnings that the run will print before training.
        shares: equal in cells that can share data and teacher in one process; empty for none.
    """

    cell: Cell
    student: str
    teacher: str | None
    dataset: str
    epochs: int
    identity: str
    faults: tuple[str, ...] = ()
    shares: str = ""


def check(study: Study, *, supplies: bool = True) -> list[Plan]:
    """Builds every cell on the meta device, each distinct pair of networks once.

    Args:
        supplies: whether to check also what only training needs: a teacher's weights.

    Raises:
        ConfigError: a cell is wrong, or two cells would train the same.
    """
    known, seen, taught = KnownNetworks(), dict[str, str](), set[str]()
    plans = []
    for number, cell in enumerate(study.cells, 1):
        where = f"cell {number} ({cell.title})"
        try:
            run = Job(cell.files, cell.params).build(meta=True, known=known)
            if supplies and run.teacher_network is not None and run.teacher.weights is None:
                _check_teacher(run, known, taught)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}{_lines_of(study, cell, str(error))}") from error
        same = seen.setdefault(_everything(run), where)
        if same is not where:
            raise ConfigError(f"{where} would train the same as {same}")
        plans.append(_plan(cell, run))
    _check_keys(study)
    return plans


def _plan(cell: Cell, run: Run) -> Plan:
    recipe = run.settings["recipe"]
    student, dataset, teacher = (
        str(recipe[name]).removeprefix("@")
        for name in ("Recipe.student", "Recipe.dataset", "Teacher.network")
    )
    used = teacher if run.teacher_network is not None else None
    identity, faults = identity_of(run.settings), tuple(faults_of_run(run))
    shares = sharing_key(run) if spec_of(run.dataset).shared else ""
    return Plan(cell, student, used, dataset, run.recipe.epochs, identity, faults, shares)


def _check_teacher(run: Run, known: KnownNetworks, taught: set[str]) -> None:
    """Builds the runs that train missing teachers, each distinct one once."""
    job = teacher_job(run)
    text = json.dumps([job.gin_files, job.gin_params])
    if text not in taught:
        taught.add(text)
        try:
            job.build(meta=True, known=known)
        except ConfigError as error:
            raise ConfigError(f"its teacher, {run.teacher.run}: {error}") from error


def _everything(run: Run) -> str:
    """All settings of a run except its name."""
    settings: dict[str, Any] = {**run.settings, "runtime": {**run.settings["runtime"]}}
    settings["runtime"].pop("Runtime.name")
    return json.dumps(settings, sort_keys=True, default=str)


def _lines_of(study: Study, cell: Cell, message: str) -> str:
    """The lines of the sweep's file with the settings in the message."""
    sweep = study.sweep
    texts = [*sweep.base, *sweep.after, *sweep.params]
    for choice in cell.choices:
        is_value = any(param.startswith(f"{choice.axis} = ") for param in choice.params)
        texts += [choice.axis] if is_value else [*choice.files, *choice.params]
    lines = dict.fromkeys(study.line_of(text) for text in texts if text in message)
    return f"\n(see {'; '.join(lines)})" if lines else ""


def _check_keys(study: Study) -> None:
    """Refuses labels that differ only in characters that a folder's name cannot have."""
    seen: dict[str, Cell] = {}
    for cell in study.cells:
        other = seen.setdefault(cell.key.lower(), cell)
        if other is not cell:
            raise ConfigError(
                f"{other.title} and {cell.title} would share the folder {cell.key}: give the "
                "alternatives different labels, {'label': …}"
            )


def faults_of_plans(plans: list[Plan]) -> list[str]:
    """Each distinct warning of the cells once, with the number of runs that have it."""
    counts = collections.Counter(fault for plan in plans for fault in plan.faults)
    return [f"{count} of {len(plans)} runs: {fault}" for fault, count in counts.items()]


def cells_table(plans: list[Plan]) -> Table:
    """The cells, one row for all seeds of each."""
    groups: dict[str, list[Plan]] = {}
    for plan in plans:
        groups.setdefault(plan.cell.key.rpartition("-seed")[0], []).append(plan)
    columns = [Column("cell"), Column("teacher → student"), Column("data"), Column("seeds")]
    columns += [Column("epochs", "count")]
    rows: list[list[TableCell]] = []
    for group in groups.values():
        first = group[0]
        pair = f"{first.teacher} → {first.student}" if first.teacher else first.student
        name = first.cell.key.rpartition("-seed")[0]
        seeds = _listed([plan.cell.seed for plan in group])
        rows.append([name, pair, first.dataset, seeds, first.epochs])
    return Table(columns, rows)


def _listed(seeds: list[int]) -> str:
    if len(seeds) > 3 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} … {seeds[-1]}"
    return ", ".join(map(str, seeds))


def estimate(study: Study, plans: list[Plan], parallel: int | None, timed: bool = True) -> str:
    """The size of the sweep in one sentence; with `timed`, also the longest that it can take."""
    runs, epochs = len(plans), sum(plan.epochs for plan in plans)
    minutes = study.resources.minutes
    rounds = -(-runs // (parallel or runs))
    at_once = f"{min(parallel, runs)} at a time" if parallel else "all at once"
    size = f"{runs:,} runs, {epochs:,} epochs in all; {at_once}"
    if not timed:  # this machine has no time limit
        return size
    longest = _duration(rounds * minutes)
    return f"{size}, {minutes} minutes each at most, unless one is continued: up to {longest}"


def _duration(minutes: float) -> str:
    hours = minutes / 60
    return f"{minutes:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"
