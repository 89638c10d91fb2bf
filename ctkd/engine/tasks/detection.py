"""The detection task: a sampled proposal is a row, scored by both networks; the metric is AP."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ctkd.checks import expect
from ctkd.data.aspect import AspectBatches, Item
from ctkd.data.coco import AS_IT_IS, COCO, PictureSample
from ctkd.data.coco_split import Annotated, DetectionSplits
from ctkd.data.coco_values import Id
from ctkd.data.dataset import Dataset, digest
from ctkd.data.workers import stream
from ctkd.engine.distributed.world import World
from ctkd.engine.task import Batch, Rows, StudentFunction, Task, TeacherFunction
from ctkd.engine.tasks.average_precision import Found, average_precision, results_text
from ctkd.engine.tasks.proposals import ProposalSettings
from ctkd.engine.tasks.specs import TaskSpec
from ctkd.engine.teacher.frozen import FrozenTeacher
from ctkd.errors import ConfigError, DataError
from ctkd.losses.foreground import GROUPS, row_groups, row_weights
from ctkd.models.faster_rcnn import Detector, Proposals, Sampled
from ctkd.seeds import generator, seed_of

if TYPE_CHECKING:
    from ctkd.engine.config.run import Run

Loaded = list[PictureSample] | DataError


def make_task(run: "Run", device: torch.device, world: World) -> "DetectionTask":
    """See `TaskSpec`."""
    assert isinstance(run.dataset, COCO)
    size, parts = run.recipe.batch_size, run.runtime.accumulate
    expected = f"a number of pictures of {world.size} or more, one for each process"
    expect(size >= world.size, "Recipe", "batch_size", size, expected)
    # A part's loss is divided by the proposals of the whole step, which later parts have yet to
    # sample.
    expect(parts == 1, "Runtime", "accumulate", parts, "1 for detection: lower batch_size instead")
    loading = Loading(size, run.seed, run.runtime.workers, run.recipe.steps_per_epoch)
    background = run.task_part.background_weight
    share = slice(world.rank, None, world.size)
    splits = run.dataset.checked(run.dataset.load(), share, world.gather)
    return DetectionTask(run.dataset, splits, loading, device, world, background)


def check_network(role: str, model: nn.Module, dataset: Dataset, meta: bool) -> None:
    """See `TaskSpec`."""
    if not isinstance(model, Detector):
        raise ConfigError(
            f"the {role} is a {type(model).__name__}, no detector: choose a network such as "
            "@fasterrcnn_resnet18_fpn"
        )
    classes = model.roi_heads.box_predictor.cls_score.out_features
    if classes != dataset.num_classes:
        raise ConfigError(
            f"the {role} tells {classes} classes apart, the background among them, the data set "
            f"has {dataset.num_classes}: leave num_classes unset, and both follow the data"
        )


@dataclass(frozen=True)
class Loading:
    """How batches are made.

    Attributes:
        batch_size: pictures of a whole step, all ranks.
        steps_per_epoch: how many steps are called an epoch; None for a pass over the data.
    """

    batch_size: int
    seed: int
    workers: int = 0
    steps_per_epoch: int | None = None


class DetectionTask(Task):
    """Pictures with boxes.

    The data come in passes, the run in epochs of `steps_per_epoch` steps, and neither knows of the
    other: the recipe counts steps, and an epoch is a stretch of them.

    Attributes:
        class_names: of every target.
        notes: what was left out of the data, and what else the user should know of them.
        files: what the last evaluation leaves, by file name.
    """

    monitor = "ap"
    labels: ClassVar = {"ap": "AP", "ap50": "AP50"}

    def __init__(
        self,
        dataset: COCO,
        splits: DetectionSplits,
        loading: Loading,
        device: torch.device,
        world: World,
        background_weight: float = 1.0,
    ) -> None:
        """Holds annotations only; pictures are read as they are needed."""
        self.device, self.world, self._background = device, world, background_weight
        self._dataset, self._splits, self._loading = dataset, splits, loading
        sizes = splits.train.sizes
        wide = sizes[:, 0] >= sizes[:, 1]
        self._order = AspectBatches(wide, loading.batch_size, loading.seed)
        self.steps_per_epoch = loading.steps_per_epoch or self._order.steps_per_pass
        self.smallest_batch = loading.batch_size  # an incomplete batch is dropped
        self.class_names, self.files = splits.train.names, dict[str, str]()
        self.notes = _notes(splits)
        self._bad: dict[str, None] = {}  # a set that keeps its order

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """See `Task`: what a step sees is a function of (seed, step)."""
        first = (epoch - 1) * self.steps_per_epoch
        steps = range(first + skip, first + self.steps_per_epoch)
        items = [self._order.items(step)[self.world.rank :: self.world.size] for step in steps]
        reader = self._dataset.reader(self._splits.train)
        pin = self.device.type == "cuda"
        for loaded in stream(reader, items, self._loading.workers, together, pin=pin):
            yield self._batch(loaded, self._loading.batch_size)

    def try_student(self, student: nn.Module) -> None:
        """See `Task`: the backbone on the smallest picture, padded as in a batch."""
        assert isinstance(student, Detector)
        sizes = self._splits.train.sizes.double()
        short = min(self._dataset.short_sides) / sizes.amin(1)
        scale = torch.minimum(short, self._dataset.long_side / sizes.amax(1))
        multiple = student.transform.size_divisible
        padded = (sizes * scale[:, None]).int().div(multiple).ceil().clamp_min(1).int() * multiple
        width, height = padded[padded.prod(1).argmin()].tolist()
        student.backbone(torch.zeros(1, 3, height, width, device=next(student.parameters()).device))

    def data_fingerprint(self) -> str:
        """See `Task`: of the pictures' names and annotations; their contents are not read."""
        parts: list[Tensor | bytes] = []
        for split in (self._splits.train, self._splits.test):
            names = "\n".join(os.path.basename(path) for path in split.paths)
            parts += [names.encode(), split.sizes, split.boxes, split.labels, split.starts]
        # What AP is scored by, crowds and areas too.
        truth = json.dumps(self._splits.test.truth["annotations"], sort_keys=True)
        return digest(*parts, truth.encode())

    def bad_samples(self) -> list[str]:
        """See `Reads`: of the training pictures; those to evaluate on were decoded before."""
        bad = self.world.gather(list(self._bad))
        return sorted({problem for problems in bad for problem in problems})

    def probe(self, size: int) -> Batch:
        """See `Task`: `size` pictures, each with all its proposals."""
        count, seed = len(self._splits.train), self._loading.seed
        chosen = torch.randperm(count, generator=generator(seed, "probe"))[:size].tolist()
        items: list[Item] = [(index, seed_of(seed, "probe", index)) for index in chosen]
        reader = self._dataset.reader(self._splits.train)
        return self._batch(together([reader(*item) for item in items]), len(items))

    def _batch(self, loaded: Loaded, samples: int) -> Batch:
        if isinstance(loaded, DataError):
            raise loaded
        self._bad |= dict.fromkeys(problem for sample in loaded for problem in sample.bad)
        return Batch(
            inputs=[self._as_input(sample.picture) for sample in loaded],
            targets=[
                {name: value.to(self.device) for name, value in sample.targets.items()}
                for sample in loaded
            ],
            indices=torch.tensor([sample.index for sample in loaded]),
            views=torch.tensor([sample.view for sample in loaded]),
            samples=samples,
        )

    def _as_input(self, picture: Tensor) -> Tensor:
        return picture.to(self.device, non_blocking=True).float().div_(255)

    def rows(self, student: StudentFunction, teacher: TeacherFunction | None, batch: Batch) -> Rows:
        """See `Task`: the student's sampled proposals, the teacher with features of its own."""
        sampled: Sampled = student(batch.inputs, batch.targets)
        targets = sampled.targets
        return Rows(
            sampled.logits,
            None if teacher is None else teacher(replace(batch, inputs=sampled.proposals)),
            targets,
            groups=row_groups(targets),
            group_names=GROUPS,
            other_losses=sampled.losses,
            total=int(self.world.sum(torch.tensor(len(targets)))),
            weights=None if self._background == 1 else row_weights(targets, self._background),
        )

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """See `Task`: COCO's twelve numbers in percent, each picture evaluated once.

        "ap" is NaN where the pictures hold nothing to find. A picture goes through the network
        alone, so that no number depends on the sizes of other pictures or on how many processes
        share the work.
        """
        was_training, split = model.training, self._splits.test
        model.eval()
        indices = range(len(split))[: self.evaluated_samples][self.world.rank :: self.world.size]
        items: list[list[Item]] = [[(index, AS_IT_IS)] for index in indices]
        found: list[Found] = []
        reader = self._dataset.reader(split)
        with torch.inference_mode():
            pictures = stream(reader, items, self._loading.workers, together)
            for loaded in self.counted(pictures, len(items)):
                if isinstance(loaded, DataError):
                    raise loaded
                (sample,) = loaded
                (detections,) = model([self._as_input(sample.picture)])
                found += _as_results(detections, split.ids[sample.index], split.category_ids)
        model.train(was_training)
        everything = [one for part in self.world.gather(found) for one in part]
        everything.sort(key=lambda one: one["image_id"])  # the same order for any number of ranks
        self.files = {"detections.json": results_text(everything)}
        per_class = self._dataset.per_class
        return self.world.agree(lambda: average_precision(split.truth, everything, per_class))


def _notes(splits: DetectionSplits) -> list[str]:
    counts = [
        f"{len(s):,} {name}" for name, s in (("training", splits.train), ("test", splits.test))
    ]
    classes = len(splits.train.category_ids)
    notes = [f"pictures: {counts}, with {classes:,} categories"]
    for name, split in (("training", splits.train), ("test", splits.test)):
        left_out = [f"left out {split.left_out}"] if split.passed_over else []
        notes += [f"{name}: {text}" for text in (*left_out, *split.remarks)]
    return notes + _undefined(splits.test)


def _undefined(test: Annotated) -> list[str]:
    if test.has_objects:
        return []
    return [
        f"test: the {len(test)} pictures hold no object to find (crowds do not count), so AP is "
        "undefined: it is shown as –, metrics.jsonl and summary.json have null for it, no epoch "
        "is the best one, and student_best.pt is not written"
    ]


def together(samples: list[PictureSample | DataError]) -> Loaded:
    """The samples of a batch, or the first thing that was wrong with one."""
    return next((s for s in samples if isinstance(s, DataError)), None) or samples  # type: ignore[return-value]


def _as_results(
    detections: dict[str, Tensor], image_id: Id, category_ids: dict[int, Id]
) -> list[Found]:
    """A picture's detections as COCO's results have them; labels without a category are dropped."""
    boxes = detections["boxes"].double().cpu()
    boxes[:, 2:] -= boxes[:, :2]
    numbers = (detections["labels"].tolist(), detections["scores"].tolist(), boxes.tolist())
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for label, score, box in zip(*numbers, strict=True)
        if label in category_ids
    ]


class FrozenDetector(FrozenTeacher):
    """A teacher that scores the boxes that the student sampled."""

    def compute(self, inputs: Any) -> Tensor:
        """Logits [N, C], float32, of `Proposals`, all in one call."""
        assert isinstance(inputs, Proposals)
        assert isinstance(self.network, Detector)
        with torch.inference_mode(), self._autocast:
            logits = self.network.score(inputs).float()
            if self.half_rows:
                logits = logits.half().float()
        copied: Tensor = logits.clone()
        return copied


SPEC = TaskSpec(make_task, check_network, settings=ProposalSettings, teacher=FrozenDetector)
