"""The state of a job on a cluster."""

from typing import Literal, NamedTuple

# "unclear": the cluster did not say whether the job waits, runs or has ended.
Phase = Literal["queued", "running", "ended", "cancelled", "unclear"]


class JobState(NamedTuple):
    """A job's phase, its node, and the reason why it waits or why its phase is unclear."""

    phase: Phase
    node: str = ""
    reason: str = ""


def spelled(number: str, cluster: str = "") -> str:
    """A job's id in the ledger: "123_4", or "123_4;gpu" with the name of its cluster."""
    return f"{number};{cluster}" if cluster else number


def number_of(job: str | None) -> str:
    """The number of a job's id, "123_4", as in the names of submitit's files."""
    return (job or "").partition(";")[0]


def cluster_of(job: str) -> str:
    """The name of the SLURM cluster in a job's id; empty if sbatch printed none."""
    return job.partition(";")[2]
