"""What the two image tasks share: order, rows, evaluation, and the cut of an epoch."""

import abc
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctkd.data.dataset import ImageDataset, ImageSplits
from ctkd.data.rand_augment import RandAugment
from ctkd.engine.distributed.world import World
from ctkd.engine.task import Batch, Rows, StudentFunction, Task, TeacherFunction
from ctkd.engine.tasks.augmentation import UNCHANGED, Augmentation, Augmenter, partners_of
from ctkd.errors import ConfigError, DataError
from ctkd.models.distillation_token import heads_of
from ctkd.results.read.schema import PREDICTIONS_FILE
from ctkd.seeds import generator

if TYPE_CHECKING:
    from ctkd.engine.config.run import Run


class ImageTask(Task):
    """Images with one class each: an image gives one row. The monitor is test top-1.

    Attributes:
        seed, device, world: of the run, on this rank.
        batch_size: images of a whole step, all ranks.
        train: the training images; `len` gives their number.
        evaluated: the images to evaluate on, by their name ("test", "validation").
        evaluation_batch: images of one call of the network in an evaluation.
    """

    evaluation_batch: ClassVar[int]

    monitor = "test_top1"
    labels: ClassVar = {"test_top1": "test", "validation_top1": "validation"}

    def __init__(
        self,
        dataset: ImageDataset,
        splits: ImageSplits[Any],
        batch_size: int,
        seed: int,
        device: torch.device,
        world: World,
        steps_per_epoch: int | None = None,
        augment: RandAugment | None = None,
        augmentation: Augmentation = UNCHANGED,
    ) -> None:
        """Takes splits that `ctkd.data.integrity` has checked.

        Args:
            batch_size: of a whole step, all ranks.
            steps_per_epoch: cuts an epoch short, for a trial; None for the whole data set.
            augment: what makes a crop a strong view; None for batches without strong views.
            augmentation: of training images, on top of the data set's views.
        """
        self.augment = augment
        self.seed, self.device, self.world, self.batch_size = seed, device, world, batch_size
        self.dataset, self.num_classes = dataset, dataset.num_classes
        self.augmenter = Augmenter(augmentation, dataset.num_classes, device)
        self.train: Any = self.opened(splits.train)
        self.evaluated: dict[str, Any] = {"test": self.opened(splits.test)}
        if splits.validation is not None:
            self.evaluated["validation"] = self.opened(splits.validation)
        whole = -(-len(self.train) // batch_size)  # the last, smaller batch counts
        self.steps_per_epoch = min(whole, steps_per_epoch or whole)
        self.is_cut = self.steps_per_epoch < whole
        rest = len(self.train) - batch_size * (self.steps_per_epoch - 1)
        self.smallest_batch = min(batch_size, rest)
        counts = [f"{len(self.train):,} training"]
        counts += [f"{len(images):,} {name}" for name, images in self.evaluated.items()]
        classes = f"{dataset.num_classes:,} classes"
        self.notes = (f"images: {', '.join(counts)}, in {classes}", *splits.notes)

    @abc.abstractmethod
    def opened(self, split: Any) -> Any:
        """The images of a split as the task uses them."""

    @abc.abstractmethod
    def shown(self, images: Any) -> Iterable[tuple[Tensor, Tensor]]:
        """The share of this rank in images to evaluate on: inputs, and classes (-1: unreadable)."""

    def parts_of(self, images: Any, device: torch.device | None = None) -> tuple[Tensor, ...]:
        """The indices of this rank's share in images to evaluate on, by call of the network."""
        everything = torch.arange(len(images), device=device)[: self.evaluated_samples]
        return torch.split(self.world.shard(everything), self.evaluation_batch)

    def order(self, epoch: int) -> Tensor:
        """The order of the training images in an epoch, a function of (seed, epoch)."""
        return torch.randperm(len(self.train), generator=generator(self.seed, "order", epoch))

    def probe_indices(self, size: int) -> Tensor:
        """The training images of the landscape, a function of the seed."""
        drawn = generator(self.seed, "probe", "order")
        return torch.randperm(len(self.train), generator=drawn)[:size]

    def steps(self, order: Tensor, skip: int) -> Iterator[tuple[Tensor, int]]:
        """Of each step after the first `skip`: this rank's indices, and the images of all ranks."""
        for step in range(skip, self.steps_per_epoch):
            indices = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self.world.shard(indices), len(indices)

    def partners(self, order: Tensor, step: int) -> Tensor | None:
        """The images that this rank's images of a step are mixed with; see `partners_of`."""
        indices = order[step * self.batch_size : (step + 1) * self.batch_size]
        return partners_of(indices, self.world) if self.augmenter.settings.mixes else None

    def try_student(self, student: nn.Module) -> None:
        """See `Task`."""
        student(torch.zeros(1, *self.dataset.shape, device=next(student.parameters()).device))

    def rows(self, student: StudentFunction, teacher: TeacherFunction | None, batch: Batch) -> Rows:
        """See `Task`: an image gives one row."""
        teacher_logits = None if teacher is None else teacher(batch)
        strong = None
        student_logits, of_class = heads_of(student(batch.inputs))
        # Two calls, as in the public code of MLKD and CRLD: batch normalization takes the
        # statistics of each view alone, and its running statistics move twice in a step.
        if teacher is not None and batch.strong is not None:
            strong = heads_of(student(batch.strong))[0], teacher(batch.of_strong_view())
        seen = (student_logits, teacher_logits, batch.targets)
        return Rows(*seen, strong=strong, class_student=of_class)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """See `Task`: top-1, top-5 (percent) and cross-entropy of each part.

        Each image counts once, for any number of ranks.

        Raises:
            DataError: no image of a part can be read.
        """
        was_training = model.training
        model.eval()
        metrics: dict[str, float] = {}
        with torch.inference_mode():
            for name, images in self.evaluated.items():
                measured = self._measure(model, name, images)
                metrics |= {f"{name}_{key}": value for key, value in measured.items()}
        model.train(was_training)
        return metrics

    def _measure(self, model: nn.Module, name: str, images: Any) -> dict[str, float]:
        totals = torch.zeros(4, dtype=torch.float64, device=self.device)
        predicted: list[Tensor] = []  # class and prediction of each image
        for inputs, targets in self.counted(self.shown(images), len(self.parts_of(images))):
            logits = model(inputs).float()
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices.eq(targets[:, None])
            loss = F.cross_entropy(logits, targets, reduction="sum", ignore_index=-1)
            counted = (targets >= 0).sum()
            predicted.append(torch.stack([targets, logits.argmax(dim=1)], dim=1))
            totals += torch.stack([best[:, 0].sum(), best.sum(), loss, counted]).double()
        top1, top5, loss, counted = self.world.sum(totals).tolist()
        if name == "test":
            self.files = {PREDICTIONS_FILE: self._predictions(predicted)}
        if not counted:
            raise DataError(f"none of the {len(images)} {name} images can be read")
        # In this order 3,767 of 10,000 are 37.67 and not 37.669999999999995.
        return {"top1": 100 * top1 / counted, "top5": 100 * top5 / counted, "loss": loss / counted}

    def _predictions(self, predicted: list[Tensor]) -> str:
        """The text of `predictions.csv`: a line for each test image, in the order of the data.

        The target of an image that cannot be read is -1.
        """
        own = torch.cat(predicted).tolist() if predicted else []
        ranks = self.world.gather(own)  # rank r has the images r, r + size, …
        count = sum(map(len, ranks))
        lines = [ranks[k % len(ranks)][k // len(ranks)] for k in range(count)]
        return "target,prediction\n" + "".join(f"{t},{p}\n" for t, p in lines)


def check_last_batch(images: int | None, run: "Run", world: World) -> None:
    """Refuses a last batch in which a process would have fewer parts than the others.

    The others would wait without an end where the forward of a part is a collective.
    """
    parts = run.runtime.accumulate if world.size > 1 else 1
    if images is not None and images < world.size * parts:
        each = f" with {parts} parts each" if parts > 1 else ""
        raise ConfigError(
            f"the last batch of an epoch has {images} images for {world.size} processes{each}: "
            f"choose another batch_size than {run.recipe.batch_size}, or fewer processes"
        )
