"""A cluster of one machine, this one: a queue that starts submitit's jobs as others end.

The queue is a process that continues after the launcher has ended. As on a cluster, a sweep is
sent, and a user may follow it or not.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ctkd.command_line import PACKAGE
from ctkd.errors import ConfigError
from ctkd.locks import is_locked
from ctkd.sweeps.jobs import JobState
from ctkd.sweeps.study_settings import Resources

PATIENCE = 20.0  # seconds from SIGTERM, at which a run saves its state, to SIGINT and SIGKILL
NO_DEVICES = ("-1", "NoDevFiles")  # of CUDA, and of SLURM for a job without GPUs


def devices() -> list[int]:
    """The GPUs that jobs may use.

    Raises:
        ConfigError: CUDA_VISIBLE_DEVICES does not consist of numbers.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip()]
        if names and names[0] in NO_DEVICES:
            return []
        if not all(name.isdigit() for name in names):
            raise ConfigError(
                f"CUDA_VISIBLE_DEVICES = {visible}: this machine's queue deals out GPUs by their "
                "numbers; expected 0,1, say (nvidia-smi -L lists them)"
            )
        return [int(name) for name in names]
    import torch

    return list(range(torch.cuda.device_count()))


def capacity(resources: Resources) -> int:
    """How many runs this machine can have at a time.

    Raises:
        ConfigError: it cannot have a single one.
    """
    if resources.nodes > 1:
        raise ConfigError(f"Resources.nodes = {resources.nodes}: this machine is one node")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    fits = max(1, (cores or 1) // (resources.cpus * resources.tasks))
    if resources.gpus:
        found = len(devices())
        if found < resources.gpus:
            raise ConfigError(
                f"Resources.gpus = {resources.gpus}, but this machine has {found}: --gpus=0 trains "
                "on its processor"
            )
        fits = found // resources.gpus
    return min(fits, resources.parallel or fits)


def queue_lock(folder: Path) -> Path:
    """The lock that the queue of a sweep's directory holds while it works."""
    return folder / "jobs" / "queue.lock"


def start_queue(folder: Path) -> None:
    """Starts a queue for the cells that wait; it ends at once if another queue takes them.

    Raises:
        ConfigError: it ended at once.
    """
    (folder / "jobs").mkdir(parents=True, exist_ok=True)
    paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with open(folder / "jobs" / "queue.log", "a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ctkd.sweeps.queue", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C at the launcher is not meant for the runs
        )
    while not queue_is_alive(folder):
        if process.poll() not in (None, 0):
            raise ConfigError(f"the queue of this machine ended at once: {folder}/jobs/queue.log")
        if process.poll() == 0:
            return
        time.sleep(0.05)


def states(jobs: Iterable[str], folder: Path) -> dict[str, JobState]:
    """The states of the jobs that run here."""
    host = socket.gethostname()
    return {job: JobState("running", host) for job in jobs if is_alive(job, folder)}


def queue_is_alive(folder: Path) -> bool:
    """Whether a queue is at work for the cells that wait."""
    return is_locked(queue_lock(folder))


def is_alive(job: str, folder: Path) -> bool:
    """Whether the process that watches a job exists; its number may be another process's now."""
    words = _command(job)
    return "submitit.local._local" in words and str(folder / "jobs") in words


def cancel(jobs: Sequence[str], folder: Path) -> None:
    """Ends the jobs: their runs save their states, and are killed if they take too long."""
    for number in (signal.SIGTERM, signal.SIGINT):  # the watching process passes the first one on
        for job in jobs:
            if is_alive(job, folder):
                os.kill(int(job), number)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and any(is_alive(job, folder) for job in jobs):
            time.sleep(0.1)


def _command(job: str) -> str:
    """A process's command line; empty if there is no such process."""
    listing = Path("/proc") / job / "cmdline"
    if listing.parent.parent.joinpath("self").exists():
        try:
            return listing.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    done = subprocess.run(["ps", "-p", job, "-o", "args="], capture_output=True, text=True)
    return done.stdout
