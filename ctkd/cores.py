"""The processes of a run, and the processor cores that each may use."""

import os


def processes_of_run() -> int:
    """The number of processes that torchrun or a cluster's launcher started, on all nodes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def available_cores() -> int:
    """The number of cores; fewer than the machine's where a cluster binds processes to cores."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores_of_process() -> int:
    """The cores of this machine for each process of the run on it."""
    return max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
