"""Samples that are read while a run goes, by worker processes whose number changes nothing."""

import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

Item = tuple[int, int]


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
            and functions of modules only, since it is sent to the workers.
        batches: the items (index, view) of each batch.
        workers: processes that read; 0 reads in this one.
        pin: whether to copy into memory that a GPU can fetch from by itself.
    """
    yield from DataLoader(
        _Reading(read),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_leave_signals,
    )


def _leave_signals(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the run decides, and ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
