"""Submits cells to SLURM: as one job array, or as several if SLURM limits the size of an array."""

import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

from ctkd.sweeps import sbatch, slurm
from ctkd.sweeps.folder import SavedCell, SavedSweep, SweepFolder
from ctkd.sweeps.jobs import number_of
from ctkd.sweeps.sbatch import RefusedError, UnclearError
from ctkd.sweeps.slurm import ClusterError


class Part(NamedTuple):
    """One array of a sweep.

    Attributes:
        start, stop: the range of its cells in the list of all cells.
        parallel: the largest number of its runs at once; None for no limit.
        after: the index of the array that must end before this one starts, or None.
    """

    start: int
    stop: int
    parallel: int | None
    after: int | None


def split(count: int, longest: int, parallel: int | None) -> list[Part]:
    """The arrays of `count` runs, each of `longest` at most, `parallel` runs of all at once.

    The arrays share `parallel`. If there are more arrays than `parallel`, some wait for others.
    """
    arrays = -(-count // longest)
    lanes = min(parallel or arrays, arrays)
    bounds = [count * index // arrays for index in range(arrays + 1)]
    parts = []
    for index in range(arrays):
        share = None
        if parallel is not None:
            share = parallel // lanes + (index % lanes < parallel % lanes)
        after = index - lanes if index >= lanes else None
        parts.append(Part(bounds[index], bounds[index + 1], share, after))
    return parts


def longest_array() -> int | None:
    """The largest number of tasks in one SLURM array; None if `scontrol` does not show it."""
    found = re.match(r"\d+", slurm.setting("MaxArraySize") or "")
    tasks = re.search(r"max_array_tasks=(\d+)", slurm.setting("SchedulerParameters") or "")
    limits = [int(match[match.lastindex or 0]) for match in (found, tasks) if match]
    return max(1, min(limits)) if limits else None  # 0: arrays are not allowed at all


def send(
    folder: SweepFolder, sweep: SavedSweep, cells: Sequence[SavedCell], again: bool = False
) -> int:
    """Submits the cells. Returns the number of arrays.

    Raises:
        ClusterError: SLURM is missing, or refuses, or gives no job id.
        ConfigError: `Resources.other` has an option that submitit does not know.
    """
    if not slurm.available():
        raise ClusterError("--cluster=slurm: there is no sbatch here; --cluster=local runs here")
    longest = len(cells)
    if longest > 1:
        longest = min(longest, longest_array() or longest)
    while True:
        try:
            return _send_parts(folder, sweep, cells, longest, again)
        except RefusedError as error:
            # scontrol did not name the limit: sbatch knows it. Nothing is in the queue yet.
            if not error.too_long or longest == 1:
                raise
            longest = -(-longest // 2)


def _send_parts(
    folder: SweepFolder, sweep: SavedSweep, cells: Sequence[SavedCell], longest: int, again: bool
) -> int:
    """Sends arrays of `longest` tasks at most. Raises RefusedError only if nothing was sent."""
    parts = split(len(cells), longest, sweep.resources.parallel)
    numbers: list[str] = []
    for part in parts:
        after = None if part.after is None else f"afterany:{numbers[part.after]}"
        limited = dataclasses.replace(sweep.resources, parallel=part.parallel)
        ours = dataclasses.replace(sweep, resources=limited)
        try:
            numbers.append(_send_one(folder, ours, cells[part.start : part.stop], after, again))
        except ClusterError as error:
            if not numbers:
                raise
            sent = f"{part.start} of {len(cells)} runs were sent, the others were not"
            raise ClusterError(f"{error}\n{sent}.") from error
    return len(parts)


def _send_one(
    folder: SweepFolder,
    sweep: SavedSweep,
    cells: Sequence[SavedCell],
    after: str | None,
    again: bool,
) -> str:
    """Submits one array. Returns its number.

    The ledger notes the attempt before sbatch is called, so that nothing is sent twice even if the
    launcher dies in between.
    """
    tasks = [folder.task(cell, sweep.resources) for cell in cells]
    batch = sbatch.write(tasks, sweep.resources, folder.jobs, sweep.name, after)
    for cell in cells:
        folder.ledger.add("sending", cell.key, "slurm", script=str(batch.script))
    try:
        jobs = sbatch.submit(batch)
    except UnclearError as error:
        raise UnclearError(f"{error}\n{_way_out(len(cells), sweep.name)}") from error
    except ClusterError:
        for cell in cells:
            folder.ledger.add("refused", cell.key, "slurm")
        raise
    for cell, job in zip(cells, jobs, strict=True):
        folder.ledger.add("sent", cell.key, "slurm", job, again)
    return number_of(jobs[0]).partition("_")[0]


def _way_out(count: int, sweep: str) -> str:
    runs = "The run is" if count == 1 else f"The {count} runs are"
    return (
        f"{runs} noted as unknown and will not be sent again before --cancel ends this attempt.\n"
        f"{sbatch.by_hand(sweep)}, `scancel --name={sbatch.job_name(sweep)}` ends all of them. A "
        "job whose id is not known trains nothing: it ends about a minute after its start."
    )
