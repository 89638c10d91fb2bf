"""Calls SLURM's programs, reads the states of jobs, and ends jobs.

It needs no accounting: `squeue` knows a job while it waits and runs, and for some minutes more.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence

from ctkd.errors import UserError
from ctkd.sweeps.jobs import JobState, cluster_of, number_of
from ctkd.sweeps.squeue import FORMAT, read_listing

PATIENCE = 60  # seconds for one command of SLURM
MOST = 500  # jobs that one command names, since a command line has a limit
# The messages for a job that has ended, or that SLURM has forgotten.
OVER = ("Invalid job id", "already completing or completed")


class ClusterError(UserError):
    """The cluster refused a request, or did not answer."""


def available() -> bool:
    """Whether jobs can be sent to SLURM from here."""
    return shutil.which("sbatch") is not None


def states(jobs: Iterable[str]) -> dict[str, JobState]:
    """The states of the jobs that SLURM still knows; SLURM forgets a job minutes after its end.

    Raises:
        ClusterError: squeue does not answer.
    """
    arrays: dict[tuple[str, str], list[str]] = {}
    for job in jobs:
        arrays.setdefault((number_of(job).partition("_")[0], cluster_of(job)), []).append(job)
    found: dict[str, JobState] = {}
    for (array, cluster), asked in sorted(arrays.items()):
        # One call for each array: if SLURM has forgotten one job of a list, squeue shows none.
        text = ask("squeue", "-a", "-h", "-r", "-t", "all", "-o", FORMAT, "-j", array, on=cluster)
        if text is None:
            continue
        if not text.strip():
            found |= _silent(array, cluster, asked)
            continue
        listing = read_listing(text, array)
        read = {job: listing.of(job) for job in asked}
        found |= {job: state for job, state in read.items() if state is not None}
    return found


def _silent(array: str, cluster: str, asked: Sequence[str]) -> dict[str, JobState]:
    """The states of an array for which squeue prints neither a job nor an error."""
    reason = "squeue lists no jobs, but scontrol knows the job"
    try:
        if ask("scontrol", "-o", "show", "job", array, on=cluster) is None:
            return {}  # SLURM has forgotten it
    except ClusterError as error:
        reason = f"squeue prints nothing; {error}"
    return dict.fromkeys(asked, JobState("unclear", "", reason))


def cancel(jobs: Sequence[str]) -> None:
    """Ends the jobs; jobs that have already ended are skipped.

    Raises:
        ClusterError: scancel does not answer, or may not end a job.
    """
    for cluster in sorted({cluster_of(job) for job in jobs}):
        numbers = [number_of(job) for job in jobs if cluster_of(job) == cluster]
        for start in range(0, len(numbers), MOST):
            ask("scancel", *numbers[start : start + MOST], on=cluster)


def setting(name: str) -> str | None:
    """A setting of SLURM's configuration; None if it cannot be read."""
    try:
        text = ask("scontrol", "show", "config") or ""
    except ClusterError:
        return None
    found = re.search(rf"^\s*{name}\s*=[ \t]*(.*?)\s*$", text, re.MULTILINE)
    return found[1] if found else None


def ask(program: str, *arguments: str, on: str = "") -> str | None:
    """A program's output; None if the job has ended or is forgotten.

    Args:
        on: the name of the job's cluster, if sbatch printed one. SLURM needs its database to find
            a cluster by name; if the database does not help, the local cluster is asked.

    Raises:
        ClusterError: the program is missing, does not answer, or fails.
    """
    if not on:
        return _call([program, *arguments])
    try:
        return _call([program, "-M", on, *arguments])
    except ClusterError:
        if setting("ClusterName") != on:
            raise
        return _call([program, *arguments])


def _call(command: list[str]) -> str | None:
    done = execute(command, PATIENCE)
    if done.returncode == 0:
        return done.stdout
    if any(words in done.stderr for words in OVER):
        return None
    raise ClusterError(f"{command[0]}: {last_words(done.stderr + done.stdout)}")


def execute(command: list[str], patience: float) -> subprocess.CompletedProcess[str]:
    """Runs a program of SLURM, or a site's wrapper of it.

    Raises:
        ClusterError: it cannot be run, or does not answer in `patience` seconds (`SilentError`).
    """
    # SQUEUE_USERS, SQUEUE_PARTITION and others hide jobs, which would then seem to have ended.
    environment = {name: v for name, v in os.environ.items() if not name.startswith("SQUEUE_")}
    environment |= {"SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"}  # 0: nothing is cut
    try:
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=patience,
            env=environment,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"there is no {command[0]} here") from error
    except OSError as error:
        raise ClusterError(f"{command[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise SilentError(f"{command[0]} does not answer within {patience:g} s") from error


class SilentError(ClusterError):
    """A program did not answer in time; it may still have done its work."""


def last_words(text: str) -> str:
    """The messages of SLURM's programs in their output; otherwise its last line."""
    messages = re.findall(r"(?:sbatch|squeue|scancel|scontrol): (?:error: )?(.+)", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(messages)) or (
        lines[-1] if lines else "it failed without a message"
    )
