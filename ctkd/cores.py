"""The processor cores that this process may use."""

import os


def available_cores() -> int:
    """The number of cores; fewer than the machine's where a cluster binds processes to cores."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
