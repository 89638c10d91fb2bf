"""The frozen teacher of a language model."""

from typing import Any

import torch
from torch import Tensor

from ctkd.engine.task import Batch
from ctkd.engine.teacher.frozen import FrozenTeacher
from ctkd.engine.teacher.token_rows import SampledRows, TokenRows
from ctkd.models.language_model import LanguageModel, TokenInputs


class FrozenLanguageModel(FrozenTeacher):
    """A teacher that gives the logits of the rows that count, or their states before the head.

    Attributes:
        windows: the numbers that are kept of the training windows; None where each row's logits are
            computed.
    """

    windows: TokenRows | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Rows [N, C], float32, of a batch; the numbers of `SampledRows` where those are kept."""
        if self.windows is None:
            return super().__call__(batch)
        return self.windows.rows_of(self._kept(batch))

    @property
    def samples_tokens(self) -> bool:
        """Whether a row is made of drawn tokens, and not of logits."""
        return isinstance(self.windows, SampledRows)

    def states(self, batch: Batch) -> Tensor:
        """The states before the head, [N, width], of a batch."""
        if self.windows is None:
            return self.hidden(batch.inputs)
        return self._kept(batch)

    def numbers_of(self, windows: Tensor) -> Tensor:
        """What is kept of all inputs of some windows, [B · context, width], from a cache if any."""
        kept = self.windows
        assert kept is not None
        if self.cache is None:
            return kept.compute(windows).view(-1, kept.width)
        batch = kept.batch_of(windows, torch.zeros_like(windows))
        return self.cache.rows(batch).view(-1, kept.width)

    def _kept(self, batch: Batch) -> Tensor:
        """The numbers [N, width] of the rows that count."""
        numbers, kept = self.numbers_of(batch.indices), batch.inputs.kept
        return numbers if kept is None else numbers[kept]

    def hidden(self, inputs: TokenInputs) -> Tensor:
        """[N, width], of `TokenInputs`."""
        assert isinstance(self.network, LanguageModel)
        with torch.inference_mode(), self._autocast:
            states = self.network.hidden(inputs)
        copied: Tensor = states.clone()
        return copied

    def compute(self, inputs: Any) -> Tensor:
        """Logits [N, C], float32, of `TokenInputs`, all in one call."""
        with torch.inference_mode(), self._autocast:
            logits: Tensor = self.network(inputs).float()
            if self.half_rows:
                logits = logits.half().float()
        copied: Tensor = logits.clone()
        return copied
