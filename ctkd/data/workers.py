"""Worker processes that read samples during a run. Their number changes no sample."""

import atexit
import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader, Dataset

from ctkd.data.parcel import Parcel
from ctkd.errors import DataError, Interrupted
from ctkd.memory import keep_freed_memory

Item = tuple[int, int]
POLL = 1.0  # seconds between two checks of the workers during a wait for a batch
PREFETCH = 4  # batches that each worker reads ahead
_WORKERS: set[BaseProcess] = set()  # of all streams
_CHECKS: list[Callable[[float], None]] = []
_LEFT: list[Any] = []  # loaders whose workers may hang: see `_Batches`


class _Reading(Dataset[Any]):
    """A data set for a loader: an item (index, view) gives `read(index, view)`."""

    def __init__(self, read: Callable[[int, int], Any]) -> None:
        self._read = read

    def __getitem__(self, item: Item) -> Any:
        return self._read(*item)


@dataclass(frozen=True)
class _Lost:
    """Takes the role of a batch that a worker cannot send."""

    reason: str


@dataclass(frozen=True)
class _Packing:
    """Makes a batch of samples in a worker, and packs it."""

    collate: Callable[[list[Any]], Any]

    def __call__(self, samples: list[Any]) -> Parcel | _Lost:
        batch = self.collate(samples)
        try:
            return Parcel(batch)
        except OSError as error:
            return _Lost(str(error))


def stream(
    read: Callable[[int, int], Any],
    batches: Iterable[list[Item]],
    workers: int,
    collate: Callable[[list[Any]], Any],
    *,
    pin: bool = False,
) -> Iterator[Any]:
    """The batches, in order, each `collate([read(index, view), …])`.

    A sample depends only on its (index, view). Neither the number of workers nor the step at which
    an epoch is resumed changes it. Batches do not pass through /dev/shm, see `Parcel`.

    Args:
        read: makes a sample from an index and an integer that decides the augmentation. It is sent
            to the workers, so it contains only plain data and functions of modules. If it has
            `modules`, they are imported once for all workers.
        batches: the items (index, view) of each batch.
        workers: processes that read; 0 reads in this process.
        pin: whether to copy batches into page-locked memory, for copies that do not wait.

    Raises:
        DataError: the workers cannot be started, a worker has ended or cannot send a batch.
    """
    running = set(multiprocessing.active_children())
    try:
        with warnings.catch_warnings():
            # The engine warns of more workers than cores, once and with the flag to set.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            loader = DataLoader(
                _Reading(read),
                batch_sampler=batches,
                num_workers=workers,
                collate_fn=_Packing(collate) if workers else collate,
                pin_memory=pin,
                prefetch_factor=PREFETCH if workers else None,
                timeout=POLL if workers else 0,
                worker_init_fn=_prepare,
                multiprocessing_context=_context(read) if workers else None,
            )
            loaded = iter(loader)
    except OSError as error:
        raise DataError(
            f"{workers} worker processes cannot be started: {error}. Each needs memory, a few open "
            "files, and a few kilobytes in /dev/shm for its locks. Set workers = 0 to read the "
            "samples in the run's own process"
        ) from error
    own = set(multiprocessing.active_children()) - running
    _WORKERS.intersection_update(running)  # without the loaders that have ended
    _WORKERS.update(own)
    yield from _Batches(loaded, own)


class _Batches:
    """The batches of a loader; a wait for a batch can be interrupted."""

    def __init__(self, loaded: Iterator[Any], workers: set[BaseProcess]) -> None:
        self._loaded, self._workers = loaded, workers

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        started = time.monotonic()
        try:
            while True:
                try:
                    return _opened(next(self._loaded))
                except RuntimeError as error:  # DataLoader raises no narrower error
                    _raise_unless_late(error)
                for check in _CHECKS:
                    check(time.monotonic() - started)
        except (KeyboardInterrupt, Interrupted):
            # A worker may hang in a read. If its loader were deleted, it would wait for the worker:
            # so keep the loader.
            _LEFT.append(self._loaded)
            for worker in self._workers:
                worker.kill()
            raise


def _raise_unless_late(error: RuntimeError) -> None:
    """Raises the error, unless the batch is only late.

    Raises:
        DataError: a worker has ended.
        RuntimeError: any other error, unchanged.
    """
    text = str(error)
    if text.startswith("DataLoader timed out"):
        return
    if not text.startswith("DataLoader worker (pid"):
        raise error
    raise _ended(text) from error


def _ended(reason: str) -> DataError:
    return DataError(
        f"a worker process that reads samples has ended: {reason}. The system may have ended it "
        "because memory ran out: then choose fewer workers or a smaller batch_size. With "
        "workers = 0 the run's own process reads the samples, and shows any error"
    )


def _opened(came: Any) -> Any:
    """The batch that a worker sent. Raises DataError if it could not be sent."""
    if isinstance(came, Parcel):
        try:
            return came.open()
        except (EOFError, ConnectionError) as error:  # it ended after it sent the batch
            raise _ended("it no longer answers") from error
        except OSError as error:
            came = _Lost(f"{type(error).__name__}: {error}")
    if isinstance(came, _Lost):
        raise DataError(
            f"a worker process cannot pass a batch to the run: {came.reason}. Choose fewer workers "
            "or a smaller batch_size, or set workers = 0 to read the samples in the run's own "
            "process"
        )
    return came


@contextlib.contextmanager
def while_waiting(check: Callable[[float], None]) -> Iterator[None]:
    """A context in which `check(seconds)` is called about once a second of a wait for a batch.

    `seconds` is the length of the wait until now. If `check` raises Interrupted, the wait ends: the
    workers are killed, and the stream has ended.
    """
    _CHECKS.append(check)
    try:
        yield
    finally:
        _CHECKS.remove(check)


@atexit.register
def _end_workers() -> None:
    """Ends the workers. multiprocessing would send them SIGTERM, which they block."""
    for worker in _WORKERS & set(multiprocessing.active_children()):
        worker.kill()


def _context(read: object) -> BaseContext:
    """The multiprocessing context that starts workers: never by a fork of this process.

    This process already has threads (torch.distributed's, a loader's). A fork hangs if one of them
    holds a lock at that moment. So a server without threads forks the workers.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, type(read).__module__, *getattr(read, "modules", ())])
    # A cluster signals all processes of a job, a terminal or torchrun a whole group. The run then
    # saves its state and ends its workers. Signals blocked here stay blocked in the workers.
    multiprocessing.resource_tracker.ensure_running()  # now, since its start would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR2))
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _prepare(worker: int) -> None:
    """Prepares a worker: it ends when the run's process ends, in any way, and not before.

    Ctrl-C reaches every process of a terminal. The run's process decides, and ends its workers.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent() -> None:
    """Ends this worker when the run's process has ended.

    A loader's own check is for the process that forked the worker. Here that is the server, which
    runs as long as its workers.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
