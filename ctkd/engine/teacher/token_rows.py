"""What a teacher of text leaves on disk: numbers for each token, of whole windows.

The logits of 4,096 tokens take 16 kB a token. Two forms are small enough to keep:

- `hidden16`: the state before the head, in 16 bits; the head is applied when a row is used. Exact
  at every T, apart from the rounding.
- `sampled`: tokens drawn at T = 2, see `ctkd.losses.sampled`. Unbiased; for the objective
  SampledKD.

A window lies at a fixed offset of the text, so its rows are computed once, for all runs that share
the text and the teacher. They are rounded before they are used: a run that reads them has the bits
of the run that computed them. A teacher with a vocabulary of its own has other tokens in a window
of the student, always the same ones; the windows are filled up to the longest.
"""

import abc
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ctkd.engine.hidden_rows import Head
from ctkd.engine.task import Batch
from ctkd.losses.sampled import NODES, draw_rows
from ctkd.models.language_model import LanguageModel, TokenInputs
from ctkd.seeds import seed_of

if TYPE_CHECKING:
    from ctkd.engine.tasks.language import LanguageTask
    from ctkd.engine.teacher.frozen_language import FrozenLanguageModel


class TokenRows(abc.ABC):
    """The teacher's numbers for the training windows, as samples of one view for `TeacherCache`.

    Attributes:
        dtype: of the numbers on the disk.
        width: the numbers of a token.
        batch_size: windows that are computed together; a smaller batch is filled up, since a row's
            bits could depend on the batch's size.
    """

    dtype = "float32"
    width: int
    views = 1

    def __init__(self, teacher: "FrozenLanguageModel", task: "LanguageTask") -> None:
        """Takes the teacher, whose rows are computed, and the task, whose windows they are of."""
        assert isinstance(teacher.network, LanguageModel)
        self.teacher, self.task, self.network = teacher, task, teacher.network
        self.batch_size: int | None = teacher.batch_size

    @property
    def samples(self) -> int:
        """See `CachedSamples`: the windows."""
        return len(self.task.train)

    @property
    def num_classes(self) -> int:
        """See `CachedSamples`: the numbers of a window."""
        return self.task.teacher_context * self.width

    def data_key(self) -> dict[str, Any]:
        """See `CachedSamples`."""
        return {
            "text": self.task.data_fingerprint(),
            "context": self.task.train.context,
            "form": type(self).__name__,
            "width": self.width,
        }

    def batch_of(self, indices: Tensor, views: Tensor) -> Batch:
        """See `CachedSamples`: the inputs of `compute` are the windows' indices."""
        return Batch(indices, None, indices, views, len(indices))

    def head(self) -> Head:
        """The teacher's head, without the columns beyond the tokenizer's."""
        weight, bias = self.network.head()
        size = self.task.teacher_vocabulary
        return Head(weight[:size], None if bias is None else bias[:size])

    def compute(self, inputs: Tensor) -> Tensor:
        """The numbers of windows, [B, context · width], float32, rounded as on the disk."""
        size = self.batch_size or len(inputs)
        return torch.cat([self._computed(part, size) for part in torch.split(inputs, size)])

    def _computed(self, windows: Tensor, size: int) -> Tensor:
        filled = torch.cat([windows, windows[:1].expand(size - len(windows))])
        # Always with documents: without a mask attention sums in another order.
        inputs = TokenInputs(*map(self.task.on_device, self.task.teacher_tokens(filled)))
        states = self.teacher.hidden(inputs)
        states = states.view(size, -1, states.shape[-1])[: len(windows)]
        with torch.no_grad():
            return self.numbers(states, windows).flatten(1)

    @abc.abstractmethod
    def numbers(self, states: Tensor, windows: Tensor) -> Tensor:
        """The numbers [B, context, width] of the states [B, context, d]."""

    @abc.abstractmethod
    def rows_of(self, numbers: Tensor) -> Tensor:
        """The teacher's rows, [N, columns], of the numbers [N, width]."""


class HiddenRows16(TokenRows):
    """The state of each token before the head, in 16 bits."""

    dtype = "float16"

    def __init__(self, teacher: "FrozenLanguageModel", task: "LanguageTask") -> None:
        """See `TokenRows`."""
        super().__init__(teacher, task)
        self.width = self.network.head()[0].shape[1]

    def numbers(self, states: Tensor, windows: Tensor) -> Tensor:
        """See `TokenRows`."""
        return states.half().float()

    def rows_of(self, numbers: Tensor) -> Tensor:
        """See `TokenRows`: logits."""
        with torch.no_grad():
            return self.head()(numbers)


class SampledRows(TokenRows):
    """Tokens that the teacher drew, always the same for a window.

    Attributes:
        draws: tokens for each row.
    """

    def __init__(
        self, teacher: "FrozenLanguageModel", task: "LanguageTask", draws: int = 64
    ) -> None:
        """See `TokenRows`."""
        super().__init__(teacher, task)
        self.draws, self.width = draws, 2 * (draws + len(NODES))

    def numbers(self, states: Tensor, windows: Tensor) -> Tensor:
        """See `TokenRows`: a window is drawn with a generator of its own."""
        head, found = self.head(), []
        for state, window in zip(states, windows.tolist(), strict=True):
            drawn = torch.Generator(state.device).manual_seed(seed_of("draws", window))
            found.append(draw_rows(head(state), self.draws, drawn))
        return torch.stack(found)

    def rows_of(self, numbers: Tensor) -> Tensor:
        """See `TokenRows`: rows of `ctkd.losses.sampled`."""
        return numbers


def token_rows(form: str, draws: int, teacher: Any, task: Any) -> TokenRows | None:
    """The form that `Teacher.rows` names; None for rows of logits."""
    if form == "hidden16":
        return HiddenRows16(teacher, task)
    return SampledRows(teacher, task, draws) if form == "sampled" else None
