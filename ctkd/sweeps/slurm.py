"""SLURM: job arrays through submitit, and the states of their jobs, with or without accounting."""

import contextlib
import io
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ctkd.command_line import PACKAGE
from ctkd.errors import ConfigError, UserError
from ctkd.sweeps.cell_job import Task
from ctkd.sweeps.jobs import JobState, Phase
from ctkd.sweeps.study_settings import Resources

PATIENCE = 60  # seconds for a command of SLURM
QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
# SLURM shows these before it requeues a job. A job that is not requeued keeps the state until SLURM
# forgets it, some minutes later: only then is it counted as ended, so no cell runs twice.
BEFORE_REQUEUE = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "RESV_DEL_HOLD", "REVOKED")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
# Refusals of sbatch that a user can do something about.
ADVICE = {
    "Invalid job array specification": "the array is larger than MaxArraySize of this cluster "
    "(scontrol show config): send fewer cells at a time, with --sweep_param 'Sweep.seeds = [0]'",
    r"QOSMaxSubmit|MaxSubmit|AssocMaxSubmit|accounting/QOS policy": "the cluster limits how many "
    "jobs may wait: send fewer cells at a time, with --sweep_param 'Sweep.seeds = [0]', and the "
    "rest later with the same command",
}


class ClusterError(UserError):
    """The cluster refused what was asked, or did not answer."""


class UnnumberedJobsError(ClusterError):
    """sbatch ended without an error, but printed no job number: its jobs are probably queued."""


def available() -> bool:
    """Whether jobs can be sent to SLURM from here."""
    return shutil.which("sbatch") is not None


def send(
    tasks: Sequence[Task], resources: Resources, folder: Path, name: str
) -> Iterator[list[tuple[str, str]]]:
    """Sends the tasks as arrays of the largest size that the cluster takes.

    Yields:
        For each array, as soon as it is sent: a job number and a cluster name for each task; the
        name is "" where sbatch prints none.

    Raises:
        ClusterError: sbatch refused; the message has its words.
        UnnumberedJobsError: see there.
        ConfigError: `Resources.other` has a setting that submitit does not know.
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
    size = array_limit() or len(tasks)
    for start in range(0, len(tasks), size):
        part = list(tasks[start : start + size])
        try:
            # submitit prints what it then raises
            with contextlib.redirect_stderr(io.StringIO()), _read_outputs(name) as clusters:
                jobs = executor.submit_array(part)
        except (FailedJobError, FailedSubmissionError) as error:
            raise ClusterError(_refusal(str(error), sent=start)) from error
        yield [(job.job_id, clusters[-1]) for job in jobs]


@contextlib.contextmanager
def _read_outputs(name: str) -> Iterator[list[str]]:
    """Makes submitit read job numbers with `read_job`; collects the cluster names.

    submitit knows "Submitted batch job N" only, and makes the executor of an array itself, so a
    subclass would not be used.
    """
    from submitit import SlurmExecutor

    clusters: list[str] = []

    def read(output: str | bytes) -> str:
        text = output.decode() if isinstance(output, bytes) else output
        found = read_job(text)
        if found is None:
            raise UnnumberedJobsError(
                f"sbatch printed no job number: {text.strip()!r}. It ended without an error, so "
                f"jobs are probably queued, and will fail: end them with `scancel --name=ctkd-"
                f"{name}`. Then --cancel clears these cells, and they can be sent again. An sbatch "
                "that prints `Submitted batch job N`, `N` or `N;CLUSTER` is expected"
            )
        clusters.append(found[1])
        return found[0]

    method = "_get_job_id_from_submission_command"
    before = SlurmExecutor.__dict__[method]
    setattr(SlurmExecutor, method, staticmethod(read))
    try:
        yield clusters
    finally:
        setattr(SlurmExecutor, method, before)


def read_job(output: str) -> tuple[str, str] | None:
    """The job number and the cluster name ("" for none) in what sbatch printed; None for no number.

    sbatch prints `Submitted batch job N`, perhaps with ` on cluster NAME`; with --parsable, as
    wrappers of sbatch use it, `N` or `N;NAME`.
    """
    patterns = (
        r"[Jj]ob (?P<job>\d+)(?: on cluster (?P<cluster>\S+))?",
        r"^\s*(?P<job>\d+)(?:;(?P<cluster>\S+))?\s*$",
    )
    for pattern in patterns:
        found = {(m["job"], m["cluster"] or "") for m in re.finditer(pattern, output, re.M)}
        if len(found) == 1:
            return found.pop()
    return None


def array_limit() -> int | None:
    """The largest number of tasks of an array on this cluster; None where it cannot be read."""
    try:
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", _call(["scontrol", "show", "config"]) or "")
    except ClusterError:
        return None
    return int(found[1]) if found and int(found[1]) > 0 else None


def _refusal(message: str, sent: int) -> str:
    """Why sbatch refused, and what to do."""
    words = _words(message)
    advice = next((text for pattern, text in ADVICE.items() if re.search(pattern, message)), "")
    before = f" ({sent} runs were sent before)" if sent else ""
    return f"sbatch refused the sweep{before}: {words}" + (f"; {advice}" if advice else "")


def parameters(resources: Resources, name: str) -> dict[str, object]:
    """The parameters of submitit's SLURM executor."""
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
        # Processes wait for one that died: let SLURM end them.
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


def states(jobs: Mapping[str, str]) -> dict[str, JobState]:
    """The state of those jobs that SLURM still knows; it forgets them after some minutes.

    Args:
        jobs: job number -> cluster name, "" for the default cluster.

    Raises:
        ClusterError: squeue does not answer, or prints no line that can be read.
    """
    arrays = sorted({(job.partition("_")[0], cluster) for job, cluster in jobs.items()})
    found: dict[str, JobState] = {}
    for array, cluster in arrays:  # one by one: squeue refuses a list with a job it has forgotten
        where = ["-M", cluster] if cluster else []
        command = ["squeue", *where, "-h", "-r", "-t", "all", "-o", "%i|%T|%N|%r", "-j", array]
        answer = _call(command)
        rows = [line.strip().split("|", 3) for line in (answer or "").splitlines() if line.strip()]
        known = [row for row in rows if len(row) == 4 and row[0].partition("_")[0] == array]
        other = ["|".join(row) for row in rows if row not in known]
        if other and not known and not all(line.startswith("CLUSTER:") for line in other):
            # Without this the jobs would count as ended, and their cells would be sent again.
            raise ClusterError(f"squeue printed lines that cannot be read: {other[0]!r}")
        for job, state, node, reason in known:
            waiting = reason if state in QUEUED and reason not in ("None", "") else ""
            found[job] = JobState(_phase(state), node, waiting)
    return found


def cancel(jobs: Mapping[str, str]) -> None:
    """Ends the jobs, given as for `states`. Raises ClusterError if SLURM does not answer."""
    for cluster in sorted(set(jobs.values())):
        numbers = [job for job, own in jobs.items() if own == cluster]
        where = ["-M", cluster] if cluster else []
        for start in range(0, len(numbers), 500):  # a command line has a limited length
            _call(["scancel", *where, *numbers[start : start + 500]])


def _phase(state: str) -> Phase:
    if state in RUNNING:
        return "running"
    if state in (*QUEUED, *BEFORE_REQUEUE):
        return "queued"
    return "cancelled" if state.startswith("CANCELLED") else "ended"


def _call(command: list[str]) -> str | None:
    """The output of a command; None if it says that there is no such job."""
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
    """The words of SLURM itself in the text of an error."""
    words = re.findall(r"(?:sbatch|squeue|scancel): (?:error: )?(.+)", message)
    return "; ".join(dict.fromkeys(words)) or message.strip().split("\n")[-1]
