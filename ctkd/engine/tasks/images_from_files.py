"""The classification task on image files: read by worker processes while the run trains."""

import functools
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctkd.data.dataset import digest
from ctkd.data.from_files import (
    FileSplits,
    ImageFiles,
    Normalization,
    Reader,
    Samples,
    StreamedDataset,
    collate,
)
from ctkd.data.integrity import check_files
from ctkd.data.pixel_policy import AugmentedCrop
from ctkd.data.rand_augment import RandAugment
from ctkd.data.workers import Item, stream
from ctkd.engine.config.compatibility import check_network
from ctkd.engine.distributed.world import World
from ctkd.engine.task import Batch, DeferredBatch
from ctkd.engine.tasks.augmentation import UNCHANGED, Augmentation
from ctkd.engine.tasks.images import ImageTask, check_last_batch
from ctkd.engine.tasks.specs import TaskSpec
from ctkd.engine.tasks.strong_view import augmentation_of
from ctkd.errors import DataError
from ctkd.registry import name_of
from ctkd.seeds import generator

if TYPE_CHECKING:
    from ctkd.engine.config.run import Run

VIEWS = 2**62  # a view is a number that decides crop and flip
NAMED = 5  # bad files in a message


def make_task(run: "Run", device: torch.device, world: World) -> "StreamedTask":
    """See `TaskSpec`."""
    assert isinstance(run.dataset, StreamedDataset)
    splits = run.dataset.load()
    check_files(run.dataset, splits)
    task = StreamedTask(
        run.dataset,
        splits,
        run.recipe.batch_size,
        run.seed,
        device,
        world,
        epochs=run.recipe.epochs,
        steps_per_epoch=run.recipe.steps_per_epoch,
        workers=run.runtime.workers,
        augment=augmentation_of(run.strong_view, run.dataset),
        augmentation=run.task_part,
    )
    check_last_batch(task.smallest_batch, run, world)
    return task


class StreamedTask(ImageTask):
    """The task on image files; an evaluation leaves out files that cannot be read."""

    dataset: StreamedDataset
    train: ImageFiles
    evaluation_batch = 128

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
        augment: RandAugment | None = None,
        augmentation: Augmentation = UNCHANGED,
    ) -> None:
        """Reads no image yet. `workers` is the number of processes that read; see `ImageTask`."""
        wanted = (batch_size, seed, device, world, steps_per_epoch, augment, augmentation)
        super().__init__(dataset, splits, *wanted)
        self._epochs, self._workers = epochs, workers
        self._normalize = Normalization(dataset, device)
        self._bad: dict[str, None] = {}  # a set that keeps its order
        self._coming: Iterator[Batch] = iter(())
        self._next: tuple[int, int] | None = None  # the epoch and step of the next batch

    def opened(self, split: ImageFiles) -> ImageFiles:
        """See `ImageTask`: the files are opened when they are read."""
        return split

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """See `Task`: the order is drawn from (seed, epoch), a view from (seed, epoch, index).

        The workers continue from one epoch to the next without a pause, while the steps are
        read one after another.
        """
        if self._next != (epoch, skip):
            self._coming = self._batches(epoch, skip)
        for step in range(skip, self.steps_per_epoch):
            self._next = None  # not known before the batch is there
            batch = next(self._coming)
            last = step + 1 == self.steps_per_epoch
            self._next = (epoch + 1, 0) if last else (epoch, step + 1)
            if last and epoch >= self._epochs:
                self._coming = iter(())  # ends the workers
            yield batch

    def _batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """All batches of the run, from a step of an epoch on."""
        ours, kept = itertools.tee(self._steps(epoch, skip))
        items = (_items(indices, views) for indices, views, _ in ours)
        for read, (indices, views, samples) in zip(
            self._read(self._reader(), items), kept, strict=True
        ):
            yield self._batch(read, indices, views, samples)

    def _reader(self) -> Reader:
        """Of training images: a file that cannot be read is replaced."""
        crop, settings = self.dataset.augmentation, self.augmenter.settings
        policy = (settings.policy, settings.operations, settings.magnitude)
        transform = crop if settings.policy == "none" else AugmentedCrop(crop, *policy)
        return Reader(self.train, transform, self.dataset.max_bad + 2, self.augment)

    def _steps(self, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Of each step: this rank's indices and views (then partners'), and all ranks' images."""
        for number in range(epoch, self._epochs + 1):
            order = self.order(number)
            drawn = generator(self.seed, "views", number)
            views = torch.randint(VIEWS, (len(order),), generator=drawn)
            first = skip if number == epoch else 0
            for step, (indices, samples) in enumerate(self.steps(order, first), first):
                partners = self.partners(order, step)
                if partners is not None:  # images of other ranks, read here too
                    indices = torch.cat([indices, partners])
                yield indices, views[indices], samples

    def _read(self, reader: Reader, items: Iterator[list[Item]]) -> Iterator[Samples]:
        """The samples of each batch; bad files are recorded."""
        pin = self.device.type == "cuda"
        for read in stream(reader, items, self._workers, collate, pin=pin):
            self._bad |= dict.fromkeys(read.bad)
            self._check(len(self._bad))
            yield read

    def _batch(self, read: Samples, indices: Tensor, views: Tensor, samples: int) -> Batch:
        strong = None if read.strong is None else functools.partial(self._normal, read.strong)
        own = len(self.world.shard(torch.arange(samples)))  # behind them: partners, if any
        make = functools.partial(self._make, read, views)
        return DeferredBatch(make, indices[:own], views[:own], samples, make_strong=strong)

    def _normal(self, pixels: Tensor) -> Tensor:
        """Normalized images [B, 3, S, S], float32, channels last, on the device."""
        return self._normalize(pixels.to(self.device, non_blocking=True))

    def _make(self, read: Samples, views: Tensor, own: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets on the device."""
        images, targets = self._on_device(read)
        if not (self.augmenter.settings.acts or self.augmenter.settings.softens):
            return images, targets
        views, n = views.to(self.device, non_blocking=True), len(own)
        images = self.augmenter.erased(images, views)
        others = (images[n:], targets[n:]) if len(images) > n else None
        return self.augmenter.mixed(images[:n], targets[:n], views[:n], others)

    def _on_device(self, read: Samples) -> tuple[Tensor, Tensor]:
        """Normalized images and their classes."""
        return self._normal(read.pixels), read.targets.to(self.device, non_blocking=True)

    def data_fingerprint(self) -> str:
        """See `Task`: a hash of the names and classes of the files; their contents are not read."""
        listed = (self.train, *self.evaluated.values())
        return digest(
            *(part for files in listed for part in (files.names, files.ends, files.targets))
        )

    def probe(self, size: int) -> Batch:
        """See `Task`: images and views are functions of the seed."""
        indices = self.probe_indices(size)
        drawn = generator(self.seed, "probe", "views")
        views = torch.randint(VIEWS, (len(indices),), generator=drawn)
        parts = torch.split(torch.stack([indices, views], 1), 32)
        items = ([(index, view) for index, view in part.tolist()] for part in parts)
        read = list(self._read(self._reader(), items))
        strong = [part.strong for part in read if part.strong is not None]
        whole = Samples(
            torch.cat([part.pixels for part in read]),
            torch.cat([part.targets for part in read]),
            (),
            torch.cat(strong) if strong else None,
        )
        return self._batch(whole, indices, views, len(indices))

    def shown(self, images: ImageFiles) -> Iterator[tuple[Tensor, Tensor]]:
        """See `ImageTask`."""
        parts = (part for part in self.parts_of(images) if len(part))
        items = (_items(part, torch.zeros_like(part)) for part in parts)
        for read in self._read(Reader(images, self.dataset.presentation), items):
            yield self._on_device(read)

    def bad_samples(self) -> list[str]:
        """One sentence for each file that could not be read since the start, on any rank.

        Raises:
            DataError: there are more of them than the data set allows.
        """
        gathered = self.world.gather(list(self._bad))
        everywhere = sorted({problem for problems in gathered for problem in problems})
        self._check(len(everywhere), everywhere)
        return everywhere

    def _check(self, count: int, problems: list[str] | None = None) -> None:
        if count > self.dataset.max_bad:
            listed = problems or list(self._bad)
            more = f"\n  and {count - NAMED} more" if count > NAMED else ""
            raise DataError(
                f"{count} images cannot be read, more than {name_of(type(self.dataset))}.max_bad "
                f"= {self.dataset.max_bad}:\n  " + "\n  ".join(listed[:NAMED]) + more
            )


def _items(indices: Tensor, views: Tensor) -> list[Item]:
    return list(zip(indices.tolist(), views.tolist(), strict=True))


SPEC = TaskSpec(make_task, check_network, settings=Augmentation)
