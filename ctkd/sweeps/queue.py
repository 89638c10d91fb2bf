"""The queue of this machine: `python -m ctkd.sweeps.queue SWEEP_DIR`, started by the launcher."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctkd.locks import locked
from ctkd.sweeps import local
from ctkd.sweeps.folder import SavedSweep, SweepFolder

if TYPE_CHECKING:
    from submitit.local.local import LocalJob

POLL = 0.2  # seconds


def serve(path: Path) -> None:
    """Starts the cells that wait, as many at a time as fit, until none waits and none runs."""
    with locked(local.queue_lock(path)):  # the one before this may be about to go
        queue = Queue(SweepFolder(path))
        while queue.step():
            time.sleep(POLL)


class Queue:
    """The cells that wait in a ledger, and the jobs that were started."""

    def __init__(self, folder: SweepFolder) -> None:
        """Takes over the jobs that an earlier queue left running."""
        self._folder = folder
        self._running: dict[str, LocalJob[Any] | None] = {}
        self._devices: dict[str, list[int]] = {}
        for entry in folder.ledger.read().values():
            here = entry.job is not None and entry.cluster == "local"
            if here and local.is_alive(str(entry.job), folder.path):
                self._running[str(entry.job)] = None
                self._devices[str(entry.job)] = entry.devices

    def step(self) -> bool:
        """Starts what fits; whether anything is left to watch."""
        for number, job in list(self._running.items()):
            ended = job.done() if job is not None else not local.is_alive(number, self._folder.path)
            if ended:
                del self._running[number]
                self._devices.pop(number, None)
        waiting = self._waiting()
        if not waiting:
            return bool(self._running)
        sweep = self._folder.read()  # anew: it may have been sent again with other resources
        capacity = local.capacity(sweep.resources)
        while waiting and len(self._running) < capacity:
            chosen = self._free_devices(sweep.resources.gpus)
            if len(chosen) < sweep.resources.gpus:
                break  # runs that were started with other resources hold more than their share
            with self._folder.ledger.changing():
                waiting = self._waiting()  # one may have been cancelled meanwhile
                if waiting:
                    self._start(waiting[0], sweep, chosen)
                    waiting = waiting[1:]
        return True

    def _waiting(self) -> list[str]:
        entries = self._folder.ledger.read()
        return [
            key
            for key, entry in entries.items()
            if entry.cluster == "local" and entry.event == "sent"
        ]

    def _start(self, key: str, sweep: SavedSweep, chosen: list[int]) -> None:
        from submitit import LocalExecutor

        resources = sweep.resources
        cell = next(cell for cell in sweep.cells if cell.key == key)
        executor = LocalExecutor(self._folder.jobs, max_num_timeout=resources.timeouts)
        executor.update_parameters(
            timeout_min=resources.minutes,
            tasks_per_node=resources.tasks,
            signal_delay_s=resources.grace,
            gpus_per_node=resources.gpus,
            **({"visible_gpus": chosen} if chosen else {}),
        )
        os.environ["OMP_NUM_THREADS"] = str(resources.cpus)
        job = executor.submit(self._folder.task(cell, resources))
        self._running[job.job_id] = job  # type: ignore[assignment]
        self._devices[job.job_id] = chosen
        self._folder.ledger.add("started", key, "local", job.job_id, devices=chosen)

    def _free_devices(self, count: int) -> list[int]:
        if count == 0:
            return []
        taken = {number for numbers in self._devices.values() for number in numbers}
        return [number for number in local.devices() if number not in taken][:count]


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
