"""The frozen teacher of a language model."""

from typing import Any

import torch
from torch import Tensor

from ctkd.engine.teacher.frozen import FrozenTeacher
from ctkd.models.language_model import LanguageModel, TokenInputs


class FrozenLanguageModel(FrozenTeacher):
    """A teacher that gives the logits of the rows that count, or their states before the head."""

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
