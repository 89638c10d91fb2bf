"""The image task on a data set that is kept in memory, on the device."""

import copy
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctkd.data.dataset import digest
from ctkd.data.in_memory import ResidentDataset, ResidentImages, Split
from ctkd.data.integrity import check_splits
from ctkd.data.view_numbers import numbers_of
from ctkd.engine.config.compatibility import check_network
from ctkd.engine.distributed.world import World
from ctkd.engine.task import Batch, DeferredBatch, ViewedTask
from ctkd.engine.tasks.augmentation import CODES, POLICY_STARTS, Augmentation
from ctkd.engine.tasks.images import ImageTask, check_last_batch
from ctkd.engine.tasks.specs import TaskSpec
from ctkd.engine.tasks.strong_view import augmentation_of
from ctkd.seeds import generator

if TYPE_CHECKING:
    from ctkd.engine.config.run import Run


def make_task(run: "Run", device: torch.device, world: World) -> "ClassificationTask":
    """See `TaskSpec`."""
    assert isinstance(run.dataset, ResidentDataset)
    splits = run.dataset.load()
    check_splits(run.dataset, splits)
    wanted = (run.recipe.batch_size, run.seed, device, world, run.recipe.steps_per_epoch)
    augments = (augmentation_of(run.strong_view, run.dataset), run.task_part)
    task = ClassificationTask(run.dataset, splits, *wanted, *augments)
    check_last_batch(task.smallest_batch, run, world)
    return task


class ClassificationTask(ImageTask, ViewedTask):
    """The task on images in memory; see `ImageTask`."""

    dataset: ResidentDataset
    train: ResidentImages
    evaluation_batch = 256

    @property
    def samples(self) -> int:
        """See `ViewedTask`."""
        return len(self.train)

    @property
    def remembers(self) -> bool:
        """See `ViewedTask`."""
        return not self.augmenter.settings.acts

    @property
    def views(self) -> int:
        """See `ViewedTask`."""
        return self.dataset.views.count

    def opened(self, split: Split) -> ResidentImages:
        """See `ImageTask`."""
        return ResidentImages(split, self.dataset, self.device)

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """See `Task`: the order is drawn from (seed, epoch), a view from (seed, epoch, index)."""
        order = self.order(epoch)
        views = self._draw("views", epoch)
        numbers = self.strong_numbers("strong", epoch)
        end = self.steps_per_epoch * self.batch_size
        for step, (indices, samples) in enumerate(self.steps(order, skip), skip + 1):
            later = self.world.shard(order[step * self.batch_size : end])
            coming = (later, views[later])
            make, partners = self._make, self.partners(order, step - 1)
            if partners is not None:
                make = functools.partial(make, partners=(partners, views[partners]))
            make_strong = self._strong_maker(indices, numbers)
            yield DeferredBatch(make, indices, views[indices], samples, coming, make_strong)

    def _draw(self, *names: int | str) -> Tensor:
        """The views of all images; where they are augmented, code · count + the data set's view."""
        own, views = self.train.views, self.train.views.draw(len(self.train), self.seed, *names)
        if not self.augmenter.settings.acts:
            return views
        drawn = generator(self.seed, *names, "augmentation")
        return views + own.count * torch.randint(CODES, (len(views),), generator=drawn)

    def probe(self, size: int) -> Batch:
        """See `Task`: images and views are functions of the seed."""
        indices = self.probe_indices(size)
        views = self._draw("probe", "views")[indices]
        strong = self._strong_maker(indices, self.strong_numbers("probe", "strong"))
        return DeferredBatch(self._make, indices, views, len(indices), make_strong=strong)

    def batch_of(self, indices: Tensor, views: Tensor) -> Batch:
        """Any training images in any views, as a step of their own."""
        return DeferredBatch(self._make, indices, views, len(indices))

    def strong_numbers(self, *names: int | str) -> Tensor | None:
        """The numbers in [0, 1) that decide each image's strong view, a function of (seed, names).

        [images, numbers of the crop and of the augmentation]; None without strong views.
        """
        if self.augment is None:
            return None
        drawn = generator(self.seed, *names)
        return torch.rand(len(self.train), 1 + self.augment.numbers, generator=drawn)

    def _strong_maker(self, indices: Tensor, numbers: Tensor | None) -> Callable[[], Tensor] | None:
        """What makes the strong views of a batch, when they are first used."""
        if self.augment is None or numbers is None:
            return None
        make = self.train.strong_batch
        return functools.partial(make, indices, numbers[indices], self.augment)

    def _make(
        self, indices: Tensor, views: Tensor, partners: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Inputs and targets on the device; indices and views of partners on other ranks."""
        images, targets, views = self._images(indices, views)
        others = None if partners is None else self._images(*partners)[:2]
        return self.augmenter.mixed(images, targets, views, others)

    def _images(self, indices: Tensor, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images, their classes and views on the device."""
        policy, count = self.augmenter.policy, self.train.views.count
        if policy is not None:  # the host sorts the images by operation
            crop = (views % count + 0.5)[:, None] / count
            numbers = numbers_of(views, POLICY_STARTS + policy.numbers)[:, POLICY_STARTS:]
            numbers = torch.cat([crop, numbers], 1)
            images = self.train.strong_batch(indices, numbers, policy)
        indices, views = (t.to(self.device, non_blocking=True) for t in (indices, views))
        if policy is None:
            images = self.train.batch(indices, views % count)
        return self.augmenter.erased(images, views), self.train.targets[indices], views

    def for_run(self, run: "Run") -> "ClassificationTask":
        """See `Task`: the images are shared; order, views and strong views are the run's own."""
        task = copy.copy(self)
        task.seed, task.augment = run.seed, augmentation_of(run.strong_view, run.dataset)
        return task

    def data_fingerprint(self) -> str:
        """See `Task`: a hash of all pixels and labels."""
        splits = (self.train, *self.evaluated.values())
        return digest(*(p for s in splits for p in (s.fingerprint.encode(), s.targets)))

    def data_key(self) -> dict[str, object]:
        """What determines the inputs that an index and a view stand for."""
        dataset, views = self.dataset, self.train.views
        return {
            "images": self.train.fingerprint,
            # Existing caches have this key.
            "normalisation": [list(dataset.mean), list(dataset.std)],  # codespell:ignore
            "views": [type(views).__name__, views.padding, views.count],
        }

    def shown(self, images: ResidentImages) -> Iterator[tuple[Tensor, Tensor]]:
        """See `ImageTask`."""
        for indices in self.parts_of(images, images.targets.device):
            yield images.batch(indices), images.targets[indices]


SPEC = TaskSpec(make_task, check_network, settings=Augmentation, shared=True)
