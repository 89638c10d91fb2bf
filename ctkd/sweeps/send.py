"""Chooses the cells that have to be sent, and sends lost cells to SLURM again."""

from collections.abc import Sequence
from pathlib import Path

from ctkd.errors import ConfigError
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
    """The cells that have to be sent: unfinished, and no job of them waits or runs.

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
        and not folder.is_training(status.cell.key)
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


def send_again(folder: SweepFolder, found: Sequence[Status]) -> list[SavedCell]:
    """Sends lost cells to SLURM again, as often as `Resources.retries` allows; returns them.

    Raises:
        UserError: the cluster refuses.
    """
    sweep, entries = folder.read(), folder.ledger.read()
    lost = [s.cell for s in found if s.state in LOST and s.again < sweep.resources.retries]
    lost = [cell for cell in lost if entries[cell.key].cluster == "slurm"]
    if not lost:
        return []
    with folder.owned():
        lost = due(folder, lost)  # another launcher may have sent it, SLURM requeued it
        if lost:
            arrays.send(folder, sweep, lost, again=True)
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
