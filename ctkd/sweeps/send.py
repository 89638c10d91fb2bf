"""Chooses the cells to send, and sends lost cells to SLURM again."""

from collections.abc import Sequence
from pathlib import Path

from ctkd.errors import ConfigError
from ctkd.sweeps import arrays, local, sbatch, slurm
from ctkd.sweeps.cell_states import LOST, Status, statuses
from ctkd.sweeps.folder import SWEEPS, SavedCell, SavedSweep, SweepFolder
from ctkd.sweeps.slurm import ClusterError
from ctkd.sweeps.study_settings import Resources


def cluster_named(name: str) -> str:
    """The cluster for a flag; "auto" means SLURM if it is installed."""
    if name != "auto":
        return name
    return "slurm" if slurm.available() else "local"


def check_group(resources: Resources, cluster: str) -> None:
    """Raises ConfigError where runs cannot share a process."""
    if cluster != "local" and resources.group > 1:
        raise ConfigError(
            f"Resources.group = {resources.group}: on SLURM each run is a job of its own. Take "
            "--cluster=local, or --group=1"
        )


def at_once(sweep: SavedSweep, cluster: str) -> int | None:
    """The number of runs at a time; None if the cluster decides.

    Raises:
        ConfigError: this machine cannot run even one.
    """
    if cluster != "local":
        return sweep.resources.parallel
    return local.capacity(sweep.resources) * sweep.resources.group


def due(folder: SweepFolder, asked: Sequence[SavedCell]) -> list[SavedCell]:
    """The cells to send: they are unfinished, and no job of them waits or runs.

    Raises:
        ClusterError: after an earlier attempt it is unknown whether a cell is in the queue.
        UserError: the directory contains no sweep, or SLURM does not answer.
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
            f"an earlier attempt to send {runs} ({len(unclear)} in all) ended without a job id, so "
            f"they may be in the queue. {sbatch.by_hand(folder.read().name)}. Give --cancel first, "
            "which ends that attempt, then send the sweep again."
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
        lost = due(folder, lost)  # another launcher may have sent it, or SLURM may have requeued it
        if lost:
            arrays.send(folder, sweep, lost, again=True)
    return lost


def default_folder(name: str, given: str | None) -> SweepFolder:
    """The given directory, or the default for the sweep's name.

    Raises:
        ConfigError: the name cannot be a folder's name.
    """
    if given is not None:
        return SweepFolder(Path(given))
    if not name or "/" in name or name.startswith("."):
        raise ConfigError(f"Sweep.name = {name!r}: expected a name that a folder can have")
    return SweepFolder(SWEEPS / name)
