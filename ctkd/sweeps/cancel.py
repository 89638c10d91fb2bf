"""Ends the jobs of a sweep on SLURM."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ctkd.sweeps import sbatch, slurm
from ctkd.sweeps.cell_states import is_finished, job_states
from ctkd.sweeps.folder import SweepFolder
from ctkd.sweeps.jobs import spelled
from ctkd.sweeps.ledger import Entry
from ctkd.sweeps.slurm import ClusterError

PATIENCE = 60.0  # seconds until a cancelled job is gone


class Cancelled(NamedTuple):
    """The keys of the cells whose jobs were ended, and a remark on each uncertain case."""

    keys: list[str]
    remarks: list[str]


def cancel(folder: SweepFolder) -> Cancelled:
    """Ends every job of this sweep that waits or runs on SLURM, and only these jobs.

    A run on this machine ends with its launcher; a remark states this.

    If squeue does not answer, scancel is called for all jobs of runs that are not finished: it
    skips jobs that have ended.

    Raises:
        UserError: the directory contains no sweep, or scancel does not answer.
    """
    folder.read()
    remarks: list[str] = []
    with folder.ledger.changing():
        # The ledger also has cells that were removed from the sweep's file.
        entries = folder.ledger.read()
        attempts, known = _attempts(entries, remarks)
        sent = {key: entry for key, entry in entries.items() if entry.cluster == "slurm"}
        ended = _unended(folder, sent, remarks)
        ids = [e.job for e in ended.values() if e.job]
        slurm.cancel([*ids, *attempts])
        ended |= {key: entries[key] for key in known}
        for key, entry in ended.items():
            folder.ledger.add("cancelled", key, entry.cluster)
    _wait(ids, remarks)
    here = [key for key in entries.keys() - sent.keys() if folder.is_training(key)]
    if here or folder.has_launcher:
        remarks.append(
            "not ended: runs on this machine; Ctrl-C in the terminal of their launcher, or "
            "SIGTERM to it, ends them with their states saved"
        )
    return Cancelled(list(ended), remarks)


def _attempts(entries: Mapping[str, Entry], remarks: list[str]) -> tuple[list[str], list[str]]:
    """The jobs in squeue of attempts that ended without a job id, and the cells of these."""
    found, known = list[str](), list[str]()
    for script in dict.fromkeys(entry.attempt for entry in entries.values() if entry.attempt):
        keys = [key for key, entry in entries.items() if entry.attempt == script]
        try:
            jobs = [spelled(*each) for each in sbatch.listed_ids(script)]
        except ClusterError as error:
            remarks.append(f"{error}; the attempt to send {', '.join(keys)} stays unknown")
            continue
        known += keys
        if not jobs:
            remarks.append(
                f"squeue shows no job of the attempt to send {', '.join(keys)}; if one is queued "
                "anyway, it ends about a minute after its start and trains nothing"
            )
        found += jobs
    return found, known


def _unended(
    folder: SweepFolder, entries: Mapping[str, Entry], remarks: list[str]
) -> dict[str, Entry]:
    """The cells that wait or run, or may wait or run."""
    try:
        states = job_states(entries.values())
    except ClusterError as error:
        remarks.append(f"{error}; scancel was called for every run that is not finished")
        return {k: e for k, e in entries.items() if e.job and not is_finished(folder, k)}
    active = {job for job, s in states.items() if s.phase in ("running", "queued", "unclear")}
    return {key: entry for key, entry in entries.items() if entry.job in active}


def _wait(jobs: Sequence[str], remarks: list[str]) -> None:
    """Waits until SLURM has ended the jobs."""
    end = time.monotonic() + PATIENCE
    while jobs and time.monotonic() < end:
        try:
            left = slurm.states(jobs)
        except ClusterError as error:
            remarks.append(f"{error}; --status shows later whether the jobs have ended")
            return
        if all(state.phase not in ("running", "queued") for state in left.values()):
            return
        time.sleep(0.5)
