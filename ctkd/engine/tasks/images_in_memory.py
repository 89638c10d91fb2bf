"""Classification: what its tasks share, and the one on a resident data set."""

import abc
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctkd.data.dataset import ImageDataset, digest
from ctkd.data.in_memory import ResidentDataset, ResidentImages, Splits
from ctkd.engine.config.compatibility import check_network
from ctkd.engine.distributed.world import World
from ctkd.engine.task import (
    Batch,
    DeferredBatch,
    Rows,
    StudentFunction,
    Task,
    TeacherFunction,
    ViewedTask,
)
from ctkd.engine.tasks.specs import TaskSpec
from ctkd.errors import ConfigError, DataError
from ctkd.seeds import generator

if TYPE_CHECKING:
    from ctkd.engine.config.build import Run

EVALUATION_BATCH = 256


def make_task(run: "Run", device: torch.device, world: World) -> "ClassificationTask":
    """See `TaskSpec`."""
    assert isinstance(run.dataset, ResidentDataset)
    splits, batch_size = run.dataset.load(), run.recipe.batch_size
    wanted = (run.seed, device, world, run.recipe.steps_per_epoch)
    task = ClassificationTask(run.dataset, splits, batch_size, *wanted)
    check_last_batch(task.smallest_batch, run, world)
    return task


def check_last_batch(images: int, run: "Run", world: World) -> None:
    """Refuses a last batch in which a process would have fewer parts than the others.

    The others would wait without an end where the forward of a part is a collective.
    """
    parts = run.runtime.accumulate if world.size > 1 else 1
    if images < world.size * parts:
        each = f" with {parts} parts each" if parts > 1 else ""
        raise ConfigError(
            f"the last batch of an epoch has {images} images for {world.size} processes{each}: "
            f"choose another batch_size than {run.recipe.batch_size}, or fewer processes"
        )


class ImageTask(Task):
    """Images, one row each; judged by top-1 on the test images.

    Attributes:
        world, device: this rank's.
        smallest_batch: images of an epoch's smallest step, all ranks.
        _judged: what a network is judged on, by its name ("test", "validation").
    """

    primary = "test_top1"
    labels: ClassVar = {"test_top1": "test", "validation_top1": "validation"}
    world: World
    device: torch.device
    smallest_batch: int
    _dataset: ImageDataset
    _judged: dict[str, Any]

    @abc.abstractmethod
    def shown(self, images: Any) -> Iterable[tuple[Tensor, Tensor]]:
        """The rank's share of what is judged: inputs, and classes, -1 for what does not count."""

    def try_student(self, student: nn.Module) -> None:
        """See `Task`."""
        student(torch.zeros(1, *self._dataset.shape, device=next(student.parameters()).device))

    def rows(self, student: StudentFunction, teacher: TeacherFunction | None, batch: Batch) -> Rows:
        """See `Task`: an image gives one row."""
        teacher_logits = None if teacher is None else teacher(batch)
        return Rows(student(batch.inputs), teacher_logits, batch.targets)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """See `Task`: top-1, top-5 (percent) and cross-entropy, test and validation apart.

        Each image counts once, however many ranks there are.

        Raises:
            DataError: there is none that counts.
        """
        was_training = model.training
        model.eval()
        metrics: dict[str, float] = {}
        with torch.inference_mode():
            for name, images in self._judged.items():
                judged = self._judge(model, images)
                metrics |= {f"{name}_{key}": value for key, value in judged.items()}
        model.train(was_training)
        return metrics

    def _judge(self, model: nn.Module, images: Any) -> dict[str, float]:
        totals = torch.zeros(4, dtype=torch.float64, device=self.device)
        for inputs, targets in self.shown(images):
            logits = model(inputs).float()
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices.eq(targets[:, None])
            loss = F.cross_entropy(logits, targets, reduction="sum", ignore_index=-1)
            counted = (targets >= 0).sum()
            totals += torch.stack([best[:, 0].sum(), best.sum(), loss, counted]).double()
        top1, top5, loss, counted = self.world.sum(totals).tolist()
        if not counted:
            raise DataError(f"none of the {len(images)} {images} can be read")
        # In this order 3,767 of 10,000 are 37.67 and not 37.669999999999995.
        return {"top1": 100 * top1 / counted, "top5": 100 * top5 / counted, "loss": loss / counted}


class ClassificationTask(ImageTask, ViewedTask):
    """The task on a resident data set."""

    def __init__(
        self,
        dataset: ResidentDataset,
        splits: Splits,
        batch_size: int,
        seed: int,
        device: torch.device,
        world: World,
        steps_per_epoch: int | None = None,
    ) -> None:
        """Puts the splits on the device; `batch_size` is that of the whole step, all ranks.

        `steps_per_epoch` cuts an epoch short, for trying things out.
        """
        self.seed, self.device, self.world, self.batch_size = seed, device, world, batch_size
        self._dataset, self.num_classes = dataset, dataset.num_classes
        self.samples, self.views = len(splits.train), dataset.views.count
        self._train = ResidentImages(splits.train, dataset, device)
        self._judged = {"test": ResidentImages(splits.test, dataset, device)}
        if splits.validation is not None:
            self._judged["validation"] = ResidentImages(splits.validation, dataset, device)
        whole = -(-len(self._train) // batch_size)  # the last, smaller batch counts
        self.steps_per_epoch = min(whole, steps_per_epoch or whole)
        self.is_cut = self.steps_per_epoch < whole
        rest = len(self._train) - batch_size * (self.steps_per_epoch - 1)
        self.smallest_batch = min(batch_size, rest)

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """See `Task`: the order is drawn from (seed, epoch), a view from (seed, epoch, index)."""
        size = len(self._train)
        order = torch.randperm(size, generator=generator(self.seed, "order", epoch))
        views = self._train.views.draw(size, self.seed, "views", epoch)
        for step in range(skip, self.steps_per_epoch):
            indices = order[step * self.batch_size : (step + 1) * self.batch_size]
            mine = self.world.share(indices)
            end = self.steps_per_epoch * self.batch_size
            later = self.world.share(order[(step + 1) * self.batch_size : end])
            coming = (later, views[later])
            yield DeferredBatch(self._make, mine, views[mine], len(indices), coming)

    def probe(self, size: int) -> Batch:
        """See `Task`: training images and views that the seed alone determines."""
        names = (self.seed, "probe")
        indices = torch.randperm(len(self._train), generator=generator(*names, "order"))[:size]
        views = self._train.views.draw(len(self._train), *names, "views")[indices]
        return self.batch_of(indices, views)

    def batch_of(self, indices: Tensor, views: Tensor) -> Batch:
        """Any training images in any views, as a step of their own."""
        return DeferredBatch(self._make, indices, views, len(indices))

    def _make(self, indices: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets on the device."""
        indices = indices.to(self.device, non_blocking=True)
        inputs = self._train.batch(indices, views.to(self.device, non_blocking=True))
        return inputs, self._train.targets[indices]

    def data_fingerprint(self) -> str:
        """See `Task`."""
        splits = (self._train, *self._judged.values())
        return digest(*(p for s in splits for p in (s.fingerprint.encode(), s.targets)))

    def data_key(self) -> dict[str, object]:
        """What determines the inputs that an index and a view stand for."""
        dataset, views = self._dataset, self._train.views
        return {
            "images": self._train.fingerprint,
            "normalisation": [list(dataset.mean), list(dataset.std)],
            "views": [type(views).__name__, views.padding, views.count],
        }

    def shown(self, images: ResidentImages) -> Iterator[tuple[Tensor, Tensor]]:
        """See `ImageTask`."""
        everything = torch.arange(len(images), device=images.targets.device)
        for indices in torch.split(self.world.share(everything), EVALUATION_BATCH):
            yield images.batch(indices), images.targets[indices]


SPEC = TaskSpec(make_task, check_network)
