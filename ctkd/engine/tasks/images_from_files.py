"""The classification task on image files: read by worker processes while the run trains."""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctkd.data.dataset import digest
from ctkd.data.from_files import (
    FileSplits,
    ImageFiles,
    Normalisation,
    Reader,
    Samples,
    StreamedDataset,
    collate,
)
from ctkd.data.workers import Item, stream
from ctkd.engine.config.compatibility import check_network
from ctkd.engine.distributed.world import World
from ctkd.engine.task import Batch, DeferredBatch
from ctkd.engine.tasks.images_in_memory import ImageTask, check_last_batch
from ctkd.engine.tasks.specs import TaskSpec
from ctkd.errors import DataError
from ctkd.registry import name_of
from ctkd.seeds import generator

if TYPE_CHECKING:
    from ctkd.engine.config.build import Run

EVALUATION_BATCH = 128
VIEWS = 2**62  # a view is a number that decides crop and flip
NAMED = 5  # bad files in a message


def make_task(run: "Run", device: torch.device, world: World) -> "StreamedTask":
    """See `TaskSpec`."""
    assert isinstance(run.dataset, StreamedDataset)
    task = StreamedTask(
        run.dataset,
        run.dataset.load(),
        run.recipe.batch_size,
        run.seed,
        device,
        world,
        epochs=run.recipe.epochs,
        steps_per_epoch=run.recipe.steps_per_epoch,
        workers=run.runtime.workers,
    )
    check_last_batch(task.smallest_batch, run, world)
    return task


class StreamedTask(ImageTask):
    """The task on image files; those that cannot be read do not count where a network is judged."""

    _dataset: StreamedDataset

    def __init__(
        self,
        dataset: StreamedDataset,
        splits: FileSplits,
        batch_size: int,
        seed: int,
        device: torch.device,
        world: World,
        *,
        epochs: int = 1,
        steps_per_epoch: int | None = None,
        workers: int = 0,
    ) -> None:
        """Reads nothing yet; `batch_size` is that of the whole step, all ranks.

        `steps_per_epoch` cuts an epoch short, for trying things out.
        """
        self.seed, self.device, self.world, self.batch_size = seed, device, world, batch_size
        self.num_classes, self._dataset, self._workers = dataset.num_classes, dataset, workers
        self._epochs, self._train = epochs, splits.train
        self._judged = {"test": splits.test}
        if splits.validation is not None:
            self._judged["validation"] = splits.validation
        whole = -(-len(self._train) // batch_size)  # the last, smaller batch counts
        self.steps_per_epoch = min(whole, steps_per_epoch or whole)
        self.is_cut = self.steps_per_epoch < whole
        rest = len(self._train) - batch_size * (self.steps_per_epoch - 1)
        self.smallest_batch = min(batch_size, rest)
        self._normalise = Normalisation(dataset, device)
        self._bad: dict[str, None] = {}  # a set that keeps its order
        self._coming: Iterator[Batch] = iter(())
        self._next: tuple[int, int] | None = None  # the epoch and step of what is coming

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """See `Task`: the order is drawn from (seed, epoch), a view from (seed, epoch, index).

        The workers go on from one epoch to the next without a pause, as long as the steps are asked
        for one after another.
        """
        if self._next != (epoch, skip):
            self._coming = self._batches(epoch, skip)
        for step in range(skip, self.steps_per_epoch):
            self._next = None  # until the batch is there, nobody knows
            batch = next(self._coming)
            last = step + 1 == self.steps_per_epoch
            self._next = (epoch + 1, 0) if last else (epoch, step + 1)
            if last and epoch >= self._epochs:
                self._coming = iter(())  # ends the workers
            yield batch

    def _batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """All batches of the run from a step of an epoch on."""
        ours, kept = itertools.tee(self._steps(epoch, skip))
        items = (_items(indices, views) for indices, views, _ in ours)
        reader = Reader(self._train, self._dataset.augmentation, self._dataset.max_bad + 2)
        for read, (indices, views, samples) in zip(self._read(reader, items), kept, strict=True):
            yield self._batch(read, indices, views, samples)

    def _steps(self, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor, int]]:
        """The rank's indices and views of each step, and the whole step's size."""
        for number in range(epoch, self._epochs + 1):
            size = len(self._train)
            order = torch.randperm(size, generator=generator(self.seed, "order", number))
            drawn = generator(self.seed, "views", number)
            views = torch.randint(VIEWS, (size,), generator=drawn)
            for step in range(skip if number == epoch else 0, self.steps_per_epoch):
                indices = order[step * self.batch_size : (step + 1) * self.batch_size]
                mine = self.world.share(indices)
                yield mine, views[mine], len(indices)

    def _read(self, reader: Reader, items: Iterator[list[Item]]) -> Iterator[Samples]:
        """The samples of each batch; what is bad among them is noted."""
        pin = self.device.type == "cuda"
        for read in stream(reader, items, self._workers, collate, pin=pin):
            self._bad |= dict.fromkeys(read.bad)
            self._check(len(self._bad))
            yield read

    def _batch(self, read: Samples, indices: Tensor, views: Tensor, samples: int) -> Batch:
        return DeferredBatch(lambda *_: self._on_device(read), indices, views, samples)

    def _on_device(self, read: Samples) -> tuple[Tensor, Tensor]:
        """Normalised images [B, 3, S, S], float32, channels last, and their classes."""
        pixels = self._normalise(read.pixels.to(self.device, non_blocking=True))
        return pixels, read.targets.to(self.device, non_blocking=True)

    def data_fingerprint(self) -> str:
        """See `Task`: of the files' names and classes; their contents are not read."""
        listed = (self._train, *self._judged.values())
        return digest(
            *(part for files in listed for part in (files.names, files.ends, files.targets))
        )

    def probe(self, size: int) -> Batch:
        """See `Task`: training images and views that the seed alone determines."""
        names = (self.seed, "probe")
        order = torch.randperm(len(self._train), generator=generator(*names, "order"))
        indices = order[:size]
        drawn = generator(*names, "views")
        views = torch.randint(VIEWS, (len(indices),), generator=drawn)
        reader = Reader(self._train, self._dataset.augmentation, self._dataset.max_bad + 2)
        parts = torch.split(torch.stack([indices, views], 1), 32)
        items = ([(index, view) for index, view in part.tolist()] for part in parts)
        read = list(self._read(reader, items))
        pixels = torch.cat([part.pixels for part in read])
        whole = Samples(pixels, torch.cat([part.targets for part in read]), ())
        return self._batch(whole, indices, views, len(indices))

    def shown(self, images: ImageFiles) -> Iterator[tuple[Tensor, Tensor]]:
        """See `ImageTask`."""
        parts = torch.split(self.world.share(torch.arange(len(images))), EVALUATION_BATCH)
        items = (_items(part, torch.zeros_like(part)) for part in parts if len(part))
        for read in self._read(Reader(images, self._dataset.presentation), items):
            yield self._on_device(read)

    def bad_samples(self) -> list[str]:
        """What is wrong with the files that could not be read since the start, on any rank.

        Raises:
            DataError: there are more of them than the data set puts up with.
        """
        told = self.world.gather(list(self._bad))
        everywhere = sorted({problem for problems in told for problem in problems})
        self._check(len(everywhere), everywhere)
        return everywhere

    def _check(self, count: int, problems: list[str] | None = None) -> None:
        if count > self._dataset.max_bad:
            listed = problems or list(self._bad)
            more = f"\n  and {count - NAMED} more" if count > NAMED else ""
            raise DataError(
                f"{count} images cannot be read, more than {name_of(type(self._dataset))}.max_bad "
                f"= {self._dataset.max_bad}:\n  " + "\n  ".join(listed[:NAMED]) + more
            )


def _items(indices: Tensor, views: Tensor) -> list[Item]:
    return list(zip(indices.tolist(), views.tolist(), strict=True))


SPEC = TaskSpec(make_task, check_network)
