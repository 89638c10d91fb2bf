"""Sending cells, and sending again what was lost."""

from collections.abc import Sequence
from pathlib import Path

from ctkd.errors import ConfigError
from ctkd.locks import is_locked
from ctkd.sweeps import arrays, local, sbatch, slurm
from ctkd.sweeps.cell_states import LOST, Status, statuses
from ctkd.sweeps.folder import SWEEPS, SavedCell, SavedSweep, SweepFolder
from ctkd.sweeps.slurm import ClusterError


def cluster_named(name: str) -> str:
    """The cluster that a flag means; "auto" means SLURM where it is installed."""
    if name != "auto":
        return name
    return "slurm" if slurm.available() else "local"


def at_once(sweep: SavedSweep, cluster: str) -> int | None:
    """How many runs there are at a time; None where the cluster alone decides.

    Raises:
        ConfigError: this machine cannot run a single one.
    """
    return local.capacity(sweep.resources) if cluster == "local" else sweep.resources.parallel


def due(folder: SweepFolder, asked: Sequence[SavedCell]) -> list[SavedCell]:
    """Those of the cells that have to be sent: no job of them waits or runs, here or by hand.

    Raises:
        ClusterError: an earlier try left a cell of which nobody knows whether it is in the queue.
        UserError: the directory holds no sweep, or SLURM does not answer.
    """
    keys = {cell.key for cell in asked}
    _refuse_attempts(folder, keys)
    return [
        status.cell
        for status in statuses(folder)
        if status.cell.key in keys
        and status.state != "finished"
        and not status.active
        and not is_locked(folder.workdir(status.cell.key) / ".lock")
    ]


def _refuse_attempts(folder: SweepFolder, keys: set[str]) -> None:
    entries = folder.ledger.read().items()
    unclear = [key for key, entry in entries if entry.attempt and key in keys]
    if unclear:
        runs = ", ".join(unclear[:4]) + (" …" if len(unclear) > 4 else "")
        raise ClusterError(
            f"an earlier try to send {runs} ({len(unclear)} in all) ended without a job id: they "
            f"may be in the queue. {sbatch.by_hand(folder.read().name)}. Give --cancel first, "
            "which ends that try, then send the sweep again."
        )


def send(
    folder: SweepFolder,
    sweep: SavedSweep,
    cells: Sequence[SavedCell],
    cluster: str,
    again: bool = False,
) -> int:
    """Sends cells to SLURM or to the queue of this machine; the number of SLURM's arrays.

    Args:
        again: whether `--wait` sends them, and not a user.

    Raises:
        UserError: the cluster refuses.
    """
    if not cells:
        return 0
    if cluster == "local":
        local.capacity(sweep.resources)
        for cell in cells:
            folder.ledger.add("sent", cell.key, "local", again=again)
        local.start_queue(folder.path)
        return 0
    return arrays.send(folder, sweep, cells, again)


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
        lost = due(folder, lost)  # another launcher may have sent it, SLURM requeued it
        for cluster in ("slurm", "local"):
            cells = [cell for cell in lost if entries[cell.key].cluster == cluster]
            send(folder, sweep, cells, cluster, again=True)
    return lost


def default_folder(name: str, given: str | None) -> SweepFolder:
    """The given directory, or the one that follows from the sweep's name.

    Raises:
        ConfigError: the name cannot be a folder's name.
    """
    if given is not None:
        return SweepFolder(Path(given))
    if not name or "/" in name or name.startswith("."):
        raise ConfigError(f"Sweep.name = {name!r}: expected a name that a folder can have")
    return SweepFolder(SWEEPS / name)
