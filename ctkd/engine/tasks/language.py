"""The language task: a token is a row, which predicts the next token."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ctkd.data.dataset import digest
from ctkd.data.text.text_dataset import TextDataset, TextSplits
from ctkd.data.text.windows import IGNORED, Windows
from ctkd.engine.distributed.world import World
from ctkd.engine.hidden_rows import Head, HiddenRows
from ctkd.engine.task import (
    Batch,
    DeferredBatch,
    Kind,
    Rows,
    StudentFunction,
    Task,
    TeacherFunction,
)
from ctkd.engine.tasks.continuations import FILE, continuations
from ctkd.engine.tasks.language_checks import check_blocks, check_network
from ctkd.engine.tasks.language_metrics import language_metrics
from ctkd.engine.tasks.language_settings import LanguageSettings
from ctkd.engine.tasks.specs import TaskSpec
from ctkd.engine.tasks.token_kinds import token_kinds
from ctkd.engine.teacher.frozen_language import FrozenLanguageModel
from ctkd.errors import ConfigError
from ctkd.losses.columns import VocabularyColumns
from ctkd.models.language_model import TokenInputs
from ctkd.seeds import generator

if TYPE_CHECKING:
    from ctkd.engine.config.run import Run


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
    check_blocks(run)
    steps, settings = run.recipe.steps_per_epoch, run.task_part
    given = (run.dataset, splits, size, run.seed, device, world, steps, settings)
    transform = run.distiller.transform
    if splits.teacher is None:
        if isinstance(transform, VocabularyColumns):
            transform.fit(*[run.dataset.tokenizer.token_bytes()] * 2)
        return LanguageTask(*given)
    from ctkd.engine.tasks.two_vocabularies import TwoVocabularies  # it imports this module

    task = TwoVocabularies(*given)
    task.align(splits.teacher, run.distiller, run.teacher_rows)
    return task


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
        teacher_vocabulary: that of the teacher's tokenizer.
    """

    monitor = "test_bits_per_byte"
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
        settings: LanguageSettings = LanguageSettings(),  # noqa: B008 - frozen
    ) -> None:
        """`batch_size` counts the windows of a whole step, all ranks."""
        self.settings = settings
        self.dataset, self.vocabulary = dataset, dataset.num_classes
        self.teacher_vocabulary = self.vocabulary
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
        """See `Task`: windows have fixed offsets, their order is drawn from (seed, epoch)."""
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
        """The shard of this rank in the windows of a step."""
        shard = self.world.shard(windows)
        views = torch.zeros_like(shard)
        return TextBatch(self._make, shard, views, len(windows), rows=self._rows(windows))

    def _rows(self, windows: Tensor) -> int:
        return int(self.train.rows[windows].sum())

    def _make(self, indices: Tensor, views: Tensor) -> tuple[TokenInputs, Tensor]:
        """The inputs and targets of training windows."""
        return self.inputs(self.train, indices)

    def inputs(self, windows: Windows, indices: Tensor) -> tuple[TokenInputs, Tensor]:
        """The inputs of some windows on the device, and their targets [B, context] on the CPU."""
        targets = windows.targets(indices)
        documents = windows.documents(indices)
        kept = (targets.flatten() != IGNORED).nonzero().squeeze(1)
        inputs = TokenInputs(
            self.on_device(windows.ids(indices)),
            None if documents is None else self.on_device(documents),
            None if len(kept) == targets.numel() else self.on_device(kept),
        )
        return inputs, targets

    @property
    def teacher_context(self) -> int:
        """The number of the teacher's inputs in a training window."""
        return self.train.context

    def teacher_tokens(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's inputs in training windows and their documents, [B, teacher_context]."""
        stream, at = self.train.stream, self.train.positions(indices)
        return self.train.ids(indices), stream.documents[at.clamp(max=len(stream) - 1)]

    def on_device(self, tensor: Tensor) -> Tensor:
        """The tensor on the device of the run."""
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def rows(self, student: StudentFunction, teacher: TeacherFunction | None, batch: Batch) -> Rows:
        """See `Task`: a token that is predicted gives one row."""
        targets = self.on_device(batch.targets[batch.targets != IGNORED])
        if self.settings.block is not None:
            return self._hidden_rows(student, teacher, batch, targets)
        student_logits = student(batch.inputs)[:, : self.vocabulary]
        if teacher is None:
            return Rows(student_logits, None, targets, total=batch.rows)
        assert isinstance(teacher, FrozenLanguageModel)
        theirs = teacher(batch)
        if teacher.samples_tokens:
            return Rows(student_logits, theirs, targets, total=batch.rows, is_sampled=True)
        return Rows(student_logits, theirs[:, : self.vocabulary], targets, total=batch.rows)

    def _hidden_rows(self, student: Any, teacher: Any, batch: Batch, targets: Tensor) -> HiddenRows:
        """The rows before the heads."""
        return HiddenRows(
            student(batch.inputs, with_head=False),
            None if teacher is None else teacher.states(batch),
            targets,
            total=batch.rows,
            student_head=self._head(student),
            teacher_head=None if teacher is None else self._head(teacher.network),
            block=self.settings.block or 1,
        )

    def _head(self, network: Any) -> Head:
        """The head, without the columns beyond the tokenizer's."""
        weight, bias = network.head()
        return Head(weight[: self.vocabulary], None if bias is None else bias[: self.vocabulary])

    def kinds(self, batch: Batch) -> Mapping[str, Kind]:
        """See `Task`: part of speech, frequency in the training text, first or later piece."""
        return token_kinds(self.dataset, self.train, batch.indices)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """See `Task`: nats, perplexity and bits per byte of each split, and next-token accuracy."""
        return self._evaluated(model, None)

    def evaluate_student(self, student: nn.Module, teacher: Any) -> dict[str, float]:
        """See `Task`: also agreement with the teacher, and its mean KL at T = 1 (nats)."""
        metrics = self._evaluated(student, None if teacher is None else teacher.network)
        if self.settings.continuations:
            was_training = student.training
            self.files = {FILE: continuations(student.eval(), self)}
            student.train(was_training)
        return metrics

    def _evaluated(self, model: nn.Module, teacher: nn.Module | None) -> dict[str, float]:
        was_training = model.training
        model.eval()
        metrics: dict[str, float] = {}
        with torch.inference_mode():
            for name, windows in self.evaluated.items():
                other = teacher if name == "test" else None
                measured = language_metrics(model, other, self, windows)
                metrics |= {f"{name}_{key}": value for key, value in measured.items()}
        model.train(was_training)
        return metrics

    def data_fingerprint(self) -> str:
        """See `Task`: a hash of the tokens of all splits and of the tokenizer."""
        streams = [self.train.stream, *(windows.stream for windows in self.evaluated.values())]
        parts = [part for s in streams for part in (s.ids, s.documents, s.counted)]
        return digest(*parts, self.dataset.tokenizer.fingerprint().encode())


class _TokenNames(dict[int, str]):
    """The text of a token, decoded at its first use."""

    def __init__(self, dataset: TextDataset) -> None:
        super().__init__()
        self._decode = dataset.tokenizer.decode

    def get(self, token: int, default: Any = None) -> Any:
        return self._decode([token])


SPEC = TaskSpec(make_task, check_network, settings=LanguageSettings, teacher=FrozenLanguageModel)
