"""Sending cells, ending them, and sending again what was lost."""

import time
from collections.abc import Sequence
from pathlib import Path

from ctkd.errors import ConfigError
from ctkd.locks import is_locked
from ctkd.sweeps import local, slurm
from ctkd.sweeps.cell_states import ACTIVE, LOST, Status, job_states, statuses
from ctkd.sweeps.folder import SWEEPS, SavedCell, SavedSweep, SweepFolder

CANCEL_PATIENCE = 60.0  # seconds until a cancelled job is gone


def cluster_named(name: str) -> str:
    """The cluster that a flag means: SLURM where there is one, under "auto"."""
    if name != "auto":
        return name
    return "slurm" if slurm.available() else "local"


def at_once(sweep: SavedSweep, cluster: str) -> int | None:
    """How many runs there are at a time; None for as many as the cluster gives.

    Raises:
        ConfigError: this machine does not carry a single one.
    """
    return local.capacity(sweep.resources) if cluster == "local" else sweep.resources.parallel


def due(folder: SweepFolder, asked: Sequence[SavedCell]) -> list[SavedCell]:
    """Those of the cells that neither are finished nor wait nor run, by hand or otherwise."""
    keys = {cell.key for cell in asked}
    return [
        status.cell
        for status in statuses(folder)
        if status.cell.key in keys
        and status.state not in (*ACTIVE, "finished")
        and not is_locked(folder.workdir(status.cell.key) / ".lock")
    ]


def send(
    folder: SweepFolder,
    sweep: SavedSweep,
    cells: Sequence[SavedCell],
    cluster: str,
    again: bool = False,
) -> None:
    """Sends cells: as one array, or to this machine's queue. `again`: unasked, by `--wait`.

    Raises:
        UserError: the cluster refuses.
    """
    if not cells:
        return
    if cluster == "local":
        local.capacity(sweep.resources)
        for cell in cells:
            folder.ledger.add("sent", cell.key, "local", again=again)
        local.start_queue(folder.path)
        return
    tasks = [folder.task(cell, sweep.resources) for cell in cells]
    jobs = slurm.send(tasks, sweep.resources, folder.jobs, sweep.name)
    for cell, job in zip(cells, jobs, strict=True):
        folder.ledger.add("sent", cell.key, "slurm", job, again)


def send_again(folder: SweepFolder, found: Sequence[Status]) -> list[SavedCell]:
    """Sends what was lost, as often as the sweep allows; the cells that were sent.

    Raises:
        UserError: the cluster refuses.
    """
    sweep, entries = folder.read(), folder.ledger.read()
    lost = [s.cell for s in found if s.state in LOST and s.again < sweep.resources.retries]
    if not lost:
        return []
    with folder.owned():
        lost = due(folder, lost)  # somebody else may have sent it
        for cluster in ("slurm", "local"):
            cells = [cell for cell in lost if entries[cell.key].cluster == cluster]
            send(folder, sweep, cells, cluster, again=True)
    return lost


def cancel(folder: SweepFolder) -> list[str]:
    """Ends every job that this sweep has waiting or running, and nothing else; the cells' keys.

    Raises:
        UserError: the directory is no sweep's, or SLURM does not answer.
    """
    folder.read()
    with folder.ledger.changing():
        entries = folder.ledger.read()
        states = job_states(entries.values(), folder)
        # All jobs in the ledger count, also of cells that the sweep's file no longer has.
        ended = {}
        for key, entry in entries.items():
            waits = entry.cluster == "local" and entry.event == "sent"
            state = states.get(entry.job or "")
            if waits or (state is not None and state.phase in ("running", "queued")):
                ended[key] = entry
                folder.ledger.add("cancelled", key, entry.cluster)
    on_slurm = [e.job for e in ended.values() if e.cluster == "slurm" and e.job]
    if on_slurm:
        slurm.cancel(on_slurm)
    local.cancel([e.job for e in ended.values() if e.cluster == "local" and e.job], folder.path)
    end = time.monotonic() + CANCEL_PATIENCE
    while on_slurm and time.monotonic() < end:
        left = slurm.states(on_slurm)
        if all(left[job].phase not in ("running", "queued") for job in on_slurm if job in left):
            break
        time.sleep(0.5)
    return list(ended)


def default_folder(name: str, told: str | None) -> SweepFolder:
    """The directory told, or the one that follows from the sweep's name.

    Raises:
        ConfigError: the name is no folder's name.
    """
    if told is not None:
        return SweepFolder(Path(told))
    if not name or "/" in name or name.startswith("."):
        raise ConfigError(f"Sweep.name = {name!r}: expected a name that a folder can have")
    return SweepFolder(SWEEPS / name)
