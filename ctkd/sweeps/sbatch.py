"""`sbatch`: writes the files of a job array, sends it, and reads the job's id in any answer.

submitit writes the batch script and runs the task in the job. This module sends it: submitit reads
an id only in SLURM's standard sentence, and cannot handle an array that is queued without one.
"""

import contextlib
import getpass
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctkd.command_line import PACKAGE
from ctkd.errors import ConfigError
from ctkd.sweeps.cell_job import CellJob
from ctkd.sweeps.jobs import spelled
from ctkd.sweeps.slurm import ClusterError, SilentError, ask, execute, last_words
from ctkd.sweeps.study_settings import Resources

PATIENCE = 300.0  # seconds for sbatch, which may wait for a busy controller
SENTENCE = re.compile(r"Submitted batch job (\d+)(?: on cluster ([\w-]+(?:\.[\w-]+)*))?", re.I)
PARSABLE = re.compile(r"^\s*(\d+)(?:;([\w.-]*))?\s*$", re.MULTILINE)  # of sbatch --parsable
WRAPPED = re.compile(r"\bjob(?:[ _-]?id)?\b(?: is)?[ \t]*[:=#]?[ \t]*(\d+)()\b", re.I)
COLORS = re.compile(r"\x1b\[[0-9;]*m")
FAILED = "Batch job submission failed"
TOO_LONG = "Invalid job array specification"
# sbatch has lost the controller, which may have queued the job before.
LOST = ("Socket timed out", "Zero Bytes were transmitted", "Communication connection failure")
ADVICE = (
    (
        r"MaxSubmit|job submit limit|accounting/QOS policy",
        "The account or the QOS limits the jobs that one user may have in the queue, and each run "
        "of an array counts as one job. Send fewer runs at a time (such as --sweep_param "
        "'Sweep.seeds = [0]'). Send the sweep again when some have ended: runs that wait, run or "
        "are finished are not sent twice. `sacctmgr show assoc user=$USER format=qos,maxsubmit` "
        "and `sacctmgr show qos format=name,maxsubmitpu` show the limits.",
    ),
    (TOO_LONG, "`scontrol show config` shows MaxArraySize; Resources.other may set an array."),
    (r"[Ii]nvalid partition", "`sinfo -s` lists the partitions; give one as --partition."),
    (r"Invalid account", "Give --account; `sacctmgr show assoc user=$USER` lists yours."),
    (r"Invalid qos", "Give --qos; `sacctmgr show qos format=name` lists them."),
    (
        r"Requested time limit",
        "Give fewer --minutes; a run that needs more time continues in another job.",
    ),
    (r"node configuration", "No node has what a run needs: see --gpus, --cpus, --mem_gb, --nodes."),
    (r"Unable to contact|Connection refused", "SLURM's controller does not answer: try later."),
)


class RefusedError(ClusterError):
    """sbatch refused an array: no part of it is in the queue.

    Attributes:
        too_long: whether the array has more tasks than SLURM allows.
    """

    def __init__(self, message: str) -> None:
        """Adds the user's way out to the message."""
        found = [advice for words, advice in ADVICE if re.search(words, message)]
        super().__init__("\n".join([f"sbatch refused the sweep: {message}", *found[:1]]))
        self.too_long = TOO_LONG in message


class UnclearError(ClusterError):
    """An array was sent and may be in the queue, but its job id is unknown."""


@dataclass(frozen=True)
class Submission:
    """The files of an array: its script, and a pickled task for each of its runs."""

    folder: Path
    script: Path
    tasks: tuple[Path, ...]

    def remove(self) -> None:
        """Removes the files of an array that was refused."""
        for path in (self.script, *self.tasks):
            path.unlink(missing_ok=True)


def parameters(resources: Resources, name: str) -> dict[str, object]:
    """The arguments of submitit's SLURM executor."""
    wanted: dict[str, object] = {
        "job_name": job_name(name),
        "time": resources.minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks,
        "cpus_per_task": resources.cpus,
        "gpus_per_node": resources.gpus or None,
        "mem": None if resources.mem_gb is None else f"{round(resources.mem_gb * 1024)}MB",
        "signal_delay_s": resources.grace,
        "array_parallelism": resources.parallel or 100_000,
        # If one process of a run ends, the others wait for it forever: SLURM must end them.
        "srun_args": ["--kill-on-bad-exit=1"] if resources.processes > 1 else [],
        # For a clone that is not installed; quoted for the shell of the batch script.
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


def job_name(sweep: str) -> str:
    """The name of a sweep's jobs in the queue."""
    return f"ctkd-{sweep}"


def write(
    tasks: Sequence[CellJob],
    resources: Resources,
    folder: Path,
    name: str,
    after: str | None = None,
) -> Submission:
    """Writes the files of an array; nothing is sent.

    Args:
        after: a dependency, such as "afterany:123" for an array that must end first.

    Raises:
        ConfigError: `Resources.other` has an option that submitit does not know.
        ClusterError: SLURM is missing.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import DelayedSubmission

    wanted: dict[str, Any] = parameters(resources, name)
    if after is not None:
        wanted["dependency"] = ",".join([*filter(None, [wanted.get("dependency")]), after])
    folder.mkdir(parents=True, exist_ok=True)
    try:
        executor = SlurmExecutor(folder, max_num_timeout=resources.timeouts)
        executor.update_parameters(**wanted)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"Resources.other: {error}") from error
    except RuntimeError as error:  # the message is submitit's
        raise ClusterError("--cluster=slurm: there is no srun here") from error
    if len(tasks) > 1:
        executor.parameters["map_count"] = len(tasks)
    paths = []
    for task in tasks:
        delayed = DelayedSubmission(task)
        delayed.set_timeout(executor.parameters.get("time", resources.minutes), resources.timeouts)
        paths.append(executor.folder / f"{uuid.uuid4().hex}.pkl")
        delayed.dump(paths[-1])
    key = uuid.uuid4().hex
    script = executor.folder / f".submission_file_{key}.sh"
    text = executor._make_submission_file_text(executor._submitit_command_str, key)
    script.write_text(text, encoding="utf-8")
    return Submission(executor.folder, script, tuple(paths))


def submit(batch: Submission) -> list[str]:
    """Sends an array; returns the ids of its jobs, one per task.

    Raises:
        RefusedError: nothing is in the queue.
        UnclearError: the array may be in the queue.
        ClusterError: sbatch cannot be run.
    """
    from submitit.core.utils import JobPaths

    try:
        number, cluster = _sent(batch)
    except RefusedError:
        batch.remove()
        raise
    single = len(batch.tasks) == 1
    numbers = [number if single else f"{number}_{task}" for task in range(len(batch.tasks))]
    first = JobPaths(batch.folder, numbers[0])
    # SLURM may read the script once more, under its old name.
    first.move_temporary_file(batch.script, "submission_file", keep_as_symlink=True)
    for each, path in zip(numbers, batch.tasks, strict=True):
        JobPaths(batch.folder, each).move_temporary_file(path, "submitted_pickle")
    return [spelled(each, cluster) for each in numbers]


def _sent(batch: Submission) -> tuple[str, str]:
    """Runs sbatch; returns the job's number and its cluster's name. Raises as `submit`."""
    refusal, words = None, ""
    try:
        done = execute(["sbatch", str(batch.script)], PATIENCE)
    except SilentError as error:
        words = f"{error}. The job may have been queued"
    else:
        output = f"{done.stdout}\n{done.stderr}".strip()
        found = read_id(done.stdout) or read_id(output)
        if found is not None and (done.returncode == 0 or SENTENCE.search(output)):
            return found
        if done.returncode and not any(lost in output for lost in LOST):
            refusal = RefusedError(last_words(output))
            if FAILED in output:
                raise refusal
        else:
            shown = "\n".join(f"  {line}" for line in output.splitlines()[:10]) or "  (nothing)"
            words = f"sbatch printed no job id that can be read here:\n{shown}\nThe job was "
            words += "probably queued"
    with contextlib.suppress(ClusterError):  # a wrapper may also fail after the job was queued
        listed = listed_ids(batch.script)
        if len(listed) == 1:
            return listed[0]
    raise refusal or UnclearError(f"{words}, but squeue shows no job of {batch.script}")


def read_id(text: str) -> tuple[str, str] | None:
    """The job's number, and its cluster's name or "", in the output of sbatch or a wrapper.

    SLURM's standard sentence counts first, then lines with only a number (`sbatch --parsable`),
    then "job 123", "Job ID: 123". None if none of these names exactly one job.
    """
    plain = COLORS.sub("", text).replace("\r", "\n")
    for pattern in (SENTENCE, PARSABLE, WRAPPED):
        found = {(number, cluster or "") for number, cluster in pattern.findall(plain)}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def listed_ids(script: Path | str) -> list[tuple[str, str]]:
    """The numbers of the jobs in the queue that run a batch script, each with "" for its cluster.

    Raises:
        ClusterError: squeue does not answer.
    """
    text = ask("squeue", "-a", "-h", "-t", "all", "-u", str(os.getuid()), "-o", "%i|%o") or ""
    found = re.findall(rf"^\s*(\d+)[^|\n]*\|{re.escape(str(script))}\s*$", text, re.MULTILINE)
    return [(number, "") for number in dict.fromkeys(found)]


def by_hand(sweep: str) -> str:
    """The commands to find and end jobs of a sweep whose ids are unknown."""
    with contextlib.suppress(KeyError, OSError):
        return f"`squeue -u {getpass.getuser()} --name={job_name(sweep)}` lists the jobs"
    return f"`squeue --name={job_name(sweep)}` lists the jobs"
