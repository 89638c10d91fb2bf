"""The classification task on a resident data set."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctkd.data.resident import ResidentDataset, ResidentImages, Splits
from ctkd.engine.distributed import World
from ctkd.engine.task import Batch, Rows, StudentFunction, TeacherFunction
from ctkd.seeds import generator

EVALUATION_BATCH = 256


class ClassificationTask:
    """Images, one row each; judged by top-1 on the test images."""

    primary = "test_top1"

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
        self._train = ResidentImages(splits.train, dataset, device)
        self._judged = {"test": ResidentImages(splits.test, dataset, device)}
        if splits.validation is not None:
            self._judged["validation"] = ResidentImages(splits.validation, dataset, device)
        whole = -(-len(self._train) // batch_size)  # the last, smaller batch counts
        self.steps_per_epoch = min(whole, steps_per_epoch or whole)

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """See `Task`: the order is drawn from (seed, epoch), a view from (seed, epoch, index)."""
        size = len(self._train)
        order = torch.randperm(size, generator=generator(self.seed, "order", epoch))
        views = self._train.views.draw(size, self.seed, "views", epoch)
        for step in range(skip, self.steps_per_epoch):
            indices = order[step * self.batch_size : (step + 1) * self.batch_size]
            mine = self.world.share(indices)
            yield self._batch(mine, views[mine], rows=len(indices))

    def probe(self, size: int) -> Batch:
        """See `Task`: training images and views that the seed alone determines."""
        names = (self.seed, "probe")
        indices = torch.randperm(len(self._train), generator=generator(*names, "order"))[:size]
        views = self._train.views.draw(len(self._train), *names, "views")[indices]
        return self._batch(indices, views, rows=len(indices))

    def _batch(self, indices: Tensor, views: Tensor, rows: int) -> Batch:
        indices = indices.to(self.device, non_blocking=True)
        views = views.to(self.device, non_blocking=True)
        inputs = self._train.batch(indices, views)
        return Batch(inputs, self._train.targets[indices], indices, views, rows)

    def rows(self, student: StudentFunction, teacher: TeacherFunction | None, batch: Batch) -> Rows:
        """See `Task`: an image gives one row."""
        teacher_logits = None if teacher is None else teacher(batch)
        return Rows(student(batch.inputs), teacher_logits, batch.targets)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """See `Task`: top-1, top-5 (percent) and cross-entropy, test and validation apart."""
        was_training = model.training
        model.eval()
        metrics: dict[str, float] = {}
        with torch.inference_mode():
            for name, images in self._judged.items():
                metrics |= {f"{name}_{key}": value for key, value in _judge(model, images).items()}
        model.train(was_training)
        return metrics


def _judge(model: nn.Module, images: ResidentImages) -> dict[str, float]:
    totals = torch.zeros(3, dtype=torch.float64, device=images.targets.device)
    everything = torch.arange(len(images), device=images.targets.device)
    for indices in torch.split(everything, EVALUATION_BATCH):
        logits, targets = model(images.batch(indices)).float(), images.targets[indices]
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices.eq(targets[:, None])
        loss = F.cross_entropy(logits, targets, reduction="sum")
        totals += torch.stack([best[:, 0].sum(), best.sum(), loss]).double()
    top1, top5, loss = (totals / len(images)).tolist()
    return {"top1": 100 * top1, "top5": 100 * top5, "loss": loss}
