"""The language task: a token is a row, which predicts the next token; judged in bits per byte."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctkd.data.dataset import Dataset, digest
from ctkd.data.text.text_dataset import TextDataset, TextSplits
from ctkd.data.text.windows import IGNORED, Windows
from ctkd.engine.distributed.world import World
from ctkd.engine.task import Batch, DeferredBatch, Rows, StudentFunction, Task, TeacherFunction
from ctkd.engine.tasks.specs import TaskSpec
from ctkd.engine.teacher.frozen import FrozenTeacher
from ctkd.errors import ConfigError
from ctkd.models.language_model import LanguageModel, TokenInputs
from ctkd.seeds import generator

if TYPE_CHECKING:
    from ctkd.engine.config.build import Run

EVALUATED = 2**23  # logits of one call in an evaluation: 2,048 rows of 4,096 tokens


def make_task(run: "Run", device: torch.device, world: World) -> "LanguageTask":
    """See `TaskSpec`."""
    assert isinstance(run.dataset, TextDataset)
    size, parts = run.recipe.batch_size, run.runtime.accumulate
    if size < world.size * parts:
        raise ConfigError(
            f"Recipe.batch_size = {size}: expected at least {world.size * parts} windows, one for "
            "each part on each process"
        )
    splits = world.agree(run.dataset.load) if world.size > 1 else run.dataset.load()
    return LanguageTask(
        run.dataset, splits, size, run.seed, device, world, run.recipe.steps_per_epoch
    )


def check_network(role: str, model: nn.Module, dataset: Dataset, meta: bool) -> None:
    """See `TaskSpec`: a causal network with a column for each token of the vocabulary."""
    if not isinstance(model, LanguageModel):
        raise ConfigError(
            f"the {role} is a {type(model).__name__}, no language model: choose a network such as "
            "@decoder"
        )
    if model.vocabulary < dataset.num_classes:
        raise ConfigError(
            f"the {role} tells {model.vocabulary:,} tokens apart, the tokenizer makes "
            f"{dataset.num_classes:,}: choose the tokenizer that the {role} was trained with"
        )


class TextBatch(DeferredBatch):
    """Windows of a step on this rank; `targets` is [B, context] on the CPU, see `Windows`."""

    def parts(self, count: int) -> Iterator[Batch]:
        """See `Batch`: windows are shared out, and every part knows the rows of the whole step."""
        make, samples, rows = vars(self)["make"], self.samples, self.rows
        for indices in self.indices.tensor_split(min(count, len(self.indices))):
            yield TextBatch(make, indices, torch.zeros_like(indices), samples, rows=rows)


class LanguageTask(Task):
    """Windows of text. An epoch is a pass over the windows, or `steps_per_epoch` steps of one.

    Attributes:
        vocabulary: the tokenizer's number of tokens; further columns of a network are cut off.
    """

    primary = "test_bits_per_byte"
    lower_is_better = True
    unit = "tokens"
    labels: ClassVar = {
        "test_bits_per_byte": "bits per byte",
        "validation_bits_per_byte": "validation",
        "test_top1": "next token",
        "test_agreement": "agreement",
    }

    def __init__(
        self,
        dataset: TextDataset,
        splits: TextSplits,
        batch_size: int,
        seed: int,
        device: torch.device,
        world: World,
        steps_per_epoch: int | None = None,
    ) -> None:
        """`batch_size` counts the windows of a whole step, all ranks."""
        self.dataset, self.vocabulary = dataset, dataset.num_classes
        self.train, self.evaluated = splits.train, splits.evaluated
        self.batch_size, self.seed, self.device, self.world = batch_size, seed, device, world
        # An incomplete last batch is left out: the next epoch has another order.
        whole = max(1, len(self.train) // batch_size)
        self.steps_per_epoch = min(whole, steps_per_epoch or whole)
        self.is_cut = self.steps_per_epoch < whole
        self.smallest_batch = min(batch_size, len(self.train))
        self.notes = splits.notes

    @property
    def class_names(self) -> Mapping[int, str]:  # type: ignore[override]
        """The text of each token."""
        return _TokenNames(self.dataset)

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """See `Task`: windows lie at fixed offsets, their order is drawn from (seed, epoch)."""
        order = torch.randperm(len(self.train), generator=generator(self.seed, "order", epoch))
        for step in range(skip, self.steps_per_epoch):
            yield self._batch(order[step * self.batch_size : (step + 1) * self.batch_size])

    def probe(self, size: int) -> Batch:
        """See `Task`: `size` windows, a function of the seed."""
        drawn = generator(self.seed, "probe", "order")
        indices = torch.randperm(len(self.train), generator=drawn)[:size]
        return TextBatch(
            self._make, indices, torch.zeros_like(indices), len(indices), rows=self._rows(indices)
        )

    def _batch(self, windows: Tensor) -> Batch:
        """The share of this rank in the windows of a step."""
        share = self.world.share(windows)
        views = torch.zeros_like(share)
        return TextBatch(self._make, share, views, len(windows), rows=self._rows(windows))

    def _rows(self, windows: Tensor) -> int:
        return int(self.train.rows[windows].sum())

    def _make(self, indices: Tensor, views: Tensor) -> tuple[TokenInputs, Tensor]:
        """Inputs on the device, and targets [B, context] on the CPU."""
        return self._inputs(self.train, indices)

    def _inputs(self, windows: Windows, indices: Tensor) -> tuple[TokenInputs, Tensor]:
        targets = windows.targets(indices)
        documents = windows.documents(indices)
        kept = (targets.flatten() != IGNORED).nonzero().squeeze(1)
        inputs = TokenInputs(
            self._on_device(windows.ids(indices)),
            None if documents is None else self._on_device(documents),
            None if len(kept) == targets.numel() else self._on_device(kept),
        )
        return inputs, targets

    def _on_device(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def rows(self, student: StudentFunction, teacher: TeacherFunction | None, batch: Batch) -> Rows:
        """See `Task`: a token that is predicted gives one row."""
        targets = batch.targets[batch.targets != IGNORED]
        teacher_logits = None if teacher is None else teacher(batch)[:, : self.vocabulary]
        student_logits = student(batch.inputs)[:, : self.vocabulary]
        return Rows(student_logits, teacher_logits, self._on_device(targets), total=batch.rows)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """See `Task`: nats, perplexity and bits per byte of each split, and next-token accuracy."""
        return self._evaluated(model, None)

    def evaluate_student(self, student: nn.Module, teacher: Any) -> dict[str, float]:
        """See `Task`: also agreement with the teacher, and its mean KL at T = 1 (nats)."""
        return self._evaluated(student, None if teacher is None else teacher.network)

    def _evaluated(self, model: nn.Module, teacher: nn.Module | None) -> dict[str, float]:
        was_training = model.training
        model.eval()
        metrics: dict[str, float] = {}
        with torch.inference_mode():
            for name, windows in self.evaluated.items():
                other = teacher if name == "test" else None
                measured = self._measure(model, other, windows)
                metrics |= {f"{name}_{key}": value for key, value in measured.items()}
        model.train(was_training)
        return metrics

    def _measure(
        self, model: nn.Module, teacher: nn.Module | None, windows: Windows
    ) -> dict[str, float]:
        """The metrics of one split; each token counts once, for any number of ranks."""
        totals = torch.zeros(5, dtype=torch.float64, device=self.device)
        size = 0
        count = max(1, EVALUATED // (self.vocabulary * windows.context))
        for indices in torch.split(self.world.share(torch.arange(len(windows))), count):
            if not len(indices):
                continue
            inputs, labels = self._inputs(windows, indices)
            targets = self._on_device(labels[labels != IGNORED])
            size += int(windows.of_targets(windows.stream.bytes, indices).sum())
            logits = model(inputs)[:, : self.vocabulary].float()
            best = logits.argmax(1)
            sums = [F.cross_entropy(logits, targets, reduction="sum"), (best == targets).sum()]
            sums += [torch.full_like(sums[0], len(targets))]
            if teacher is not None:
                sums += _agreement(logits, teacher(inputs)[:, : self.vocabulary].float(), best)
            totals[: len(sums)] += torch.stack([value.double() for value in sums])
        bytes_ = self.world.sum(torch.tensor(float(size), dtype=torch.float64, device=self.device))
        loss, right, rows, agreed, kl = self.world.sum(totals).tolist()
        nats = loss / rows
        found = {
            "bits_per_byte": loss / math.log(2) / bytes_.item(),
            "top1": 100 * right / rows,
            "loss": nats,
            "perplexity": math.exp(min(nats, 700.0)),
        }
        if teacher is not None:
            found |= {"agreement": 100 * agreed / rows, "kl": kl / rows}
        return found

    def data_fingerprint(self) -> str:
        """See `Task`: a hash of the tokens of all splits and of the tokenizer."""
        streams = [self.train.stream, *(windows.stream for windows in self.evaluated.values())]
        parts = [part for s in streams for part in (s.ids, s.documents, s.counted)]
        return digest(*parts, self.dataset.tokenizer.fingerprint().encode())


def _agreement(student: Tensor, teacher: Tensor, best: Tensor) -> list[Tensor]:
    """How many rows have the same first choice, and the sum of KL(teacher ‖ student)."""
    p, q = teacher.log_softmax(1), student.log_softmax(1)
    return [(teacher.argmax(1) == best).sum(), (p.exp() * (p - q)).sum()]


class _TokenNames(dict[int, str]):
    """The text of a token, decoded when it is asked for."""

    def __init__(self, dataset: TextDataset) -> None:
        super().__init__()
        self._decode = dataset.tokenizer.decode

    def get(self, token: int, default: Any = None) -> Any:
        return self._decode([token])


class FrozenLanguageModel(FrozenTeacher):
    """A teacher that gives the logits of the rows that count."""

    def compute(self, inputs: Any) -> Tensor:
        """Logits [N, C], float32, of `TokenInputs`, all in one call."""
        with torch.inference_mode(), self._autocast:
            logits: Tensor = self.network(inputs).float()
            if self.half_rows:
                logits = logits.half().float()
        copied: Tensor = logits.clone()
        return copied


SPEC = TaskSpec(make_task, check_network, teacher=FrozenLanguageModel)
