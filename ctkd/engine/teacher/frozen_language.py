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
        return self.windows.rows_of(self._kept(batch, self.windows))

    @property
    def samples_tokens(self) -> bool:
        """Whether a row is made of drawn tokens, and not of logits."""
        return isinstance(self.windows, SampledRows)

    def states(self, batch: Batch) -> Tensor:
        """The states before the head, [N, width], of a batch."""
        if self.windows is None:
            return self.hidden(batch.inputs)
        return self._kept(batch, self.windows)

    def _kept(self, batch: Batch, windows: TokenRows) -> Tensor:
        """The numbers [N, width] of the rows that count, from the cache where there is one."""
        whole = windows.batch_of(batch.indices, batch.views)
        compute = windows.compute(batch.indices) if self.cache is None else self.cache.rows(whole)
        numbers = compute.view(-1, windows.width)
        kept = batch.inputs.kept
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
