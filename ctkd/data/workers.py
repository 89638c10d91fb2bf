"""Samples that are read while a run goes, by worker processes whose number changes nothing."""

import atexit
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader, Dataset

from ctkd.memory import keep_freed_memory

Item = tuple[int, int]
_WORKERS: set[BaseProcess] = set()  # of all loaders


class _Reading(Dataset[Any]):
    """Gives `read(index, view)` for the items that a loader asks for."""

    def __init__(self, read: Callable[[int, int], Any]) -> None:
        self._read = read

    def __getitem__(self, item: Item) -> Any:
        return self._read(*item)


def stream(
    read: Callable[[int, int], Any],
    batches: Iterable[list[Item]],
    workers: int,
    collate: Callable[[list[Any]], Any],
    *,
    pin: bool = False,
) -> Iterator[Any]:
    """The batches, in order, each `collate([read(index, view), …])`.

    What a sample is depends on its (index, view) alone, so neither the number of workers nor where
    an epoch is taken up again matters.

    Args:
        read: makes a sample of its index and an integer that decides its augmentation; plain data
            and functions of modules only, since it is sent to the workers. Where it has `modules`,
            these are imported once for all workers.
        batches: the items (index, view) of each batch.
        workers: processes that read; 0 reads in this one.
        pin: whether to copy into memory that a GPU can fetch from by itself.
    """
    running = set(multiprocessing.active_children())
    loaded = iter(
        DataLoader(
            _Reading(read),
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_prepare,
            multiprocessing_context=_context(read) if workers else None,
        )
    )
    _WORKERS.intersection_update(running)  # without those that have ended
    _WORKERS.update(set(multiprocessing.active_children()) - running)
    yield from loaded


@atexit.register
def _end_workers() -> None:
    """Before multiprocessing asks those that are left to end, by a signal that they do not hear."""
    for worker in _WORKERS & set(multiprocessing.active_children()):
        worker.kill()


def _context(read: object) -> BaseContext:
    """How workers are started: never by a fork of this process.

    It has threads by then (torch.distributed's, a loader's), and a fork that meets one of them
    holding a lock hangs for ever. A server that has none forks the workers in its place.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, type(read).__module__, *getattr(read, "modules", ())])
    # A cluster signals all processes of a job, a terminal or torchrun a whole group: the run saves
    # and ends its workers then. What is blocked here stays so in the server and its workers.
    multiprocessing.resource_tracker.ensure_running()  # now, since its start would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR2))
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _prepare(worker: int) -> None:
    """Sets a worker up: it ends with the run's process, however that ends, and not before.

    Ctrl-C reaches every process of a terminal; the run decides, and ends its workers.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent() -> None:
    """A loader's own watch is for the process that forked the worker: here the server, which in
    its turn lives as long as its workers do.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
