"""SLURM: one job array through submitit, and the states of its jobs, with or without accounting."""

import contextlib
import io
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from ctkd.command_line import PACKAGE
from ctkd.errors import ConfigError, UserError
from ctkd.sweeps.cell_job import Task
from ctkd.sweeps.jobs import JobState, Phase
from ctkd.sweeps.study_settings import Resources

PATIENCE = 60  # seconds for a command of SLURM
QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")


class ClusterError(UserError):
    """The cluster refused what was asked, or did not answer."""


def available() -> bool:
    """Whether jobs can be sent to SLURM from here."""
    return shutil.which("sbatch") is not None


def send(tasks: Sequence[Task], resources: Resources, folder: Path, name: str) -> list[str]:
    """Sends the tasks as one array; the numbers of their jobs.

    Raises:
        ClusterError: sbatch refused; its words are passed on.
        ConfigError: `Resources.other` has something that submitit does not know.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    if not available():
        raise ClusterError("--cluster=slurm: there is no sbatch here; --cluster=local runs here")
    folder.mkdir(parents=True, exist_ok=True)
    executor = SlurmExecutor(folder, max_num_timeout=resources.timeouts)
    try:
        executor.update_parameters(**parameters(resources, name))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"Resources.other: {error}") from error
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it then raises
            return [job.job_id for job in executor.submit_array(list(tasks))]
    except (FailedJobError, FailedSubmissionError) as error:
        raise ClusterError(f"sbatch refused the sweep: {_words(str(error))}") from error


def parameters(resources: Resources, name: str) -> dict[str, object]:
    """What submitit's SLURM executor is told."""
    wanted: dict[str, object] = {
        "job_name": f"ctkd-{name}",
        "time": resources.minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks,
        "cpus_per_task": resources.cpus,
        "gpus_per_node": resources.gpus or None,
        "mem": None if resources.mem_gb is None else f"{round(resources.mem_gb * 1024)}MB",
        "signal_delay_s": resources.grace,
        "array_parallelism": resources.parallel or 100_000,
        # The others wait for a process that died: let SLURM end them.
        "srun_args": ["--kill-on-bad-exit=1"] if resources.processes > 1 else [],
        # A clone that is not installed; quoted for the shell of the batch script.
        "setup": [f"export PYTHONPATH='{PACKAGE.parent}'${{PYTHONPATH:+:$PYTHONPATH}}"],
    }
    wanted |= {name: getattr(resources, name) for name in ("partition", "account", "qos")}
    wanted["constraint"] = resources.constraint
    lists = {
        name: [*wanted[name], *resources.other.get(name, [])]  # type: ignore[misc]
        for name in ("srun_args", "setup")
    }
    wanted |= {**resources.other, **lists}
    return {name: value for name, value in wanted.items() if value not in (None, [])}


def states(jobs: Iterable[str]) -> dict[str, JobState]:
    """The state of those of the jobs that SLURM still knows; it forgets them after minutes.

    Raises:
        ClusterError: squeue does not answer.
    """
    arrays = sorted({job.partition("_")[0] for job in jobs})
    found: dict[str, JobState] = {}
    for array in arrays:  # one by one: of a list squeue refuses all if it has forgotten one
        told = _call(["squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%N|%r", "-j", array])
        if told is None:
            continue
        for line in told.splitlines():
            job, state, node, reason = line.strip().split("|", 3)
            waiting = reason if state in QUEUED and reason not in ("None", "") else ""
            found[job] = JobState(_phase(state), node, waiting)
    return found


def cancel(jobs: Sequence[str]) -> None:
    """Ends the jobs. Raises ClusterError if SLURM does not answer."""
    for start in range(0, len(jobs), 500):  # a command line has its limits
        _call(["scancel", *jobs[start : start + 500]])


def _phase(state: str) -> Phase:
    if state in RUNNING:
        return "running"
    if state in QUEUED:
        return "queued"
    return "cancelled" if state.startswith("CANCELLED") else "ended"


def _call(command: list[str]) -> str | None:
    """A command's output; None if it says that there is no such job."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ}
        )
    except FileNotFoundError as error:
        raise ClusterError(f"there is no {command[0]} here") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{command[0]} does not answer within {PATIENCE} s") from error
    if done.returncode == 0:
        return done.stdout
    if "Invalid job id" in done.stderr:
        return None
    raise ClusterError(f"{command[0]}: {_words(done.stderr)}")


def _words(message: str) -> str:
    """What SLURM itself said in an error's text."""
    said = re.findall(r"(?:sbatch|squeue|scancel): (?:error: )?(.+)", message)
    return "; ".join(dict.fromkeys(said)) or message.strip().split("\n")[-1]
